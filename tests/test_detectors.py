"""``targets.box``: a class or a coordinate of one candidate, at a detector's raw output."""

from __future__ import annotations

import importlib
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings, explain, load
from torchfbi.errors import InputError, TargetError, UnsupportedOperatorError
from torchfbi.method.seeds import seed
from torchfbi.models.one_stage import OneStage
from torchfbi.models.second_stage import SecondStage
from torchfbi.models.torchvision import import_torchvision
from torchfbi.targets import box, overlapping

CLASSES, PLACES = 5, 16


class Yolo(nn.Module):
    """(N, 4 + classes, places), or with the dimensions swapped."""

    def __init__(self, swapped: bool = False) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
        self.head, self.swapped = nn.Conv2d(8, 4 + CLASSES, 1), swapped

    def forward(self, x: Tensor) -> Tensor:
        raw = self.head(self.features(x)).flatten(2)
        return raw.mT if self.swapped else raw


def network(swapped: bool = False) -> tuple[Yolo, Tensor]:
    torch.manual_seed(0)
    return Yolo(swapped).double().eval(), torch.randn(2, 3, 16, 16).double()


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("channel", [2, 4 + 3])
def test_a_class_and_a_coordinate_of_one_candidate(channel: int, swapped: bool) -> None:
    net, x = network(swapped)
    at = torch.tensor([5, 9])
    asked = box(at, channel, "one-hot", dim=2 if swapped else 1, classes=slice(4, None))
    values, _ = ForwardBackward(net, x, Settings.plain())(x, asked)
    leaf = x.clone().requires_grad_()
    raw = net(leaf) if swapped else net(leaf).mT
    (gradient,) = torch.autograd.grad(raw[torch.arange(2), at, channel].sum(), leaf)
    torch.testing.assert_close(values, gradient, rtol=1e-9, atol=1e-12)
    row, column = divmod(5, 4)
    outside = values[0].clone()
    outside[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
    assert values[0].any()
    assert not outside.any()


def test_a_class_is_asked_against_its_rivals_at_that_candidate() -> None:
    net, x = network()
    output = net(x)
    found = box(5, 4 + 3, dim=1, classes=slice(4, None))(output)
    expected = seed(output[:, 4:, 5], torch.tensor([3, 3]), "contrast")
    torch.testing.assert_close(found[:, 4:, 5], expected)
    found[:, 4:, 5] = 0
    assert not found.any()
    explanation = explain(net, x, box(5, 4 + 3, dim=1, classes=slice(4, None)))
    assert explanation.target is None
    panels = {axes.get_label(): axes for axes in explanation.plot(box=(4, 2, 8, 10)).axes}
    drawn = [patch.get_bbox().extents.tolist() for patch in panels["evidence"].patches]
    scaled = [28.0 * edge for edge in (4, 2, 8, 10)]  # 16 pixels are drawn as 448
    assert drawn[-2:] == [scaled] * 2  # a line, and a wider one beneath it


class Expecting(nn.Module):
    """YOLOv8 and later, as exported: coordinates by the expectation of a softmax over distances,
    beside the classes' probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
        self.distances, self.classes = nn.Conv2d(8, 4 * 6, 1), nn.Conv2d(8, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.features(x)
        distances = self.distances(seen).flatten(2).unflatten(1, (4, 6)).softmax(2)
        boxes = (distances * torch.arange(6).to(x)[:, None]).sum(2)
        return torch.cat([boxes, self.classes(seen).flatten(2).sigmoid()], 1)


class Classes(nn.Module):
    """Of these the classes alone."""

    def __init__(self, yolo: nn.Module, start: int) -> None:
        super().__init__()
        self.yolo, self.start = yolo, start

    def forward(self, x: Tensor) -> Tensor:
        return self.yolo(x)[:, self.start :]


@pytest.mark.parametrize("start", [4, 5, -CLASSES])
def test_classes_beside_expected_coordinates_are_asked_alone(start: int) -> None:
    torch.manual_seed(0)
    net, x = Expecting().double().eval(), torch.randn(2, 3, 16, 16).double()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(leaf)[:, -CLASSES + 3, 5].sum(), leaf)
    channel = 2 if start == 5 else 3
    found = explain(Classes(net, start).eval(), x, box(5, channel, "one-hot", dim=1), "plain")
    torch.testing.assert_close(found.values, gradient)
    for refused in (net, Classes(net, 3).eval()):
        with pytest.raises(UnsupportedOperatorError, match="softmax"):
            explain(refused, x, box(5, 4 + 3, dim=1))


class Raw(nn.Module):
    """A detector's raw outputs, as docs/detectors.md has it."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.head(list(self.backbone(x).values()))


class Pyramid(nn.Module):
    """A backbone of four maps, each half as large as the one before."""

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.out_channels = channels
        self.stem = nn.Conv2d(3, channels, 4, stride=4)
        self.halves = nn.ModuleList(nn.Conv2d(channels, channels, 3, 2, 1) for _ in range(3))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [self.stem(x)]
        for half in self.halves:
            maps.append(half(maps[-1].relu()))
        return {str(i): level for i, level in enumerate(maps)}


def held_group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    parts = x.reshape(len(x), groups, -1)
    spread = (parts.var(2, unbiased=False, keepdim=True) + eps).sqrt().detach()
    normed = ((parts - parts.mean(2, keepdim=True)) / spread).reshape(x.shape)
    return normed * weight[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize("kind", ["ssd", "ssdlite", "fcos", "retinanet"])
def test_torchvisions_heads_of_one_stage(kind: str, monkeypatch) -> None:
    import_torchvision()
    module = importlib.import_module(f"torchvision.models.detection.{kind}")
    torch.manual_seed(0)
    body, several = Pyramid(32), ([32] * 4, [2] * 4, CLASSES)
    head = {
        "ssd": lambda: module.SSDHead(*several),
        "ssdlite": lambda: module.SSDLiteHead(*several, nn.BatchNorm2d),
        "fcos": lambda: module.FCOSHead(32, 2, CLASSES),
        "retinanet": lambda: module.RetinaNetHead(32, 2, CLASSES),
    }[kind]()
    net = Raw(body, head).double().eval()
    x = torch.randn(1, 3, 64, 64).double()
    for output, last in net(x).items():
        candidate, channel = divmod(int(last[0].detach().argmax()), last.shape[2])
        classes = slice(None) if output == "cls_logits" else slice(0)
        asked = box(candidate, channel, "one-hot", classes=classes)
        found = explain(net, x, asked, "plain", output=output)
        with monkeypatch.context() as patched:
            patched.setattr("torch.nn.functional.group_norm", held_group_norm)
            leaf = x.clone().requires_grad_()
            logits = net(leaf)[output]
            (gradient,) = torch.autograd.grad(logits[:, candidate, channel].sum(), leaf)
        torch.testing.assert_close(found.logits, logits)
        torch.testing.assert_close(found.values, gradient)
        assert gradient.any()


class Neck(nn.Module):
    """SiLU, three poolings in a row and enlarged maps beside others, as YOLO networks have them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 4, 2, stride=2)
        self.pool, self.up = nn.MaxPool2d(5, 1, 2), nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> list[Tensor]:
        near = F.silu(self.stem(x))
        pools = [F.silu(self.deep(near))]
        for _ in range(3):
            pools.append(self.pool(pools[-1]))
        far = torch.cat(pools, 1)
        return [torch.cat([near, self.up(far)], 1), far]


def grid(of: Tensor) -> Tensor:
    axes = (torch.arange(n, dtype=torch.float32) for n in of.shape[2:])
    return torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1)


class Yolo5(nn.Module):
    """(N, candidates, 5 + classes): decoded at each of three anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.neck = Neck()
        self.heads = nn.ModuleList(nn.Conv2d(c, 3 * (5 + CLASSES), 1) for c in (24, 16))
        self.register_buffer("anchors", torch.rand(2, 1, 3, 1, 1, 2) * 30)

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for maps, head, anchors, stride in zip(
            self.neck(x), self.heads, self.anchors, (4, 8), strict=True
        ):
            raw = head(maps).unflatten(1, (3, 5 + CLASSES)).permute(0, 1, 3, 4, 2)
            place, size, classes = raw.sigmoid().split((2, 2, 1 + CLASSES), 4)
            place, size = (place * 2 + grid(maps) - 0.5) * stride, (size * 2) ** 2 * anchors
            found.append(torch.cat([place, size, classes], 4).flatten(1, 3))
        return torch.cat(found, 1)


class Yolo8(nn.Module):
    """(N, 4 + classes, candidates): coordinates by a softmax over distances."""

    def __init__(self) -> None:
        super().__init__()
        self.neck, self.expect = Neck(), nn.Conv2d(6, 1, 1, bias=False)
        self.heads = nn.ModuleList(nn.Conv2d(c, 4 * 6 + CLASSES, 1) for c in (24, 16))

    def forward(self, x: Tensor) -> Tensor:
        maps = self.neck(x)
        raw = [head(of).flatten(2) for head, of in zip(self.heads, maps, strict=True)]
        distances, classes = torch.cat(raw, 2).split((4 * 6, CLASSES), 1)
        distances = self.expect(distances.unflatten(1, (4, 6)).transpose(2, 1).softmax(1))[:, 0]
        places = torch.cat([grid(of).flatten(0, 1) for of in maps]).T + 0.5
        low, high = distances.chunk(2, 1)
        low, high = places - low, places + high
        return torch.cat([(low + high) / 2, high - low, classes.sigmoid()], 1)


@pytest.mark.parametrize("version", [5, 8])
def test_yolo_files_in_onnx(version: int, tmp_path) -> None:
    torch.manual_seed(0)
    net, x = Yolo5() if version == 5 else Yolo8(), torch.rand(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its exporter
        torch.onnx.export(
            net.eval(), (x,), tmp_path / "yolo.onnx", dynamo=False, input_names=["images"],
            dynamic_axes={"images": {0: "n", 2: "h", 3: "w"}},
        )  # fmt: skip
    loaded = load(str(tmp_path / "yolo.onnx")).module.double()
    net, x, at = net.double(), x.double(), torch.tensor([9, 60])
    torch.testing.assert_close(loaded(x), net(x))
    read = Classes(loaded, 4).eval() if version == 8 else loaded
    for channel in (3,) if version == 8 else (0, 2, 4, 8):
        asked = box(at, channel, "one-hot", dim=1 if version == 8 else 2)
        leaf = x.clone().requires_grad_()
        rows = net(leaf)[:, 4:].mT if version == 8 else net(leaf)
        (gradient,) = torch.autograd.grad(rows[torch.arange(2), at, channel].sum(), leaf)
        torch.testing.assert_close(explain(read, x, asked, "plain").values, gradient)


@pytest.mark.parametrize("where", [(4, 6, 30, 40), (0, 10, 128, 500), (3, 3, 3.5, 9)])
def test_the_second_stage_says_of_a_box_what_torchvisions_does(where, monkeypatch) -> None:
    import_torchvision()
    detection = importlib.import_module("torchvision.models.detection")
    roi_align = importlib.import_module("torchvision.ops.roi_align")
    torch.manual_seed(0)
    sizes = ((32,), (64,), (128,), (256,))
    anchors = detection.anchor_utils.AnchorGenerator(sizes, ((1.0,),) * 4)
    detector = detection.FasterRCNN(Pyramid(), CLASSES, rpn_anchor_generator=anchors)
    detector = detector.double().eval()
    x, heads = torch.randn(1, 3, 512, 128).double(), detector.roi_heads
    # What torchvision runs where its compiled operators are missing, without compiling it.
    monkeypatch.setattr(roi_align, "_roi_align", roi_align._roi_align.__wrapped__)
    monkeypatch.setattr(roi_align, "_has_ops", lambda: False)
    leaf = x.clone().requires_grad_()
    boxes = [torch.tensor([where], dtype=torch.float64)]
    pooled = heads.box_roi_pool(detector.backbone(leaf), boxes, [(512, 128)])
    logits, moves = heads.box_predictor(heads.box_head(pooled))
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), leaf)
    stage = SecondStage(detector, where)
    torch.testing.assert_close(stage(x)["bbox_regression"], moves)
    found = explain(stage, x, 2, "plain", output="cls_logits")
    torch.testing.assert_close(found.logits, logits)
    torch.testing.assert_close(found.values, gradient)


@pytest.mark.parametrize("kind", ["SSD", "FCOS", "RetinaNet"])
def test_one_stage_says_of_a_box_what_torchvisions_detector_does(kind: str, monkeypatch) -> None:
    import_torchvision()
    detection = importlib.import_module("torchvision.models.detection")
    utils, module = (
        detection.anchor_utils,
        importlib.import_module(f"torchvision.models.detection.{kind.lower()}"),
    )
    # All candidates stay: suppression is of torchvision's compiled operators.
    monkeypatch.setattr(module.box_ops, "batched_nms", lambda boxes, *_: torch.arange(len(boxes)))
    torch.manual_seed(0)
    body, sizes = Pyramid(32), tuple((8 * 2**i,) for i in range(4))
    every = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "score_thresh": 0.0}
    if kind == "SSD":
        boxes = utils.DefaultBoxGenerator([[2]] * 4)
        head = module.SSDHead([32] * 4, boxes.num_anchors_per_location(), CLASSES)
        detector = module.SSD(body, boxes, (64, 64), CLASSES, head=head, **every)
    else:
        ratios = ((1.0,),) * 4 if kind == "FCOS" else ((0.5, 1.0, 2.0),) * 4
        anchors = {"anchor_generator": utils.AnchorGenerator(sizes, ratios)}
        detector = getattr(module, kind)(
            body, CLASSES, min_size=64, max_size=64, **anchors, **every
        )
    detector = detector.double().eval()
    image = torch.rand(3, 64, 64).double()
    (answer,) = detector([image])
    best = int(answer["scores"].argmax())
    where, label = answer["boxes"][best], int(answer["labels"][best])
    x = (image[None] - 0.5) / 0.25
    stage = OneStage(detector, x, [round(side, 1) for side in where.tolist()])
    scores = stage(x)[0].detach()
    score = answer["scores"][best].detach()
    if kind == "FCOS":  # its scores count how central the candidate lies as well
        maps = list(detector.backbone(x).values())
        central = detector.head(maps)["bbox_ctrness"][0, stage.candidate, 0].detach().sigmoid()
        score = score**2 / central
    torch.testing.assert_close(scores[label], score)
    found = explain(stage, x, label, "plain")
    torch.testing.assert_close(found.probabilities[0], scores)
    assert found.support.any()
    with pytest.raises(InputError, match="has no backbone"):
        OneStage(nn.Linear(1, 1), x, (0, 0, 1, 1))
    with pytest.raises(InputError, match="no candidate"):
        OneStage(detector, x, (9e4, 9e4, 9e4 + 1, 9e4 + 1))


def test_a_box_that_is_none_or_a_detector_of_one_stage_is_refused() -> None:
    with pytest.raises(InputError, match="no second stage"):
        SecondStage(nn.Linear(1, 1), (0, 0, 1, 1))
    detector = nn.Module()
    detector.roi_heads = nn.Identity()
    with pytest.raises(InputError, match="no box"):
        SecondStage(detector, (2, 0, 1, 1))


def test_the_candidate_at_a_box() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 15], [5, 5, 40, 40]])
    assert overlapping(boxes, (4, 4, 16, 16)) == 1
    large = torch.tensor([[0.0, 0, 90, 500], [0, 0, 300, 300]]).half()  # whose areas no half holds
    assert overlapping(large, (0, 0, 280, 280)) == 1
    swapped = torch.stack([boxes, boxes.flip(0)])
    assert overlapping(swapped, torch.tensor([0, 0, 9, 9])).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda: box(PLACES, 4, dim=1), "16 candidates"),
        (lambda: box(0, 4 + CLASSES, dim=1), "no channel 9"),
        (lambda: box(0, 1, dim=0), "needs \\(N, candidates"),
        (lambda: box(torch.tensor([0, 1, 2]), 1, dim=1), "or for each"),
        (lambda: box(1.5, 1, dim=1), "give its number"),
        (lambda: box(0, 1.5, dim=1), "a whole one"),
    ],
)
def test_what_is_not_there_is_refused(asked, message: str) -> None:
    net, x = network()
    with pytest.raises(TargetError, match=message):
        explain(net, x, asked())


def test_a_box_that_nothing_overlaps_is_refused() -> None:
    with pytest.raises(TargetError, match="no candidate overlaps"):
        overlapping(torch.tensor([[0.0, 0, 1, 1]]), (2, 2, 3, 3))
    with pytest.raises(TargetError, match="left, top, right, bottom"):
        overlapping(torch.zeros(3, 4), (1, 2))
