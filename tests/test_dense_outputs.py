"""Segmenters, detection backbones and heads: dense outputs, one of several, probed by functions.

The reference is autograd in float64 on networks of randomised batch norms.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from torchfbi import Explanation, ForwardBackward, Settings, TorchFBIError, explain, plot
from torchfbi.errors import TargetError
from torchfbi.models.torchvision import import_torchvision
from torchfbi.targets import region, score


def randomised(network: nn.Module) -> nn.Module:
    """Batch norms that do something, in float64."""
    for module in network.modules():
        if hasattr(module, "running_var"):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(0, 0.1)
    return network.eval().double().requires_grad_(False)


class Heads(nn.Module):
    """A detector without its box suppression."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))


def segmenter(name: str) -> nn.Module:
    import_torchvision()
    from torchvision.models import segmentation

    build = getattr(segmentation, name)
    return build(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)


def retinanet() -> nn.Module:
    import_torchvision()
    from torchvision.models import detection

    detector = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=3)
    return Heads(detector)


def pyramid() -> nn.Module:
    import_torchvision()
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    return resnet_fpn_backbone(backbone_name="resnet18", weights=None)


MASK = torch.zeros(64, 72, dtype=torch.bool)
MASK[20:40, 10:50] = True
NETWORKS = {
    "deeplabv3_resnet50": (lambda: segmenter("deeplabv3_resnet50"), "out"),
    "retinanet": (retinanet, "cls_logits"),
    "feature pyramid": (pyramid, "1"),
}
SCORES = {"retinanet": lambda z: z[:, 40, 2], "feature pyramid": lambda z: z[:, 7, 2, 3]}


@pytest.mark.parametrize("name", NETWORKS)
def test_plain_equals_autograd(name: str) -> None:
    build, output = NETWORKS[name]
    network = randomised(build())
    x = torch.randn(1, 3, 64, 72, dtype=torch.float64)
    asked = score(SCORES[name]) if name in SCORES else region(MASK, 3, "one-hot")
    value = SCORES.get(name, lambda z: z[:, 3][:, MASK])
    values, logits = ForwardBackward(network, x, Settings.plain(), output)(x, asked)
    x.requires_grad_()
    expected = network(x)[output]
    (gradient,) = torch.autograd.grad(value(expected).sum(), x)
    torch.testing.assert_close(logits, expected.detach(), rtol=1e-9, atol=1e-9)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(values, gradient, rtol=1e-9, atol=1e-9 * gradient.abs().max())


class Dense(nn.Module):
    """Two 3 x 3 convolutions, so a pixel sees 5 x 5; returns a dictionary."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.head = nn.Conv2d(8, classes, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.features(x)
        return {"out": self.head(features), "features": features}


@pytest.fixture
def dense() -> nn.Module:
    return Dense().eval()


@pytest.fixture
def explanation(dense: nn.Module) -> Explanation:
    mask = torch.zeros(12, 10, dtype=torch.bool)
    mask[3:5, 6] = True
    return explain(dense, torch.rand(2, 3, 12, 10), region(mask, 1), output="out")


def test_the_support_lies_in_the_receptive_field_of_the_region(explanation: Explanation) -> None:
    near = torch.zeros(12, 10, dtype=torch.bool)
    near[1:7, 4:9] = True
    assert explanation.support.any()
    assert not explanation.support[:, ~near].any()


def test_an_explanation_of_a_dense_output_shows_itself(
    explanation: Explanation, tmp_path: object
) -> None:
    assert explanation.target is None
    assert explanation.logits.shape == explanation.probabilities.shape == (2, 4, 12, 10)
    assert explanation.top() == []
    assert explanation.title(1) == "class 1 in a region"
    assert "class 1 in a region" in repr(explanation)
    labels = {axes.get_label() for axes in explanation.plot().axes}
    assert {"values", "evidence"} <= labels
    assert "classes" not in labels
    again = Explanation.load(explanation.save(f"{tmp_path}/region.npz"))
    assert torch.equal(again.values, explanation.values)
    assert again.title() == explanation.title()


def test_the_flow_of_a_dense_output_is_drawn(dense: nn.Module) -> None:
    mask = torch.ones(12, 10)
    found = explain(dense, torch.rand(1, 3, 12, 10), region(mask, 0), output="out", record=True)
    assert [layer.layer for layer in found.flow] == ["features.1", "image"]
    plot.flow_figure(found)


def test_one_number_for_each_sample_is_the_logit_of_one_class() -> None:
    network = nn.Sequential(nn.Conv2d(3, 1, 8), nn.Flatten(0)).eval()
    found = explain(network, torch.rand(2, 3, 8, 8), score(lambda z: z), "plain")
    assert found.logits.shape == (2, 1)  # a dimension of classes is put behind the samples
    assert found.top() == [(0, "class 0", found.logits[0].sigmoid().item())]


def test_a_region_seeds_each_of_its_pixels_like_a_classifier() -> None:
    output, mask = torch.randn(2, 3, 4, 5), torch.rand(4, 5) > 0.5
    one_hot, contrast = region(mask, 1, "one-hot")(output), region(mask, 1)(output)
    assert torch.equal(
        one_hot,
        torch.stack([torch.zeros(4, 5), mask, torch.zeros(4, 5)])[None].expand(2, -1, -1, -1),
    )
    for sample, y, x in np.ndindex(2, 4, 5):
        z = output[sample, :, y, x]
        rivals = torch.softmax(z[[0, 2]], 0)
        expected = torch.stack([-0.75 * rivals[0], torch.ones(()), -0.75 * rivals[1]]) * mask[y, x]
        torch.testing.assert_close(contrast[sample, :, y, x], expected)


def test_each_sample_can_have_its_own_region() -> None:
    output, masks = torch.randn(2, 3, 4, 5), torch.rand(2, 4, 5) > 0.5
    seeds = region(masks, 2)(output)
    for i in range(2):
        assert torch.equal(seeds[i], region(masks[i], 2)(output)[i])


@pytest.mark.parametrize(
    ("mask", "channel", "message"),
    [
        (
            torch.ones(5, 4),
            0,
            r"mask has shape \(5, 4\), but the network's output has \(2, 3, 4, 5\)",
        ),
        (torch.ones(3, 4, 5), 0, r"mask has shape \(3, 4, 5\)"),
        (torch.ones(4, 5), 3, "no channel 3: the output has 3"),
        (torch.ones(4, 5), -1, "no channel -1"),
        (torch.ones(4, 5), 0.0, "channel is 0.0"),
        (torch.ones(4, 5), True, "channel is True"),
    ],
)
def test_a_region_that_does_not_fit_is_refused(mask: Tensor, channel: int, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        region(mask, channel)(torch.zeros(2, 3, 4, 5))


def test_kinds_of_seeds_that_there_are_not() -> None:
    with pytest.raises(TargetError, match="kind is 'nonsense'"):
        region(torch.ones(4, 5), 0, "nonsense")


def test_a_region_needs_a_dense_output() -> None:
    with pytest.raises(TargetError, match="output has"):
        region(torch.ones(3), 0)(torch.zeros(2, 3))


def test_the_seed_of_a_score_is_its_gradient() -> None:
    logits = torch.randn(2, 5)
    seed = score(lambda z: 3 * z[:, 1] - z[:, 4] ** 2)(logits)
    expected = torch.zeros(2, 5)
    expected[:, 1], expected[:, 4] = 3, -2 * logits[:, 4]
    torch.testing.assert_close(seed, expected)


def test_a_score_that_is_one_logit_asks_for_that_class() -> None:
    logits = torch.randn(3, 5)
    assert score(lambda z: z.diagonal())(logits).tolist() == [0, 1, 2]
    assert score(lambda z: z[:2, 0])(logits).is_floating_point()  # not one in each sample
    assert score(lambda z: z[:, :2])(logits).is_floating_point()  # more than one
    assert score(lambda z: 2 * z[:, 1])(logits).is_floating_point()
    assert score(lambda z: z[:, 0])(logits[..., None]).is_floating_point()  # a dense output


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_score_works_whatever_the_callers_mode_is(mode: type) -> None:
    with mode():
        assert score(lambda z: z[:, 3])(torch.randn(2, 5)).tolist() == [3, 3]


def test_a_score_without_a_gradient_is_refused() -> None:
    with pytest.raises(TargetError, match="differentiably"):
        score(lambda z: z.argmax(1))(torch.randn(2, 5))


def test_a_dense_output_needs_a_function_as_target(dense: nn.Module) -> None:
    for target in (None, 1, "top2"):
        with pytest.raises(TorchFBIError, match=r"\(N, classes\)"):
            explain(dense, torch.rand(1, 3, 12, 10), target, output="out")


class Several(nn.Module):
    def __init__(self, as_tuple: bool) -> None:
        super().__init__()
        self.a, self.b, self.as_tuple = nn.Linear(12, 3), nn.Linear(12, 4), as_tuple

    def forward(self, x: Tensor) -> object:
        x = x.flatten(1)
        if self.as_tuple:
            return self.a(x), (self.b(x), x.shape[0])
        return {"heads": {"a": self.a(x), "b": self.b(x)}}


@pytest.mark.parametrize(
    ("as_tuple", "output", "classes"),
    [(True, 0, 3), (True, "0", 3), (True, "1.0", 4), (False, "heads.a", 3), (False, "heads.b", 4)],
)
def test_one_of_several_outputs_is_chosen_by_key_or_position(
    as_tuple: bool, output: int | str, classes: int
) -> None:
    network = Several(as_tuple).eval()
    found = explain(network, torch.rand(2, 3, 2, 2), 1, Settings.plain(), output=output)
    assert found.logits.shape == (2, classes)
    chosen = {3: network.a, 4: network.b}[classes]
    torch.testing.assert_close(found.values[0].flatten(), chosen.weight[1].detach())
