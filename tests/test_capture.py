"""Capture: every model, or a message that says why not and what to do."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.capture.capture import capture
from torchfbi.errors import (
    CaptureError,
    ControlFlowError,
    InputError,
    NonFiniteError,
    OutputError,
    TargetError,
    TrainingModeError,
    UnsupportedOperatorError,
)
from torchfbi.method.maps import channel_dim


class Lambda(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 4, 3)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.conv(x))


X = torch.zeros(1, 3, 8, 8)
KERNEL = torch.linspace(-1, 1, 144).reshape(4, 4, 3, 3)
MATRIX = nn.Parameter(torch.linspace(-1, 1, 720).reshape(144, 5))


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


def test_training_mode_is_refused_with_the_names_of_the_parts() -> None:
    net = small()
    net[1].train()
    with pytest.raises(TrainingModeError, match=r"training mode \(1\).*model\.eval\(\)"):
        capture(net, X)


def test_all_missing_operators_are_listed_with_their_layers() -> None:
    def body(x: Tensor) -> Tensor:
        x = torch.cumprod(x, 2)
        x = F.softmax(x, 1)
        return torch.cumprod(x, 3).flatten(1)

    with pytest.raises(UnsupportedOperatorError) as error:
        capture(Lambda(body), X)
    assert error.value.operators == {
        "aten.cumprod.default": ["cumprod", "cumprod:2"],
        "aten.softmax.int": ["softmax"],
    }
    assert "2 operator(s)" in str(error.value)
    assert "CONTRIBUTING.md" in str(error.value)


def test_a_product_of_two_activations_is_refused_and_not_silently_differentiated() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"matmul\.default of two"):
        capture(Lambda(lambda x: (x.flatten(2) @ x.flatten(2).mT).flatten(1)), X)


def test_a_fused_attention_is_the_same_in_a_part_under_another_mode() -> None:
    """There torch.export leaves the kernel that PyTorch chose, and what it returns besides."""

    def attend(x: Tensor) -> Tensor:
        tokens = x.flatten(2).mT[:, None]
        with torch.autocast("cpu", enabled=False):
            return F.scaled_dot_product_attention(tokens, tokens, tokens, scale=0.3).flatten(1)

    net, x = Lambda(attend), torch.randn(2, 3, 6, 6)
    graph = capture(net, x)
    assert torch.ops.aten.scaled_dot_product_attention.default in {n.target for n in graph.nodes}
    _, logits = ForwardBackward(net, x, Settings.plain())(x, 0)
    torch.testing.assert_close(logits, net(x))


def test_a_signal_is_never_lost_in_a_denominator() -> None:
    with pytest.raises(UnsupportedOperatorError, match=r"aten\.div\.Tensor by what depends"):
        capture(Lambda(lambda x: (MATRIX[0, 0] / (1 + x.relu())).flatten(1)), X)


def test_modes_switched_inside_the_forward_are_a_part_of_it() -> None:
    """Autocast's casts are operators like any other; so is what it was switched off for."""

    def switched(x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.mul(2).add_(1).relu_()
        with torch.autocast("cpu", torch.bfloat16):
            y = F.conv2d(x, KERNEL)
            with torch.autocast("cpu", enabled=False):
                y = F.conv2d(y.float(), KERNEL)
        return y.relu().flatten(1)

    net, x = Lambda(switched), torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(ForwardBackward(net, x)(x)[1], net(x), rtol=1e-5, atol=0)
    nodes = capture(net, x).nodes
    dtypes = [n.meta["val"].dtype for n in nodes if "conv2d" in n.name]
    assert dtypes == [torch.float32, torch.bfloat16, torch.float32]


class AskingForGradients(Lambda):
    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            return super().forward(x)


def test_a_forward_that_asks_for_gradients() -> None:
    net, x = AskingForGradients(lambda x: x.relu().mean((2, 3))), torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(ForwardBackward(net, x)(x)[1], net(x).detach())


class Checking(Lambda):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight
        wrong = torch.equal(weight, -weight) or weight.detach().numpy().max() > 9
        return super().forward(-x if wrong else x)


def test_checks_of_constants_are_answered() -> None:
    net, x = Checking(lambda x: x.relu().mean((2, 3))), torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(ForwardBackward(net, x)(x)[1], net(x).detach())


def test_what_no_operator_of_pytorch_did_is_refused_by_its_name() -> None:
    with pytest.raises(UnsupportedOperatorError, match="  _add_batch_dim  at _add_batch_dim") as e:
        capture(Lambda(torch.vmap(lambda t: t.mean((1, 2)))), X)
    assert "0x" not in str(e.value)


def test_branches_inside_the_forward_are_refused() -> None:
    def branching(x: Tensor) -> Tensor:
        return torch.cond(x.sum() > 0, lambda x: x.relu(), lambda x: x.clone(), (x,)).flatten(1)

    with pytest.raises(CaptureError, match=r"torch\.cond"):
        capture(Lambda(branching), X)


def test_lazy_modules_are_refused() -> None:
    with pytest.raises(CaptureError, match="lazy parts"):
        capture(nn.LazyConv2d(4, 3).eval(), X)


def test_modules_made_under_inference_mode() -> None:
    with torch.inference_mode():
        net = small()
    x = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(ForwardBackward(net, x)(x)[1], net(x), atol=1e-6)


def test_dtypes_may_differ_inside() -> None:
    net = Lambda(lambda x: x.flatten(1).float())
    net.conv.double()
    net.forward = lambda x: net.function(net.conv(x.double()))
    x = torch.randn(1, 3, 8, 8)
    assert ForwardBackward(net, x, Settings.plain())(x, 0)[0].dtype == torch.float32


def test_an_output_of_nan_is_refused() -> None:
    net = small()
    with torch.no_grad():
        net[3].bias[0] = float("nan")
    with pytest.raises(NonFiniteError, match="output is NaN"):
        ForwardBackward(net, X)(X)


def test_control_flow_is_refused_with_its_place(capfd: pytest.CaptureFixture[str]) -> None:
    def branch(x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x

    def compares(x: Tensor) -> Tensor:
        return x if torch.equal(x, x.relu()) else -x

    for decides in (branch, compares):
        with pytest.raises(ControlFlowError, match=r"test_capture\.py, line \d+.*torch\.where"):
            capture(Lambda(decides), X)
    assert capfd.readouterr() == ("", "")  # torch.export's own noise stays inside


def test_the_wrong_channel_count_is_told_in_the_models_own_words() -> None:
    with pytest.raises(InputError, match=r"\(2, 4, 8, 8\).*to have 3 channels"):
        capture(small(), torch.zeros(2, 4, 8, 8))


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), -float("inf")])
def test_nan_and_infinity_are_refused(poison: float) -> None:
    x = X.clone()
    x[0, 1, 2, 3] = poison
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        ForwardBackward(small(), X)(x)


def test_other_inputs_that_do_not_fit() -> None:
    fbi = ForwardBackward(small(), X)
    with pytest.raises(InputError, match=r"\(1, 3, 9, 8\).*made for \(N, 3, 8, 8\)"):
        fbi(torch.zeros(1, 3, 9, 8))
    with pytest.raises(InputError, match=r"float64.*float32.*\.to\(\)"):
        fbi(X.double())
    with pytest.raises(InputError, match=r"int64.*\.float\(\)"):
        ForwardBackward(small(), X.long())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (5, "5 classes, 0 to 4"),
        (-1, "5 classes, 0 to 4"),
        (torch.tensor([0, 1]), r"shape \(2,\).*1 samples"),
        (torch.tensor([True]), "not torch.bool"),
        (lambda z: z[:, :2], r"seed of shape \(1, 2\).*\(1, 5\)"),
    ],
)
def test_targets_that_name_no_class(target: object, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        ForwardBackward(small(), X)(X, target)


def test_a_dense_output_needs_a_function_as_target() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    nn.init.constant_(net[0].bias, 10.0)  # every unit is active
    fbi = ForwardBackward(net, X, Settings.plain())
    with pytest.raises(TargetError, match=r"\(1, 2, 6, 6\).*give a\s+function"):
        fbi(X)

    def one_pixel(z: Tensor) -> Tensor:
        seed = torch.zeros_like(z)
        seed[:, 1, 2, 3] = 1.0
        return seed

    values, _ = fbi(torch.randn(1, 3, 8, 8), one_pixel)
    rows, columns = (values[0] != 0).any(0).nonzero().T
    assert rows.min() >= 2
    assert rows.max() <= 4
    assert columns.min() >= 3
    assert columns.max() <= 5


def test_what_is_no_module() -> None:
    with pytest.raises(CaptureError, match=r"torch\.nn\.Module, not str"):
        capture("resnet50", X)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_are_refused_with_the_way_out() -> None:
    with pytest.raises(CaptureError, match=r"TorchScript.*original nn\.Module"):
        capture(torch.jit.trace(small(), X), X)


def test_two_inputs_are_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x + y

    with pytest.raises(InputError, match=r"rejects.*'y'"):
        capture(Two().eval(), X)


def test_no_tensor_output_is_refused() -> None:
    with pytest.raises(OutputError, match="no floating-point tensor"):
        capture(Lambda(lambda x: x.argmax(1)), X)


def test_a_fixed_batch_is_kept_and_checked() -> None:
    net = Lambda(lambda x: F.relu(x).view(2, 144))
    x = torch.randn(2, 3, 8, 8)
    fbi = ForwardBackward(net, x, Settings.plain())
    assert fbi.graph.batch == 2
    assert fbi(x)[0].shape == x.shape
    with pytest.raises(InputError, match="fixes the batch size to 2"):
        fbi(torch.randn(3, 3, 8, 8))


def test_a_batch_fixed_to_one_is_captured_too() -> None:
    net = Lambda(lambda x: F.relu(x).view(1, 144))
    x = torch.randn(1, 3, 8, 8)
    fbi = ForwardBackward(net, x, Settings.plain())
    assert fbi.graph.batch == 1
    assert torch.allclose(fbi(x)[1], net(x))


def test_the_graph_is_functional_folded_and_named() -> None:
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(3, 4, 3, bias=False))
    net.add_module("norm", nn.BatchNorm2d(4))
    net.add_module("act", nn.ReLU(inplace=True))
    net.add_module("drop", nn.Dropout())
    net.add_module("flat", nn.Flatten())
    net.add_module("head", nn.Linear(144, 5))
    net.add_module("prob", nn.Softmax(1))
    graph = capture(net.eval(), X)
    assert [(node.meta["layer"], str(node.target)) for node in graph.nodes] == [
        ("conv", "aten.convolution.default"),
        ("act", "aten.relu.default"),
        ("flat", "aten.flatten.using_ints"),
        ("head", "aten.linear.default"),
    ]
    assert graph.batch is None


def test_writing_to_a_view_is_functionalised() -> None:
    def body(x: Tensor) -> Tensor:
        x[:, :2].relu_()
        return x.flatten(1)

    net = Lambda(body)
    x = torch.randn(2, 3, 8, 8)
    values, logits = ForwardBackward(net, x, Settings.plain())(x, 0)
    assert torch.allclose(logits, net(x), atol=1e-6)
    probe = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(probe)[:, 0].sum(), probe)
    assert torch.allclose(values, gradient, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        lambda x: x.flatten(1) @ MATRIX,
        lambda x: torch.mm(x.flatten(1), MATRIX),
        lambda x: torch.cat([x, torch.zeros_like(x)], 1).flatten(1),
    ],
    ids=["matmul", "mm", "zeros_like"],
)
def test_other_spellings_of_what_is_known(body) -> None:
    net, x = Lambda(body), torch.randn(2, 3, 8, 8)
    values, _ = ForwardBackward(net, x, Settings.plain())(x, 0)
    probe = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(probe)[:, 0].sum(), probe)
    assert torch.allclose(values, gradient, atol=1e-6)


def test_squeeze_and_excitation_holds_its_gate() -> None:
    # z = sum x * sigmoid(mean x): with the gate held the attribution is the gate itself.
    class Gated(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * torch.sigmoid(x.mean((2, 3), keepdim=True))).sum((2, 3))

    x = torch.randn(2, 3, 4, 4)
    values, _ = ForwardBackward(Gated().eval(), x, Settings.plain())(x, 1)
    gate = torch.sigmoid(x.mean((2, 3), keepdim=True))
    assert torch.allclose(values[:, 1], gate[:, 1].expand(2, 4, 4))
    assert not values[:, 0].any()


def test_channels_last_features_are_ranked_by_channel() -> None:
    """ConvNeXt's activations are (N, H, W, C)."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(3, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = x.permute(0, 2, 3, 1)
            y = self.down(F.gelu(self.up(y))).permute(0, 3, 1, 2)
            return (x + y).mean((2, 3))

    x = torch.randn(2, 3, 6, 5)
    settings = Settings.contrast(k=0.25)
    _, _, flow = ForwardBackward(Block().eval(), x, settings).flow(x)
    assert flow[0].kept_maps.shape == (2, 8)
    assert flow[0].kept_maps.sum(1).tolist() == [2, 2]
    assert flow[0].support.shape == (2, 6, 5)
    assert (flow[0].signal != 0).any((1, 2)).sum(1).tolist() == [2, 2]


def test_maps_are_followed_through_what_moves_dimensions() -> None:
    """From a convolution to Swin's windows, and back, without a dense layer on the way."""

    def body(x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # N, T, C
        x = x.reshape(x.shape[0], 6, 6, 4)
        x = x.reshape(x.shape[0], 2, 3, 2, 3, 4).permute(0, 1, 3, 2, 4, 5).flatten(3, 4)
        x = x.unflatten(4, (2, 2)).select(4, 0).unsqueeze(1)  # the last are C / 2
        return x.relu().flatten(1)

    graph = capture(Lambda(body), X)
    tensors = [node for node in graph.nodes if isinstance(node.meta["val"], Tensor)]
    moved = [channel_dim(node) for node in tensors if node.meta["val"].ndim > 2]
    assert moved == [1, 1, 2, 3, 5, 5, 4, 5, 4, 5, 5]


def test_a_constant_is_viewed_whatever_its_layout() -> None:
    """Swin's position biases in transformers: permuted, copied, and viewed."""
    table = torch.randn(4, 3, 2, 2)

    def body(x: Tensor) -> Tensor:
        return x.flatten(1)[:, :48] + table.permute(0, 2, 3, 1).contiguous().view(1, 48)

    net, x = Lambda(body), torch.randn(2, 3, 8, 8)
    _, logits = ForwardBackward(net, x, Settings.plain())(x, 0)
    torch.testing.assert_close(logits, net(x))
