"""The engine for clusters: the same batches through Ray Data, decoded by tasks, explained by
actors. It needs the extra ``ray``.

Images are read on the nodes, so the input must be found there under the same path; the rows come
back to the process that runs this, which alone writes.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import pickle
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import torch

from torchfbi.batch.decode import decode
from torchfbi.batch.explainer import Explainer
from torchfbi.batch.job import Job, Slice
from torchfbi.batch.rows import Row
from torchfbi.errors import ModelError, StorageError, first_line, needs
from torchfbi.models.torchvision import import_torchvision
from torchfbi.system.quiet import quiet

DECODING = 0.25
"""The share of a core that a task asks for which decodes a batch."""


def explain(
    job: Job,
    slices: Iterable[Slice],
    workers: int | None = None,
    address: str | None = None,
    cpus: float = 1.0,
    gpus: float = 0.0,
) -> Iterator[tuple[Slice, list[Row]]]:
    """Explain batches, in any order.

    Args:
        job: what to do.
        slices: the batches.
        workers: how many actors, each with the network; by default as many as the cluster has
            room for.
        address: of a running cluster, such as ``"auto"`` or ``"ray://head:10001"``. None: the one
            that this process is connected to, or that ``RAY_ADDRESS`` names, or a new one on this
            machine, which ends with the run.
        cpus, gpus: what an actor asks for; fractions let several share a core or a GPU.

    Raises:
        ModelError: Ray is missing, or the network cannot be sent to other processes.
        StorageError: there is no cluster at the address.
        CaptureError, InputError, TargetError: as for ``Explainer``.
    """
    Explainer(replace(job, device="cpu"))  # what it refuses is refused before anything is sent
    with _connected(address) as ray, _quiet(ray):
        parts = [{"shard": s.shard, "start": s.start, "stop": s.stop} for s in slices]
        source = ray.put((job.source, job.model.preprocess))
        count = workers or _room(ray, cpus, gpus)
        batches = (
            ray.data.from_items(parts, override_num_blocks=len(parts))
            .map(_decode, fn_args=(source,), num_cpus=DECODING)
            .map(
                _Actor,
                fn_constructor_args=(ray.put(_packed(job)),),
                compute=ray.data.ActorPoolStrategy(size=count),
                num_cpus=cpus,
                num_gpus=gpus,
            )
        )
        for row in batches.iter_rows():
            yield Slice(row["shard"], row["start"], row["stop"]), pickle.loads(row["rows"])


def _decode(part: dict[str, Any], source: Any) -> dict[str, Any]:
    """A task: the batch, read and decoded."""
    torch.set_num_threads(1)
    images, preprocess = _get(source)
    found = decode(images, preprocess, range(part["start"], part["stop"]))
    return {**part, "decoded": pickle.dumps(found)}


class _Actor:
    """The network on a node; it is captured once."""

    def __init__(self, packed: Any) -> None:
        needs_torchvision, content = _get(packed)
        if needs_torchvision:
            import_torchvision()
        job = pickle.loads(content)
        torch.set_num_threads(job.threads)
        self.explainer = Explainer(job)

    def __call__(self, part: dict[str, Any]) -> dict[str, Any]:
        rows = self.explainer(pickle.loads(part.pop("decoded")))
        return {**part, "rows": pickle.dumps(rows)}


def _packed(job: Job) -> tuple[bool, bytes]:
    """The job as bytes, and whether torchvision is to be imported before they are read."""
    cloudpickle: Any = importlib.import_module("ray.cloudpickle")
    assert job.settings_hash  # hashed once, here
    try:
        return "torchvision" in sys.modules, cloudpickle.dumps(job)
    except Exception as error:
        raise ModelError(
            f"{job.model.name} cannot be sent to the actors ({error}): use --engine local."
        ) from error


def _get(reference: Any) -> Any:
    import ray

    return ray.get(reference)


def _room(ray: Any, cpus: float, gpus: float) -> int:
    """How many actors fit into the cluster, with a task beside each that decodes."""
    found = ray.cluster_resources()
    fits = [found.get("CPU", 1) / (cpus + DECODING)]
    if gpus:
        fits.append(found.get("GPU", 0) / gpus)
    return max(1, int(min(fits)))


@contextlib.contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    with needs("torchfbi[ray]"):
        import ray
        import ray.data
    ours = not ray.is_initialized()
    if ours:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if address is None and "RAY_ADDRESS" not in os.environ:
            options["include_dashboard"] = False
        try:
            ray.init(address=address, **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = first_line(error)
            raise StorageError(f"Ray cannot be reached at {address}: {reason}") from error
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Without Ray's own progress bars and news: ours shows images."""
    logger = logging.getLogger("ray.data")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with quiet():  # it warns about its own defaults
        context = ray.data.DataContext.get_current()
    names = ("enable_progress_bars", "print_on_execution_start")
    before = {name: getattr(context, name) for name in names if hasattr(context, name)}
    for name in before:
        setattr(context, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)
