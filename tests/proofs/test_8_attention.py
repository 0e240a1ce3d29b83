"""Proof 8: attention is a linear layer of its values.

The walk equals autograd's gradient of the same network with the weights of its attention, and the
deviations of its norms, detached; and where the two factors of a product cannot be told apart, it
is refused. Every network here is written out twice over by ``hold``: what it marks is what the
walk has to find by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain
from torchfbi.errors import UnsupportedOperatorError
from torchfbi.method.settings import PRESETS

HEADS, TOKENS, FEATURES = 2, 9, 8


class Attending(nn.Module):
    """Patches, an attention between them, and the mean of the tokens as logits."""

    def __init__(self, attend: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.attend, self.held = attend, False
        self.patches = nn.Conv2d(3, FEATURES, 2, 2)
        self.norm = nn.LayerNorm(FEATURES)
        self.qkv = nn.Linear(FEATURES, 3 * FEATURES)
        self.mix = nn.Parameter(torch.randn(HEADS, HEADS))
        self.bias = nn.Parameter(torch.randn(HEADS, TOKENS, TOKENS))
        self.query = nn.Parameter(torch.randn(1, HEADS, 1, FEATURES // HEADS))
        self.multihead = nn.MultiheadAttention(FEATURES, HEADS, batch_first=True)
        self.around = nn.Conv2d(FEATURES, HEADS * 9, 1)

    def hold(self, x: Tensor) -> Tensor:
        return x.detach() if self.held else x

    def layer_norm(self, x: Tensor) -> Tensor:
        if not self.held:
            return self.norm(x)
        deviation = (x.var(-1, correction=0, keepdim=True) + self.norm.eps).sqrt().detach()
        return (x - x.mean(-1, keepdim=True)) / deviation * self.norm.weight + self.norm.bias

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (N, heads, tokens, features of a head)."""
        return self.qkv(x).unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        return self.attend(self, tokens).flatten(1)


def merged(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def softmax(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    return merged(net.hold((q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)) @ v)


def softmax_spelled_out(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    scores = q @ k.mT
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return merged(net.hold(weights / (weights.sum(-1, keepdim=True) + 1e-6)) @ v)


def values_on_the_left(net: Any, x: Tensor) -> Tensor:
    q, k, v = (t.transpose(-2, -1) for t in net.heads(x))
    return (v @ net.hold((k.transpose(-2, -1) @ q).softmax(-2))).flatten(1)


def masked_and_biased(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    seen = torch.ones(TOKENS, TOKENS).tril().bool()
    scores = (q @ k.mT + net.bias).masked_fill(~seen, -math.inf)
    return merged(net.hold(scores.softmax(-1)) @ v)


def talking_heads(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    weights = (q @ k.mT).softmax(-1).permute(0, 2, 3, 1) @ net.mix
    return merged(net.hold(weights.permute(0, 3, 1, 2)) @ v)


def gated_positions(net: Any, x: Tensor) -> Tensor:
    """ConViT: two softmaxes, of contents and of positions, mixed and normalised again."""
    q, k, v = net.heads(x)
    gate = net.mix[0].sigmoid().view(1, -1, 1, 1)
    weights = (1 - gate) * (q @ k.mT).softmax(-1) + gate * net.bias.softmax(-1)
    return merged(net.hold(weights / weights.sum(-1, keepdim=True)) @ v)


def of_channels(net: Any, x: Tensor) -> Tensor:
    """XCiT: features attend to features."""
    q, k, v = (t.mT for t in net.heads(x))
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    return (net.hold((q @ k.mT).softmax(-1)) @ v).flatten(1)


def by_einsum(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
    return torch.einsum("bhij,bhjd->bihd", net.hold(weights), v)


def fused(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    return merged(F.scaled_dot_product_attention(net.hold(q), net.hold(k), v))


def fused_with_a_mask(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    mask = net.bias + net.hold(x.mean(2))[:, None, None]  # which may depend on the image
    return merged(F.scaled_dot_product_attention(net.hold(q), net.hold(k), v, mask, scale=0.3))


def fused_and_causal(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    return merged(F.scaled_dot_product_attention(net.hold(q), net.hold(k), v, is_causal=True))


def grouped_queries(net: Any, x: Tensor) -> Tensor:
    q, k, v = net.heads(x)
    k, v = k[:, :1], v[:, :1]
    out = F.scaled_dot_product_attention(net.hold(q), net.hold(k), v, enable_gqa=True)
    return merged(out)


def multihead(net: Any, x: Tensor) -> Tensor:
    if not net.held:
        return net.multihead(x, x, x)[0]
    _, weights = net.multihead(x, x, x, average_attn_weights=False)
    _, _, v = F.linear(x, net.multihead.in_proj_weight, net.multihead.in_proj_bias).chunk(3, -1)
    v = v.unflatten(2, (HEADS, -1)).transpose(1, 2)
    return net.multihead.out_proj(merged(net.hold(weights) @ v))


def learned_query(net: Any, x: Tensor) -> Tensor:
    """Attention pooling."""
    _, k, v = net.heads(x)
    return merged(net.hold((net.query @ k.mT).softmax(-1)) @ v)


def of_scores_alone(net: Any, x: Tensor) -> Tensor:
    """Attention-based multiple instance learning: scores without queries, by multiplication."""
    score = net.qkv(x)[..., :1].softmax(1)
    return (net.hold(score) * x).sum(1)


def linear_by_softmax(net: Any, x: Tensor) -> Tensor:
    """Efficient attention, and CoaT's with a convolved value beside it."""
    q, k, v = net.heads(x)
    context = net.hold(k.softmax(2)).mT @ v
    around = F.avg_pool1d(v.flatten(0, 1).mT, 3, 1, 1).mT.unflatten(0, (-1, HEADS))
    return merged(net.hold(q) @ context + net.hold(q) * around)


def linear_by_relu(net: Any, x: Tensor) -> Tensor:
    """EfficientViT: the denominator is one more feature of the values."""
    q, k, v = net.heads(x)
    q, k = net.hold(q.relu()), net.hold(k.relu())
    out = q @ (k.mT @ F.pad(v, (0, 1), value=1.0))
    return merged(out[..., :-1] / (net.hold(out[..., -1:]) + 0.1))


def state_space(net: Any, x: Tensor) -> Tensor:
    """EfficientViM: what B writes into a state by steps that sum to one, C reads out of it."""
    steps, b, c = net.qkv(x).chunk(3, 2)
    state = x.mT @ net.hold((steps + net.bias[0, :, :1]).softmax(1) * b)
    return ((state + state.relu()) @ net.hold(c).mT).flatten(1)


def outlook(net: Any, x: Tensor) -> Tensor:
    """VOLO: each place weighs the window around it, and the windows are laid onto each other."""
    image = x.mT.unflatten(2, (3, 3))
    weights = net.around(image).flatten(2).unflatten(1, (HEADS, 1, 9)).softmax(3)
    windows = F.unfold(image, 3, padding=1).unflatten(1, (HEADS, -1, 9))
    mixed = windows * net.hold(weights)
    return F.fold(mixed.flatten(1, 3), (3, 3), 3, padding=1)


def shifted_windows(net: Any, x: Tensor) -> Tensor:
    """Swin: rolled, cut into windows by unfold, and rolled back."""
    image = x.mT.unflatten(2, (3, 3)).roll((-1, -1), (2, 3))
    rows = image.unfold(2, 1, 1).permute(0, 2, 4, 3, 1).flatten(0, 2)
    weights = (rows @ rows.mT).softmax(-1)
    mixed = (net.hold(weights) @ rows).unflatten(0, (-1, 3)).permute(0, 3, 1, 2)
    return mixed.roll((1, 1), (2, 3))


def halos(net: Any, x: Tensor) -> Tensor:
    """HaloNet: each place asks the windows around it, which overlap."""
    image = x.mT.unflatten(2, (3, 3))
    around = F.pad(image, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1)
    around = around.permute(0, 2, 3, 4, 5, 1).flatten(3, 4).flatten(0, 2)
    weights = (x.flatten(0, 1)[:, None] @ around.mT).softmax(-1)
    return (net.hold(weights) @ around).unflatten(0, (-1, TOKENS))


def block_with_tokens(net: Any, x: Tensor) -> Tensor:
    """A class token, position embeddings, two pre-norm blocks of attention and a gated MLP."""
    start = net.query.reshape(1, 1, FEATURES).expand(len(x), -1, -1)
    x = torch.cat([start, x], 1) + net.bias.flatten()[: FEATURES * (TOKENS + 1)].view(1, -1, 8)
    for _ in range(2):
        x = x + fused(net, net.layer_norm(x))
        a, b, _ = net.qkv(net.layer_norm(x)).chunk(3, 2)
        x = x + a * net.hold(b.sigmoid())
    return net.layer_norm(x)[:, 0]


ATTENTIONS = [
    softmax,
    softmax_spelled_out,
    values_on_the_left,
    masked_and_biased,
    talking_heads,
    gated_positions,
    of_channels,
    by_einsum,
    fused,
    fused_with_a_mask,
    fused_and_causal,
    grouped_queries,
    multihead,
    learned_query,
    of_scores_alone,
    linear_by_softmax,
    linear_by_relu,
    state_space,
    outlook,
    shifted_windows,
    halos,
    block_with_tokens,
]


def network(attend: Any) -> tuple[Attending, Tensor]:
    torch.manual_seed(0)
    net = Attending(attend).double().eval()
    return net, torch.randn(2, 3, 6, 6, dtype=torch.float64)


@pytest.mark.parametrize("attend", ATTENTIONS)
def test_proof_8_the_value_path_is_walked(attend: Any) -> None:
    net, x = network(attend)
    s, fbi = torch.randn_like(net(x)), ForwardBackward(net, x, Settings.plain())
    values, logits = fbi(x, lambda _: s)
    net.held, leaf = True, x.clone().requires_grad_()
    held = net(leaf)
    torch.testing.assert_close(logits, held.detach(), rtol=1e-9, atol=1e-12)
    (expected,) = torch.autograd.grad(held, leaf, s)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)
    for preset in PRESETS:
        fbi.settings = Settings.from_preset(preset)
        assert fbi(x, 0)[0].isfinite().all()


def test_proof_8_what_reaches_position_embeddings_and_the_class_token_is_not_lost() -> None:
    """Without other biases, the image and they make up the whole answer."""
    net, x = network(block_with_tokens)
    for name, parameter in net.named_parameters():
        if name.endswith(".bias"):
            parameter.data.zero_()
    found: dict[str, Tensor] = {}
    values, logits = ForwardBackward(net, x, Settings.plain()).walk(x, 1, absorbed=found)
    assert set(found) == {"image", "bias", "query"}
    torch.testing.assert_close(found["image"], (values * x).flatten(1).sum(1))
    assert all((part / logits[:, 1]).abs().min() > 1e-3 for part in found.values())
    torch.testing.assert_close(sum(found.values()), logits[:, 1], rtol=1e-9, atol=1e-12)


def test_proof_8_an_explanation_tells_their_shares() -> None:
    net, x = network(block_with_tokens)
    explanation = explain(net, x, 1, "plain")
    parts: dict[str, Tensor] = {}
    ForwardBackward(net, x, Settings.plain()).walk(x, 1, absorbed=parts)
    total = sum(part.abs() for part in parts.values())
    assert explanation.shares.keys() == parts.keys() == {"image", "bias", "query"}
    for name, part in parts.items():
        torch.testing.assert_close(explanation.shares[name], part.abs() / total)
    assert explanation[1].shares["query"] == explanation.shares["query"][1:]
    low = explain(net, x, 1, "plain", low_memory=True)
    for name, share in low.shares.items():
        torch.testing.assert_close(share, explanation.shares[name])


class Rows(nn.Module):
    """A transformer's layer on tokens (N, T, C), or (T, N, C) as older ones have them."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.position = nn.Conv2d(3, 8, 4, 4), nn.Parameter(torch.randn(1, 9, 8))
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=batch_first)
        self.head, self.turn = nn.Linear(8, 4), int(not batch_first)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.stem(x).flatten(2).mT + self.position
        tokens = self.layer(tokens.transpose(0, self.turn) + self.position.transpose(0, self.turn))
        return self.head(tokens.mean(1 - self.turn))


@pytest.mark.parametrize("samples", [2, 9])
def test_proof_8_tokens_may_come_before_samples(samples: int) -> None:
    x = torch.randn(samples, 3, 12, 12).double()
    first, later = (explain(Rows(order), x, 1, "plain") for order in (True, False))
    torch.testing.assert_close(later.values, first.values)
    for name, share in first.shares.items():
        torch.testing.assert_close(later.shares[name], share)
    assert all(len(layer.support) == samples for layer in later.layers)


def test_proof_8_a_name_of_many_parameters_is_short() -> None:
    class Decoder(nn.Module):
        """A learned query that is a dense layer's answer before it meets the image."""

        def __init__(self) -> None:
            super().__init__()
            self.query = nn.Parameter(torch.randn(1, 5, 3))
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            queries = self.second(self.first(self.query))
            return (queries + x.mean((2, 3))[:, None]).mean(1)

    shares = explain(Decoder().eval(), torch.randn(2, 3, 4, 4), 0, "plain").shares
    assert set(shares) == {"image", "query + first.weight + ..."}


def mixture_of_fixed_vectors(net: Any, x: Tensor) -> Tensor:
    """Which vector is meant is said by the softmax: it carries the class."""
    return net.qkv(x.mean(1))[:, :HEADS].softmax(1) @ net.bias[:, 0]


def expected_position(net: Any, x: Tensor) -> Tensor:
    """Soft-argmax."""
    return x.mean(2).softmax(1) @ net.bias[0]


def expected_position_by_a_sum(net: Any, x: Tensor) -> Tensor:
    return (x.mean(2, keepdim=True).softmax(1) * net.bias[0]).sum(1)


def fixed_values(net: Any, x: Tensor) -> Tensor:
    q, k, _ = net.heads(x)
    return F.scaled_dot_product_attention(q, k, net.query.expand(len(x), HEADS, TOKENS, -1))


def product_of_probabilities(net: Any, x: Tensor) -> Tensor:
    return x.softmax(1).mT @ net.qkv(x).softmax(1)


def bilinear_pooling(net: Any, x: Tensor) -> Tensor:
    return x.mT @ x


def weighed_bilinear_pooling(net: Any, x: Tensor) -> Tensor:
    """A state that nothing reads."""
    steps, b, _ = net.qkv(x).chunk(3, 2)
    return x.mT @ (steps.softmax(1) * b)


def state_that_is_not_what_is_read(net: Any, x: Tensor) -> Tensor:
    """C reads the features, and not what B wrote."""
    steps, b, c = net.qkv(x).chunk(3, 2)
    return (x.mT @ (steps.softmax(1) * b)).flatten(1) + (x.relu().mT @ c).flatten(1)


def two_features(net: Any, x: Tensor) -> Tensor:
    q, k, _ = net.heads(x)
    return torch.einsum("bhid,bhjd->bhij", q.relu(), k)


def features_meet_attended_features(net: Any, x: Tensor) -> Tensor:
    """Which of the two is asked and which answers cannot be known."""
    q, k, v = net.heads(x)
    return q @ ((q @ k.mT).softmax(-1) @ v).mT


REFUSED = {
    mixture_of_fixed_vectors: "softmax",
    expected_position: "softmax",
    expected_position_by_a_sum: "softmax",
    fixed_values: "scaled_dot_product_attention",
    product_of_probabilities: "matmul",
    bilinear_pooling: "matmul",
    weighed_bilinear_pooling: "matmul",
    state_that_is_not_what_is_read: "matmul",
    two_features: "einsum",
    features_meet_attended_features: "matmul",
}


@pytest.mark.parametrize("attend", REFUSED)
def test_proof_8_what_cannot_be_told_is_refused_by_name(attend: Any) -> None:
    net, x = network(attend)
    with pytest.raises(UnsupportedOperatorError, match=REFUSED[attend]):
        ForwardBackward(net, x)


def test_proof_8_long_rows_of_tokens_are_walked_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(fused_with_a_mask)
    whole, _ = ForwardBackward(net, x, Settings.plain())(x, 0)
    monkeypatch.setattr("torchfbi.method.adjoints.attention._QUERIES_AT_A_TIME", 4)
    parts, _ = ForwardBackward(net, x, Settings.plain())(x, 0)
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=1e-15)
