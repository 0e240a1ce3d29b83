"""The answer: what an explanation holds, how it is saved and how it shows itself."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from torchfbi import atomic
from torchfbi.errors import FileFormatError, SettingsError
from torchfbi.explanation import saved
from torchfbi.explanation.notebook import Flow, png
from torchfbi.explanation.verifying import Remembered, verify_explanation
from torchfbi.method import evidence
from torchfbi.method.flow import LayerFlow, LayerSupport
from torchfbi.method.heads import Head, probabilities
from torchfbi.method.settings import Settings
from torchfbi.models.images import Photo
from torchfbi.models.model import guessed
from torchfbi.models.preprocess import Preprocess, Region, on_photo
from torchfbi.system.versions import versions
from torchfbi.verification import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from torchfbi.models import Model

MOST_BYTES = 4 * 2**30
"""A thousand explanations of 224 x 224 pixels with their photos take less."""

UNSEEN = 0.01
"""Below this probability a class that is not the top one is not what the network sees."""

_SAVING = threading.Lock()


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Which pixels made the network say that, and how the information got there.

    Args:
        values: the attribution, (N, C, ...) float, raw and signed. In the default preset
            ``values.sum(1)`` is a pixel's evidence, positive where it speaks for the class and
            negative where it speaks against it; the channels share it as they share the magnitude
            of the signal, and have its sign. In the others they are the signal that reached each
            channel, zero off the support: what it says of a pixel is in its magnitude.
        logits: the network's output before a final softmax or sigmoid, (N, classes) or
            (N, classes, ...).
        target: the probed class of each sample, (N,) int64; None if a function gave the seed.
        layers: the support at every feature from the top layer down to the image.
        settings: how the walk was done.
        labels: the classes' names, or None.
        photos: the photos behind the samples, where there were any.
        regions: which part of each photo the network saw, in photo pixels.
        model: the model's name.
        versions: which versions of torchfbi, torch and numpy computed it.
        flow: everything seen on the way, if it was recorded; it is not saved.
        head: the softmax or sigmoid behind the logits; None where the network has neither.
        shares: of the ``"image"`` and of each tensor of the network's own in the answer, (N,).
        fitting_tau: where nothing exceeded tau, the largest round tau at which something does.
        preprocess: how the photos became the network's input, where there were any.
        assumed: what of it nobody said, see ``Model``; empty where all of it is known.
        weights: SHA-256 of the network's weights, of a ``Model``.
        verdicts: what ``verify`` found, one for each sample, where it was kept.
        question: what was asked where that is no class of each sample, as ``targets`` have it.
        _asked: the network, which is not held, and its input, for ``verify``; neither saved nor
            pickled.
    """

    values: Tensor
    logits: Tensor
    target: Tensor | None
    layers: tuple[LayerSupport, ...]
    settings: Settings
    labels: tuple[str, ...] | None = None
    photos: tuple[Photo, ...] = ()
    regions: tuple[Region, ...] = ()
    model: str = "model"
    versions: dict[str, str] = field(default_factory=versions)
    flow: tuple[LayerFlow, ...] = ()
    head: Head | None = None
    shares: dict[str, Tensor] = field(default_factory=dict)
    fitting_tau: float | None = None
    preprocess: Preprocess | None = None
    assumed: tuple[str, ...] = ()
    weights: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    question: str | None = None
    _asked: Remembered | None = None

    def __post_init__(self) -> None:
        if self.flow and not isinstance(self.flow, Flow):
            # It knows an explanation without a flow: a circle would keep all of it in memory.
            object.__setattr__(self, "flow", Flow(self.flow, replace(self, flow=())))

    @property
    def support(self) -> Tensor:
        """The pixels that carry the explanation, (N, ...) bool: the fewest that hold most of what
        speaks for the class (``method.evidence.support``), or where values are a signal all that
        it reached."""
        return evidence.support_of_values(self.values, self.settings)

    @property
    def evidence(self) -> Tensor:
        """One number a pixel, (N, ...) float: its signed evidence, or where values are a signal its
        magnitude."""
        return evidence.of_values(self.values, self.settings)

    @property
    def density(self) -> Tensor:
        """The share of the pixels in the support, (N,) float in [0, 1]."""
        return self.support.flatten(1).float().mean(1)

    @property
    def probabilities(self) -> Tensor:
        """The classes' probabilities by the network's own ``head``, of the logits' shape.

        Without one a softmax; a sigmoid where there is only one class.
        """
        return probabilities(self.logits, self.head)

    def __len__(self) -> int:
        return int(self.values.shape[0])

    def __getitem__(self, index: int) -> Explanation:
        """One sample as an explanation of its own."""
        number = range(len(self))[index]
        one = slice(number, number + 1)
        return replace(
            self,
            values=self.values[one],
            logits=self.logits[one],
            target=None if self.target is None else self.target[one],
            layers=tuple(LayerSupport(n, s[one], d[one]) for n, s, d in self.layers),
            photos=self.photos[one],
            regions=self.regions[one],
            flow=tuple(
                LayerFlow(*seen[:2], *(part[one] for part in seen[2:])) for seen in self.flow
            ),
            shares={name: share[one] for name, share in self.shares.items()},
            verdicts=self.verdicts[one],
            _asked=self._asked and self._asked.one(number),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_asked": None}

    def __iter__(self) -> Iterator[Explanation]:
        return (self[index] for index in range(len(self)))

    def top(self, count: int = 5, index: int = 0) -> list[tuple[int, str, float]]:
        """The most probable classes of one sample: number, name and probability.

        Empty where the output is not (N, classes), such as a segmentation's.
        """
        if self.logits.ndim != 2:
            return []
        best = self.probabilities[index].topk(min(count, self.logits.shape[1]))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(number, self.label(number), probability) for number, probability in pairs]

    def label(self, number: int) -> str:
        """The name of a class."""
        known = self.labels is not None and number < len(self.labels)
        return self.labels[number] if known and self.labels else f"class {number}"

    def title(self, index: int = 0) -> str:
        """What was asked of one sample: the probed class and its probability."""
        if self.target is None:
            return self.question or "a question of your own"
        number = int(self.target[index])
        return f"{self.label(number)} ({self.probabilities[index, number].item():.1%})"

    def to_heatmap(self) -> Tensor:
        """What speaks for the class at each pixel, each sample scaled to [0, 1].

        The scale is the 99.5th percentile of what is not zero, so that a few peaks do not hide the
        rest; where nothing is all are zero.

        Returns:
            (N, ...) float.
        """
        magnitude = torch.relu(self.evidence)
        maps = []
        for one in magnitude:
            inside = one[one > 0].float()
            top = np.quantile(inside.cpu().numpy(), 0.995) if inside.numel() else 1.0
            maps.append((one / float(top)).clamp(0, 1))
        return torch.stack(maps)

    def on_photo(self, index: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Values (C, H, W) float and support (H, W) bool on the original photo's own pixels.

        Pixels outside of what the network saw are zero.

        Raises:
            SettingsError: this explanation was made from a tensor, so there is no photo.
        """
        if not self.photos:
            raise SettingsError("this explanation was made from a tensor: it has no photo.")
        shape, region = self.photos[index].pixels.shape[:2], self.regions[index]
        values = on_photo(self.values[index].float().cpu().numpy(), shape, region)
        support = on_photo(self.support[index].cpu().numpy(), shape, region)
        return values * support, support

    def verify(
        self,
        model: str | Model | nn.Module | None = None,
        images: Tensor | None = None,
        *,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Verdict, ...]:
        """Test on the images themselves whether this explanation holds; see docs/verify.md.

        At most 60 forward passes a sample, three explanations among them: of the strongest rival,
        and of the image with a little noise and moved by some pixels.

        Args:
            model: the network, which an explanation does not know that was loaded or pickled, or
                whose network was freed meanwhile. One that was explained by name stays.
            images: what the network was shown, (N, C, ...), where it was no photo.
            seed: of what is drawn at random.
            progress: called with the number of samples that are done, and of all, before every
                forward pass; what it raises ends the work.

        Returns:
            A verdict for each sample.

        Raises:
            InputError: no network is known, or it does not give these answers.
            TargetError: no class was explained, or the output is no (N, classes).
        """
        return verify_explanation(self, model, images, seed, progress)

    def warnings(self, index: int = 0) -> tuple[str, ...]:
        """What a reader of one sample has to know first: what of its preprocessing was assumed, and
        that the class asked for is not what the network sees."""
        found = list(guessed(self.preprocess, self.assumed))
        if self.target is not None and self.logits.ndim == 2 and self.logits.shape[1] > 1:
            number, asked = self.top(1, index)[0], int(self.target[index])
            probability = self.probabilities[index, asked].item()
            if probability < UNSEEN and number[0] != asked:
                found.append(
                    f"The network does not see the class asked for: {self.label(asked)} has "
                    f"{probability:.1%}, {number[1]} {number[2]:.1%}. What is shown tells it from "
                    "its rivals here, which is no sign that it is there."
                )
        return tuple(found)

    def emptiness(self, index: int = 0) -> str | None:
        """Why the support of one sample is empty, and what would fill it; None where it is not."""
        if self.density[index]:
            return None
        tau = self.settings.tau
        if tau is None:
            return "empty support: nothing speaks for it"
        offer = "" if self.fitting_tau is None else f"; tau = {self.fitting_tau:g} would fit"
        return f"empty support: nothing exceeds tau = {tau:g} here{offer}"

    def plot(
        self,
        index: int = 0,
        *,
        dark: bool = False,
        box: tuple[float, float, float, float] | None = None,
    ) -> Figure:
        """The figure of one sample: photo, values, support over the photo, and the top five; with
        the ``box`` that a detector was asked about."""
        from torchfbi.plot import explanation_figure  # Matplotlib takes half a second

        return explanation_figure(self, index, dark=dark, box=box)

    def __repr__(self) -> str:
        rows = []
        for index in range(min(len(self), 4)):
            density = self.density[index].item()
            found = self.emptiness(index) or f"support {density:.1%} of the image"
            rows.append(f"{self.title(index)}: {found}")
        more = "" if len(self) <= 4 else f"; and {len(self) - 4} more"
        return f"Explanation({self.model}, {self.settings.preset}; {'; '.join(rows)}{more})"

    def _repr_png_(self) -> bytes | None:
        if self.values.ndim != 4:
            return None
        return png(self.plot())

    def manifest(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON values."""
        return saved.manifest(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write ``path`` (.npz) and beside it the manifest (.json).

        The manifest is also inside the npz, so the npz alone can be loaded. Both are written
        under another name first: an interrupted save leaves no half file, and threads that save
        to one path leave the two of one of them.

        Returns:
            The npz's path.
        """
        path = Path(path)
        path = path if path.suffix == ".npz" else path.with_name(f"{path.name}.npz")
        content, manifest = self.to_npz(), json.dumps(self.manifest(), indent=1).encode()
        with _SAVING:
            atomic.write(path, content)
            atomic.write(path.with_suffix(".json"), manifest)
        return path

    def to_npz(self) -> bytes:
        """The npz that ``save`` writes, the manifest inside."""
        return saved.npz(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> Explanation:
        """Read what ``save`` wrote. Nothing in the file is executed.

        Args:
            path: the npz.
            most_bytes: how many bytes the file may unpack to: a small file may claim more than
                the memory holds.

        Raises:
            FileFormatError: the file is missing, damaged, foreign, too large or of another schema.
        """
        try:
            return cls(**saved.fields(*saved.read(Path(path), most_bytes)))
        except Exception as error:  # a damaged file makes NumPy, zlib and json raise anything
            raise FileFormatError(
                f"{path}: not an explanation saved by torchfbi: {error}"
            ) from None
