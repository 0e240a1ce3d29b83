"""The worker's line, and what is kept for how long."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest

from torchfbi.errors import LimitError
from torchfbi.web import limits
from torchfbi.web.limits import TIDIED, Limits, Worker
from torchfbi.web.store import ForgottenError, Store


def run(worker: Worker, scene: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(scene)
    finally:
        worker.close()


def test_one_at_a_time_and_in_one_thread() -> None:
    worker, inside, most = Worker(Limits()), [0], [0]

    def work() -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1
        return threading.get_ident()

    async def scene() -> list[int]:
        return await asyncio.gather(*(worker.run(work) for _ in range(16)))

    threads = set(run(worker, scene()))
    assert most == [1]
    assert len(threads) == 1
    assert threads != {threading.get_ident()}


def test_who_comes_when_too_many_wait_is_refused() -> None:
    worker, go = Worker(Limits(waiting=1)), threading.Event()

    async def scene() -> None:
        first = asyncio.create_task(worker.run(lambda: go.wait(10)))
        second = asyncio.create_task(worker.run(lambda: go.wait(10)))
        await asyncio.sleep(0)
        with pytest.raises(LimitError, match="busy"):
            await worker.run(lambda: None)
        go.set()
        assert await first
        assert await second
        assert await worker.run(lambda: 7) == 7  # and there is room again

    run(worker, scene())


def test_who_waits_no_longer_loses_the_turn_and_makes_room() -> None:
    worker, go, done = Worker(Limits(waiting=1)), threading.Event(), list[int]()

    async def scene() -> None:
        first = asyncio.create_task(worker.run(lambda: go.wait(10)))
        second = asyncio.create_task(worker.run(lambda: done.append(1)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        third = asyncio.create_task(worker.run(lambda: done.append(3)))
        await asyncio.sleep(0)
        go.set()
        await asyncio.gather(first, third)

    run(worker, scene())
    assert done == [3]


def test_nobody_waits_longer_than_the_limit() -> None:
    worker, go, done = Worker(Limits(seconds=0.05)), threading.Event(), list[int]()

    async def scene() -> None:
        with pytest.raises(LimitError, match=r"0\.05 s"):
            await worker.run(lambda: go.wait(10))
        with pytest.raises(LimitError):  # it never began: the first one holds the thread
            await worker.run(lambda: done.append(1))
        go.set()

    run(worker, scene())
    assert not done


def test_long_work_ends_when_nobody_waits_for_it_any_longer() -> None:
    worker, begun, ended = Worker(Limits()), threading.Event(), list[str]()

    def work() -> None:
        try:
            while not ended:  # as a verdict does, before each of its forward passes
                worker.check(0, 1)
                begun.set()
        except LimitError as error:
            ended.append(str(error))
            raise

    async def scene() -> int:
        first = asyncio.create_task(worker.run(work))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        first.cancel()
        return await worker.run(lambda: worker.check() or 7)  # this one is waited for

    assert run(worker, scene()) == 7
    assert ended == ["Nobody waits for this any longer."]


def test_the_works_own_errors_are_raised() -> None:
    def work() -> None:
        raise TimeoutError("the work's own")

    worker = Worker(Limits())
    with pytest.raises(TimeoutError, match="own"):
        run(worker, worker.run(work))


def test_free_memory_is_given_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    given, worker = list[int](), Worker(Limits())
    monkeypatch.setattr(limits, "give_back", lambda: given.append(threading.get_ident()))

    async def scene() -> None:
        for _ in range(2 * TIDIED + 1):
            await worker.run(lambda: None)

    run(worker, scene())
    assert len(given) == 2


def store_of(room: int, age: float, away: float, forgotten: list[str] | None = None) -> Store[str]:
    """Texts, each as large as it is long."""
    return Store(room, age, away, len, (forgotten if forgotten is not None else []).extend)


def test_the_oldest_make_room() -> None:
    forgotten: list[str] = []
    store = store_of(2, 60, 60, forgotten)
    first, second = store.put("a"), store.put("b")
    store.get(first)  # used: now the second is the oldest
    third = store.put("c")
    assert first in store
    assert third in store
    with pytest.raises(ForgottenError, match="choose it again"):
        store.get(second)
    assert forgotten == ["b"]
    large = store.put("large")  # more than there is room for: alone then
    assert len(store) == 1
    assert store.get(large) == "large"


def test_they_are_forgotten_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("torchfbi.web.store.time.monotonic", lambda: now[0])
    store = store_of(10, 10, 3)
    old, used = store.put("a"), store.put("b")
    closed, open_ = store.put("c", stay=True), store.put("d", stay=True)
    now[0] += 2
    store.stay(open_)
    now[0] += 2
    store.get(used)
    assert closed not in store  # its page has not said that it is still open
    assert open_ in store
    now[0] += 6.5
    store.tidy()
    assert (old in store, used in store, open_ in store) == (False, True, False)
    with pytest.raises(ForgottenError):
        store.stay(old)


def test_what_is_dropped_is_gone() -> None:
    store = store_of(10, 60, 60)
    mine, theirs = store.put("a"), store.put("b")
    store.drop(mine)
    store.drop("never kept")
    assert (mine in store, theirs in store) == (False, True)
