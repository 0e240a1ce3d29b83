"""The Python program that computes an answer again, exactly."""

from __future__ import annotations

from torchfbi.web.desk import Answer
from torchfbi.web.query import changes


def snippet(answer: Answer) -> str:
    """A program that draws the same picture, where the photo lies under its name."""
    explanation, settings = answer.explanation, answer.question.settings
    changed = ", ".join(f"{name}={value!r}" for name, value in changes(settings).items())
    return "\n".join(
        (
            "import torchfbi",
            "from torchfbi import plot",
            "",
            "explanation = torchfbi.explain(",
            f"    {answer.question.source.program()},",
            f"    {explanation.photos[0].name!r},",
            f"    {answer.target},  # {' '.join(explanation.label(answer.target).split())}",
            f"    torchfbi.Settings.{settings.preset}({changed}),",
            ")",
            f"plot.save(explanation.plot(), {answer.stem + '.png'!r})",
            "",
        )
    )
