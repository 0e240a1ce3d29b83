"""Networks of several inputs: each explained with the others held, and their shares."""

from __future__ import annotations

import gc
import json
from types import MethodType

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from photos import CAT, COFFEE
from torchfbi import Labels, Model, explain, load
from torchfbi.batch import Store
from torchfbi.errors import InputError, TrainingModeError
from torchfbi.explanation.several import InputExplanations
from torchfbi.export import export
from torchfbi.models.preprocess import Preprocess


class Siamese(nn.Module):
    """Whether two images show the same, by one encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3))
        self.head = nn.Linear(8, 2)

    def forward(self, photo: Tensor, other: Tensor) -> Tensor:
        a, b = (self.encoder(x).mean((2, 3)) for x in (photo, other))
        return self.head(torch.cat([(a - b).relu(), a * b], 1))


class WithTable(nn.Module):
    """An image, a patient's numbers, and which hospital it was."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.hospital = nn.Embedding(3, 4)
        self.head = nn.Linear(7, 2)

    def forward(self, image: Tensor, table: Tensor, hospital: Tensor) -> dict[str, Tensor]:
        seen = self.encoder(image).mean((2, 3)) * self.hospital(hospital).sigmoid()
        return {"logits": self.head(torch.cat([seen, table], 1))}


class OneByOne(WithTable):
    """It asks how many there are, so that its batch is fixed."""

    def forward(self, image: Tensor, table: Tensor, hospital: Tensor) -> dict[str, Tensor]:
        each = zip(image.split(1), table.split(1), hospital.split(1), strict=True)
        found = [super(OneByOne, self).forward(*one)["logits"] for one in each]
        return {"logits": torch.cat(found)}


@pytest.fixture
def siamese() -> tuple[Siamese, tuple[Tensor, Tensor]]:
    torch.manual_seed(0)
    inputs = (torch.randn(2, 3, 9, 9).double(), torch.randn(2, 3, 11, 9).double())
    return Siamese().double().eval(), inputs


def gradients(net: nn.Module, inputs: tuple[Tensor, ...], target: int) -> list[Tensor]:
    """Of each input, with the others held."""
    found = []
    for i, x in enumerate(inputs):
        leaf = x.clone().requires_grad_()
        logits = net(*(leaf if i == j else y for j, y in enumerate(inputs)))
        found += torch.autograd.grad(logits[:, target].sum(), leaf)
    return found


def test_each_image_is_explained_with_the_other_held(siamese) -> None:
    net, inputs = siamese
    found = explain(net, inputs, 1, "plain")
    assert isinstance(found, InputExplanations)
    assert list(found) == ["photo", "other"]
    contributions = []
    for name, x, gradient in zip(found, inputs, gradients(net, inputs, 1), strict=True):
        torch.testing.assert_close(found[name].values, gradient, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found[name].logits, net(*inputs), rtol=1e-9, atol=1e-12)
        contributions.append((gradient * x).flatten(1).sum(1).abs())
    for name, part in zip(found, contributions, strict=True):
        torch.testing.assert_close(found.shares[name], part / sum(contributions))
    assert {layer.layer for layer in found["photo"].layers} == {"encoder.1", "relu", "image"}


def test_all_ask_for_the_class_that_the_first_was_asked_for(siamese) -> None:
    net, inputs = siamese
    by_name = explain(net, {"other": inputs[1], "photo": inputs[0]})
    top = net(*inputs).argmax(1)
    assert all(torch.equal(explanation.target, top) for explanation in by_name.values())
    assert [*by_name] == ["photo", "other"]  # in the forward's order


def test_an_image_and_a_table() -> None:
    torch.manual_seed(0)
    net = WithTable().eval()
    image, table, hospital = torch.randn(2, 1, 6, 6), torch.randn(2, 3), torch.tensor([0, 2])
    found = explain(net, (image, table, hospital), 0, output="logits")
    assert list(found) == ["image"]
    assert list(found.shares) == ["image", "table"]  # whole numbers have no gradient
    assert found["image"].values.shape == image.shape
    assert torch.allclose(sum(found.shares.values()), torch.ones(2))
    leaf = table.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(image, leaf, hospital)["logits"][:, 0].sum(), leaf)
    leaf_image = image.clone().requires_grad_()
    logits = net(leaf_image, table, hospital)["logits"]
    (of_image,) = torch.autograd.grad(logits[:, 0].sum(), leaf_image)
    parts = (of_image * image).flatten(1).sum(1).abs(), (gradient * table).sum(1).abs()
    torch.testing.assert_close(found.shares["table"], parts[1] / sum(parts))


def test_a_model_keeps_its_labels_and_the_module_its_own_forward(siamese) -> None:
    net, inputs = siamese
    forward = net.forward
    model = Model(
        net, Preprocess(9, 9, (0.5,) * 3, (0.2,) * 3), Labels(["same", "different"]), "pair"
    )
    found = explain(model, inputs, "different")
    assert found["photo"].title().startswith("different")
    assert net.forward == forward
    assert "forward" not in vars(net)
    net.forward = MethodType(
        lambda self, photo, other: 3 * type(self).forward(self, photo, other), net
    )
    changed = explain(model, inputs, "different")
    torch.testing.assert_close(changed["photo"].logits, net(*inputs).detach())
    assert not torch.allclose(changed["photo"].logits, found["photo"].logits)
    net.forward = lambda photo, other: forward(other, photo)
    with pytest.raises(InputError, match="forward was replaced"):
        explain(model, inputs)
    del net.forward


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((torch.zeros(1, 3, 9, 9),), "do not fit the model's forward"),
        ({"photo": torch.zeros(1, 3, 9, 9), "image": torch.zeros(1)}, "do not fit"),
        ((torch.zeros(1, 3, 9, 9), torch.zeros(2, 3, 9, 9)), "different sizes.*'other': 2"),
        ({"photo": torch.zeros(1, 3, 9, 9), "other": "b.png"}, "'other' is no tensor"),
    ],
    ids=["one missing", "unknown name", "two batches", "a path"],
)
def test_inputs_that_do_not_fit_are_refused(siamese, inputs, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(siamese[0], inputs)


def test_inputs_without_an_image_are_refused() -> None:
    class Sum(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    with pytest.raises(InputError, match="none of the inputs is an image"):
        explain(Sum().eval(), (torch.ones(2, 3), torch.ones(2, 3)))


def test_training_mode_is_refused(siamese) -> None:
    net, inputs = siamese
    with pytest.raises(TrainingModeError):
        explain(net.train(), inputs)


def test_each_explanation_is_put_to_the_test_while_the_network_is_there(siamese) -> None:
    net, inputs = siamese
    found = explain(net, tuple(x[:1] for x in inputs), 1)
    gc.collect()  # the network of one input alone
    verdicts = found["photo"].verify()
    assert [verdict.target for verdict in verdicts] == [1]


PAIR = """
import torch
from torch import nn
from torchfbi import Labels, Model
from torchfbi.models.preprocess import Preprocess

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.seen, self.head = nn.Conv2d(3, 4, 5, stride=2), nn.Linear(6, 2)

    def forward(self, photo, table, other):
        a, b = (self.seen(x).relu().mean((2, 3)) for x in (photo, other))
        return self.head(torch.cat([a * b, table], 1))

def make():
    return Model(Pair().eval(), Preprocess(32, 32, (0.5,) * 3, (0.2,) * 3), Labels("ab"), "pair")
"""


def test_the_command_line_names_the_other_inputs(run, tmp_path) -> None:
    (tmp_path / "nets.py").write_text(PAIR)
    np.save(tmp_path / "table.npy", np.array([[0.5, -1.0]], np.float32))
    asked = ("explain", CAT, "--model", "nets.py:make", "--no-verify")
    given = ("--input", f"other={COFFEE}", "--input", "table=table.npy")
    result = run(*asked, *given, "-t", "a", "-t", "b", "--json")
    assert result.code == 0, result.err
    rows = json.loads(result.out)
    assert [(row["input"], row["target"]) for row in rows] == [
        ("photo", 0), ("other", 0), ("photo", 1), ("other", 1)
    ]  # fmt: skip
    for row in rows:
        assert set(row["shares"]) == {"photo", "table", "other"}
        assert sum(row["shares"].values()) == pytest.approx(1)
    assert len({row["files"][0] for row in rows}) == 4
    for wrong, message in (
        ((), "--input table=FILE"),
        (("--input", "table"), "write NAME=FILE"),
        ((*given, "--input", f"photo={CAT}"), "leave the photo's own out"),
        (("--input", f"other={COFFEE}", "--input", "table=nets.py"), "nets.py"),
    ):
        refused = run(*asked, *wrong)
        assert refused.code == 2
        assert message in refused.err
    to_file = ("export", "--to", "pt2", "-m", "nets.py:make", "--preset", "plain", "--json")
    written = run(*to_file, "--input", f"photo={COFFEE}", *given[2:])  # the photo is the other
    assert written.code == 0, written.err
    explainer = torch.export.load(tmp_path / json.loads(written.out)["path"]).module()
    pair = load(f"{tmp_path}/nets.py:make").module
    photo, other = torch.randn(2, 1, 3, 32, 32)
    shown = {"photo": photo, "table": torch.tensor([[0.5, -1.0]]), "other": other}
    found = explain(pair, shown, 1, "plain")["other"]
    _, values, _ = explainer(
        image=other, photo=photo, table=shown["table"], target=torch.tensor([1])
    )
    torch.testing.assert_close(values, found.values)
    (tmp_path / "list.txt").write_text(f"{CAT}\n")
    many = ("batch", "list.txt", "--model", "nets.py:make", "-o", "rows", "--no-overview")
    done = run(*many, *given, "-t", "a")
    assert done.code == 0, done.err
    (row,) = Store(tmp_path / "rows").every()
    expected = np.load(rows[0]["files"][1])["values"][0]
    found = np.float32(row["values"]) * row["scale"]
    np.testing.assert_allclose(found, expected.ravel(), atol=1e-3 * abs(expected).max())
    np.save(tmp_path / "table.npy", np.array([[0.5, 1.0]], np.float32))
    for wrong, message in (((), "--input table=FILE"), (given, "--mix")):
        refused = run(*many, *wrong, "-t", "a")
        assert refused.code == 2
        assert message in refused.err


def test_an_exported_explainer_takes_the_other_inputs(tmp_path) -> None:
    net = WithTable().eval()
    inputs = (torch.randn(3, 1, 6, 6), torch.randn(3, 3), torch.tensor([0, 2, 1]))
    export(net, tmp_path / "net.pt2", "pt2", "plain", images=inputs)
    explainer = torch.export.load(tmp_path / "net.pt2").module()
    for part in (slice(3), slice(1, 2)):
        given = dict(zip(("image", "table", "hospital"), (t[part] for t in inputs), strict=True))
        target = torch.tensor([1, 0, 1])[part]
        logits, values, _ = explainer(**given, target=target)
        found = explain(net, given, target, "plain")["image"]
        torch.testing.assert_close(values, found.values)
        torch.testing.assert_close(logits, found.logits)
    fixed, one = OneByOne().eval(), tuple(t[:1] for t in inputs)
    export(fixed, tmp_path / "one.pt2", "pt2", "plain", images=one)
    explainer = torch.export.load(tmp_path / "one.pt2").module()
    for given in (one, (one[0], -one[1], one[2] + 2)):  # they are inputs of this file as well
        named = dict(zip(("image", "table", "hospital"), given, strict=True))
        logits, *_ = explainer(**named, target=torch.tensor([1]))
        torch.testing.assert_close(logits, fixed(*given)["logits"])
    model = Model(net, Preprocess(6, 6, (0.5,), (0.2,), channels="L"), Labels("ab"), "net")
    with pytest.raises(InputError, match="a page explains one photo"):
        export(model, tmp_path / "page", "web", images=inputs)
