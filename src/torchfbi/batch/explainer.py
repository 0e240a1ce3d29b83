"""Forward and walk for one batch; what does not fit into memory is halved."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from torchfbi.api import resolve
from torchfbi.batch.decode import Decoded
from torchfbi.batch.job import Job
from torchfbi.batch.rows import Row, explained, failed
from torchfbi.errors import CaptureError, InputError, TorchFBIError, usable
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.explanation.verifying import Asked, ask_others, verify_maps
from torchfbi.method import evidence
from torchfbi.method.heads import probabilities
from torchfbi.method.seeds import as_classes
from torchfbi.verification import Verdict


class Explainer:
    """The network of a job, captured once.

    Args:
        job: what to do.

    Raises:
        CaptureError: the network cannot be captured.
        InputError: its output is no (N, classes), or it fixes the batch size.
        TargetError: the target is no class of it.
        SettingsError: there is no such device.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.walker = ForwardBackward(job.model.module, job.model.blank(), job.settings)
        with usable(job.device):
            self.walker.to(job.device)
        self._like = self.walker.get_buffer("_like")
        self._fits = job.batch
        self._check()

    def _check(self) -> None:
        logits = self.walker.graph.logits.meta["val"]
        if logits.ndim != 2:
            raise InputError(
                f"the network's output has {logits.ndim} dimensions: batch explains classifiers, "
                "whose output is (N, classes)."
            )
        if logits.shape[1] != len(self.job.model.labels):
            raise InputError(
                f"the network has {logits.shape[1]} classes, but {len(self.job.model.labels)} "
                "labels: give a file of them with --labels."
            )
        self._classes(torch.zeros(1, logits.shape[1]), self._target(1))
        fixed = self.walker.graph.batch
        if fixed is not None and self.job.batch > fixed:
            raise InputError(f"the network's code fixes the batch size to {fixed}: ask for that.")

    def __call__(self, batch: Sequence[Decoded]) -> list[Row]:
        """A row for each image, in their order."""
        rows = [failed(self.job, one, one.error) for one in batch if one.error is not None]
        good = [one for one in batch if one.error is None]
        while good:
            part, good = good[: self._fits], good[self._fits :]  # before that changes
            rows += self._explain(part)
        return sorted(rows, key=lambda row: row["index"])

    def _explain(self, batch: Sequence[Decoded]) -> list[Row]:
        try:
            return self._walk(batch)
        except CaptureError:  # the network is not what was captured
            raise
        except TorchFBIError as error:  # of one of them: NaN in the network's answer
            reason = str(error)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = "out of memory, even on its own: a smaller network or input is needed"
            self._fits = max(1, len(batch) // 2)
            if self.job.device.startswith("cuda"):
                torch.cuda.empty_cache()
        if len(batch) == 1:
            return [failed(self.job, batch[0], reason)]
        middle = len(batch) // 2
        return self._explain(batch[:middle]) + self._explain(batch[middle:])

    def _walk(self, batch: Sequence[Decoded]) -> list[Row]:
        start = time.perf_counter()
        x = torch.from_numpy(np.stack([one.x for one in batch if one.x is not None]))
        missing = (self.walker.graph.batch or len(batch)) - len(batch)
        x = torch.cat([x, x[-1:].expand(missing, -1, -1, -1)])  # where the code wants so many
        target = self._target(len(x))
        values, logits = self.walker(x.to(self._like), target)
        classes = self._classes(logits, target)
        likely = probabilities(logits.float(), self.walker.graph.head)
        chances = likely.gather(1, classes[:, None])[:, 0].tolist()
        arrays = [tensor.float().cpu().numpy() for tensor in (values, logits)]
        verdicts = self._verify(x, values, logits, classes)[: len(batch)]
        milliseconds = 1000 * (time.perf_counter() - start) / len(batch)
        return [
            explained(
                *(self.job, one, arrays[0][i], arrays[1][i], int(classes[i]), chances[i]),
                milliseconds,
                verdicts[i] if verdicts else None,
            )
            for i, one in enumerate(batch)
        ]

    def _verify(
        self, x: Tensor, values: Tensor, logits: Tensor, classes: Tensor
    ) -> tuple[Verdict, ...]:
        """A verdict for each image, if the job wants them."""
        if not self.job.verify:
            return ()
        module, labels = self.job.model.module, self.job.model.labels
        x = x.to(self._like)
        own = evidence.of_values(values, self.job.settings)
        others = ask_others(self.walker, x, logits, classes)
        return verify_maps(
            *(Asked(module, x), own, classes, labels.__getitem__),
            graph=self.walker.graph,
            others=others,
        )

    def _target(self, samples: int) -> Any:
        return resolve(self.job.target, self.job.model.labels, samples)

    def _classes(self, logits: Tensor, target: Any) -> Tensor:
        return as_classes(target(logits) if callable(target) else target, logits)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether PyTorch or Python ran out of memory; on the CPU PyTorch has no own type for it."""
    texts = ("can't allocate memory", "not enough memory", "out of memory")
    found = any(text in str(error) for text in texts)
    return found or isinstance(error, torch.OutOfMemoryError | MemoryError)
