"""The Python program that computes an answer again, exactly."""

from __future__ import annotations

from torchfbi.settings import Settings, Threshold
from torchfbi.web.desk import Answer
from torchfbi.web.knobs import changes


def snippet(answer: Answer) -> str:
    """A program that draws the same picture, where the photo lies under its name."""
    explanation = answer.explanation
    return "\n".join(
        (
            "import torchfbi",
            "from torchfbi import plot",
            "",
            "explanation = torchfbi.explain(",
            f"    {answer.question.model!r},",
            f"    {explanation.photos[0].name!r},",
            f"    {answer.target},  # {' '.join(explanation.label(answer.target).split())}",
            f"    {_settings(explanation.settings)},",
            ")",
            f"plot.save(explanation.plot(), {answer.stem + '.png'!r})",
            "",
        )
    )


def _settings(settings: Settings) -> str:
    plain = {name: _plain(value) for name, value in changes(settings).items()}
    changed = ", ".join(f"{name}={value!r}" for name, value in plain.items())
    return f"torchfbi.Settings.{settings.preset}({changed})"


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Threshold) else value
