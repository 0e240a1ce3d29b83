"""The Python program that computes an answer again, exactly."""

from __future__ import annotations

from torchfbi.explanation.explanation import Explanation
from torchfbi.web.desk import Answer
from torchfbi.web.guest import MARK
from torchfbi.web.query import changes


def snippet(answer: Answer) -> str:
    """A program that draws the same picture, where the photo lies under its name."""
    explanation, settings = answer.explanation, answer.question.settings
    asked = answer.question.model
    network = _visitors(explanation) if asked.startswith(MARK) else repr(asked)
    changed = ", ".join(f"{name}={value!r}" for name, value in changes(settings).items())
    return "\n".join(
        (
            "import torchfbi",
            "from torchfbi import plot",
            "",
            "explanation = torchfbi.explain(",
            f"    {network},",
            f"    {explanation.photos[0].name!r},",
            f"    {answer.target},  # {' '.join(explanation.label(answer.target).split())}",
            f"    torchfbi.Settings.{settings.preset}({changed}),",
            ")",
            f"plot.save(explanation.plot(), {answer.stem + '.png'!r})",
            "",
        )
    )


def _visitors(explanation: Explanation) -> str:
    """A visitor's file, and what the visitor said about its inputs: all that was not assumed."""
    parts = {"scaling": ("mean", "std"), "framing": ("fit",)}
    said = ", ".join(
        f"{name}={getattr(explanation.preprocess, name)!r}"
        for part, names in parts.items()
        if part not in explanation.assumed
        for name in names
    )
    file = repr(explanation.model)
    return f"torchfbi.load({file}).with_preprocess({said})" if said else file
