"""Operators as people spell them: autograd's gradient, or refused by name; never wrong."""

from __future__ import annotations

from collections.abc import Callable
from operator import setitem

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import Settings, explain
from torchfbi.errors import CaptureError, InputError, OutputError, UnsupportedOperatorError

F64 = torch.float64
C = torch.linspace(-0.6, 0.9, 288, dtype=F64).reshape(8, 6, 6)
SCALAR = torch.tensor(0.0, dtype=F64)
WEIGHTS = torch.linspace(0.1, 0.8, 8, dtype=F64)
ONCE = Settings.plain(seed="one-hot")


class Net(nn.Module):
    """A convolution, the operator on its maps (N, 8, 6, 6), and a dense layer."""

    def __init__(self, operator: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.operator = operator
        self.conv = nn.Conv2d(3, 8, 3)
        with torch.no_grad():
            features = self.operator(self.conv(torch.rand(2, 3, 8, 8)).double()).flatten(1)
        self.head = nn.Linear(features.shape[1], 3)
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.operator(self.conv(x)).flatten(1))


def written(change: Callable[[Tensor], object]) -> Callable[[Tensor], Tensor]:
    """What is left of the maps once they were changed in place."""

    def operator(x: Tensor) -> Tensor:
        change(y := x.clone())
        return y

    return operator


EXACT: dict[str, Callable[[Tensor], Tensor]] = {
    # written in place
    "a map set to zero": written(lambda y: setitem(y, (slice(None), 0), 0)),
    "a map filled": written(lambda y: y[:, 1].fill_(0.5)),
    "a map zeroed": written(lambda y: y[:, 1].zero_()),
    "negative ones set": written(lambda y: setitem(y, y < 0, 0.25)),
    "dark maps set": written(lambda y: setitem(y, y.mean((2, 3)) < 0, 0)),
    "a list set": written(lambda y: setitem(y, (slice(None), [0, 2], [1, 1]), WEIGHTS[:6])),
    "a list exchanged": written(lambda y: setitem(y, (slice(None), [0, 2]), y[:, [3, 4]] * 2)),
    "index_add": written(lambda y: y.index_add_(1, torch.tensor([0, 2]), y[:, :2].clone())),
    "power in place": written(lambda y: y.pow_(2)),
    "transposed in place": written(lambda y: y.mul_(2).transpose_(1, 2)),
    # other names
    "concat": lambda x: torch.concat([x, x.neg()], 1),
    "hstack": lambda x: torch.hstack([x, x]),
    "movedim": lambda x: x.movedim(1, -1),
    "swapaxes": lambda x: x.swapaxes(1, 2),
    "narrow": lambda x: x.narrow(1, 2, 3),
    "broadcast_to": lambda x: x.mean((2, 3), keepdim=True).broadcast_to(x.shape),
    "view_as": lambda x: x.flatten(1).view_as(x),
    "tile": lambda x: x.tile(1, 2, 1, 1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "rot90": lambda x: x.rot90(1, [2, 3]),
    "hsplit": lambda x: torch.hsplit(x, 2)[1],
    "split": lambda x: torch.split(x, 3, 1)[2],
    "tensor_split": lambda x: torch.tensor_split(x, [3, 5], 1)[1],
    "diff": lambda x: x.diff(dim=2),
    "roll": lambda x: x.roll((1, 2), (2, 3)),
    "circular padding": lambda x: F.pad(x, [1, 1, 1, 1], "circular"),
    "nan_to_num": lambda x: x.nan_to_num(),
    "lerp": lambda x: torch.lerp(x, C, 0.3),
    "product by linalg": lambda x: torch.linalg.matmul(x, C.relu()),
    "trace": lambda x: torch.einsum("nchh->nc", x),
    "diagonal by einsum": lambda x: torch.einsum("nchh,ch->nch", x, C[:, 0]),
    "a number first": lambda x: torch.sub(0.5, torch.add(1.0, torch.mul(2.0, x), alpha=3)),
    "a number over it": lambda x: torch.true_divide(2.0, x.square() + 1),
    # choices
    "max over a dimension": lambda x: torch.max(x, 1)[0],
    "min over a dimension": lambda x: torch.min(x, 2, keepdim=True).values,
    "max of rectified maps": lambda x: torch.max(x.relu(), 1)[0],
    "topk": lambda x: x.flatten(2).topk(5, 2)[0],
    "sort": lambda x: torch.sort(x, dim=1, descending=True, stable=True)[0],
    "kthvalue": lambda x: x.kthvalue(2, 1)[0],
    "median": lambda x: x.median(1)[0],
    "cummax": lambda x: x.cummax(1)[0],
    "aminmax": lambda x: torch.aminmax(x, dim=1)[0],
    "maxout": lambda x: torch.max(x[:, :4], x[:, 4:]),
    "maxout of four": lambda x: torch.stack(x.chunk(4, 1)).amax(0),
    "minimum": lambda x: torch.minimum(x[:, :4], x[:, 4:]),
    "max with zero": lambda x: torch.max(x, SCALAR),
    "clamp by tensors": lambda x: x.clamp(C - 0.4, C + 0.1),
    "uneven adaptive maxima": lambda x: F.adaptive_max_pool2d(x, (4, 5)),
    "spatial pyramid": lambda x: torch.cat(
        [F.adaptive_max_pool2d(x, k).flatten(1) for k in (1, 2, 4)], 1
    ),
    "unpooling": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "averages by a size beyond the maps": lambda x: F.avg_pool2d(x, (2**30, 2), ceil_mode=True),
    # places
    "a list of channels": lambda x: x[:, [2, 1, 0]],
    "a list from the end": lambda x: x[:, [-1, 0, -1]],
    "two lists": lambda x: x[:, [0, 1, 2], [3, -1, 5]],
    "a list of columns": lambda x: x[..., torch.tensor([0, 3, 3])],
    "index_select": lambda x: x.index_select(1, torch.tensor([1, 1, 3])),
    "unfold": lambda x: F.unfold(x, 2),
    "fold": lambda x: F.fold(F.unfold(x, 2, stride=2), (6, 6), 2, stride=2),
    "windows": lambda x: x.unfold(2, 3, 2),
    "diagonal": lambda x: torch.diagonal(x, 0, 2, 3),
    "tril": lambda x: x.tril(),
    "cumsum": lambda x: x.cumsum(1),
    "antialiased": lambda x: F.interpolate(x, size=(4, 3), mode="bilinear", antialias=True),
    "antialiased bicubic": lambda x: F.interpolate(
        x, scale_factor=0.5, mode="bicubic", antialias=True
    ),
    # gates that are decisions
    "mask": lambda x: x * (x > 0),
    "cast mask": lambda x: x * (x > 0.1).double(),
    "mask of a mean": lambda x: x * (x.mean((2, 3), keepdim=True) > 0).double(),
    "decision first": lambda x: torch.signbit(x) * x,
    "sum with a decision": lambda x: (x > 0) + x,
    "integers": lambda x: x * torch.bucketize(x, WEIGHTS),
    "one-hot": lambda x: x * F.one_hot(x.argmax(1), 8).movedim(-1, 1),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "masked_fill by a tensor": lambda x: x.masked_fill(x < 0, SCALAR),
    "where": lambda x: torch.where(x > C, x, 0.1 * x),
    # functions
    "GeM": lambda x: F.adaptive_avg_pool2d(x.clamp(min=1e-6).pow(3.0), 1).pow(1 / 3),
    "GeM by a parameter": lambda x: (x.clamp(min=1e-6) ** (WEIGHTS[:, None, None] + 1)).mean(
        (2, 3)
    ),
    "log of squares": lambda x: F.avg_pool2d(x.square(), 2).clamp(min=1e-6).log(),
    "abs": lambda x: (x - 0.3).abs(),
    "signed root": lambda x: x.sign() * (x.abs() + 0.1).sqrt(),
    "standard deviation": lambda x: torch.cat([x.mean((2, 3)), x.std((2, 3))], 1),
    "one number an image": lambda x: x.std((1, 2, 3))[:, None],
    "std_mean": lambda x: torch.cat(torch.std_mean(x, (2, 3)), 1),
    "var_mean": lambda x: torch.cat(torch.var_mean(x, 1, correction=0), 1),
    "variance": lambda x: x.var(1, unbiased=False),
    "root mean square": lambda x: (x**2).mean((2, 3)).sqrt(),
    "Euclidean norm": lambda x: torch.linalg.vector_norm(x, 2, (2, 3)),
    "norm": lambda x: x.norm(dim=1),
    "norm of ones": lambda x: x.norm(1, dim=1),
    "logsumexp": lambda x: x.logsumexp(1),
    "power-average pooling": lambda x: F.lp_pool2d(x.relu() + 0.1, 2, 2),
    "logsigmoid": F.logsigmoid,
    "logit": lambda x: torch.logit(x.sigmoid()),
    "tanhshrink": F.tanhshrink,
    "hardshrink": lambda x: F.hardshrink(x, 0.2),
    "softshrink": lambda x: F.softshrink(x, 0.2),
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
    "rrelu": lambda x: F.rrelu(x),
    # identities
    "dropout": lambda x: F.dropout(x, 0.5, False),
    "constants of a softmax": lambda x: x * WEIGHTS.softmax(0)[:, None, None],
    "constants of a split": lambda x: x * WEIGHTS.split([3, 5])[0].mean(),
    "a number of a constant": lambda x: x * float(WEIGHTS.mean()),
}


def same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", EXACT)
def test_the_gradient_is_autograds(name: str) -> None:
    torch.manual_seed(0)
    net, x = Net(EXACT[name]), torch.randn(3, 3, 8, 8, dtype=F64)
    probe = x.clone().requires_grad_()
    logits = net(probe)
    (gradient,) = torch.autograd.grad(logits[:, 1].sum(), probe)
    explanation = explain(net, x, 1, ONCE)
    assert same(explanation.logits, logits.detach())
    assert same(explanation.values, gradient)
    for preset in ("paper", "contrast"):
        assert explain(net, x, 1, preset).values.isfinite().all()
    together = explain(net, x[:1], [1, 2], ONCE).values
    assert same(together[0], gradient[0])
    assert same(together[1], explain(net, x[:1], 2, ONCE).values[0])


def held_glu(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    return a * b.sigmoid().detach()


def held_norm(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=1e-12).detach()


@pytest.mark.parametrize(
    ("operator", "held"),
    [(lambda x: F.glu(x, 1), held_glu), (lambda x: F.normalize(x, dim=1), held_norm)],
    ids=["glu", "normalize"],
)
def test_gates_and_norms_are_held(
    operator: Callable[[Tensor], Tensor], held: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    net, x = Net(operator), torch.randn(2, 3, 8, 8, dtype=F64, requires_grad=True)
    values = explain(net, x.detach(), 1, ONCE).values
    net.operator = held
    (gradient,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    assert same(values, gradient)


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_a_batch_norm_by_the_batch_holds_its_statistics(dims: int, affine: bool) -> None:
    torch.manual_seed(0)
    kinds = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims](3, 4, 2)
    norm = kinds[dims](4, affine=affine, track_running_stats=False)
    if affine:
        nn.init.normal_(norm.weight)
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).double()
    x = torch.randn(4, 3, *[4] * dims, dtype=F64)
    net(x)
    net.eval()
    explanation = explain(net, x, 1, ONCE)
    assert same(explanation.logits, net(x).detach())
    probe = x.clone().requires_grad_()
    y, over = conv(probe), (0, *range(2, dims + 2))
    std = (y.var(over, correction=0, keepdim=True) + norm.eps).sqrt().detach()
    scaled = (y - y.mean(over, keepdim=True).detach()) / std  # other images' means are theirs
    if affine:
        shape = (1, -1, *[1] * dims)
        scaled = scaled * norm.weight.reshape(shape) + norm.bias.reshape(shape)
    (gradient,) = torch.autograd.grad(net[4](scaled.relu().flatten(1))[:, 1].sum(), probe)
    assert same(explanation.values, gradient)


REFUSED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "product": (lambda x: x.prod(1), r"aten\.prod"),
    "cumulative product": (lambda x: x.cumprod(1), r"aten\.cumprod"),
    "distances": (lambda x: torch.cdist(x.flatten(2), x.flatten(2)), r"aten\.cdist"),
    "cosine": (lambda x: F.cosine_similarity(x, C[None], 1), r"aten\.cosine_similarity"),
    "power by itself": (lambda x: x.relu().add(1) ** x, r"pow\.Tensor_Tensor by what depends"),
    "rounding": (lambda x: x.round(), r"aten\.round"),
    "integers": (lambda x: (9 * x).to(torch.int32).double(), r"by what depends on the image"),
    "decisions": (lambda x: (x > 0).double(), r"by what depends on the image"),
    "softmax": (lambda x: x.softmax(1), r"aten\.softmax"),
    "softmax in parts": (lambda x: x.exp() / x.exp().sum(1, keepdim=True), "a softmax"),
    "softmax by a product": (lambda x: x.exp() * (1 / x.exp().sum(1, keepdim=True)), "softmax"),
    "samples turned round": (lambda x: x.flip(0), "over the samples"),
    "samples' mean": (lambda x: x - x.mean(0, keepdim=True), "over the samples"),
    "samples multiplied": (
        lambda x: (x.flatten(1) @ x.flatten(1).T @ x.flatten(1)).view_as(x),
        "over the samples",
    ),
    "samples normalised together": (lambda x: F.layer_norm(x, x.shape), "over the samples"),
    "samples moved": (lambda x: x.transpose(0, 1).roll(1, 1).transpose(0, 1), "over the samples"),
    "samples chosen": (lambda x: x[torch.tensor([0, 0])], "over the samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name: str) -> None:
    operator, message = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError, match=message):
        explain(Net(operator), torch.randn(2, 3, 8, 8, dtype=F64), 1)


MIXED: dict[str, Callable[[Tensor], Tensor]] = {
    "slices": lambda x: torch.cat([x[1:], x[:1]]),
    "every other one": lambda x: torch.cat([x[::2], x[1::2]]),
    "a border": lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 1, 0))[:-1],
    "another shape": lambda x: x.reshape(288, -1).T.reshape(x.shape),
    "a pooling": lambda x: F.avg_pool1d(x.flatten(1).T[None], 3, 1, 1)[0].T.view_as(x),
}


@pytest.mark.parametrize("name", MIXED)
def test_samples_that_are_carried_to_each_other_are_refused(name: str) -> None:
    """An image's answer would be explained in another image; alone it is as its gradient says."""
    net, x = Net(MIXED[name]), torch.randn(4, 3, 8, 8, dtype=F64)
    with pytest.raises(CaptureError, match="mixes the samples"):
        explain(net, x, 1, ONCE)
    alone = x[:1].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(alone)[:, 1].sum(), alone)
    assert same(explain(net, x[:1], 1, ONCE).values, gradient)


def test_samples_of_a_fixed_number_that_are_turned_round_are_refused() -> None:
    with pytest.raises(CaptureError, match="mixes the samples"):
        explain(Net(lambda x: x.view(2, -1).flip(0).view_as(x)), torch.randn(2, 3, 8, 8, dtype=F64))


def test_other_samples_than_images_are_refused() -> None:
    """Of two images, and of no other number of them, it makes four."""
    with pytest.raises(OutputError, match="4 answers for 2 images"):
        explain(Net(lambda x: x[[0, 1, 0, 1]]), torch.randn(2, 3, 8, 8, dtype=F64), 1)


@pytest.mark.parametrize(
    "odd", [Tensor.to_sparse, lambda x: x.to("meta"), lambda x: torch.nested.nested_tensor([*x])]
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_images_without_an_array_of_values_are_refused(odd) -> None:
    with pytest.raises(InputError, match="dense tensor"):
        explain(Net(torch.relu), odd(torch.randn(2, 3, 8, 8, dtype=F64)), 1)


def test_what_is_left_over_keeps_its_own_name() -> None:
    """Its parts have no adjoint either, and nobody wrote them."""
    with pytest.raises(UnsupportedOperatorError) as error:
        explain(Net(lambda x: x.logcumsumexp(1)), torch.randn(1, 3, 8, 8, dtype=F64))
    assert error.value.operators == {"aten.logcumsumexp.default": ["logcumsumexp"]}


def test_parts_are_named_after_the_operator() -> None:
    from torchfbi.capture.capture import capture

    graph = capture(Net(lambda x: x.logsumexp(1)), torch.zeros(1, 3, 8, 8, dtype=F64))
    names = [node.meta["layer"] for node in graph.nodes]
    assert len(names) == len(set(names))
    assert {"logsumexp", "logsumexp.exp", "logsumexp.log"} <= set(names)
    assert graph.batch is None


@pytest.mark.parametrize("kernel", [2, 4])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_even_filters_with_padding_take_any_batch(dims: int, kernel: int) -> None:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims](3, 2, kernel, padding="same")
    net = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(2 * 4**dims, 3)).double().eval()
    x = torch.randn(3, 3, *[4] * dims, dtype=F64)
    assert same(explain(net, x[:1], 0).values, explain(net, x, 0).values[:1])


def drawn_operators() -> list[str]:
    """120 operators out of PyTorch's schema registry, of one tensor and nothing else needed."""
    names = []
    for schema in torch._C._jit_get_all_schemas():
        space, name = schema.name.split("::")
        needed = [a for a in schema.arguments if not a.has_default_value()]
        changes = any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
        if space == "aten" and not changes and [str(a.type) for a in needed] == ["Tensor"]:
            names.append(f"{name}.{schema.overload_name or 'default'}")
    names.sort()
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0)).tolist()
    return [names[i] for i in order]


GATED = {"glu.default"}
"""Their gate is held."""


@pytest.mark.filterwarnings("ignore")
def test_operators_drawn_from_the_registry() -> None:
    torch.manual_seed(0)
    x, tried, wrong = torch.randn(2, 3, 8, 8, dtype=F64), 0, []
    for name in drawn_operators():
        packet, overload = name.split(".")
        operator = getattr(getattr(torch.ops.aten, packet, None), overload, None)
        if operator is None or tried == 120:
            continue

        def first(x: Tensor, operator: Callable[..., object] = operator) -> Tensor:
            out = operator(x.sigmoid())  # where most functions are defined
            while isinstance(out, tuple | list):
                out = out[0]
            if not isinstance(out, Tensor) or out.ndim == 0 or len(out) != len(x):
                raise TypeError("no tensor a sample")
            return out.double()

        try:
            net, probe = Net(first), x.clone().requires_grad_()
            logits = net(probe)
            (gradient,) = torch.autograd.grad(logits[:, 1].sum(), probe)
            if not (logits.isfinite().all() and gradient.isfinite().all()):
                continue
        except Exception:  # no network: complex, sparse, without a derivative, of other shapes
            continue
        tried += 1
        try:
            explanation = explain(net, x, 1, ONCE)
        except CaptureError:
            continue
        if name not in GATED and not (
            same(explanation.logits, logits.detach()) and same(explanation.values, gradient)
        ):
            wrong.append(name)
    assert tried > 60
    assert wrong == []
