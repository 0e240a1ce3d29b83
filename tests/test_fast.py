"""What makes the walk fast changes nothing: against a slow walk without any of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchfbi
from photos import CAT
from torchfbi import ForwardBackward, Settings
from torchfbi.engine.scratch import Scratch
from torchfbi.engine.signals import Signals
from torchfbi.explanation import forward_backward as walk
from torchfbi.method import adjoints
from torchfbi.method.adjoints import linear, pooling, sparse
from torchfbi.method.evidence import support_of_values
from torchfbi.models.images import Photo
from torchfbi.system import layout
from torchfbi.system.layout import Signs

aten = torch.ops.aten


class Slow(ForwardBackward):
    """The same method with nothing shared, skipped, gathered, laid out or written over."""

    def _run(self, x: Tensor, watched: bool = True) -> dict[Any, Any]:
        values: dict[Any, Any] = {self.graph.image: x}
        for node in self.graph.nodes:
            args, kwargs = self._arguments(node, values)
            values[node] = node.target(*args, **kwargs)
        return values

    def _back(
        self,
        seed: Tensor,
        values: dict[Any, Any],
        look: Any,
        overwrite: bool = False,
        walks: int = 1,
        absorbed: dict[str, Tensor] | None = None,
    ) -> Tensor:
        signals = {self.graph.logits: seed}
        for node in reversed(self.graph.nodes):
            s = signals.pop(node, None)
            if s is None:
                continue
            if node in self._schedule.stations:
                s, _ = self._select(node, s, values[node], look, Signals(overwrite=False))
            args, kwargs = self._arguments(node, values)
            if node in self.graph.hidden and self.settings.gamma:
                backs: Any = slow_excitation(node, s, values[node], self.settings.gamma, *args)
            elif node.target is aten.convolution.default:
                backs = slow_adjoint(node, s, *args)
            else:
                rule = adjoints.find(node.target).rule
                backs = rule(s, adjoints.Site(values[node], self.settings, node), *args, **kwargs)
            backs = [backs] if isinstance(backs, Tensor) else backs
            for source, back in zip(adjoints.tensor_arguments(node), backs, strict=False):
                if back is not None and source.op != "get_attr":
                    signals[source] = signals.get(source, 0) + back
        return signals[self.graph.image]


def slow_adjoint(node: Any, s: Tensor, a: Tensor, w: Tensor, _: Any = None, *shape: Any) -> Tensor:
    """The plain adjoint of a convolution or a dense layer."""
    if node.target is aten.linear.default:
        return s @ w
    back: Tensor = aten.convolution_backward(
        s.contiguous(), a, w, None, *shape, [True, False, False]
    )[0]
    return back


def slow_excitation(
    node: Any,
    s: Tensor,
    z: Tensor,
    gamma: float,
    a: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *shape: Any,
) -> Tensor:
    """The excitation walk by the signs of weights and activations: four products either way."""
    dense = node.target is aten.linear.default

    def forward(a: Tensor, w: Tensor) -> Tensor:
        return a @ w.T if dense else aten.convolution.default(a, w, None, *shape)

    def back(s: Tensor, w: Tensor) -> Tensor:
        return slow_adjoint(node, s, a, w, None, *shape)

    (a_plus, a_minus), (w_plus, w_minus) = ((t.clamp(min=0), t.clamp(max=0)) for t in (a, w))
    bias = torch.zeros(len(w), dtype=w.dtype) if b is None else b
    bias = bias if dense else bias.reshape(-1, 1, 1)
    z_plus = forward(a_plus, w_plus) + forward(a_minus, w_minus) + bias.clamp(min=0)
    z_minus = forward(a_plus, w_minus) + forward(a_minus, w_plus) + bias.clamp(max=0)
    torch.testing.assert_close(z_plus + z_minus, z, rtol=1e-4, atol=1e-4)
    of_sign = z + gamma * torch.where(z > 0, z_plus, z_minus)
    survived = torch.where(z == 0, 0.0, s * z / of_sign)
    up, down = survived * (z > 0), survived * (z < 0)
    alike = torch.where(
        a < 0, back(up, w_minus) + back(down, w_plus), back(up, w_plus) + back(down, w_minus)
    )
    return back(survived, w) + gamma * alike


def slow_select(
    signal: Tensor,
    activation: Tensor,
    settings: Settings,
    overwrite: bool,
    scratch: Scratch,
    *,
    channel: int = 1,
    top_k: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Section 2 word by word: by sorting, and by ``torch.where``."""
    selected = signal
    if settings.tau is not None:
        selected = torch.where(signal * activation > settings.tau, signal, 0.0)
    if settings.gates in ("rectify", "guided"):
        selected = torch.where(selected > 0, selected, 0.0)
    if not top_k:
        return selected, None
    count = -int(-settings.k * signal.shape[channel] // 1)
    order = selected.movedim(channel, 1).flatten(2).sum(2).argsort(1, descending=True)
    maps = torch.zeros(order.shape, dtype=torch.bool)
    for number, sample in enumerate(order):
        maps[number, sample[:count]] = True
    shape = [maps.shape[0], *[1] * (signal.ndim - 1)]
    shape[channel] = maps.shape[1]
    return torch.where(maps.reshape(shape), selected, 0.0), maps


class Block(nn.Module):
    """A bottleneck with a shortcut, squeezed or not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 32, 1), nn.Conv2d(32, 32, 3, 1, 1, groups=32)
        self.c = nn.Conv2d(32, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(nn.functional.relu6(self.b(nn.functional.relu(self.a(x)))))
        return nn.functional.relu(y + x) + x


def network() -> nn.Module:
    """VGG's beginning, MobileNet's and ResNet's middle, and pools of both kinds."""
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(),
        nn.MaxPool2d(2), Block(32), nn.Conv2d(32, 32, 3, 2, 1), nn.ReLU6(),
        nn.MaxPool2d(3, 2, 1), nn.Conv2d(32, 32, 3, 1, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 7),
    ).eval()  # fmt: skip


SETTINGS = {
    "paper": Settings.paper(tau=0.0),
    "tau": Settings.paper(tau=1e-9, k=0.3),
    "contrast": Settings.contrast(),
    "signed": Settings.contrast(tau=1e-9, k=0.4, values="signal"),
    "guided": Settings(gates="guided", gamma=2.0, pooling="replicate", k=0.6),
    "plain": Settings.plain(k=0.5),
}


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", SETTINGS)
def test_fast_is_slow_on_random_networks(
    name: str, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, where no order of summation decides which maps are kept."""
    most = 10**6 if together else 0
    monkeypatch.setattr(sparse, "_WORTH", {"matrix": (16, 4, most), "window": (16, 4, most)})
    monkeypatch.setattr(sparse, "_SHARED", 9.0)
    for number in range(3):
        torch.manual_seed(number)
        net, x = network().double(), torch.randn(3, 3, 44, 44, dtype=torch.float64)
        values, logits = ForwardBackward(net, x, SETTINGS[name])(x)
        with monkeypatch.context() as patch:
            patch.setattr(walk, "select", slow_select)
            expected, answer = Slow(net, x, SETTINGS[name])(x)
        assert expected.any()
        supports = (support_of_values(found, SETTINGS[name]) for found in (values, expected))
        assert torch.equal(*supports)
        torch.testing.assert_close(values, expected, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(logits, answer)


@pytest.mark.parametrize("name", ["paper", "contrast"])
def test_fast_is_slow_on_a_photo(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torchfbi.load("efficientnet-lite0")
    x = model.preprocess(Photo.read(CAT))[0][None]
    values, _ = ForwardBackward(model.module, x, SETTINGS[name])(x)
    monkeypatch.setattr(walk, "select", slow_select)
    expected, _ = Slow(model.module, x, SETTINGS[name])(x)
    assert torch.equal(values != 0, expected != 0)
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", SETTINGS)
def test_writing_over_signals_changes_nothing(name: str) -> None:
    """Who looks on the way sees signals that nobody writes over."""
    torch.manual_seed(0)
    net, x = network(), torch.randn(2, 3, 44, 44)
    fbi = ForwardBackward(net, x, SETTINGS[name])
    seen: list[Any] = []
    before = x.clone()
    looked_at, _ = fbi.walk(x, None, seen.append)
    assert torch.equal(fbi(x)[0], looked_at)
    assert torch.equal(x, before)
    for layer in seen:
        assert ((layer.signal == 0) | (layer.incoming != 0)).all()


def test_signs_are_enough_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """With tau = 0, or none, and rectified signals large activations are kept as int8; whoever
    looks sees them whole."""
    torch.manual_seed(0)
    net, x = network(), torch.randn(2, 3, 44, 44)
    for name, settings in {**SETTINGS, "small tau": Settings.paper(tau=1e-9)}.items():
        fbi = ForwardBackward(net, x, settings)
        values, logits = fbi(x)
        with monkeypatch.context() as patch:
            patch.setattr(layout, "_LARGE", 0)
            kept = [isinstance(v, Signs) for v in fbi._run(x, watched=False).values()]
            assert any(kept) == (name in ("paper", "guided"))
            assert not any(isinstance(v, Signs) for v in fbi._run(x).values())
            assert torch.equal(fbi(x)[0], values)
            assert torch.equal(fbi(x)[1], logits)
            both = fbi.each(x[:1], [3, 5])[0]
            assert fbi._is_one(fbi._run(x[:1], watched=False))  # so they are walked at once
            seen = fbi.flow(x)[2]
        assert {layer.activation.dtype for layer in seen} == {torch.float32}
        assert torch.equal(fbi.flow(x)[0], values)
        torch.testing.assert_close(fbi.each(x[:1], [3, 5])[0], both)


def test_rows_of_a_dense_layer_that_get_no_signal_are_not_read() -> None:
    torch.manual_seed(0)
    weight, s = torch.randn(2**11, 600), torch.randn(1, 2**11).relu()
    weight[s[0] == 0] = torch.nan
    found = sparse.dense(s, weight)
    assert found is not None
    torch.testing.assert_close(found, s @ weight.nan_to_num(), rtol=1e-4, atol=1e-4)
    assert sparse.dense(torch.zeros_like(s), weight) is None  # so this is no special case
    whole, bias = torch.randn_like(weight), torch.randn(2**11)
    at = adjoints.Site(s, Settings.paper(), None)  # type: ignore[arg-type]
    for _ in range(2):  # W^T b is kept
        found = linear.linear(s, at, s, whole, bias)
        torch.testing.assert_close(found, (s - bias) @ whole, rtol=1e-4, atol=1e-4)
    assert sparse.dense(torch.ones_like(s), weight) is None  # all rows are read
    assert sparse.dense(s.double(), weight.double()) is None
    assert sparse.dense(s.repeat(2, 1), weight) is None


def test_targets_share_a_forward_pass() -> None:
    torch.manual_seed(0)
    net, x = network(), torch.randn(2, 3, 44, 44)
    for settings in (Settings.paper(tau=0.0), Settings.contrast()):
        fbi = ForwardBackward(net, x, settings)
        targets = [3, torch.tensor([0, 6]), None, lambda z: z.argmin(1)]
        values, logits = fbi.each(x, targets)
        assert values.shape == (4, *x.shape)
        for one, target in zip(values, targets, strict=True):
            expected, answer = fbi(x, target)
            assert torch.equal(one, expected)
            assert torch.equal(logits, answer)


def test_the_targets_of_one_image_are_walked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, x = network().double(), torch.randn(1, 3, 44, 44, dtype=torch.float64)
    runs: list[int] = []
    own = ForwardBackward._run
    monkeypatch.setattr(ForwardBackward, "_run", lambda *a: runs.append(1) or own(*a))
    for settings in SETTINGS.values():
        fbi = ForwardBackward(net, x, settings)
        alone = [fbi(x, target)[0] for target in (3, 6, 0)]
        runs.clear()
        seen: list[Any] = []
        values, logits = fbi.walk(x, torch.tensor([3, 6, 0]), seen.append, walks=3)
        assert len(runs) == 1
        assert len(seen[0].signal) == 3
        for found in (values, fbi.each(x, [3, lambda z: torch.tensor([6]), 0])[0][:, 0]):
            torch.testing.assert_close(found, torch.cat(alone), rtol=1e-9, atol=1e-12)
            assert torch.equal(found != 0, torch.cat(alone) != 0)
        assert torch.equal(logits, fbi(x)[1].expand(3, -1))


@pytest.mark.parametrize("name", SETTINGS)
def test_low_memory_gives_the_same(name: str) -> None:
    torch.manual_seed(0)
    net, x = network(), torch.randn(2, 3, 44, 44)
    usual = ForwardBackward(net, x, SETTINGS[name])
    thrifty = ForwardBackward(net, x, SETTINGS[name], low_memory=True)
    assert len(thrifty._schedule.parts) > 1
    first, again = usual.flow(x, 3), thrifty.flow(x, 3)
    assert torch.equal(again[0], first[0])
    assert torch.equal(again[1], first[1])
    for one, other in zip(again[2], first[2], strict=True):
        assert torch.equal(one.activation, other.activation)
        assert torch.equal(one.signal, other.signal)
    assert torch.equal(thrifty(x, 3)[0], first[0])
    assert torch.equal(thrifty.each(x[:1], [3, 5])[0], usual.each(x[:1], [3, 5])[0])


@pytest.mark.parametrize(("gamma", "tensors"), [(0.0, 24), (0.25, 48)])
def test_low_memory_keeps_little(gamma: float, tensors: int) -> None:
    """Of 24 equal layers with one tensor each that is read on the way back, or two as the
    excitation walk reads a layer's input and output, about twice the square root of all."""
    layers = [part for _ in range(24) for part in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    net, x = (
        nn.Sequential(*layers, nn.AvgPool2d(16), nn.Flatten()).eval(),
        torch.randn(1, 4, 16, 16),
    )

    def held(values: dict[Any, Any]) -> float:
        stores = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes()
                  for v in values.values()}  # fmt: skip
        return sum(stores.values()) / (x.numel() * x.element_size())

    most: list[float] = []
    for low_memory in (False, True):
        fbi = ForwardBackward(net, x, Settings.contrast(gamma=gamma), low_memory=low_memory)
        sizes: list[float] = []
        own = fbi._step
        step = lambda *a, own=own, sizes=sizes: (sizes.append(held(a[2])), own(*a))[1]  # noqa: E731
        object.__setattr__(fbi, "_step", step)
        fbi(x)
        most.append(max(sizes))
    assert most[0] > tensors - 4
    assert most[1] < 2 * tensors**0.5 + 2


class Mixed(nn.Module):
    """Its batch is not the first dimension everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        y = x.reshape(n * c, 1, h, w).relu().mean((2, 3))
        return y.reshape(n, c)


def test_where_the_batch_moves_every_target_is_walked_alone() -> None:
    net, x = Mixed().eval(), torch.rand(1, 3, 6, 6)
    fbi = ForwardBackward(net, x, Settings.plain())
    for values in (fbi.each(x, [0, 2])[0][:, 0], fbi.walk(x, torch.tensor([0, 2]), walks=2)[0]):
        assert torch.equal(values, torch.cat([fbi(x, 0)[0], fbi(x, 2)[0]]))


def test_only_the_kept_maps_are_convolved() -> None:
    s, weight = torch.zeros(2, 8, 10, 10), torch.randn(8, 64, 3, 3)
    maps = torch.zeros(2, 8, dtype=torch.bool)
    maps[0, 2] = maps[1, 5] = maps[1, 6] = True
    kept = sparse.kept_maps(maps, s, weight, 1)
    assert kept is not None
    assert [(s[samples].shape[0], numbers.tolist()) for samples, numbers in kept] == [
        (1, [2]), (1, [5, 6]),
    ]  # fmt: skip
    for samples, (row, of) in zip(kept, zip(maps, s, strict=True), strict=True):
        assert torch.equal(s[samples[0]][0], of)
        assert samples[1].tolist() == row.nonzero().flatten().tolist()
    alike = torch.arange(8).expand(3, 8) < 5
    alike[1, 1] = alike[2, 0] = False
    ((samples, numbers),) = sparse.kept_maps(alike, s[:1].expand(3, 8, 10, 10), weight, 1)
    assert numbers.tolist() == [0, 1, 2, 3, 4]
    assert samples == slice(None)
    assert sparse.kept_maps(None, s, weight, 1) is None  # nothing is known
    assert sparse.kept_maps(maps | True, s, weight, 1) is None  # nothing to leave out
    assert sparse.kept_maps(maps, s[..., :2, :2], weight, 1) is None  # more weights than signal
    assert sparse.kept_maps(maps, s[..., :9], weight, 1) is None
    assert sparse.kept_maps(maps, s[..., :9], weight[:, :, :1, :1], 1) is not None
    assert sparse.kept_maps(maps, s[..., :4], weight[:, :, :1, :1], 1) is None
    assert sparse.kept_maps(maps, s, weight[:, :2], 1) is None  # cheaper than gathering


def test_a_convolution_may_be_written_over_its_signal() -> None:
    s, weight = torch.randn(3, 8, 10, 10), torch.randn(8, 8, 3, 3)
    kept = [
        (slice(i, i + 1), torch.tensor(numbers)) for i, numbers in enumerate([[0, 3], [1], [2, 5]])
    ]
    window = ([1, 1], [1, 1], [1, 1], [0, 0])
    expected = sparse.over_kept_maps(s, weight, window, kept)
    found = sparse.over_kept_maps(s, weight, window, kept, s)
    assert found is s
    assert torch.equal(found, expected)


@pytest.mark.parametrize("gates", ["rectify", "held"])
def test_unpooling_for_several_targets_is_bounded_by_the_one_forward_value(gates: Any) -> None:
    x, s = torch.randn(1, 4, 9, 8).relu(), 3 * torch.randn(3, 4, 5, 4)
    window = ([3, 3], [2, 2], [1, 1], [1, 1], False)
    output, many = nn.functional.max_pool2d(x, *window[:-1]), x.expand(3, *x.shape[1:])
    settings = Settings(gates=gates, pooling="replicate")
    shared, copied = (
        pooling.max_pool(s, adjoints.Site(forward, settings, None), many, *window)  # type: ignore[arg-type]
        for forward in (output.expand(3, *output.shape[1:]), output.repeat(3, 1, 1, 1))
    )
    assert torch.equal(shared, copied)
    assert shared.abs().max() < s.abs().max()


def test_what_is_called_zero_is_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maps that convolutions are told to leave out hold nothing, also behind a shortcut."""
    told: list[float] = []
    own = sparse.kept_maps

    def spy(maps: Tensor | None, s: Tensor, *rest: Any) -> Any:
        if maps is not None:
            assert maps.shape == s.shape[:2]
            assert not s[~maps].any()
            told.append(maps.float().mean().item())
        return own(maps, s, *rest)

    monkeypatch.setattr(sparse, "kept_maps", spy)
    torch.manual_seed(0)
    net, x = network(), torch.randn(2, 3, 44, 44)
    ForwardBackward(net, x, SETTINGS["paper"])(x)
    assert told == [0.5] * 7


@pytest.mark.parametrize("stride", [1, 2, (2, 3)])
def test_a_matrix_at_each_position(stride: Any) -> None:
    s, weight = torch.randn(2, 6, 5, 5), torch.randn(6, 30, 1, 1)
    x = nn.functional.conv_transpose2d(s, weight, stride=stride)
    numbers = [[0, 3], [1]]
    kept = [(slice(i, i + 1), torch.tensor(maps)) for i, maps in enumerate(numbers)]
    inner = s.contiguous(memory_format=torch.channels_last)
    stride = list(stride) if isinstance(stride, tuple) else [stride] * 2
    every = sparse.pointwise(inner, weight, stride, x.shape[2:], None)
    torch.testing.assert_close(every, x)
    some = torch.stack([torch.zeros_like(one) for one in s])
    for one, of, maps in zip(some, s, numbers, strict=True):
        one[maps] = of[maps]
    expected = nn.functional.conv_transpose2d(some, weight, stride=stride)
    found = sparse.pointwise(inner, weight, stride, x.shape[2:], kept)
    torch.testing.assert_close(found, expected)


def test_an_empty_signal_stays_empty() -> None:
    x = torch.randn(2, 3, 44, 44)
    values, _ = ForwardBackward(network(), x, Settings.paper(tau=1e9))(x)
    assert not values.any()
