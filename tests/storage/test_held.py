"""Operations that are done when a tester says so."""

from __future__ import annotations

import errno

import pytest

from nvmelab.storage.held import HeldWorker


class Log:
    """Operations that note when they are done."""

    def __init__(self, *, hold: bool) -> None:
        self.worker = HeldWorker()
        self.worker.hold = hold
        self.done: list[int] = []

    def submit(self, *numbers: int) -> None:
        for number in numbers:
            self.worker.submit(number, lambda number=number: self.done.append(number))  # type: ignore[misc]

    @property
    def finished(self) -> list[object]:
        return [token for token, _ in self.worker.finished]


def test_operation_is_done_when_it_is_handed_over_while_nothing_is_held() -> None:
    log = Log(hold=False)
    log.submit(1)
    assert (log.done, log.finished, log.worker.held()) == ([1], [1], 0)


def test_operation_waits_while_operations_are_held() -> None:
    log = Log(hold=True)
    log.submit(1)
    assert (log.done, log.finished, log.worker.held()) == ([], [], 1)


def test_release_does_the_oldest() -> None:
    log = Log(hold=True)
    log.submit(1, 2, 3)
    log.worker.release()
    assert (log.done, log.finished, log.worker.held()) == ([1], [1], 2)


def test_release_by_number_counts_from_the_oldest_that_still_waits() -> None:
    log = Log(hold=True)
    log.submit(1, 2, 3, 4)
    log.worker.release(2)
    log.worker.release(2)
    assert (log.done, log.finished) == ([3, 4], [3, 4])


def test_release_all_does_the_oldest_first() -> None:
    log = Log(hold=True)
    log.submit(1, 2, 3)
    log.worker.release_all()
    assert (log.done, log.worker.held()) == ([1, 2, 3], 0)


def test_release_all_leaves_what_the_released_ones_hand_over() -> None:
    log = Log(hold=True)
    log.worker.submit("first", lambda: log.submit(2))
    log.worker.release_all()
    assert (log.finished, log.worker.held()) == (["first"], 1)


def test_operation_that_comes_after_the_hold_overtakes_those_that_wait() -> None:
    log = Log(hold=True)
    log.submit(1)
    log.worker.hold = False
    log.submit(2)
    assert (log.done, log.worker.held()) == ([2], 1)


def test_release_of_what_does_not_wait_is_an_index_error() -> None:
    log = Log(hold=True)
    log.submit(1)
    with pytest.raises(IndexError):
        log.worker.release(1)


def test_error_is_told_with_its_operation_and_ends_nothing() -> None:
    worker = HeldWorker()

    def fail() -> None:
        raise OSError(errno.EIO, "planted")

    worker.submit("bad", fail)
    worker.submit("good", lambda: None)
    (bad, error), good = worker.finished
    assert bad == "bad" and isinstance(error, OSError) and error.errno == errno.EIO
    assert good == ("good", None)


def test_letting_go_does_what_waits_and_holds_nothing_more() -> None:
    log = Log(hold=True)
    log.submit(1, 2)
    log.worker.let_go()
    log.submit(3)
    assert (log.done, log.worker.held()) == ([1, 2, 3], 0)
