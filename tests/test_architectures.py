"""Published architectures by name: a part of what ``make survey`` does for all of them."""

import gc
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from survey import Row, examine, family, representatives
from survey.examine import GAINS, images, settled
from survey.names import architectures
from survey.report import page, works
from survey.run import read, run
from torchfbi import ForwardBackward, Settings
from torchfbi.capture.capture import capture
from torchfbi.errors import UnsupportedOperatorError
from torchfbi.models import load
from torchfbi.models.timm import import_timm
from torchfbi.models.untrained import shaken

ONCE = {"layers": (1, 1, 1, 1)}
"""One block a stage, where that can be said: more of them are more of the same operators."""

IS_THE_GRADIENT = {"timm:res2net50_14w_8s": ONCE, "timm:nf_resnet26": {}}
HOLDS_GATES = {
    "timm:test_convnext2": {},
    "timm:efficientnet_cc_b0_4e": {},  # an image's own filters
    "timm:skresnet18": ONCE,
    "torchvision:mobilenet_v3_small": {},
}
ATTENDS = {
    "timm:edgenext_xx_small": {"depths": (1, 1, 2, 2)},  # of channels
    "timm:efficientvit_b0": {"depths": (1, 1, 1, 1)},  # linear
    # In windows that shift.
    "timm:swin_tiny_patch4_window7_224": {"depths": (2, 1), "embed_dim": 24, "num_heads": (2, 3)},
    "timm:test_vit": {},
}
PUBLISHED: dict[str, dict[str, Any]] = {**IS_THE_GRADIENT, **HOLDS_GATES, **ATTENDS}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_architecture(name: str) -> None:
    row = examine(name, **PUBLISHED[name])
    assert row.explained == ("paper", "contrast", "plain"), row.refused
    assert row.logits_error is not None
    assert row.logits_error < 1e-9
    assert row.holds == (name not in IS_THE_GRADIENT)
    assert row.gradient_error is not None
    assert row.gradient_error < 1e-9
    assert row.kind == ("attention" if name in ATTENDS else "convolution")


def network(name: str) -> tuple[nn.Module, Tensor]:
    model = load(name, pretrained=False)
    module = model.module.double()
    x = images(module, model.preprocess.size[0])
    for gain in GAINS:
        if settled(shaken(module, gain), x):
            break
    return module, x


def outputs_by_hooks(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What each part returned, by its path; of a second call ``path@1``, as in torch.export."""
    seen: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def watch(path: str, part: nn.Module) -> None:
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                seen[f"{path}@{calls[path]}" if calls[path] else path] = output.clone()
            calls[path] += 1

        part.register_forward_hook(hook)

    for path, part in module.named_modules():
        watch(path, part)
    with torch.no_grad():
        module(x)
    return seen


def compared_activations(name: str) -> tuple[dict[str, float], int]:
    """The features that are the last thing a part of the network does: how far, as a share of the
    largest entry, each is from what a hook on that part of the module itself saw; and how many
    features there are."""
    module, x = network(name)
    walker = ForwardBackward(module, x, Settings.plain())
    *_, flow = walker.flow(x)
    inside = {layer.layer: layer.activation for layer in flow}
    last = {
        part.removeprefix("L__self__"): node
        for node in walker.graph.nodes
        for part in node.meta.get("nn_module_stack", {})
    }
    differences = {}
    for part, output in outputs_by_hooks(module, x).items():
        if last.get(part) in walker.graph.features:
            layer = last[part].meta["layer"]
            difference = (inside[layer] - output).abs().max() / output.abs().max()
            differences[layer] = difference.item()
    return differences, len(walker.graph.features)


@pytest.mark.parametrize(
    "name",
    [
        "timm:convnextv2_atto",
        "torchvision:resnet18",  # calls its rectifiers twice
        "torchvision:squeezenet1_0",
    ],
)
def test_activations_inside_are_those_of_the_module(name: str) -> None:
    differences, features = compared_activations(name)
    assert len(differences) == features > 10
    assert max(differences.values()) < 1e-9


def test_recurrence_is_refused_with_its_layers() -> None:
    net = import_timm().create_model("sequencer2d_s", layers=(1, 1, 1, 1), img_size=32)
    with pytest.raises(UnsupportedOperatorError, match=r"aten.lstm.input  at .*rnn_v"):
        capture(net.eval(), torch.randn(2, 3, 32, 32))


ROWS = [
    Row("timm:good", "timm:fine", "convolution", 10, 64, True, 0.5, ("paper", "contrast", "plain"),
        1e-12, True, False, 1e-12),
    Row("timm:other", "timm:fine", "recurrence", refused="r", missing={"aten.lstm.input": 3}),
    Row("torchvision:bad", "torchvision:odd", captured=True, explained=("paper",),
        logits_error=0.5, gradient_error=0.25),
    Row("torchvision:odd", "torchvision:odd", missing={"aten.cumsum.default": 2}, refused="r"),
]  # fmt: skip


def test_a_row_works_only_if_everything_about_it_does() -> None:
    good, *others = ROWS
    assert works(good)
    assert not any(map(works, others))
    assert not works(replace(good, gradient_error=1e-8))
    assert not works(replace(good, logits_error=1e-8))
    assert not works(replace(good, explained=("paper", "plain")))
    assert not works(replace(good, gradient_error=None))


def test_the_page_counts_and_gives_the_reasons() -> None:
    text = page(ROWS, Counter({"timm:fine": 7, "torchvision:odd": 2}))
    assert "1 of 2 architectures explained (50.0%), 0 of 1 families without exception" in text
    assert "0 of 2 architectures explained (0.0%), 0 of 1 families without exception" in text
    assert "| fine | 7 | 2 | 1 | 1 |  |  | 1 |" in text
    assert "| odd | 2 | 2 |  |  |  |  | 2 |" in text
    assert "- `torchvision:bad`: explained in paper; logits 5e-01, gradient 0.25" in text
    assert "- `torchvision:odd`: `aten.cumsum.default` (2)" in text
    assert "- `timm:other`: `aten.lstm.input` (3)" in text


def test_what_is_recorded_is_not_done_again(tmp_path: Path) -> None:
    record, tiny = tmp_path / "rows.jsonl", "timm:test_convnext"
    done = examine(tiny)
    record.write_text(json.dumps(done.to_dict()) + "\n", encoding="utf-8")
    assert run([tiny], record, each=pytest.fail) == [done] == read(record)


def test_the_representatives_are_the_smallest_of_each_kind() -> None:
    chosen = representatives()
    assert len(chosen) == len(set(chosen))
    assert set(chosen) <= set(architectures())
    assert {family(name) for name in chosen} == {family(name) for name in architectures()}
    assert "timm:resnet26d" not in chosen
    assert {"timm:resnet18d", "timm:hrnet_w18_small", "timm:ghostnetv2_100"} <= set(chosen)
    assert {"timm:resnet50_gn", "timm:ghostnetv3_050", "torchvision:resnet152"} <= set(chosen)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """One of each kind, examined."""
    record = tmp_path_factory.mktemp("sweep") / "rows.jsonl"
    return run(representatives(), record, jobs=os.cpu_count() or 1)


@pytest.mark.sweep
def test_nearly_every_kind_of_network_is_explained(rows: list[Row]) -> None:
    for library in ("torchvision", "timm"):
        members = [row for row in rows if row.name.startswith(library)]
        failing = [row for row in members if not works(row)]
        assert len(failing) <= 0.05 * len(members), failing


@pytest.mark.sweep
def test_activations_inside_of_every_kind_are_those_of_the_module(rows: list[Row]) -> None:
    failing: dict[str, dict[str, float]] = {}
    seen = there = 0
    for name in (row.name for row in rows if row.explained):
        torch.manual_seed(0)
        differences, features = compared_activations(name)
        seen, there = seen + len(differences), there + features
        if any(not difference < 1e-9 for difference in differences.values()):
            failing[name] = differences
        gc.collect()
    assert not failing
    assert seen > 0.9 * there  # a few call activations as functions within a larger part
