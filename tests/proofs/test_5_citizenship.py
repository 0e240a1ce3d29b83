"""Proof 5: the user's module is never changed, and threads do not disturb each other."""

import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain
from torchfbi.models.untrained import untrained

PRESETS = [Settings.paper(tau=0.0), Settings.contrast(), Settings.plain()]


class Net(nn.Module):
    """In-place activations, dropout, batch norm, a shared module, a hook and a lock."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)
        self.lock = threading.Lock()  # cannot be copied: capture must cope with that

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        x = self.relu(self.conv2(x)) if hasattr(self, "conv2") else x
        return self.head(self.drop(x.mean((2, 3))))


def snapshot(net: nn.Module) -> dict[str, object]:
    tensors = dict(net.named_parameters()) | dict(net.named_buffers())
    return {
        name: (id(t), t.data_ptr(), t._version, t.requires_grad, t.grad, t.dtype, t.device)
        for name, t in tensors.items()
    } | {
        f"{name} flags": (
            module.training,
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._backward_hooks),
            sorted(vars(module)),
        )
        for name, module in net.named_modules()
    }


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    net = Net().eval()
    net.relu.register_forward_hook(lambda module, args, output: None)
    return net


@pytest.mark.parametrize("settings", PRESETS, ids=lambda s: s.preset)
def test_nothing_of_the_module_changes(net: nn.Module, settings: Settings) -> None:
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    before, weights = snapshot(net), copy.deepcopy(net.state_dict())
    grad_enabled, rng = torch.is_grad_enabled(), torch.get_rng_state()
    values, _ = ForwardBackward(net, x, settings)(x)
    assert snapshot(net) == before
    assert all(torch.equal(weights[name], now) for name, now in net.state_dict().items())
    assert torch.is_grad_enabled() == grad_enabled
    assert torch.equal(torch.get_rng_state(), rng)
    assert x.grad is None
    assert not values.requires_grad


def test_converting_the_explainer_leaves_the_module_alone(net: nn.Module) -> None:
    before = snapshot(net)
    ForwardBackward(net, torch.randn(1, 3, 8, 8)).double()
    assert snapshot(net) == before


def test_a_change_of_the_module_is_noticed(net: nn.Module) -> None:
    x = torch.randn(1, 3, 8, 8)
    for change in (
        lambda: net.head.weight.data.add_(1.0),
        lambda: net.norm.running_mean.add_(1.0),
        lambda: setattr(net.head, "bias", nn.Parameter(torch.ones(5))),
        lambda: net.norm.weight.data.mul_(3.0),  # leaves no trace but the values
        lambda: setattr(net, "relu", nn.LeakyReLU(0.3).eval()),
        lambda: setattr(net.conv, "stride", (2, 2)),
        lambda: setattr(net, "conv2", nn.Conv2d(8, 8, 1).eval()),
    ):
        with torch.no_grad():
            change()
            assert torch.allclose(ForwardBackward(net, x)(x)[1], net(x), atol=1e-6)


def test_the_capture_is_paid_once(net: nn.Module) -> None:
    x = torch.randn(1, 3, 8, 8)
    graph = ForwardBackward(net, x).graph
    assert ForwardBackward(net, torch.randn(7, 3, 8, 8), Settings.paper()).graph is graph
    assert ForwardBackward(net, torch.randn(1, 3, 9, 8)).graph is not graph


def test_one_model_in_sixteen_threads(net: nn.Module) -> None:
    images = [torch.randn(1 + i % 3, 3, 8, 8) for i in range(16)]
    serial = [explain(net, x).values for x in images]
    fresh = copy.copy(net)  # a new module around the same tensors: nothing is cached for it
    with ThreadPoolExecutor(16) as pool:
        logits = [pool.submit(lambda x=x: net(x)) for x in images]
        threaded = list(pool.map(lambda x: explain(fresh, x).values, images))
    assert all(torch.equal(a, b) for a, b in zip(serial, threaded, strict=True))
    assert all(isinstance(future.result(), Tensor) for future in logits)


@pytest.mark.parametrize("settings", PRESETS, ids=lambda s: s.preset)
def test_a_copy_and_a_pickle_answer_the_same(settings: Settings) -> None:
    net = untrained("timm:test_efficientnet").module  # with gates and sizes
    x = torch.randn(2, 3, 64, 64)
    fbi = ForwardBackward(net, x, settings)
    values, logits, flow = fbi.flow(x, 7)
    file = io.BytesIO()
    torch.save(fbi, file)
    file.seek(0)
    copies = [
        copy.deepcopy(fbi),
        pickle.loads(pickle.dumps(fbi)),
        torch.load(file, "cpu", weights_only=False),
    ]
    for other in copies:
        same_values, same_logits, same_flow = other.flow(x, 7)
        assert torch.equal(same_values, values)
        assert torch.equal(same_logits, logits)
        assert [seen.layer for seen in same_flow] == [seen.layer for seen in flow]
        assert torch.equal(other(x[:1], 7)[0], fbi(x[:1], 7)[0])  # the batch stays free
        assert other.graph.head == fbi.graph.head
    for name, tensor in fbi.named_buffers():
        assert all(other.get_buffer(name).data_ptr() != tensor.data_ptr() for other in copies)


def test_what_the_walk_does_not_read_is_let_go(net: nn.Module) -> None:
    x = torch.randn(1, 3, 8, 8)
    fbi = ForwardBackward(net, x)
    values = fbi._run(x)
    held = {n.meta["layer"] for n in fbi.graph.nodes if values[n].untyped_storage().nbytes() > 4}
    assert held == {"relu", "head"}  # neither the convolution's output nor the mean


@pytest.mark.parametrize("settings", PRESETS, ids=lambda s: s.preset)
def test_no_answer_depends_on_the_batch(net: nn.Module, settings: Settings) -> None:
    x, target = torch.randn(5, 3, 8, 8), torch.tensor([0, 3, 1, 4, 2])
    together = explain(net, x, target, settings)
    for i in range(5):
        alone = explain(net, x[i : i + 1], int(target[i]), settings)
        assert torch.equal(alone.support[0], together.support[i])
        assert torch.allclose(alone.values[0], together.values[i], atol=1e-6)


def test_works_under_every_grad_mode(net: nn.Module) -> None:
    x = torch.randn(1, 3, 8, 8)
    expected = explain(net, x).values
    for mode in (torch.no_grad(), torch.inference_mode(), torch.enable_grad()):
        fresh = Net().eval()
        fresh.load_state_dict(net.state_dict())
        with mode:
            assert torch.equal(explain(fresh, x).values, expected)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
def test_exported_programs_are_models_too(net: nn.Module) -> None:
    x = torch.randn(2, 3, 8, 8)
    expected = explain(net, x).values
    batch = ({0: torch.export.Dim.AUTO},)
    del net.lock  # torch.export itself does not mind, its own copy does
    program = torch.export.export(net, (x,), dynamic_shapes=batch, strict=False)
    for model in (program, program.module(), program.run_decompositions()):
        assert torch.allclose(explain(model, x).values, expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch.export's own
@pytest.mark.parametrize("settings", PRESETS, ids=lambda s: s.preset)
def test_the_explainer_exports_as_one_graph_with_a_free_batch(
    net: nn.Module, settings: Settings
) -> None:
    x, target = torch.randn(2, 3, 8, 8), torch.tensor([1, 2])
    fbi = ForwardBackward(net, x, settings)
    batch = {0: torch.export.Dim.AUTO}
    program = torch.export.export(fbi, (x, target), dynamic_shapes=(batch, batch), strict=False)
    x, target = torch.randn(5, 3, 8, 8), torch.tensor([1, 2, 0, 4, 3])
    for ours, exported in zip(fbi(x, target), program.module()(x, target), strict=True):
        assert torch.allclose(ours, exported, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_dtype(net: nn.Module, dtype: torch.dtype) -> None:
    x = torch.randn(2, 3, 8, 8)
    fbi = ForwardBackward(net, x, Settings.plain())
    expected, _ = fbi(x, 1)
    values, logits = copy.deepcopy(fbi).to(dtype)(x.to(dtype), 1)
    assert values.dtype == logits.dtype == dtype
    assert torch.allclose(values.float(), expected, atol=0.05 * expected.abs().max().item())
