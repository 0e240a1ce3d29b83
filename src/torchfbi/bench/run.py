"""One case: everything ready, then all contenders in turn."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor, nn

from torchfbi.bench.cases import Case, Task, build
from torchfbi.bench.contenders import COMPILED, MAKERS, OURS, PEERS, SETTINGS, forward
from torchfbi.bench.measure import measure, ratio, settled, spread
from torchfbi.bench.memory import Memory, growth, in_a_process, tiny
from torchfbi.bench.results import Result, Timing
from torchfbi.errors import first_line
from torchfbi.explanation.forward_backward import ForwardBackward
from torchfbi.method.flow import LayerFlow
from torchfbi.method.settings import Settings
from torchfbi.system.threads import threads as limited

REFERENCE = "forward"


def run(
    case: Case,
    repeats: int = 10,
    peers: bool = False,
    threads: int | None = None,
    compiled: bool = False,
) -> Result:
    """Time ours, the gradient and, if wanted, the peers against the network's forward pass.

    All are called in turn in this process; the memory of each is found in a process of its own, or
    on an accelerator by asking that.

    Args:
        case: network and images.
        repeats: how often each is timed, after one call that is not.
        peers: with Captum's GuidedBackprop and Grad-CAM. What does not take the network gets a
            row that says why.
        threads: of PyTorch, meanwhile; as many as now by default.
        compiled: with ours as AOTInductor compiles it, whose memory is not measured: that of the
            compiler would hide it.

    Raises:
        ModelError: the network is unknown, or a library is missing.
        SettingsError: there is no such device.
        InputError, ImageError: it does not take such images.
        CaptureError: it cannot be captured.
    """
    with limited(threads) as count:
        task = build(case)
        # The reference is always in float32: what lower precision saves must show.
        exact = task if case.dtype == "float32" else build(replace(case, dtype="float32"))
        capture, again = capture_seconds(task)
        rows = {REFERENCE: Timing(REFERENCE)}
        calls: dict[str, Callable[[], object]] = {REFERENCE: forward(exact)}
        weighed = {REFERENCE: (replace(case, dtype="float32"), exact, REFERENCE)}
        if exact is not task:
            name = f"{REFERENCE}, {case.dtype}"
            rows[name], calls[name] = Timing(name), forward(task)
            weighed[name] = case, task, REFERENCE
        for name in [*OURS, *(COMPILED if compiled else ()), *(PEERS if peers else ())]:
            try:
                calls[name] = MAKERS[name](task)
                calls[name]()
            except Exception as error:
                if name in OURS:
                    raise
                calls.pop(name, None)
                reason = first_line(error)
                rows[name] = Timing(name, failed=reason)
                continue
            alive = _alive(task, SETTINGS[name]) if name in SETTINGS else ()
            rows[name] = Timing(name, alive=alive)
            if name not in COMPILED:
                weighed[name] = case, task, name
        clock = time.perf_counter if case.device == "cpu" else settled
        seconds = measure(calls, repeats, clock=clock)
        for name, times in seconds.items():
            rows[name] = replace(
                rows[name],
                seconds=spread(times),
                ratio=ratio(times, seconds[REFERENCE]),
                memory=_memory(*weighed[name], count) if name in weighed else None,
            )
    parameters = sum(p.numel() for p in task.module.parameters())
    shape = tuple(task.x.shape)
    return Result(case, shape, parameters, capture, again, repeats, tuple(rows.values()))


def _memory(case: Case, task: Task, contender: str, threads: int) -> Memory | None:
    if case.device == "cpu":
        return in_a_process(case, contender, threads)
    return growth(lambda: MAKERS[contender](task), case.device)


def capture_seconds(task: Task) -> tuple[float, float]:
    """The time to get ready, in seconds: of the first explainer of a network, and of the second."""

    def ready(module: nn.Module, x: Tensor) -> float:
        start = time.perf_counter()
        ForwardBackward(module, x)
        return time.perf_counter() - start

    small = tiny(task)
    ready(small.module, small.x)  # what torch.export imports on first use is not the network's
    return ready(task.module, task.x), ready(task.module, task.x)


def _alive(task: Task, settings: Settings) -> tuple[tuple[str, float], ...]:
    """The share of non-zero entries in the signal that went on at each feature."""
    shares: list[tuple[str, float]] = []

    def visit(seen: LayerFlow) -> None:
        shares.append((seen.layer, float((seen.signal != 0).double().mean())))

    ForwardBackward(task.module, task.x, settings).walk(task.x, task.target, visit)
    return tuple(shares)
