"""The page's answers for programs: the same through ``gradio_client`` and through plain HTTP."""

from __future__ import annotations

from typing import Any

from torchfbi.errors import SettingsError
from torchfbi.images import Photo
from torchfbi.settings import Settings
from torchfbi.web.desk import Answer, Desk, Question

FILES = ("png", "svg", "npz", "json", "py")


def answer(desk: Desk, question: Question, owner: str | None = None) -> tuple[Answer, str]:
    """Answer a question and keep it.

    Returns:
        The answer, and the token under which its files can be asked for.

    Raises:
        TorchFBIError: as ``Desk.explain``.
    """
    found = desk.answer(question)
    size = found.question.photo.pixels.nbytes
    return found, desk.questions.put(found.question, size, owner)


def question(
    desk: Desk,
    photo: Photo,
    target: str = "",
    model: str = "",
    preset: str = "contrast",
    settings: Any = None,
) -> Question:
    """A question as programs put it: by names, the settings as an object of what differs.

    Raises:
        SettingsError: no such preset or setting.
    """
    if not isinstance(settings or {}, dict):
        raise SettingsError('settings are an object, such as {"k": 0.5}.')
    chosen = Settings.from_preset(preset, **(settings or {}))
    return Question(photo, model or desk.models[0], target.strip() or None, chosen)


def describe(found: Answer, token: str) -> dict[str, Any]:
    """An answer as plain JSON values, with the addresses of its files."""
    manifest = found.explanation.manifest()
    sample = manifest["samples"][0]
    return {
        "model": manifest["model"],
        "photo": sample["photo"],
        "target": sample["target"],
        "title": sample["title"],
        "top": [
            dict(zip(("class", "label", "probability"), row, strict=True)) for row in sample["top"]
        ],
        "density": sample["density"],
        "region": sample["region"],
        "settings": manifest["settings"],
        "versions": manifest["versions"],
        "files": {suffix: f"/download/{token}.{suffix}" for suffix in FILES},
    }
