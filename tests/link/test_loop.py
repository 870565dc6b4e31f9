"""The event loop: descriptors, workers, sleeping and stopping."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from nvmelab.link.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def event() -> Iterator[int]:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_ready_descriptor_is_called_with_its_events(loop: Loop, event: int) -> None:
    seen: list[int] = []
    loop.add(event, seen.append)

    loop.turn(0)
    os.eventfd_write(event, 1)
    loop.turn(0)

    assert seen == [select.EPOLLIN]


def test_readiness_is_repeated_until_it_is_read(loop: Loop, event: int) -> None:
    seen: list[int] = []
    loop.add(event, seen.append)
    os.eventfd_write(event, 1)

    loop.turn(0)
    loop.turn(0)

    assert len(seen) == 2


def test_modified_events(loop: Loop, event: int) -> None:
    seen: list[int] = []
    loop.add(event, seen.append)

    loop.modify(event, select.EPOLLOUT)
    loop.turn(0)

    assert seen == [select.EPOLLOUT]


def test_removed_descriptor_is_not_called(loop: Loop, event: int) -> None:
    seen: list[int] = []
    loop.add(event, seen.append)
    os.eventfd_write(event, 1)

    loop.remove(event)
    loop.turn(0)

    assert seen == []


def test_callback_may_remove_another_that_is_ready(loop: Loop, event: int) -> None:
    other = os.eventfd(1)
    called: list[int] = []

    def first_come(fd: int, rival: int) -> None:
        called.append(fd)
        loop.remove(rival)

    loop.add(event, lambda _: first_come(event, other))
    loop.add(other, lambda _: first_come(other, event))
    os.eventfd_write(event, 1)

    loop.turn(0)

    assert len(called) == 1
    os.close(other)


def test_adding_twice_is_refused(loop: Loop, event: int) -> None:
    loop.add(event, lambda _: None)

    with pytest.raises(ValueError, match="in the loop already"):
        loop.add(event, lambda _: None)


def test_removing_what_was_never_added_is_refused(loop: Loop, event: int) -> None:
    with pytest.raises(KeyError):
        loop.remove(event)


def test_workers_come_after_the_callbacks_in_their_order(loop: Loop, event: int) -> None:
    order: list[str] = []

    def worker(name: str) -> bool:
        order.append(name)
        return False

    loop.add_worker(lambda: worker("first"))
    loop.add_worker(lambda: worker("second"))
    loop.add(event, lambda _: order.append("callback"))
    os.eventfd_write(event, 1)

    loop.turn(0)

    assert order == ["callback", "first", "second"]


def test_every_worker_runs_though_one_has_work_left(loop: Loop) -> None:
    ran: list[int] = []

    def idle() -> bool:
        ran.append(1)
        return False

    loop.add_worker(lambda: True)
    loop.add_worker(idle)

    assert loop.turn(0) is True
    assert ran == [1]


def test_no_wait_while_a_worker_has_work_left(loop: Loop) -> None:
    left = [True, True, False]
    loop.add_worker(lambda: left.pop(0))

    # Would sleep for ever, if it slept.
    assert [loop.turn(None), loop.turn(None), loop.turn(None)] == [True, True, False]


def test_removed_worker_does_not_run(loop: Loop) -> None:
    ran: list[int] = []

    def worker() -> bool:
        ran.append(1)
        return True

    loop.add_worker(worker)
    loop.turn(0)
    loop.remove_worker(worker)
    loop.turn(0)
    loop.turn(0)

    assert ran == [1]


def test_turn_waits_for_its_time(loop: Loop) -> None:
    begin = time.monotonic()

    loop.turn(0.02)

    assert time.monotonic() - begin >= 0.02


def test_limited_sleep_keeps_polling(loop: Loop) -> None:
    polls: list[int] = []

    def poll() -> bool:
        polls.append(1)
        if len(polls) == 5:
            loop.stop()
        return False

    loop.limit_sleep("patient", 3600.0)
    loop.limit_sleep("hasty", 0.001)
    loop.add_worker(poll)
    loop.run()

    assert len(polls) == 5


def test_sleep_limit_that_was_taken_back_limits_nothing(loop: Loop, event: int) -> None:
    turns: list[int] = []

    def count() -> bool:
        turns.append(1)
        return False

    loop.limit_sleep("owner", 0.001)
    loop.limit_sleep("owner", None)
    loop.add_worker(count)
    thread = threading.Timer(0.05, loop.stop)
    thread.start()
    loop.run()

    # The one that add_worker asks for, and the one of stop.
    assert len(turns) == 2
    thread.join()


def test_stop_ends_run_after_the_turn(loop: Loop, event: int) -> None:
    loop.add(event, lambda _: loop.stop())
    os.eventfd_write(event, 1)

    loop.run()


def test_stop_before_run_ends_it_at_once_and_only_once(loop: Loop) -> None:
    turns: list[int] = []

    def worker() -> bool:
        turns.append(1)
        loop.stop()
        return False

    loop.add_worker(worker)
    loop.stop()
    loop.run()
    assert turns == []

    loop.run()
    assert turns == [1]


def test_stop_from_a_signal_handler(loop: Loop) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: loop.stop())
    signal.setitimer(signal.ITIMER_REAL, 0.01)

    loop.run()

    signal.signal(signal.SIGALRM, before)


def test_stop_from_another_thread(loop: Loop) -> None:
    thread = threading.Timer(0.01, loop.stop)
    thread.start()

    loop.run()

    thread.join()


def test_child_process_is_watched_by_its_pidfd(loop: Loop) -> None:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(7)
    pidfd = os.pidfd_open(pid)
    loop.add(pidfd, lambda _: loop.stop())

    os.close(writer)
    loop.run()

    loop.remove(pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    os.close(pidfd)
    os.close(reader)


def test_exception_of_a_callback_comes_out(loop: Loop, event: int) -> None:
    def fail(_events: int) -> None:
        raise RuntimeError("ours")

    loop.add(event, fail)
    os.eventfd_write(event, 1)

    with pytest.raises(RuntimeError, match="ours"):
        loop.run()
