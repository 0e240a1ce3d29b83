"""Figures: what is on them, that it is legible, and that the same figure gives the same bytes."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import skimage
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image
from torch import Tensor, nn

import torchfbi
from torchfbi import Explanation, LayerFlow, Photo, Settings, plot
from torchfbi.errors import ImageError, SettingsError
from torchfbi.models.preprocess import Region
from torchfbi.plot import fonts
from torchfbi.plot.flow import station_of
from torchfbi.plot.overlay import DIM, POWER, overlay, revealed, signed_limit, strengthen
from torchfbi.plot.style import DARK, LIGHT, THINNEST
from torchfbi.sweep import Sweep, sweep
from torchfbi.verification import PARTS, Part, Verdict

CAT = Path(skimage.__file__).parent / "data" / "chelsea.png"


@pytest.fixture(scope="module")
def cat(lite: torchfbi.Model) -> Explanation:
    return torchfbi.explain(lite, [CAT, CAT], ["tabby cat", "lynx"], record=True)


@pytest.fixture(scope="module")
def grid() -> Sweep:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    settings = Settings.plain()
    image = torch.rand(1, 3, 8, 8)
    taus = [None, 0.01, 1000]
    return sweep(network.eval(), image, ks=[0.5, 1.0], taus=taus, settings=settings)


def made(values: Tensor, **changes: object) -> Explanation:
    """An explanation of 7 classes without a network behind it."""
    logits = torch.arange(7.0).repeat(len(values), 1)
    target = torch.full((len(values),), 6)
    explanation = Explanation(values, logits, target, (), Settings.paper())
    return replace(explanation, **changes)


def photographed(shape: tuple[int, int], region: Region, **changes: object) -> Explanation:
    photo = Photo(np.full((*shape, 3), 128, np.uint8))
    return made(torch.rand(1, 3, 9, 9), photos=(photo,), regions=(region,), **changes)


def panels(figure: Figure) -> dict[str, Axes]:
    return {str(axes.get_label()): axes for axes in figure.axes}


def texts(figure: Figure) -> list[str]:
    """What is written on the page, its title first, then what is written in the panels."""
    inside = [text for axes in figure.axes for text in axes.texts]
    return [text.get_text() for text in [*figure.texts, *inside]]


def boxes(figure: Figure) -> list[matplotlib.transforms.Bbox]:
    figure.canvas.draw()
    return [text.get_window_extent() for text in figure.texts if text.get_text()]


def assert_legible(figure: Figure) -> None:
    """No text lies on another one or leaves the page."""
    written = boxes(figure)
    for i, one in enumerate(written):
        assert one.x0 >= 0
        assert one.y0 >= 0
        assert one.x1 <= figure.bbox.x1
        assert one.y1 <= figure.bbox.y1
        for other in written[:i]:
            both = matplotlib.transforms.Bbox.intersection(one, other)
            assert both is None or min(both.width, both.height) < 3, (one, other)


# Overlay


def test_overlay_of_two_pixels_computed_by_hand() -> None:
    photo = np.array([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    strength = np.array([[0.0, 0.25, 1.0]])
    for theme, (black, gain) in ((LIGHT, (0.62, 0.38)), (DARK, (0.0, 0.5))):
        left, middle, right = overlay(photo, strength, theme)[0]
        np.testing.assert_allclose(left, [black + gain] * 3)
        veiled = black + gain * 0.299
        np.testing.assert_allclose(middle, veiled / 2 + np.array(theme.heat(0.25)[:3]) / 2)
        np.testing.assert_allclose(right, theme.heat(1.0)[:3])


def test_a_photo_is_revealed_pixel_by_pixel() -> None:
    photo = np.array([[[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])
    left, middle, right = revealed(photo, np.array([[0.0, 0.5, 1.0]]))[0]
    np.testing.assert_allclose(left, [DIM] * 3)
    dim = DIM * 0.299
    np.testing.assert_allclose(middle, [(dim + 1) / 2, dim / 2, dim / 2])
    np.testing.assert_allclose(right, [0, 0, 1])


def test_strength_of_a_coarse_map_is_blocky_and_exact() -> None:
    strength = strengthen(np.array([[0.0, 1.0]]), (2, 4))
    np.testing.assert_array_equal(strength, [[0, 0, 1, 1]] * 2)
    against = strengthen(np.array([[-5.0, 1.0]]), (2, 4))
    np.testing.assert_array_equal(against, strength)
    weak = strengthen(np.array([[1.0, 0.0], [0.5, 1.0]]), (2, 2))
    np.testing.assert_allclose(weak, [[1, 0], [0.5**POWER, 1]], rtol=1e-6)


def test_strength_of_a_fine_map_stays_near_the_evidence() -> None:
    magnitude = np.zeros((224, 224))
    magnitude[100, 100] = 7.0
    strength = strengthen(magnitude, (224, 224))
    assert strength[100, 100] == pytest.approx(1)
    distance = np.hypot(*(np.indices((224, 224)) - 100))
    assert strength[distance > 30].max() < 1e-4
    assert (strength[distance < 6] > strength[distance > 12].max()).all()


def test_scales_of_empty_maps() -> None:
    assert not strengthen(np.zeros((3, 3)), (6, 6)).any()
    assert signed_limit(np.zeros((3, 3))) == 1
    assert signed_limit(np.array([0.0] * 30 + [-2.0, 2.0])) == 2


def test_an_even_map_is_of_a_middle_colour() -> None:
    assert signed_limit(np.full((3, 3), -2.0)) == 4
    heavy = np.random.default_rng(0).standard_t(3, (50, 50))
    assert signed_limit(heavy) == np.quantile(np.abs(heavy), 0.98)


# The figure of an explanation


@pytest.mark.parametrize("dark", [False, True])
def test_four_panels_and_what_they_say(cat: Explanation, dark: bool) -> None:
    figure = plot.explanation_figure(cat, dark=dark)
    assert set(panels(figure)) == {"photo", "evidence", "values", "classes", "scale"}
    said = texts(figure)
    assert said[0].startswith("tabby cat (")
    assert "efficientnet-lite0" in said[1]
    assert "contrast preset" in said[1]
    assert "chelsea.png" in said[1]
    assert f"support {cat.density[0].item():.1%}" in said[1]
    assert {"tiger cat", "Egyptian cat", "tabby cat"} <= set(said)
    assert_legible(figure)


@pytest.mark.parametrize("dark", [False, True])
def test_a_verdict_is_written_below_and_its_parts_are_outlined(dark: bool) -> None:
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[2:5, 3:7] = True
    part = Part(mask, {"blur": 0.8, "mean": 0.7}, {"blur": True, "mean": True})
    nothing = dict.fromkeys(PARTS)
    verdict = Verdict(
        target=6, label="class 6", probability=0.9, is_answer=True, stability=None, rival=None,
        checks={"sufficient": True}, sigma=1.0, passes=9, seed=0,
        **{**nothing, "sufficient": part, "claimed": part, "second": part},
    )  # fmt: skip
    explanation = photographed((30, 40), Region(0, 0, 40, 30), verdicts=(verdict,))
    figure = explanation.plot(dark=dark)
    said = texts(figure)
    assert "Tested: holds" in said
    assert verdict.sentence in " ".join(said)
    assert "outlined: enough for the network" in said
    assert len(panels(figure)["evidence"].collections) == 4  # two outlines, each on white
    assert_legible(figure)
    everything = replace(verdict, sufficient=replace(part, mask=mask | True), second=None)
    figure = replace(explanation, verdicts=(everything,)).plot(dark=dark)
    assert "in colour: what speaks for it" in texts(figure)  # nothing is outlined


def test_dark_and_light_pages(cat: Explanation) -> None:
    for dark, theme in ((False, LIGHT), (True, DARK)):
        figure = plot.explanation_figure(cat, dark=dark)
        assert to_rgb(figure.get_facecolor()) == to_rgb(theme.background)
        assert to_rgb(figure.texts[0].get_color()) == to_rgb(theme.ink)
        middle = theme.diverging(0.5)[:3]
        np.testing.assert_allclose(middle, to_rgb(theme.background), atol=0.02)
        buffer = io.BytesIO()
        plot.save(figure, buffer)
        corner = Image.open(buffer).convert("RGB").getpixel((0, 0))
        np.testing.assert_allclose(np.array(corner) / 255, to_rgb(theme.background), atol=0.01)


def test_values_are_centred_on_zero_and_fill_the_region(cat: Explanation) -> None:
    (image,) = panels(plot.explanation_figure(cat))["values"].get_images()
    low, high = image.get_clim()
    assert low == -high
    np.testing.assert_allclose(image.get_array(), cat.values[0].sum(0), rtol=1e-6)
    assert image.get_extent() == [0, 448, 447, 0]


def test_the_box_is_the_region(cat: Explanation) -> None:
    outlines = [
        patch.get_bbox().extents
        for patch in panels(plot.explanation_figure(cat))["photo"].patches
        if isinstance(patch, Rectangle)
    ]
    region = cat.regions[0]
    expected = region.left, region.top, region.right, region.bottom
    np.testing.assert_allclose(outlines[-1], expected)


def test_no_box_where_the_network_sees_everything() -> None:
    figure = plot.explanation_figure(photographed((30, 40), Region(0, 0, 40, 30)))
    assert "40 × 30 pixels" in texts(figure)
    assert panels(figure)["values"].get_images()[0].get_extent() == [0, 448, 336, 0]


def test_a_probed_class_outside_of_the_top_five_gets_its_own_bar(cat: Explanation) -> None:
    explanation = made(torch.rand(1, 3, 9, 9), target=torch.tensor([0]))
    said = texts(plot.explanation_figure(explanation))
    assert [text for text in said if text.startswith("class ")][-1] == "class 0"
    second = plot.explanation_figure(cat, 1)
    assert texts(second)[0].startswith("lynx (")


@pytest.mark.parametrize("name", ["W" * 400, "$\\frac{1}{2", "two\nlines " * 9, "_", ""])
def test_class_names_never_overlap(name: str) -> None:
    explanation = made(torch.rand(1, 3, 9, 9), labels=(name,) * 7)
    figure = plot.explanation_figure(explanation)
    assert_legible(figure)
    if len(name) > 50:
        assert any(text.endswith("…") for text in texts(figure))


@pytest.fixture
def no_other_font(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    fonts._family.cache_clear()
    monkeypatch.setattr(fonts.fontManager, "ttflist", [])
    yield
    fonts._family.cache_clear()


@pytest.mark.usefixtures("no_other_font")
def test_letters_that_no_font_has() -> None:
    """They are not drawn as boxes with a warning each; a class has its number instead."""
    names = ("a", "b", "c", "d", "e", "кошка", "猫")
    photo = Photo(np.zeros((9, 9, 3), np.uint8), "猫の cat 写真.jpg")
    region = Region(0, 0, 9, 9)
    cat = made(torch.rand(1, 3, 9, 9), labels=names, photos=(photo,), regions=(region,))
    assert cat.title().startswith("猫 (")
    figure = cat.plot()
    figure.canvas.draw()
    title, subtitle, *rest = texts(figure)
    assert title.startswith("class 6 (")
    assert subtitle.endswith("? cat ?.jpg")
    assert {"class 6", "кошка", "e"} <= set(rest)


def test_letters_that_another_font_has() -> None:
    letter = "Ⓐ"  # in STIX, which comes with Matplotlib, and not in DejaVu Sans
    text, families = fonts.fitting(f"a {letter}")
    assert text == f"a {letter}"
    assert len(families) == 2
    assert fonts.fitting("plain") == ("plain", families[:1])
    figure = made(torch.rand(1, 3, 9, 9), labels=(letter,) * 7).plot()
    figure.canvas.draw()
    assert texts(figure)[0].startswith(letter)


def test_emoji_of_colour_and_damaged_fonts_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "damaged.ttf").write_bytes(b"no font")
    assert fonts._letters(str(tmp_path / "damaged.ttf")) == frozenset()


@pytest.mark.parametrize("shape", [(300, 3), (3, 300)])
def test_thin_photos_are_drawn_wide_enough_to_be_seen(shape: tuple[int, int]) -> None:
    thin = photographed(shape, Region(0, 0, shape[1], shape[0]))
    figure = thin.plot()
    figure.canvas.draw()
    for name, axes in panels(figure).items():
        if name in ("photo", "evidence", "values"):
            axes.apply_aspect()
            box = axes.get_window_extent()
            expected = THINNEST if shape[0] > 3 else 1 / THINNEST
            assert box.height / box.width == pytest.approx(expected)
    assert "3 × 300 pixels, not to scale" in texts(figure) or shape[0] == 3
    assert_legible(figure)


@pytest.mark.parametrize("dark", [False, True])
def test_an_empty_support_says_so(dark: bool) -> None:
    empty = made(torch.zeros(1, 3, 9, 9), fitting_tau=0.2)
    figure = plot.explanation_figure(empty, dark=dark)
    said = "empty support: nothing exceeds tau = 10 here; tau = 0.2 would fit"
    assert [text.replace("\n", " ") for text in texts(figure)].count(said) == 1
    assert said in texts(figure)[1]
    silent = made(torch.zeros(1, 3, 9, 9), settings=Settings.contrast())
    assert "empty support: nothing speaks for it" in texts(silent.plot(dark=dark))[1]


@pytest.mark.parametrize(
    ("shape", "region"),
    [
        ((1, 1), Region(0, 0, 1, 1)),
        ((3, 4000), Region(1998, 0, 2001, 3)),
        ((4000, 3), Region(0, 1998, 3, 2001)),
        ((10, 3000), Region(0, 0, 3000, 10)),
        ((3000, 10), Region(0, 0, 10, 3000)),
    ],
)
def test_extreme_photos(shape: tuple[int, int], region: Region) -> None:
    figure = plot.explanation_figure(photographed(shape, region))
    assert_legible(figure)
    assert 5 <= figure.get_figwidth() <= 10.01
    assert 2 <= figure.get_figheight() <= 6


def test_without_photo_or_classes() -> None:
    explanation = made(torch.rand(2, 1, 28, 28))
    figure = plot.explanation_figure(explanation, 1)
    assert set(panels(figure)) == {"values", "evidence", "scale", "classes"}
    seeded = made(torch.rand(1, 1, 28, 28), target=None, logits=torch.rand(1, 4, 7, 7))
    figure = plot.explanation_figure(seeded)
    assert set(panels(figure)) == {"values", "evidence", "scale"}
    assert texts(figure)[0] == "a question of your own"
    assert_legible(figure)


def test_half_precision_and_gradients() -> None:
    values = torch.rand(1, 3, 9, 9, dtype=torch.bfloat16)
    plot.explanation_figure(made(values))


def test_changes_to_a_preset_are_named() -> None:
    explanation = made(torch.rand(1, 3, 9, 9), settings=Settings.paper(tau=0.0, k=0.25))
    assert "paper preset with tau 0.0, k 0.25" in texts(explanation.plot())[1]
    explanation = made(torch.rand(1, 3, 9, 9), settings=Settings())
    assert "custom settings" in texts(explanation.plot())[1]


def test_what_cannot_be_drawn() -> None:
    with pytest.raises(SettingsError, match="index is 1"):
        plot.explanation_figure(made(torch.rand(1, 3, 9, 9)), 1)
    with pytest.raises(SettingsError, match="3 dimensions"):
        plot.explanation_figure(made(torch.rand(1, 3, 9)))


# The flow


def test_flow_holds_the_top_and_the_image(cat: Explanation) -> None:
    figure = plot.flow_figure(cat, layers=4)
    names = [name for name in panels(figure) if name != "scale"]
    assert len(names) == 12
    assert names[:3] == [f"{cat.flow[0].layer} {row}" for row in ("forward", "evidence", "support")]
    assert names[-3:] == ["image forward", "image evidence", "image support"]
    said = texts(figure)
    assert "1280×7×7" in said
    assert "1280/1280" in said
    assert f"{cat.layers[-1].density[0].item():.1%}" in said
    assert_legible(figure)


@pytest.mark.parametrize(("layers", "dark"), [(2, False), (8, True), (9, False)])
def test_flow_is_legible(cat: Explanation, layers: int, dark: bool) -> None:
    figure = plot.flow_figure(cat, 1, dark=dark, layers=layers)
    assert len(figure.axes) == 3 * layers + 2  # and the two colour bars
    assert_legible(figure)


def test_flow_of_fewer_layers_than_asked_for_and_without_photo() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.ReLU(), nn.Linear(5, 2)
    )
    explanation = torchfbi.explain(
        network.eval(), torch.rand(2, 1, 8, 8), settings="plain", record=True
    )
    figure = plot.flow_figure(explanation, 1)
    assert [label for label in panels(figure) if label.endswith("support")] == [
        "1 support",
        "image support",
    ]
    (image,) = panels(figure)["1 forward"].get_images()
    np.testing.assert_allclose(image.get_array(), explanation.flow[1].activation[1].mean(0))


@pytest.mark.parametrize("channel", [1, 3])
def test_a_station_finds_the_maps_wherever_they_are(channel: int) -> None:
    activation = torch.arange(27.0).reshape(1, 3, 3, 3)
    signal = torch.zeros(1, 3, 3, 3)
    signal[0, :, 1, 2] = torch.tensor([1.0, -2.0, 4.0])
    kept, support = torch.tensor([[True, True, False]]), (signal != 0).any(1)
    evidence = (signal * activation).sum(1)
    tensors = [t.movedim(1, channel) for t in (activation, 2 * signal, signal)]
    density = support.flatten(1).float().mean(1)
    seen = LayerFlow("layer", channel, *tensors, kept, support, density, evidence)
    station = station_of(seen, 0)
    assert station.size == (3, 3, 3)
    assert station.maps == 2
    np.testing.assert_array_equal(station.forward, activation[0].mean(0))
    assert station.evidence[1, 2] == 5 - 2 * 14 + 4 * 23
    assert station.density == pytest.approx(1 / 9)


def test_flow_must_have_been_recorded() -> None:
    with pytest.raises(SettingsError, match="record=True"):
        plot.flow_figure(made(torch.rand(1, 3, 9, 9)))
    with pytest.raises(SettingsError, match="2 to 9"):
        plot.flow_figure(made(torch.rand(1, 3, 9, 9)), layers=1)


@pytest.mark.parametrize(("suffix", "kind"), [(".gif", "GIF"), (".png", "PNG"), (".apng", "PNG")])
def test_animation(cat: Explanation, tmp_path: Path, suffix: str, kind: str) -> None:
    short = replace(cat, flow=cat.flow[-3:])
    path = plot.flow_animation(short, tmp_path / "new" / f"flow{suffix}", duration_ms=100)
    with Image.open(path) as animation:
        assert animation.format == kind
        assert animation.n_frames == 3
        assert animation.info["loop"] == 0
        durations = []
        for frame in range(3):
            animation.seek(frame)
            animation.load()
            durations.append(animation.info["duration"])
    assert durations == [100, 100, 300]


def test_animation_errors(cat: Explanation, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"\.gif, \.png, \.apng"):
        plot.flow_animation(cat, tmp_path / "flow.mp4")
    with pytest.raises(SettingsError, match="20 ms"):
        plot.flow_animation(cat, tmp_path / "flow.gif", duration_ms=0)


# Sweeps


@pytest.mark.parametrize("dark", [False, True])
def test_sweep_figure(grid: Sweep, dark: bool) -> None:
    figure = plot.sweep_figure(grid, dark=dark)
    assert len(figure.axes) == 6
    said = texts(figure)
    assert {"k = 50%", "k = 100%", "no threshold", "τ = 0.01", "τ = 1000"} <= set(said)
    assert sum("empty support" in text for text in said) == 2
    assert f"{grid.kept[0, 1].item():.1%}" in said
    assert_legible(figure)


def test_a_sweep_of_many_columns_is_legible(grid: Sweep) -> None:
    wide = replace(
        grid,
        taus=grid.taus * 4,
        explanations=tuple(row * 4 for row in grid.explanations),
        density=grid.density.repeat(1, 4),
        kept=grid.kept.repeat(1, 4),
        removed=grid.removed.repeat(1, 4),
    )
    assert_legible(plot.sweep_figure(wide))


# Files


@pytest.mark.parametrize(
    ("suffix", "magic"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_equal_figures_give_equal_bytes(tmp_path: Path, suffix: str, magic: bytes) -> None:
    torch.manual_seed(0)
    explanation = made(torch.randn(1, 3, 9, 9))
    paths = [tmp_path / "a" / "b" / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        plot.save(plot.explanation_figure(explanation), path, dpi=50)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(magic)


def test_dpi_is_the_size() -> None:
    figure = plot.explanation_figure(made(torch.rand(1, 3, 9, 9)))
    buffer = io.BytesIO()
    plot.save(figure, buffer, dpi=80)
    assert Image.open(buffer).width == int(figure.get_figwidth() * 80)


def test_save_errors(tmp_path: Path) -> None:
    figure = plot.explanation_figure(made(torch.rand(1, 3, 9, 9)))
    for name in ("figure.bmp", "figure"):
        with pytest.raises(SettingsError, match=r"\.png, \.svg, \.pdf"):
            plot.save(figure, tmp_path / name)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ImageError, match="cannot be written"):
        plot.save(figure, tmp_path / "file" / "figure.png")


def test_no_global_setting_changes_and_threads_agree(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    explanation = made(torch.ones(1, 3, 9, 9))

    def draw(number: int) -> None:
        plot.save(plot.explanation_figure(explanation), tmp_path / f"{number}.svg")

    threads = [threading.Thread(target=draw, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.read_bytes() for path in tmp_path.glob("*.svg")}) == 1
    assert dict(matplotlib.rcParams) == before
