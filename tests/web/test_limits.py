"""The worker's line, and what is kept for how long."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from torchfbi.errors import LimitError
from torchfbi.web import limits
from torchfbi.web.limits import TIDIED, Limits, Worker
from torchfbi.web.shelf import Shelf


def test_one_at_a_time_and_in_one_thread() -> None:
    worker, inside, most = Worker(Limits()), [0], [0]

    def work() -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1
        return threading.get_ident()

    with ThreadPoolExecutor(8) as visitors:
        threads = set(visitors.map(lambda _: worker.run(work), range(16)))
    assert most == [1]
    assert len(threads) == 1
    worker.close()


def test_who_comes_when_too_many_wait_is_refused() -> None:
    worker, go, begun = Worker(Limits(waiting=1)), threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go.wait(10)

    with ThreadPoolExecutor(3) as visitors:
        first = visitors.submit(worker.run, work)
        begun.wait(10)
        second = visitors.submit(worker.run, work)
        while worker._places._value:  # until the second one waits
            pass
        with pytest.raises(LimitError, match="busy"):
            worker.run(work)
        go.set()
        assert first.result()
        assert second.result()
    assert worker.run(work)  # and there is room again
    worker.close()


def test_nobody_waits_longer_than_the_limit() -> None:
    worker, go = Worker(Limits(seconds=0.05)), threading.Event()
    with pytest.raises(LimitError, match=r"0\.05 s"):
        worker.run(lambda: go.wait(10))
    done: list[int] = []
    with pytest.raises(LimitError):  # it never began: the first one holds the thread
        worker.run(lambda: done.append(1))
    threading.Timer(0.2, go.set).start()
    assert worker.run(lambda: go.is_set(), patient=True)
    worker.close()
    assert not done


def test_a_timeout_of_the_work_itself_is_not_ours() -> None:
    def work() -> None:
        raise TimeoutError("the work's own")

    worker = Worker(Limits())
    with pytest.raises(TimeoutError, match="own"):
        worker.run(work)
    worker.close()


def test_free_memory_is_given_back_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    given, worker = [], Worker(Limits())
    monkeypatch.setattr(limits, "give_back", lambda: given.append(threading.get_ident()))
    for _ in range(2 * TIDIED + 1):
        worker.run(lambda: None)
    worker.close()
    assert len(given) == 2


def test_the_shelf_forgets_the_oldest_when_it_is_full() -> None:
    shelf: Shelf[str] = Shelf(10, 60)
    first, second = shelf.put("first", 4), shelf.put("second", 4)
    assert shelf.get(first) == "first"  # used: now the second is the oldest
    third = shelf.put("third", 4)
    assert (shelf.get(first), shelf.get(third)) == ("first", "third")
    with pytest.raises(LimitError, match="choose the photo again"):
        shelf.get(second)
    assert len({first, second, third}) == 3


def test_one_thing_larger_than_the_shelf_is_kept() -> None:
    shelf: Shelf[str] = Shelf(10, 60)
    assert shelf.get(shelf.put("large", 100)) == "large"


def test_the_shelf_forgets_what_nobody_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("torchfbi.web.shelf.time.monotonic", lambda: now[0])
    shelf: Shelf[str] = Shelf(100, 10)
    old, used = shelf.put("old", 1), shelf.put("used", 1)
    now[0] += 8
    shelf.get(used)
    now[0] += 8
    assert shelf.get(used) == "used"
    with pytest.raises(LimitError):
        shelf.get(old)


def test_a_session_takes_its_things_with_it() -> None:
    shelf: Shelf[str] = Shelf(100, 60)
    mine, theirs, nobodys = shelf.put("a", 1), shelf.put("b", 1, "them"), shelf.put("c", 1)
    shelf.get(mine, "me")  # who asks first owns it
    shelf.get(mine, "them")
    shelf.drop("me")
    with pytest.raises(LimitError):
        shelf.get(mine)
    assert (shelf.get(theirs), shelf.get(nobodys)) == ("b", "c")
    for token in (None, 7, "", ["x"], {"a": 1}):
        with pytest.raises(LimitError):
            shelf.get(token)
