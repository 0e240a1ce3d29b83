"""FBICAM where pytorch-grad-cam's own CAMs stood, with its targets, pictures and ROAD metrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from adapters.networks import dense
from torchfbi import Settings, explain
from torchfbi.adapters.gradcam import FBICAM, FLOOR
from torchfbi.errors import SettingsError, TargetError
from torchfbi.models.torchvision import import_torchvision
from torchfbi.targets import region

import_torchvision()  # pytorch-grad-cam imports it, and may need its operators declared

from pytorch_grad_cam import GradCAM  # noqa: E402
from pytorch_grad_cam.metrics.road import (  # noqa: E402
    ROADCombined,
    ROADLeastRelevantFirst,
    ROADMostRelevantFirst,
)
from pytorch_grad_cam.utils.image import show_cam_on_image  # noqa: E402
from pytorch_grad_cam.utils.model_targets import (  # noqa: E402
    ClassifierOutputSoftmaxTarget,
    ClassifierOutputTarget,
    SemanticSegmentationTarget,
)

# Its ROAD metrics put tensors where NumPy 2 wants arrays.
own_deprecation = pytest.mark.filterwarnings("ignore:__array_wrap__ must accept")


CLASSES = [ClassifierOutputTarget(3), ClassifierOutputTarget(1)]


def test_it_stands_where_gradcam_stood(network: nn.Module, images: Tensor) -> None:
    found = []
    for cam_class in (GradCAM, FBICAM):
        with cam_class(model=network, target_layers=[network[3]]) as cam:
            found.append(cam(input_tensor=images, targets=CLASSES))
            assert torch.allclose(cam.outputs, network(images), atol=1e-5)
    theirs, ours = found
    assert type(ours) is type(theirs)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype) == ((2, 16, 16), np.float32)
    assert ours.min() >= 0
    assert np.allclose(ours.max((1, 2)), 1)
    photo = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    assert show_cam_on_image(photo, ours[0], use_rgb=True).shape == (16, 16, 3)


def test_above_the_floor_it_is_the_heatmap(network: nn.Module, images: Tensor) -> None:
    cam = FBICAM(network)(images, CLASSES)
    found = explain(network, images, [3, 1])
    heat = found.to_heatmap().numpy()
    speaks = heat > 0
    assert 0 < speaks.sum() < speaks.size
    assert np.allclose(cam[speaks], FLOOR + (1 - FLOOR) * heat[speaks])
    assert (cam[speaks] >= FLOOR).all()
    assert (cam[~speaks] <= FLOOR).all()
    assert (cam[~speaks] > 0).all()


def test_where_nothing_speaks_for_the_target_what_is_nearer_ranks_higher() -> None:
    network = dense()  # a pixel sees 5 x 5
    mask = np.zeros((16, 16), dtype=np.float32)
    mask[8, 3] = 1
    images = torch.rand(1, 3, 16, 16)
    (cam,) = FBICAM(network)(images, [SemanticSegmentationTarget(1, mask)])
    row = cam[8]
    assert (row[6:] <= FLOOR).all()
    assert (np.diff(row[6:]) < 0).all()


def test_without_targets_the_top_class(network: nn.Module, images: Tensor) -> None:
    top = [ClassifierOutputTarget(int(c)) for c in network(images).argmax(1)]
    assert np.array_equal(FBICAM(network)(images), FBICAM(network)(images, top))
    assert np.array_equal(FBICAM(network)(images, None), FBICAM(network)(images, top))


def test_settings(network: nn.Module, images: Tensor) -> None:
    plain = FBICAM(network, settings="plain")(images, CLASSES)
    assert np.array_equal(plain, FBICAM(network, settings=Settings.plain())(images, CLASSES))
    assert not np.array_equal(plain, FBICAM(network)(images, CLASSES))


def test_any_other_target_is_probed_by_its_gradient(network: nn.Module, images: Tensor) -> None:
    softmax = [ClassifierOutputSoftmaxTarget(3), ClassifierOutputSoftmaxTarget(3)]
    cam = FBICAM(network, settings="plain")(images, softmax)
    x = images.clone().requires_grad_()
    network(x).softmax(1)[:, 3].sum().backward()
    gradient = x.grad.abs().sum(1).numpy()
    ranks = [np.corrcoef(c.ravel(), g.ravel())[0, 1] for c, g in zip(cam, gradient, strict=True)]
    assert min(ranks) > 0.99


def test_a_region_of_a_segmenter(images: Tensor) -> None:
    network, mask = dense(), np.zeros((16, 16), dtype=np.float32)
    mask[4:8, 4:8] = 1
    settings = Settings.contrast()
    cam = FBICAM(network, settings=settings)(images, 2 * [SemanticSegmentationTarget(2, mask)])
    ours = explain(network, images, region(torch.from_numpy(mask), 2, "one-hot"), settings)
    heat = ours.to_heatmap().numpy()
    assert np.allclose(cam[heat > 0], FLOOR + (1 - FLOOR) * heat[heat > 0])
    assert (cam[heat == 0] <= FLOOR).all()


def test_one_of_several_outputs(network: nn.Module, images: Tensor) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": self.network(x), "twice": 2 * x}

    cam = FBICAM(Named().eval(), output="logits")(images, CLASSES)
    assert np.array_equal(cam, FBICAM(network)(images, CLASSES))


def test_aug_smooth_is_the_mean_over_the_views(network: nn.Module, images: Tensor) -> None:
    heat = torch.zeros(2, 16, 16)
    classes = network(images).argmax(1)
    for factor in (0.9, 1.0, 1.1):
        heat += explain(network, factor * images, classes).to_heatmap()
        heat += explain(network, factor * images.flip(-1), classes).to_heatmap().flip(-1)
    expected = (heat / 6).numpy()
    cam = FBICAM(network)(images, aug_smooth=True)
    assert (cam[expected > 0] >= FLOOR).all()
    assert (cam[expected == 0] <= FLOOR).all()
    assert np.allclose(cam, expected, atol=2 * FLOOR)
    given = [ClassifierOutputTarget(int(c)) for c in classes]
    assert np.array_equal(cam, FBICAM(network)(images, given, aug_smooth=True))


def test_smoothing_that_makes_no_sense_is_refused(network: nn.Module, images: Tensor) -> None:
    with pytest.raises(SettingsError, match="eigen_smooth"):
        FBICAM(network)(images, CLASSES, eigen_smooth=True)
    mask = np.ones((16, 16), dtype=np.float32)
    with pytest.raises(SettingsError, match="mirrors"):
        FBICAM(dense())(images, 2 * [SemanticSegmentationTarget(0, mask)], aug_smooth=True)


@pytest.mark.parametrize("targets", [[ClassifierOutputTarget(1)], [1, 2], []])
def test_targets_are_one_function_for_each_sample(
    network: nn.Module, images: Tensor, targets: list[object]
) -> None:
    with pytest.raises(TargetError, match="each of the 2 samples"):
        FBICAM(network)(images, targets)


def test_an_empty_support_is_a_map_of_zeros(network: nn.Module, images: Tensor) -> None:
    cam = FBICAM(network, settings=Settings.paper(tau=1e9))(images, CLASSES)
    assert cam.shape == (2, 16, 16)
    assert not cam.any()


def test_the_network_is_left_as_it_was(network: nn.Module, images: Tensor) -> None:
    before = [p.detach().clone() for p in network.parameters()]
    with FBICAM(network) as cam:
        cam(images, CLASSES)
    assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
    assert all(p.grad is None and p.requires_grad for p in network.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in network.modules())


@own_deprecation
@pytest.mark.parametrize("metric", [ROADMostRelevantFirst, ROADLeastRelevantFirst])
def test_road_removes_the_share_it_is_asked_for(
    network: nn.Module, images: Tensor, metric: type
) -> None:
    """Ties would go at once: at most shares the whole image, at which nothing is left to fill
    the holes from."""
    cam = FBICAM(network)(images, CLASSES)
    assert len(np.unique(cam[0])) > 250
    for percentile in (10, 50, 90):
        _, images_after = metric(percentile)(
            images, cam, CLASSES, network, return_visualization=True
        )
        removed = (images_after != images).any(1).float().mean((1, 2))
        kept = percentile / 100
        assert torch.allclose(1 - removed, torch.tensor(kept), atol=0.02), (percentile, removed)


@own_deprecation
def test_road_tells_a_good_map_from_its_opposite() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2)).eval()
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].weight.view(2, 3, 16, 16)[1, :, 4:9, 4:9] = 1.0
    images = torch.rand(1, 3, 16, 16)
    images[:, :, 4:9, 4:9] += 5.0
    targets = [ClassifierOutputTarget(1)]
    cam = FBICAM(network)(images, targets)
    road = ROADCombined(percentiles=[20, 50, 80])
    (good,), (bad,) = (road(images, c, targets, network) for c in (cam, 1 - cam))
    assert good > 0 > bad
