"""Published architectures by name: a part of what ``torchfbi survey`` does for all of them."""

import gc
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from torchfbi import ForwardBackward, Settings
from torchfbi.capture import capture
from torchfbi.errors import UnsupportedOperatorError
from torchfbi.models import load
from torchfbi.models.untrained import shaken
from torchfbi.survey import Row, examine, family, representatives
from torchfbi.survey.examine import GAINS, images, settled
from torchfbi.survey.names import architectures
from torchfbi.survey.report import page, works
from torchfbi.survey.run import read, run

IS_THE_GRADIENT = [
    "timm:dla46_c",
    "timm:hrnet_w18_small",
    "timm:nf_resnet50",
    "timm:regnetx_002",
    "timm:res2net50_14w_8s",
    "timm:xception41",
]
HOLDS_GATES = [
    "timm:convnext_atto",
    "timm:convnextv2_atto",
    "timm:efficientnet_cc_b0_4e",
    "timm:ghostnet_050",
    "timm:mixnet_s",
    "timm:resnest14d",
    "timm:skresnet18",
]


@pytest.mark.parametrize("name", [*IS_THE_GRADIENT, *HOLDS_GATES])
def test_a_published_architecture(name: str) -> None:
    row = examine(name)
    assert row.explained == ("paper", "contrast", "plain"), row.refused
    assert row.logits_error is not None
    assert row.logits_error < 1e-9
    assert row.holds == (name in HOLDS_GATES)
    assert (row.gradient_error is None) == row.holds
    assert row.holds or row.gradient_error < 1e-9
    assert row.kind == "convolution"


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
        "timm:convnext_atto",
        "timm:ghostnet_050",
        "timm:regnetx_002",
        "torchvision:resnet18",  # calls its rectifiers twice
        "torchvision:squeezenet1_0",
    ],
)
def test_activations_inside_are_those_of_the_module(name: str) -> None:
    differences, features = compared_activations(name)
    assert len(differences) == features > 10
    assert max(differences.values()) < 1e-9


@pytest.mark.parametrize("name", ["timm:edgenext_xx_small", "timm:test_vit"])
def test_attention_is_refused_with_every_operator_and_its_layers(name: str) -> None:
    net, x = network(name)
    with pytest.raises(UnsupportedOperatorError) as error:
        capture(net, x)
    missing = error.value.operators
    blocks = [path for path, layer in net.named_modules() if type(layer).__name__ in ATTENTION]
    assert blocks
    for block in blocks:
        assert any(layer.startswith(block) for layers in missing.values() for layer in layers)
    for operator, layers in missing.items():
        assert f"  {operator}  at {', '.join(layers)}" in str(error.value)


ATTENTION = {"Attention", "CrossCovarianceAttn"}

ROWS = [
    Row("timm:good", "timm:fine", "convolution", 10, 64, True, 0.5, ("paper", "contrast", "plain"),
        1e-12, True, False, 1e-12),
    Row("timm:other", "timm:fine", "attention", refused="r", missing={"aten.matmul.default": 3}),
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
    assert works(replace(good, gradient_error=None))


def test_the_page_counts_and_gives_the_reasons() -> None:
    text = page(ROWS, Counter({"timm:fine": 7, "torchvision:odd": 2}))
    assert "1 of 1 purely convolutional architectures (100.0%), 1 of 1 families" in text
    assert "0 of 2 purely convolutional architectures (0.0%), 0 of 1 families" in text
    assert "| fine | 7 | 2 | 1 | 1 of 1 |  | 1 |  |" in text
    assert "| odd | 2 | 2 |  | 0 of 1 |  |  | 2 |" in text
    assert "- `torchvision:bad`: explained in paper; logits 5e-01, gradient 0.25" in text
    assert "- `torchvision:odd`: `aten.cumsum.default` (2)" in text
    assert "- `aten.matmul.default`: 1" in text


def test_what_is_recorded_is_not_done_again(tmp_path: Path) -> None:
    record, tiny = tmp_path / "rows.jsonl", "timm:test_convnext"
    done = examine(tiny)
    record.write_text(json.dumps(done.to_dict()) + "\n", encoding="utf-8")
    assert run([tiny], record, each=pytest.fail) == [done] == read(record)


def test_a_family_of_attention_is_given_up_after_three(tmp_path: Path) -> None:
    record = tmp_path / "rows.jsonl"
    names = ["timm:test_vit", "timm:test_vit2", "timm:test_vit3", "timm:test_vit4"]
    rows = [Row(name, family(name), "attention", refused="r") for name in names[:3]]
    record.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows), encoding="utf-8")
    assert run(names, record, each=pytest.fail) == rows


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
def test_every_kind_of_convolutional_network_is_explained(rows: list[Row]) -> None:
    for library in ("torchvision", "timm"):
        pure = [r for r in rows if r.kind == "convolution" and r.name.startswith(library)]
        failing = [row for row in pure if not works(row)]
        assert len(failing) <= 0.02 * len(pure), failing


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
