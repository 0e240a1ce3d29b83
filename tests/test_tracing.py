"""Networks as people hand them over: compiled, hooked, traced, with checks, in any container."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from torchfbi import Settings, explain, targets
from torchfbi.errors import (
    CaptureError,
    InputError,
    OutputError,
    RandomnessError,
    TargetError,
    TrainingModeError,
)
from torchfbi.models.torchvision import import_torchvision

X = torch.rand(2, 3, 10, 10, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Whose forward does something to the maps, and something to the logits."""

    def __init__(
        self,
        maps: Callable[[Any, Tensor], Tensor] = lambda net, x: x,
        out: Callable[[Tensor], Any] = lambda z: z,
        classes: int = 4,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps, self.out = maps, out
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, classes)
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.4]))
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.plain = torch.tensor([1.0, 2.0])
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.out(self.head(self.maps(self, self.conv(x)).relu().mean((2, 3))))


def reference(**options: Any) -> Tensor:
    return explain(Net(**options), X, 1, "plain").values


def saving(net: Any, x: Tensor) -> Tensor:
    x.requires_grad_()
    x.register_hook(print)
    x.retain_grad()
    return x


@pytest.mark.parametrize(
    "maps",
    [
        lambda net, x: x.data,
        lambda net, x: x.detach(),
        lambda net, x: torch.cat([x[:, :3].data, x[:, 3:]], 1),
        saving,
        lambda net, x: F.dropout(x, 0.3, net.training),
        lambda net, x: F.dropout2d(x, 0.3, False, inplace=True),
        lambda net, x: F.alpha_dropout(x, 0.3, False, inplace=True),
        lambda net, x: F.feature_alpha_dropout(x, 0.3, False, inplace=True),
        lambda net, x: F.dropout3d(x[:, None], 0.0, True)[:, 0],
        lambda net, x: x if (net.std > 0).all() else x.neg(),
        lambda net, x: x.neg() if bool((net.std == 0).any()) else x,
        lambda net, x: x * (1 if net.scale.item() > 1 else 2),
        lambda net, x: x * (float(net.plain.max()) / 2.0),
        lambda net, x: x if net.plain.tolist() == [1.0, 2.0] else x.neg(),
        lambda net, x: x.neg() if torch.tensor([0.1, 0.2]).sum() > 1 else x,
        lambda net, x: x * int(net.plain.sum() / 3),
    ],
)
def test_what_leaves_the_answer_as_it_is(maps: Callable[[Any, Tensor], Tensor]) -> None:
    assert torch.equal(reference(maps=maps), reference())


def test_checks_of_constants_write_to_nothing() -> None:
    def counting(net: Any, x: Tensor) -> Tensor:
        net.std.mul_(1.0)
        return x if (net.std > 0).all() else x.neg()

    net = Net(counting)
    before = net.std.clone()
    with pytest.raises(CaptureError):
        explain(net, X)
    assert torch.equal(net.std, before)


@pytest.mark.parametrize(
    "maps",
    [
        lambda net, x: x if x.sum() > 0 else x.neg(),
        lambda net, x: x * float(x.mean()),
        lambda net, x: x if (net.std.sum() + x.sum()) > 0 else x.neg(),
        lambda net, x: x if torch.rand(()) > 0.5 else x.neg(),
    ],
)
def test_branches_on_the_image_or_on_chance_are_refused(maps: Callable[..., Tensor]) -> None:
    with pytest.raises(CaptureError):
        explain(Net(maps), X)


def rand_into(net: Any, x: Tensor) -> Tensor:
    noise = torch.empty(6, 1, 1)
    noise.normal_()
    return x + noise


@pytest.mark.parametrize(
    ("maps", "name"),
    [
        (lambda net, x: F.dropout(x, 0.9), "dropout"),
        (lambda net, x: F.dropout2d(x, 0.1), "feature_dropout"),
        (lambda net, x: F.alpha_dropout(x, 0.5, training=True), "alpha_dropout"),
        (lambda net, x: x + torch.randn(6, 1, 1), "randn"),
        (lambda net, x: x + 0.1 * torch.rand_like(x), "rand_like"),
        (lambda net, x: x * torch.bernoulli(torch.full((6, 1, 1), 0.5)), "bernoulli"),
        (lambda net, x: F.rrelu(x, training=True), "rrelu"),
        (lambda net, x: x[:, torch.randperm(6)], "randperm"),
        (rand_into, "normal"),
        (lambda net, x: F.gumbel_softmax(x, dim=1), "exponential"),
    ],
)
def test_randomness_that_stays_on_is_told(maps: Callable[..., Tensor], name: str) -> None:
    with pytest.raises(RandomnessError, match=rf"chance(.|\n)*{name}.* at "):
        explain(Net(maps), X)


def test_randomness_that_nothing_depends_on_does_not_matter() -> None:
    def unused(net: Any, x: Tensor) -> Tensor:
        F.dropout(x, 0.5)
        return x

    assert torch.equal(reference(maps=unused), reference())


def compiled_part(net: Net) -> nn.Module:
    net.conv = torch.compile(net.conv, backend="eager")
    return net


def compiled_in_place(net: Net) -> nn.Module:
    net.compile(backend="eager")
    return net


@pytest.mark.parametrize(
    "wrap",
    [
        lambda net: torch.compile(net, backend="eager"),
        compiled_part,
        compiled_in_place,
        nn.DataParallel,
        lambda net: nn.Sequential(torch.compile(nn.Sequential(net), backend="eager")).eval(),
        lambda net: torch.compile(nn.DataParallel(net), backend="eager"),
    ],
)
def test_the_network_inside_of_a_wrapper(wrap: Callable[[nn.Module], nn.Module]) -> None:
    wrapped = wrap(Net())
    parts = dict(wrapped.named_modules())
    assert torch.equal(explain(wrapped, X, 1, "plain").values, reference())
    assert dict(wrapped.named_modules()) == parts


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [torch.jit.script, lambda part: torch.jit.trace(part, X)])
def test_a_part_of_torchscript_is_named(make: Callable[[nn.Module], Any]) -> None:
    net = Net()
    net.body = nn.Sequential(nn.Identity(), make(nn.Conv2d(3, 6, 3).eval()))
    with pytest.raises(CaptureError, match=r"part 'body\.1' is TorchScript"):
        explain(net, X)


def test_networks_without_weights() -> None:
    with pytest.raises(CaptureError, match=r"meta device \(.*load its weights"):
        explain(Net().to("meta"), X)
    net = Net()
    net.head.to("meta")
    with pytest.raises(CaptureError, match=r"meta device \(head\.weight"):
        explain(net, X)


def test_what_is_no_module_is_told_what_it_is() -> None:
    wrapper = SimpleNamespace(model=Net())
    with pytest.raises(CaptureError, match=r"give the torch\.nn\.Module in it, its attribute"):
        explain(wrapper, X)  # type: ignore[arg-type]
    yolo = type("YOLO", (Net,), {"__module__": "ultralytics.models.yolo.model"})()
    yolo.predictor, yolo.model = None, Net()
    with pytest.raises(CaptureError, match=r"Ultralytics object.*yolo\.model\.eval"):
        explain(yolo, X)


def test_quantised_parts_are_named() -> None:
    net = Net()
    part = type("Conv2d", (nn.Conv2d,), {"__module__": "torch.ao.nn.quantized.modules.conv"})
    net.conv = part(3, 6, 3)
    net.eval()
    with pytest.raises(CaptureError, match=r"'conv' is quantised \(Conv2d\)"):
        explain(net, X)


def test_the_local_response_norm_of_old_networks() -> None:
    def with_norm(norm: nn.Module) -> Tensor:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.Flatten(), nn.Linear(512, 3)).eval()
        return explain(net, X, 1, "plain").values

    options = {"alpha": 0.3, "beta": 0.6, "k": 1.5}
    ours = with_norm(nn.CrossMapLRN2d(5, **options))
    assert torch.equal(ours, with_norm(nn.LocalResponseNorm(5, **options)))


def test_graph_modules_keep_their_mode() -> None:
    torchvision = import_torchvision()
    from torchvision.models.feature_extraction import create_feature_extractor

    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=4).eval()
    x = torch.rand(2, 3, 32, 32)
    expected = explain(net, x, 1).logits
    nodes = {"layer4": "maps", "fc": "logits"}
    extractor = create_feature_extractor(net, nodes).eval()
    assert torch.equal(explain(extractor, x, 1, output="logits").logits, expected)
    assert torch.equal(explain(fx.symbolic_trace(net), x, 1).logits, expected)
    with pytest.raises(TrainingModeError, match=r"training mode.*eval\(\)"):
        explain(create_feature_extractor(net, nodes).train(), x, output="logits")
    traced = fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Flatten()))
    with pytest.raises(TrainingModeError, match=r"training mode.*eval\(\)"):
        explain(traced, X)


def test_an_exported_program_is_a_part_like_others() -> None:
    net = Net()
    module = torch.export.export(net, (X,)).module()
    assert torch.allclose(explain(module, X, 1, "plain").values, reference())
    around = nn.Sequential(module)
    around.training = False  # eval() would ask the program, which refuses
    assert torch.allclose(explain(around, X, 1, "plain").values, reference())


@dataclasses.dataclass
class Answer:
    logits: Tensor
    extra: int = 3


Named = namedtuple("Named", ["logits", "maps"])


@pytest.mark.parametrize(
    ("out", "key"),
    [
        (lambda z: {"logits": z}, None),
        (lambda z: {"logits": z, "other": z * 2}, "logits"),
        (lambda z: Answer(z), None),
        (lambda z: SimpleNamespace(logits=z, n=2), None),
        (lambda z: Named(z, z * 2), "logits"),
        (lambda z: (z, [z * 2]), 0),
        (lambda z: {"deep": {"logits": z, "other": z + 1}}, "deep.logits"),
        (lambda z: [Answer(z)], None),
    ],
)
def test_outputs_in_any_container(out: Callable[[Tensor], Any], key: int | str | None) -> None:
    assert torch.equal(explain(Net(out=out), X, 1, "plain", output=key).values, reference())


class Opaque:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def test_outputs_in_a_box_of_ones_own_are_told() -> None:
    with pytest.raises(OutputError, match=r"returns a Opaque.*dictionary or dataclass"):
        explain(Net(out=Opaque), X)
    with pytest.raises(OutputError, match="one number for the whole batch"):
        explain(Net(out=lambda z: z.sum()), X)


@pytest.mark.parametrize(
    "out",
    [
        lambda z: z.squeeze(-1),
        lambda z: z.squeeze(),
        lambda z: z[:, 0],
        lambda z: z.flatten(),
        lambda z: z.view(-1),
        lambda z: torch.sigmoid(z).squeeze(1),
        lambda z: torch.sigmoid(z.squeeze(1)),
        lambda z: {"age": z.reshape(-1)},
    ],
)
@pytest.mark.parametrize("samples", [1, 2])
def test_one_number_an_image(out: Callable[[Tensor], Any], samples: int) -> None:
    expected = explain(Net(classes=1), X[:samples])
    explanation = explain(Net(out=out, classes=1), X[:samples])
    assert explanation.logits.shape == (samples, 1)
    assert torch.equal(explanation.values, expected.values)
    assert torch.equal(explanation.logits, expected.logits)


def test_against_a_single_logit() -> None:
    net = Net(classes=1)
    for_it = explain(net, X, 0, "plain").values
    assert torch.equal(explain(net, X, targets.against(0), "plain").values, -for_it)
    net = Net()
    against = explain(net, X, targets.against(2), Settings.plain(seed="contrast"))
    assert torch.equal(against.values, -explain(net, X, 2, Settings.plain(seed="contrast")).values)
    with pytest.raises(TargetError, match="no channel 4"):
        explain(net, X, targets.against(4))


@pytest.mark.parametrize(
    ("out", "head"),
    [
        (lambda z: z, None),
        (torch.sigmoid, "sigmoid"),
        (lambda z: z.softmax(1), "softmax"),
        (lambda z: z.log_softmax(-1), "softmax"),
        (lambda z: z[..., None, None].softmax(1).flatten(1), "softmax"),
        (lambda z: z.view(-1, 2, 2).softmax(2), None),
        (lambda z: z.view(-1, 2, 2).sigmoid(), "sigmoid"),
        (lambda z: z.view(-1, 2, 2).log_softmax(-1), None),
    ],
)
def test_a_score_sees_what_the_network_returns(out: Callable[..., Tensor], head: Any) -> None:
    net, seen = Net(out=out).double(), []
    x = X.double()

    def score(output: Tensor) -> Tensor:
        seen.append(output.detach())
        return (output.flatten(1)[:, 1] * output.flatten(1)[:, 2]).exp()

    explanation = explain(net, x, targets.score(score), "plain")
    probe = x.clone().requires_grad_()
    output = net(probe)
    assert torch.allclose(seen[0], output.detach())
    (gradient,) = torch.autograd.grad(score(output).sum(), probe)
    assert torch.allclose(explanation.values, gradient, rtol=1e-9, atol=1e-12)
    assert explanation.head == head


def test_a_score_that_is_a_class_asks_for_the_class() -> None:
    net = Net(out=lambda z: z.softmax(1))
    by_score = explain(net, X, targets.score(lambda p: p[:, 2]))
    assert by_score.target is not None
    assert torch.equal(by_score.values, explain(net, X, 2).values)


def test_several_inputs_are_told_what_to_do() -> None:
    class Two(Net):
        def forward(self, x: Tensor, table: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x) + table

    with pytest.raises(
        InputError, match=r"wants table as well: .*--input table=FILE.* wrap it in a module"
    ):
        explain(Two(), X)
