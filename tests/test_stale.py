"""Whatever changes what a network computes, the next explanation is of what it computes now."""

from __future__ import annotations

import contextlib
import copy
import functools
import gc
import operator
import random
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import MethodType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import graph_module
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from torchfbi import ForwardBackward, Photo, Settings, explain, verify
from torchfbi.capture import own
from torchfbi.capture.capture import capture
from torchfbi.capture.share import copy_parts, share_tensors
from torchfbi.errors import CaptureError, InputError, NonFiniteError, TargetError
from torchfbi.evaluate import peers
from torchfbi.explanation.reuse import Forwards

X = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
FACTOR = [1.0]


class Net(nn.Module):
    """Its answer depends on all that Python lets code read."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)
        self.listed, self.nested = [1.0, 1.0], {"a": [{"b": 1.0}]}
        self.space, self.mask = SimpleNamespace(g=1.0), torch.ones(8, 1, 1)
        self.hidden = [nn.Conv2d(8, 8, 1).eval()]  # no part of the module, as PyTorch sees it
        self.scaled = functools.partial(operator.mul, 1.0)
        closed = {"g": 1.0}
        self.closure = lambda x: x * closed["g"]

    def forward(self, x: Tensor) -> Tensor:
        x = self.closure(self.scaled(F.relu(self.first(x)))) * FACTOR[0] * self.factor
        x = x * self.listed[1] * self.nested["a"][0]["b"] * self.space.g * self.mask
        return self.head(F.relu(self.hidden[0](F.relu(self.second(x)))).mean((2, 3)))


def half(module: nn.Module, args: Any, output: Tensor) -> Tensor:
    return output * 0.5


def written_by_numpy(net: Net) -> None:
    net.second.weight.detach().numpy()[3:5] *= 30


def written_to_a_closure(net: Net) -> None:
    (cell,) = net.closure.__closure__ or ()
    cell.cell_contents["g"] = 30.0


def sent_elsewhere(net: Net) -> None:
    net.forward = MethodType(lambda self, x: self.head(F.relu(self.first(x)).mean((2, 3))), net)


CHANGES: dict[str, Callable[[Net], Any]] = {
    "hook": lambda net: net.first.register_forward_hook(half),
    "hook on a hidden part": lambda net: net.hidden[0].register_forward_hook(half),
    "pre-hook": lambda net: net.second.register_forward_pre_hook(lambda m, a: (a[0] * 0.5,)),
    "list": lambda net: net.listed.__setitem__(1, 30.0),
    "nested": lambda net: net.nested["a"][0].update(b=30.0),
    "namespace": lambda net: setattr(net.space, "g", 30.0),
    "tensor replaced": lambda net: setattr(net, "mask", torch.full((8, 1, 1), 30.0)),
    "tensor written to": lambda net: net.mask[1:3].mul_(30),
    "tensor written to by .data": lambda net: net.mask.data[1:3].mul_(30),
    "weights by .data": lambda net: net.second.weight.data[1:7].mul_(30),
    "weights by NumPy": written_by_numpy,
    "hidden weights": lambda net: net.hidden[0].weight.data[2:6].mul_(30),
    "class attribute": lambda net: setattr(type(net), "factor", 30.0),
    "closure": written_to_a_closure,
    "global": lambda net: FACTOR.__setitem__(0, 30.0),
    "partial": lambda net: setattr(net, "scaled", functools.partial(operator.mul, 30.0)),
    "forward": sent_elsewhere,
}


@pytest.fixture
def net() -> Any:
    yield type("Net", (Net,), {})().eval()  # whose class attributes are its own
    FACTOR[0] = 1.0


def shows(net: nn.Module, values: Tensor, logits: Tensor) -> bool:
    """Whether the plain preset's answer is the network's gradient and logits."""
    x = X.clone().requires_grad_()
    answer = net(x)
    answer[:, 0].sum().backward()
    pairs = (values, x.grad), (logits, answer.detach())
    return all((a - b).abs().max() <= 1e-5 * b.abs().max() for a, b in pairs)


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(net: Any, change: str) -> None:
    before = explain(net, X, 0, "plain")
    assert shows(net, before.values, before.logits)
    CHANGES[change](net)
    assert not shows(net, before.values, before.logits)
    after = explain(net, X, 0, "plain")
    assert shows(net, after.values, after.logits)
    assert shows(net, *ForwardBackward(net, X, Settings.plain())(X, 0))


@pytest.mark.parametrize("change", [lambda w: w * 30, lambda w: w.flip(0)])
def test_weights_that_an_image_does_not_reach(net: Any, change: Callable[[Tensor], Tensor]) -> None:
    """Its logits stay, but not its gradient; where they change places, their sum stays as well."""
    x = X.clone()
    x[:, 1] = 0
    before = explain(net, x, 0, "plain")
    net.first.weight.data[1:7, 1] = change(net.first.weight.data[1:7, 1])
    after = explain(net, x, 0, "plain")
    x.requires_grad_()
    net(x)[:, 0].sum().backward()
    torch.testing.assert_close(after.logits, before.logits)
    torch.testing.assert_close(after.values, x.grad)


class Counting(nn.Module):
    """It writes to its own tensors whenever it is asked."""

    def __init__(self, count: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.head, self.count = nn.Linear(3, 5), count
        self.register_buffer("asked", torch.zeros(()))
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.mean((2, 3))) * (1 + self.count(self))


def replaced(net: Counting) -> Tensor:
    net.asked = net.asked + 1
    return net.asked


@pytest.mark.parametrize(
    "count", [lambda net: net.asked.add_(1), lambda net: net.asked.data.add_(1), replaced]
)
def test_a_network_that_writes_to_its_buffers_is_left_as_it_was(count: Any) -> None:
    net = Counting(count).eval()
    right = copy.deepcopy(net)(X).detach()
    for _ in range(2):
        torch.testing.assert_close(explain(net, X, 0).logits, right)
    assert net.asked == 0


def test_a_program_that_writes_to_its_buffers_is_left_as_it_was() -> None:
    net = Counting(lambda net: net.asked.add_(1)).eval()
    program = torch.export.export(net, (X,))
    right = copy.deepcopy(net)(X).detach()
    torch.testing.assert_close(explain(program, X, 0).logits, right)
    assert program.state_dict["asked"] == 0


def test_a_network_that_writes_to_its_weights_is_refused() -> None:
    net = Counting(lambda net: net.weight.data.add_(1)).eval()
    with pytest.raises(CaptureError, match=r"writes to its own parameters \(weight\)"):
        explain(net, X, 0)
    assert net.weight == 0


def test_verdicts_and_other_methods_see_a_change_as_well(net: Any) -> None:
    before = peers.attribute("gradient", net, X, 0)
    verify(net, X, before[:, 0], 0)
    FACTOR[0] = 30.0
    x = X.clone().requires_grad_()
    net(x)[:, 0].sum().backward()
    torch.testing.assert_close(peers.attribute("gradient", net, X, 0).abs(), x.grad.abs())
    FACTOR[0] = -30.0
    (verdict,) = verify(net, X, before[:, 0], 0)
    assert verdict.probability == pytest.approx(net(X).softmax(1)[0, 0].item(), rel=1e-4)


def test_a_hook_that_is_gone_is_gone(net: Any) -> None:
    hook = net.first.register_forward_hook(half)
    explain(net, X, 0, "plain")
    hook.remove()
    after = explain(net, X, 0, "plain")
    assert shows(net, after.values, after.logits)


def test_what_a_hook_keeps_of_the_capture(net: Any) -> None:
    net.kept = []
    net.first.register_forward_hook(lambda part, given, answer: net.kept.append(answer))
    before, after = (explain(net, X, 0, "plain").values for _ in range(2))
    assert torch.equal(before, after)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
@pytest.mark.parametrize("how", [lambda t: t.mul_(3), lambda t: t.data[..., :1].mul_(3)])
def test_the_state_of_an_exported_program(how: Callable[[Tensor], Any]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(400, 5)).eval()
    program = torch.export.export(net, (X,))
    explain(program, X, 0, "plain")
    with torch.no_grad():
        for tensor in program.state_dict.values():
            how(tensor)
    after = explain(program, X, 0, "plain")
    assert shows(program.module(), after.values, after.logits)


BATCHES: dict[str, Callable[[Tensor], bool]] = {
    "one": lambda x: x.shape[0] == 1,
    "fewer than four": lambda x: len(x) < 4,
    "even": lambda x: x.shape[0] % 2 == 0,
    "entries": lambda x: x.numel() > 1500,
    "wide": lambda x: x.shape[-1] > 12,
}


@pytest.mark.parametrize("question", BATCHES)
@pytest.mark.parametrize("sizes", [(1, 5), (5, 2, 1)])
def test_code_that_asks_for_the_batch_or_the_size(question: str, sizes: tuple[int, ...]) -> None:
    class Asks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            y = F.relu(self.conv(x))
            return self.head((y * 10 if BATCHES[question](x) else y).mean((2, 3)))

    net = Asks().eval()
    for count in sizes:
        for side in (12, 13) if question == "wide" else (12,):
            x = torch.randn(count, 3, side, side)
            torch.testing.assert_close(explain(net, x, 0, "plain").logits, net(x))
    kept = ForwardBackward(net, torch.zeros(5, 3, 12, 12))
    for count in range(1, 7):  # another batch is answered as the network does, or not at all
        x = torch.randn(count, 3, 12, 12)
        try:
            logits = kept(x)[1]
        except InputError:
            assert question != "wide"
            continue
        torch.testing.assert_close(logits, net(x))


class Noisy(nn.Module):
    def __init__(self, noise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.noise, self.head = nn.Conv2d(3, 8, 3), noise, nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.noise(F.relu(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (lambda x: F.dropout(x, 0.9), "depends on chance"),
        (lambda x: x + torch.randn(8, 1, 1), "depends on chance"),
        (lambda x: x + np.random.rand(), "random numbers"),
        (lambda x: x * 2 if random.random() < 1e-9 else x, "random numbers"),
        (lambda x: x * 2 if torch.compiler.is_exporting() else x, "own answer"),
    ],
)
def test_what_answers_otherwise_than_it_is_captured_is_refused(
    noise: Callable[[Tensor], Tensor], message: str
) -> None:
    with pytest.raises(CaptureError, match=message):
        explain(Noisy(noise).eval(), X)


def test_a_network_that_fails_or_overflows_itself() -> None:
    def fails(x: Tensor) -> Tensor:
        if type(x) is Tensor:
            raise RuntimeError("only for show")
        return x

    with pytest.raises(InputError, match="only for show"):
        explain(Noisy(fails).eval(), X)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 5))
    with torch.no_grad():
        net[0].weight.fill_(3e38)
        net[1].running_var.fill_(1e38)  # folded it is harmless
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        explain(net.eval(), X.abs())


def test_rounding_is_no_change() -> None:
    """Logits that cancel: their last digits are noise, which two orders of summing make."""
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(1600, 1),
    ).eval()  # fmt: skip
    with torch.no_grad():
        net[1].running_mean.normal_()
        net[1].running_var.uniform_(0.1, 9)
        net[4].weight.mul_(100)
        net[4].bias.sub_(net(X)[0])
    explanation = explain(net, X, 0, "plain")
    assert not own.agree(own.answer(net, X, None), explanation.logits)


def test_what_code_keeps_about_itself_it_keeps_elsewhere() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.calls, self.last = nn.Conv2d(3, 5, 12), 0, None

        def forward(self, x: Tensor) -> Tensor:
            self.calls, self.last = self.calls + 1, x
            return self.conv(x.sub_(0.5)).flatten(1)

    net, x = Keeps().eval(), X.clone()
    explain(net, x)
    assert (net.calls, net.last) == (0, None)
    assert torch.equal(x, X)


# An explainer that is kept


WRITES: dict[str, Callable[[nn.Module], Any]] = {
    "in place": lambda net: [p.mul_(3) for p in net.parameters()],
    ".data": lambda net: [p.data.mul_(3) for p in net.parameters()],
    "NumPy": lambda net: [p.detach().numpy().__imul__(3) for p in net.parameters()],
    "load_state_dict": lambda net: net.load_state_dict(
        {name: value * 3 for name, value in net.state_dict().items()}
    ),
}


def mixed() -> nn.Sequential:
    """Folded and packed weights, and such that are neither."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(),
        nn.Conv2d(32, 32, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_a_kept_explainer_shows_the_network_it_was_made_of(write: str) -> None:
    net = mixed()
    kept = ForwardBackward(net, X, Settings.plain())
    before = kept(X, 1)
    with torch.no_grad():
        WRITES[write](net)
    assert all(map(torch.equal, kept(X, 1), before))


def test_an_explainer_takes_other_weights_and_writes_to_nobodys() -> None:
    nets = [mixed(), mixed()]
    one, other, third = (ForwardBackward(net, X, Settings.plain()) for net in (*nets, nets[0]))
    weights = [p.clone() for net in nets for p in net.parameters()]
    old, new = one(X, 1), other(X, 1)
    one.load_state_dict(other.state_dict())
    assert all(map(torch.equal, one(X, 1), new))
    assert all(map(torch.equal, third(X, 1), old))
    assert all(map(torch.equal, weights, [p for net in nets for p in net.parameters()]))
    unasked = ForwardBackward(nets[0], X, Settings.plain())
    nn.ModuleList([unasked]).load_state_dict(nn.ModuleList([other]).state_dict())
    assert all(map(torch.equal, unasked(X, 1), new))


def test_packed_weights_are_those_of_now() -> None:
    kept = copy.deepcopy(ForwardBackward(mixed(), X, Settings.plain()))
    before = kept(X, 1)
    for weight in kept.buffers():
        weight.mul_(1.5)
    after = kept(X, 1)
    assert not any(map(torch.equal, after, before))
    assert all(map(torch.equal, after, copy.deepcopy(kept)(X, 1)))  # which has packed nothing yet
    with torch.inference_mode():
        double = copy.deepcopy(kept).double()  # what is written to its tensors nobody counts
        double(X.double(), 1)
        for weight in double.buffers():
            weight.mul_(1.5)
        assert all(map(torch.equal, double(X.double(), 1), copy.deepcopy(double)(X.double(), 1)))


def test_tied_dense_layers_with_biases_of_their_own() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(1024, 1024), nn.Linear(1024, 1024)
            self.inner.weight = self.outer.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(F.relu(self.inner(x.flatten(1))))

    net, x = Tied().eval(), torch.randn(1, 1, 32, 32)
    untied = copy.deepcopy(net)
    untied.inner.weight = nn.Parameter(net.inner.weight.detach().clone())
    tied, right = (ForwardBackward(each, x, Settings.paper())(x, 3)[0] for each in (net, untied))
    assert right.any()
    assert torch.equal(tied, right)


def test_an_image_that_is_written_over_is_another_image(net: Any) -> None:
    forwards, x = Forwards(), X.clone()
    explain(net, x, 0, "plain", forwards=forwards)
    x.copy_(torch.randn(x.shape))
    again = explain(net, x, 0, "plain", forwards=forwards)
    torch.testing.assert_close(again.logits, net(x))


def test_what_the_caller_writes_over_is_no_part_of_an_explanation() -> None:
    net, x, target = mixed(), X.clone(), torch.tensor([3])
    explanation = explain(net, x, target)
    before = explanation.verify()[0]
    x.zero_()
    target.zero_()
    assert explanation.title().startswith("class 3")
    assert explanation.verify()[0].probability == before.probability

    def without_its_top(logits: Tensor) -> Tensor:
        logits[0, logits[0].argmax()] = -torch.inf
        return logits.argmax(1)

    second = explain(net, X, without_its_top)
    torch.testing.assert_close(second.logits, net(X).detach())
    assert second.target.tolist() == net(X).topk(2).indices[:, 1].tolist()
    pixels = np.full((4, 4, 3), 7, np.uint8)
    views = np.broadcast_to(pixels[..., :1], (4, 4, 3)), pixels[::2]
    views[1].setflags(write=False)
    photo, *others = Photo(pixels), *map(Photo, views)
    pixels[:] = 0
    assert all(seen.pixels.min() == 7 for seen in (photo, *others))
    with pytest.raises(ValueError, match="read-only"):
        photo.pixels[:] = 0


@pytest.mark.parametrize("walks", [0, 2])
def test_several_targets_are_for_one_image(walks: int) -> None:
    x = torch.randn(3, 3, 12, 12)
    with pytest.raises(InputError, match=f"walks={walks}"):
        ForwardBackward(mixed(), x).walk(x, None, None, walks)


# Memory and threads


def test_nothing_of_a_trace_is_left() -> None:
    """What PyTorch concludes about sizes, and the text of the code that it generates."""
    kept = []
    for _ in range(3):
        net = mixed()
        capture(net, torch.cat([X, X]))
        del net
        gc.collect()
        left = sum(isinstance(each, ShapeEnv) for each in gc.get_objects())
        kept.append((left, len(graph_module._loader.eval_cache)))
    assert kept[0] == kept[1] == kept[2]


def test_a_network_is_freed_when_its_user_drops_it() -> None:
    net = mixed()
    net.kept = net.forward  # a bound method: a look at it must not hold the network
    kept = ForwardBackward(net, X)
    kept(X)
    explanation = explain(net, X)
    gone = weakref.ref(net), weakref.ref(net[3].weight)
    del net
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert kept(X)[1].shape == explanation.logits.shape
    with pytest.raises(InputError, match=r"was freed.*verify\(model=...\)"):
        explanation.verify()
    with pytest.raises(InputError, match="has changed"):
        explanation.verify(mixed().requires_grad_(False))


@pytest.mark.parametrize("copied", [share_tensors, lambda net: copy_parts(net, {})])
def test_what_is_traced_has_the_parameters_memory_without_their_gradients(copied: Any) -> None:
    """Which another thread may drop while they are read. What two parts share stays shared."""
    net = nn.ModuleList([nn.Linear(2, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3)])
    net[2]._buffers["running_mean"] = net[1].running_mean
    weight = net[0].weight
    weight.grad = torch.ones_like(weight)
    found = copied(net)
    assert found[0].weight.grad is None
    assert found[0].weight.data_ptr() == weight.data_ptr()
    assert found[2].running_mean is found[1].running_mean
    assert found[1].running_mean.data_ptr() != net[1].running_mean.data_ptr()
    assert weight.grad is not None


def test_a_network_is_trained_while_it_is_explained() -> None:
    """A kept explainer does not notice; ``explain`` answers for one moment, or refuses."""
    net, x = mixed(), X
    kept = ForwardBackward(net, x, Settings.plain())
    before, over, steps = kept(x, 1), threading.Event(), []

    def train() -> None:
        optimizer = torch.optim.SGD(net.parameters(), 1e-3)
        while not over.is_set() or not steps:
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
            steps.append(1)

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train)
        try:
            for _ in range(20):
                assert all(map(torch.equal, kept(x, 1), before))
            with contextlib.suppress(CaptureError):
                assert explain(net, x, 1, "plain").values.isfinite().all()
        finally:
            over.set()
        training.result()
    after = explain(net, x, 0, "plain")
    assert shows(net, after.values, after.logits)


def test_many_networks_are_captured_in_many_threads() -> None:
    torch.manual_seed(0)
    nets = [mixed() for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        graphs = list(pool.map(lambda net: capture(net, X), nets * 4))
        answers = list(pool.map(lambda net: explain(net, X, 0, "plain"), nets * 4))
    assert len(set(map(id, graphs))) == len(nets)  # each once
    for net, found in zip(nets * 4, answers, strict=True):
        assert shows(net, found.values, found.logits)


def test_what_is_captured_in_one_thread_is_checked_in_all_others() -> None:
    """torch.export says to the whole process that it traces, and the walk does not check then."""
    inside, over = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 5, 12)

        def forward(self, x: Tensor) -> Tensor:
            assert type(x) is not Tensor or over.is_set()  # traced first
            inside.set()
            over.wait()
            return self.conv(x).flatten(1)

    net = mixed()
    kept = ForwardBackward(net, X, Settings.plain())
    before = kept(X, 1)
    with ThreadPoolExecutor(1) as pool:
        capturing = pool.submit(lambda: explain(Slow().eval(), X))
        try:
            assert inside.wait(300)
            assert torch.compiler.is_compiling()
            # But PyTorch leaves oneDNN for the whole process, so the last bits may differ.
            for now, then in zip(kept(X, 1), before, strict=True):
                torch.testing.assert_close(now, then)
            with pytest.raises(NonFiniteError):
                kept(X * torch.inf)
            with pytest.raises(TargetError):
                kept(X, 5)
        finally:
            over.set()
        capturing.result()
