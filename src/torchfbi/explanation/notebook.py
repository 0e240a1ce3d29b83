"""How explanations and flows show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from torchfbi.method.flow import LayerFlow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchfbi.explanation.explanation import Explanation


class Flow(tuple[LayerFlow, ...]):
    """What was seen at every feature, from the top layer to the image; a notebook shows it."""

    _explanation: Explanation | None

    def __new__(cls, seen: Iterable[LayerFlow], explanation: Explanation | None = None) -> Flow:
        flow = super().__new__(cls, seen)
        flow._explanation = explanation
        return flow

    def __repr__(self) -> str:
        return f"Flow({', '.join(seen.layer for seen in self)})"

    def _repr_png_(self) -> bytes | None:
        if self._explanation is None or self._explanation.values.ndim != 4:
            return None
        from torchfbi.plot import flow_figure

        return png(flow_figure(replace(self._explanation, flow=self)))


def png(figure: Figure) -> bytes:
    """A figure as the bytes of a small PNG."""
    from torchfbi.plot import encode

    return encode(figure, "png", 80)
