"""What makes the walk fast: what is kept, shared, left out and written over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.engine import linear, pooling, rules, sparse
from torchfbi.system import layout
from torchfbi.system.layout import Signs

aten = torch.ops.aten


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
    at = rules.Site(s, Settings.paper(), None)  # type: ignore[arg-type]
    for _ in range(2):  # W^T b is kept
        found = linear.linear(s, at, s, whole, bias)
        torch.testing.assert_close(found, (s - bias) @ whole, rtol=1e-4, atol=1e-4)
    assert sparse.dense(torch.ones_like(s), weight) is None  # all rows are read
    assert sparse.dense(s.double(), weight.double()) is None
    assert sparse.dense(s.repeat(2, 1), weight) is None


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
    assert len(thrifty._engine.schedule.parts) > 1
    first, again = usual.flow(x, 3), thrifty.flow(x, 3)
    assert torch.equal(again[0], first[0])
    assert torch.equal(again[1], first[1])
    for one, other in zip(again[2], first[2], strict=True):
        assert torch.equal(one.activation, other.activation)
        assert torch.equal(one.signal, other.signal)
    assert torch.equal(thrifty(x, 3)[0], first[0])
    assert torch.equal(thrifty.each(x[:1], [3, 5])[0], usual.each(x[:1], [3, 5])[0])


@pytest.mark.parametrize(("gamma", "tensors"), [(0.0, 24), (0.25, 24)])
def test_low_memory_keeps_little(gamma: float, tensors: int) -> None:
    """Of 24 equal layers with one tensor each that is read on the way back, as behind a ReLU the
    excitation walk needs no more, about twice the square root of all."""
    layers = [part for _ in range(24) for part in (nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())]
    net, x = (
        nn.Sequential(*layers, nn.AvgPool2d(16), nn.Flatten()).eval(),
        torch.randn(1, 4, 16, 16),
    )

    def held(values: dict[Any, Any]) -> float:
        stores = {v.untyped_storage().data_ptr(): v.untyped_storage().nbytes()
                  for n, v in values.items() if n.op != "get_attr"}  # fmt: skip
        return sum(stores.values()) / (x.numel() * x.element_size())

    most: list[float] = []
    for low_memory in (False, True):
        fbi = ForwardBackward(net, x, Settings.contrast(gamma=gamma), low_memory=low_memory)
        sizes: list[float] = []
        own = fbi._engine._step
        step = lambda *a, own=own, sizes=sizes: (sizes.append(held(a[2])), own(*a))[1]  # noqa: E731
        fbi._engine._step = step
        fbi(x)
        most.append(max(sizes))
    assert most[0] > tensors - 4
    assert most[1] < 2 * tensors**0.5 + 3


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
        pooling.max_pool(s, rules.Site(forward, settings, None), many, *window)  # type: ignore[arg-type]
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
