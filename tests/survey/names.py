"""Which architectures stand for all of them."""

from __future__ import annotations

import re
from collections import Counter

from survey import huggingface
from torchfbi.models import timm, torchvision

_SIZES = [
    "zepto", "atto", "femto", "pico", "nano", "xxtiny", "xtiny", "tiny", "xx", "xs", "mini", "s",
    "small", "m", "medium", "base", "l", "large", "xl", "xlarge", "xxl", "xxlarge", "huge", "giant",
    "gigantic", "enormous",
]  # fmt: skip


def family(name: str) -> str:
    """The module that defines an architecture: ``"timm:byobnet"``, ``"torchvision:resnet"``.

    Raises:
        ModelError: the library is missing.
    """
    library, _, member = name.partition(":")
    if library == "transformers":
        return name
    if library == "timm":
        entry = timm.import_timm().model_entrypoint(member.partition(".")[0])
    else:
        entry = torchvision.import_torchvision().models.get_model_builder(member)
    return f"{library}:{entry.__module__.rpartition('.')[2]}"


def architectures() -> list[str]:
    """All that torchvision and timm build, without timm's tags of published weights, and the
    vision classes of transformers, if that is installed.

    Raises:
        ModelError: one of the two is missing.
    """
    names = [f"torchvision:{name}" for name in torchvision.names()]
    names += [f"transformers:{name}" for name in huggingface.names()]
    return names + [f"timm:{name}" for name in timm.names() if "." not in name]


def representatives() -> list[str]:
    """All of torchvision and transformers, and of timm the smallest of each kind; the first of
    each family first.

    Names of one module that differ in numbers and words of size alone are one kind
    (``resnet26d`` and ``resnet101d``); the number of a version makes a difference.
    """
    smallest: dict[tuple[str, str], str] = {}
    for name in sorted(architectures(), key=_size):
        whole = not name.startswith("timm:")
        smallest.setdefault((family(name), name if whole else _kind(name)), name)
    chosen = sorted(smallest.values(), key=lambda name: (family(name), _size(name)))
    seen = Counter[str]()
    places = {}
    for name in chosen:
        places[name] = seen[family(name)]
        seen[family(name)] += 1
    return sorted(chosen, key=places.__getitem__)


def _kind(name: str) -> str:
    words = re.sub(r"(?<![v\d])\d+|(?<=\d)\d+", "", name).split("_")
    return "_".join(word for word in words if len(word) > 1 and word not in _SIZES)


def _size(name: str) -> tuple[int, list[int], str]:
    sizes = [_SIZES.index(word) for word in name.split("_") if word in _SIZES]
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return min(sizes, default=_SIZES.index("m")), numbers, name
