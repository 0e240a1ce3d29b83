"""The look of all figures: two themes, and a sheet that is laid out in inches."""

from __future__ import annotations

import textwrap
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image

from torchfbi.errors import SettingsError
from torchfbi.method.settings import PRESETS, Settings
from torchfbi.plot import fonts

if TYPE_CHECKING:
    from torchfbi.explanation.explanation import Explanation

Array: TypeAlias = npt.NDArray[Any]

TITLE, NORMAL, SMALL = 13.0, 9.5, 8.5
"""Font sizes in points. Figures are about 10 inches wide: shown 1000 pixels wide, the smallest
letters are 12 pixels tall."""

MARGIN = 0.15
"""Inches between the sheet's edge and what is on it."""

THINNEST = 6.0
"""How many times longer than wide pictures are at most drawn: thinner ones could not be seen."""


@dataclass(frozen=True)
class Theme:
    """Colours. All colour maps are ordered by lightness, so they survive colour blindness.

    Args:
        background, ink, muted, track, accent: colours of page, text, small text, of what lies
            behind bars, and of what is pointed at.
        diverging: for signed maps; zero is the page's own colour.
        forward: for activations.
        heat: for the strength of the support; strong stands out most from the veiled photo.
        veil: the veiled photo is ``veil[0] + veil[1] * grey``.
    """

    background: str
    ink: str
    muted: str
    track: str
    accent: str
    diverging: Colormap
    forward: Colormap
    heat: Colormap
    veil: tuple[float, float]


def _blend(name: str, *colours: str) -> Colormap:
    return LinearSegmentedColormap.from_list(name, colours)


LIGHT = Theme(
    background="#ffffff",
    ink="#1a1a1a",
    muted="#5c5c5c",
    track="#ececec",
    accent="#c4320a",
    diverging=_blend(
        "light", "#053061", "#2166ac", "#7db8da", "#fff", "#f4926a", "#b2182b", "#67001f"
    ),
    forward=matplotlib.colormaps["viridis"],
    heat=_blend("fire", "#ffe08a", "#fda83b", "#fb5a29", "#c9131f", "#6d0020"),
    veil=(0.62, 0.38),
)
DARK = Theme(
    background="#14161a",
    ink="#f2f2f2",
    muted="#a9adb5",
    track="#2b2f36",
    accent="#ffa23a",
    diverging=_blend(
        "dark", "#cfeaff", "#55aef0", "#20547f", "#14161a", "#8a3318", "#f58148", "#ffe0c2"
    ),
    forward=matplotlib.colormaps["viridis"],
    heat=_blend("ember", "#57106e", "#bb3754", "#f98e09", "#fcffa4"),
    veil=(0.0, 0.5),
)


class Sheet:
    """A figure whose parts are placed in inches from its top left corner.

    Everything is set explicitly: no global setting of Matplotlib is changed, and figures can be
    made in several threads.
    """

    def __init__(self, width: float, height: float, dark: bool) -> None:
        self.theme = DARK if dark else LIGHT
        self.width, self.height = width, height
        self.figure = Figure((width, height), 100, facecolor=self.theme.background)
        self.figure.set_layout_engine("none")
        self._canvas = FigureCanvasAgg(self.figure)

    def panel(self, x: float, y: float, width: float, height: float, label: str = "") -> Axes:
        """Axes without ticks and frame."""
        bottom = 1 - (y + height) / self.height
        box = (x / self.width, bottom, width / self.width, height / self.height)
        axes = self.figure.add_axes(box, label=label, facecolor="none")
        axes.set_axis_off()
        return axes

    def picture(self, axes: Axes, pixels: Array, shape: tuple[int, int], **options: Any) -> None:
        """Draw an array with a fine frame, as large as the panel allows, at its top.

        Args:
            axes: the panel; its data coordinates become the pixels of ``shape``.
            pixels: (h, w) or (h, w, 3).
            shape: height and width that give the aspect.
            options: for ``Axes.imshow``.

        What is more than ``THINNEST`` times as long as wide is drawn wider than it is.
        """
        height, width = shape
        axes.imshow(
            pixels,
            extent=(0, width, height, 0),
            aspect=drawn_ratio(shape) * width / height,
            origin="upper",
            interpolation="nearest" if min(pixels.shape[:2]) < 64 else "antialiased",
            **options,
        )
        axes.set_anchor("N")
        edge = self.theme.track
        axes.add_patch(
            Rectangle(
                (0, 0), width, height, fill=False, edgecolor=edge, linewidth=0.8, clip_on=False
            )
        )

    def write(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = NORMAL,
        colour: str | None = None,
        width: float | None = None,
        align: Literal["left", "center", "right"] = "left",
        bold: bool = False,
    ) -> Text:
        """Write text below the height ``y``; one line cut to ``width`` inches if that is given."""
        text, families = fonts.fitting(text)
        written = self.figure.text(
            x / self.width,
            1 - y / self.height,
            text if width is None else " ".join(text.split()),
            fontsize=size,
            fontfamily=families,
            color=colour or self.theme.ink,
            fontweight="bold" if bold else "normal",
            horizontalalignment=align,
            verticalalignment="top",
            parse_math=False,  # a class may be called "$9"
            usetex=False,
        )
        if width is not None:
            self._shorten(written, width * self.figure.dpi)
        return written

    def _shorten(self, written: Text, pixels: float) -> None:
        text = written.get_text()
        renderer = self._canvas.get_renderer()  # type: ignore[no-untyped-call]

        def too_wide(end: int) -> bool:
            written.set_text(text if end == len(text) else text[:end].rstrip() + "…")
            return written.get_window_extent(renderer).width > pixels

        longest = min(len(text), 250)  # no line of a page holds more letters
        if longest and too_wide(longest):
            too_wide(max(1, bisect_left(range(1, longest), True, key=too_wide)))

    def heading(self, title: str, subtitle: str) -> None:
        """The two lines at the top."""
        width = self.width - 2 * MARGIN
        self.write(MARGIN, 0.12, title, size=TITLE, bold=True, width=width)
        self.write(MARGIN, 0.40, subtitle, colour=self.theme.muted, width=width)

    def scale(self, x: float, y: float, width: float, colours: Colormap, ends: list[str]) -> None:
        """A colour bar with the meaning of its ends, and of its middle, below it."""
        bar = self.panel(x, y, width, 0.09, label="scale")
        bar.imshow(np.linspace(0, 1, 256)[None], cmap=colours, aspect="auto")
        for i, text in enumerate(ends):
            place = i / (len(ends) - 1)
            align = {0.0: "left", 1.0: "right"}.get(place, "center")
            self.write(
                x + place * width,
                y + 0.12,
                text,
                size=SMALL,
                colour=self.theme.muted,
                align=align,  # type: ignore[arg-type]  # one of the three
            )

    def image(self) -> Image.Image:
        """The sheet as pixels, 100 an inch."""
        self._canvas.draw()  # type: ignore[no-untyped-call]
        pixels = self._canvas.buffer_rgba()  # type: ignore[no-untyped-call]
        return Image.fromarray(np.asarray(pixels)[..., :3])

    def announce(self, axes: Axes, text: str) -> None:
        """Say in a panel why it shows nothing."""
        axes.text(
            0.5,
            0.5,
            textwrap.fill(text, 22),
            transform=axes.transAxes,
            fontsize=NORMAL,
            color=self.theme.ink,
            horizontalalignment="center",
            verticalalignment="center",
            bbox={"facecolor": self.theme.background, "edgecolor": self.theme.muted, "pad": 6},
        )


def drawn_ratio(shape: tuple[int, int]) -> float:
    """Height over width of a picture of this (height, width) as ``Sheet.picture`` draws it."""
    return min(max(shape[0] / shape[1], 1 / THINNEST), THINNEST)


def check(explanation: Explanation, index: int) -> None:
    """Whether a sample can be drawn.

    Raises:
        SettingsError: no such sample, or it is no picture.
    """
    if not 0 <= index < len(explanation):
        raise SettingsError(
            f"index is {index}, but the explanation holds {len(explanation)} sample(s), from 0 on."
        )
    if explanation.values.ndim != 4:
        raise SettingsError(
            f"figures show pictures, values (N, C, H, W); these have {explanation.values.ndim} "
            "dimensions."
        )


def caption(explanation: Explanation, index: int) -> str:
    """Model, settings, size of the support and name of the photo as one line."""
    density = explanation.density[index].item()
    support = explanation.emptiness(index) or f"support {density:.1%} of the pixels"
    photo = [explanation.photos[index].name] if explanation.photos else []
    return "  ·  ".join([explanation.model, _describe(explanation.settings), support, *photo])


def _describe(settings: Settings) -> str:
    """The preset, and what was changed about it."""
    if settings.preset not in PRESETS:
        return f"{settings.preset} settings"
    preset, own = Settings.from_preset(settings.preset).to_dict(), settings.to_dict()
    changes = [f"{name} {own[name]}" for name in own if own[name] != preset[name]]
    return f"{settings.preset} preset" + (f" with {', '.join(changes)}" if changes else "")
