"""Formulas as pictures, drawn when the site is built: no script and no font for the reader."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

import ziamath

UNITS = 18
"""The letters' size in the picture's own units."""

TEXT = 1.2
"""The letters' size in em: the formulas' font looks smaller than the one around it."""

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: object) -> str:
    """Replace what the extension arithmatex has marked in a page."""

    def drawn(found: re.Match[str]) -> str:
        return draw(html.unescape(found[3]).strip(), inline=found[2] == "(")

    return FORMULA.sub(drawn, content)


def draw(latex: str, inline: bool) -> str:
    """A formula as SVG in the colour of the text and, inside of a line, on its baseline."""
    element = ziamath.Latex(latex, size=UNITS, inline=inline, color="currentColor").svgxml()
    _, top, width, height = map(float, element.attrib["viewBox"].split())
    size = f"width:{_em(width)};height:{_em(height)};vertical-align:{_em(-top - height)}"
    element.attrib |= {"style": size, "role": "img", "aria-label": latex}
    del element.attrib["width"], element.attrib["height"]
    picture = ElementTree.tostring(element, encoding="unicode")
    return picture if inline else f'<div class="formula">{picture}</div>'


def _em(units: float) -> str:
    return f"{units / UNITS * TEXT:.3f}em"
