"""Proof 2: with nothing selected and gates as derivatives, the walk is the gradient.

It must equal ``torch.autograd.grad`` on every network of piecewise linear operators, and the
captured network must be the network: the same logits. Weights and batch norm statistics are
random, so that no branch is dead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.models.torchvision import import_torchvision

aten = torch.ops.aten
PLAIN = Settings.plain()
PIECEWISE_LINEAR = [
    "alexnet",
    "vgg11_bn",
    "resnet18",
    "densenet121",
    "googlenet",
    "inception_v3",
    "squeezenet1_0",
    "mobilenet_v2",
    "shufflenet_v2_x0_5",
]


def shaken(net: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, with random statistics and affine terms."""
    for name, tensor in [*net.named_parameters(), *net.named_buffers()]:
        if name.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 1.5)
        elif tensor.ndim == 1:
            nn.init.normal_(tensor, 1.0 if "weight" in name else 0.2, 0.2)
    return net.double().eval()


def torchvision_net(name: str) -> tuple[nn.Module, Tensor]:
    """Dense layers of 4096 units have 64, and the deepest networks fewer blocks: more of the same
    proves no more."""
    size = 75 if name == "inception_v3" else 64
    options: dict[str, Any] = {
        "googlenet": {"init_weights": False},
        "inception_v3": {"init_weights": False},
        "mobilenet_v2": {
            "inverted_residual_setting": [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 2, 2)]
        },
        "densenet121": {"block_config": (2, 3, 2, 2)},
    }
    models = import_torchvision().models
    build = models.DenseNet if name == "densenet121" else models.get_model_builder(name)
    with torch.device("meta"):
        net = build(num_classes=10, **options.get(name, {}))
    for layer in net.modules():
        if isinstance(layer, nn.Linear) and 4096 in layer.weight.shape:
            out, inside = (64 if units == 4096 else units for units in layer.weight.shape)
            layer.weight = nn.Parameter(layer.weight.new_empty(out, inside))
            layer.bias = nn.Parameter(layer.bias.new_empty(out))
    net.to_empty(device="cpu")
    for weight in net.parameters():
        if weight.ndim > 1:
            nn.init.kaiming_normal_(weight)
    return shaken(net), torch.randn(2, 3, size, size, dtype=torch.float64)


def assert_plain_is_the_gradient(net: nn.Module, x: Tensor, output: Any = None) -> None:
    """For a batch that probes the first sample's top class and the second one's runner-up."""
    leaf = x.clone().requires_grad_()
    answer = net(leaf) if output is None else net(leaf)[output]
    target = answer.argsort(1, descending=True)[[0, 1], [0, 1]]
    values, logits = ForwardBackward(net, x, PLAIN, output)(x, target)
    assert_relative(logits, answer.detach(), 1e-10)
    (gradient,) = torch.autograd.grad(answer.gather(1, target[:, None]).sum(), leaf)
    assert gradient.flatten(1).any(1).all()
    assert_relative(values, gradient, 1e-9)


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", PIECEWISE_LINEAR)
def test_proof_2_plain_is_the_gradient_of_published_networks(name: str) -> None:
    assert_plain_is_the_gradient(*torchvision_net(name))


class Classifier(nn.Module):
    """A body and a dense layer on all that it returns, so that every position counts."""

    def __init__(self, body: nn.Module, example: Tensor) -> None:
        super().__init__()
        self.body = shaken(body)
        self.dense = shaken(nn.Linear(self.body(example).flatten(1).shape[1], 4))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.body(x).flatten(1))


class Apply(nn.Module):
    """A function and the layers that it is called with."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def writes_to_views(x: Tensor, conv: nn.Module) -> Tensor:
    y = conv(x)
    y[:, :2].mul_(0.5)
    y += 1
    left = y[..., :4]
    left.add_(y[..., 4:])
    y[:, 1, ::2] = 2 * y[:, 2, ::2]
    return y.relu_()


def skips(x: Tensor, conv: nn.Module, relu: nn.Module) -> Tensor:
    u = conv(x)
    v = relu(u) + u
    return relu(conv(v) - 0.5 * v) + (1 - u) + u + x


def shuffles(x: Tensor, conv: nn.Module) -> Tensor:
    a, b = conv(x).chunk(2, dim=1)
    c, d = torch.split(a, [1, 3], dim=1)
    e, f = b.split(2, dim=1)
    y = torch.cat([d, e.flip(3), c, f.roll(1, 2)], dim=1)
    y = F.channel_shuffle(F.pixel_shuffle(y, 2), 1) + F.pixel_shuffle(y.relu(), 2)
    z = torch.stack([y, 2 * y], dim=1).flatten(1, 2).transpose(2, 3).permute(0, 3, 1, 2)
    first, *_ = z.unbind(1)
    return F.pixel_unshuffle(z[:, :, :2, ::2].relu(), 2) + first.sum((1, 2), keepdim=True)[:, None]


def standardised(x: Tensor, conv: Any) -> Tensor:
    mean, var = (f(conv.weight, (1, 2, 3), keepdim=True) for f in (torch.mean, torch.var))
    return F.conv2d(x, (conv.weight - mean) / torch.sqrt(var + 1e-5), conv.bias, padding=1).relu()


def spellings(x: Tensor, conv: Any) -> Tensor:
    threshold = conv.bias[:, None, None]
    y = torch.maximum(conv(x), threshold)
    y = torch.addcmul(threshold, y, 2 + threshold, value=0.5)
    return y.square() + y[:, :1].expand_as(y) + threshold[None, :1].expand_as(y)


def choices(x: Tensor, conv: nn.Module) -> Tensor:
    """The image decides what is chosen, and is what is chosen from."""
    y = conv(x)
    y = torch.where(y > 0.1, 2 * y, torch.where(y < -0.1, y[:, :1], 0.3))
    return torch.where(x.sum(1, keepdim=True) > 0, 1.5, y)


def other_modes(x: Tensor, conv: nn.Module) -> Tensor:
    """Parts that torch.export keeps as graphs of their own, one of them written to."""
    with torch.autocast("cpu", enabled=False):
        y = conv(x).relu_()
    with torch.enable_grad():
        z = y.mul(2).add_(1)
    return z.sub_(y[:, :1])


def resizes(x: Tensor) -> Tensor:
    y = F.interpolate(x, scale_factor=2.0, mode="nearest")
    y = F.interpolate(y, size=(9, 11), mode="bilinear", align_corners=False)
    y = F.interpolate(y, scale_factor=(0.7, 1.3), mode="bilinear", align_corners=True)
    y = F.interpolate(y, scale_factor=0.5, mode="nearest")
    return F.interpolate(y, size=[5, 7], mode="bicubic") + y.amax((2, 3), keepdim=True)


def scalars(x: Tensor) -> Tensor:
    """Overloads that other front ends write."""
    y = aten.add.Scalar(aten.mul.Scalar(x, 3.0), 0.5, 2)
    y = aten.clamp_max(aten.clamp_min(aten.sub.Scalar(aten.div.Scalar(y, 2.0), 1.0, 3), -3.0), 1.0)
    return aten._unsafe_view(aten.relu6(1 - y), [-1, 30]) + aten.rsub.Scalar(x, 1.0, 2).flatten(1)


def pads(x: Tensor) -> Tensor:
    y = F.pad(F.pad(x, (1, 2, 0, 1), mode="reflect"), (2, 0, 1, 1), mode="replicate")
    return F.pad(F.pad(y, (1, 1, 2, 0), mode="circular"), (-1, 2, 3, -2), value=0.7)


NETS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "1-d": lambda: (
        nn.Sequential(
            nn.Conv1d(3, 6, 4, padding="same"), nn.BatchNorm1d(6), nn.ReLU(),
            nn.MaxPool1d(3, 2, 1), nn.Conv1d(6, 4, 3, 2, dilation=2, groups=2), nn.LeakyReLU(),
            nn.Upsample(scale_factor=1.5, mode="linear"), nn.AdaptiveAvgPool1d(5),
        ),
        (3, 23),
    ),
    "3-d": lambda: (
        nn.Sequential(
            nn.Conv3d(2, 4, 3, (1, 2, 1), 1), nn.BatchNorm3d(4), nn.PReLU(4),
            nn.MaxPool3d(2, ceil_mode=True), nn.ConvTranspose3d(4, 2, 2, 2), nn.ReLU(),
            nn.AvgPool3d(3, 2, 1), nn.AdaptiveAvgPool3d((2, 1, 3)),
        ),
        (2, 6, 7, 5),
    ),
    "writes to views": lambda: (Apply(writes_to_views, nn.Conv2d(3, 4, 3, padding=1)), (3, 8, 8)),
    "skips, a layer used twice": lambda: (
        Apply(skips, nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=False)), (3, 6, 5)
    ),
    "shuffles": lambda: (Apply(shuffles, nn.Conv2d(3, 8, 3, padding=1)), (3, 4, 6)),
    "weight standardisation": lambda: (Apply(standardised, nn.Conv2d(3, 5, 3)), (3, 6, 6)),
    "spellings": lambda: (Apply(spellings, nn.Conv2d(3, 4, 3, padding=1)), (3, 6, 6)),
    "choices": lambda: (Apply(choices, nn.Conv2d(3, 4, 3, padding=1)), (3, 6, 6)),
    "other modes": lambda: (Apply(other_modes, nn.Conv2d(3, 4, 3)), (3, 6, 6)),
    "resizes": lambda: (Apply(resizes), (2, 6, 5)),
    "scalars": lambda: (Apply(scalars), (5, 6)),
    "pads": lambda: (Apply(pads), (2, 5, 6)),
    "padding modes": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU(),
            nn.Conv2d(3, 3, 3, padding=1, padding_mode="replicate"), nn.ReLU(),
            nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), nn.ZeroPad2d((1, 0, 2, 1)),
        ),
        (2, 6, 5),
    ),
    "dropout and identities": lambda: (
        nn.Sequential(
            nn.Dropout2d(), nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Dropout(inplace=True),
            nn.Identity(), nn.AlphaDropout(), nn.Conv2d(4, 4, 1),
        ),
        (3, 6, 6),
    ),
    "average pools": lambda: (
        nn.Sequential(
            nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False), nn.Conv2d(3, 4, 1),
            nn.ReLU(), nn.AvgPool2d(2, ceil_mode=True), nn.AvgPool2d(2, 1, divisor_override=3),
            nn.AdaptiveAvgPool2d((2, 3)),
        ),
        (3, 14, 11),
    ),
    "maximum pools": lambda: (
        nn.Sequential(
            nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(3, 4, 2, dilation=2), nn.ReLU(),
            nn.MaxPool2d(2, 1, dilation=2), nn.AdaptiveMaxPool2d(2),
        ),
        (3, 19, 19),
    ),
    "transposed convolution, batch norms apart": lambda: (
        nn.Sequential(
            nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 4, 3, 2, 1, 1, dilation=2), nn.BatchNorm2d(4),
            nn.ReLU(), nn.BatchNorm2d(4, affine=False), nn.Flatten(2), nn.Linear(160, 5),
            nn.BatchNorm1d(4), nn.ReLU6(),
        ),
        (3, 4, 7),
    ),
    "every activation": lambda: (
        nn.Sequential(
            nn.Conv2d(2, 3, 1), nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Mish(), nn.ELU(0.5),
            nn.Conv2d(3, 3, 1), nn.SELU(), nn.CELU(0.5), nn.Softplus(2.0, 3.0), nn.Hardtanh(-3, 3),
            nn.Conv2d(3, 3, 1), nn.Hardswish(), nn.Sigmoid(), nn.Tanh(), nn.PReLU(),
        ),
        (2, 4, 4),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel:UserWarning")
@pytest.mark.parametrize("name", NETS)
def test_proof_2_plain_is_the_gradient_of_small_networks(name: str) -> None:
    body, shape = NETS[name]()
    x = torch.randn(2, *shape, dtype=torch.float64)
    assert_plain_is_the_gradient(Classifier(body, x), x)


@pytest.mark.parametrize("output", [0, 1, "left", "right"])
def test_proof_2_plain_is_the_gradient_of_the_chosen_output(output: int | str) -> None:
    def answers(x: Tensor, left: nn.Module, right: nn.Module) -> Any:
        both = (left(x).flatten(1), right(x).flatten(1))
        return both if isinstance(output, int) else dict(zip(("left", "right"), both, strict=True))

    net = shaken(Apply(answers, nn.Conv2d(3, 4, 5), nn.Conv2d(3, 4, 5)))
    assert_plain_is_the_gradient(net, torch.randn(2, 3, 5, 5, dtype=torch.float64), output)


@pytest.mark.parametrize("last", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid()], ids=repr)
def test_proof_2_the_seed_starts_before_a_last_softmax(last: nn.Module) -> None:
    x, dense = torch.randn(2, 3, 4, dtype=torch.float64), shaken(nn.Linear(12, 4))
    net = nn.Sequential(nn.Flatten(), dense, last).eval()
    values, logits = ForwardBackward(net, x, PLAIN)(x, 2)
    assert_relative(logits, dense(x.flatten(1)).detach(), 1e-12)
    assert_relative(values.flatten(1), dense.weight[2].detach().expand(2, -1), 1e-12)
