"""The storage thread: one real thread, waited for through its eventfd."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Iterator

import pytest

from nvmelab.storage.worker import Worker

PATIENCE_MS = 10_000
"""Only a broken worker is ever waited for this long."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.close()


def readable(worker: Worker, timeout_ms: int) -> bool:
    poller = select.poll()
    poller.register(worker.fd, select.POLLIN)
    return bool(poller.poll(timeout_ms))


def collect(worker: Worker, count: int) -> list[tuple[object, Exception | None]]:
    """The next `count` finished operations, in order."""
    found: list[tuple[object, Exception | None]] = []
    while len(found) < count:
        assert readable(worker, PATIENCE_MS), f"{count - len(found)} operations never finish"
        worker.acknowledge()
        while worker.finished:
            found.append(worker.finished.popleft())
    return found


def fail() -> None:
    raise OSError(errno.EIO, "planted")


def nothing() -> None:
    pass


def test_operation_is_done_in_another_thread_and_told_with_its_token(worker: Worker) -> None:
    threads: list[int] = []
    token = object()
    worker.submit(token, lambda: threads.append(threading.get_ident()))
    ((found, error),) = collect(worker, 1)
    assert found is token and error is None
    assert threads != [threading.get_ident()]


def test_operations_are_done_in_the_order_in_which_they_came(worker: Worker) -> None:
    order: list[int] = []
    for number in range(100):
        worker.submit(number, lambda number=number: order.append(number))  # type: ignore[misc]
    assert [token for token, _ in collect(worker, 100)] == order == list(range(100))


def test_error_is_told_with_its_operation_and_ends_nothing(worker: Worker) -> None:
    worker.submit("bad", fail)
    worker.submit("good", nothing)
    (bad, error), good = collect(worker, 2)
    assert bad == "bad" and isinstance(error, OSError) and error.errno == errno.EIO
    assert good == ("good", None)


def test_descriptor_is_quiet_before_the_first_operation_and_after_the_acknowledgement(
    worker: Worker,
) -> None:
    assert not readable(worker, 0)
    worker.submit(1, nothing)
    collect(worker, 1)
    assert not readable(worker, 0)


def test_descriptor_is_readable_as_soon_as_something_has_finished(worker: Worker) -> None:
    worker.submit(1, nothing)
    assert readable(worker, PATIENCE_MS)
    assert list(worker.finished) == [(1, None)]


def test_acknowledgement_with_nothing_finished_does_not_wait(worker: Worker) -> None:
    worker.acknowledge()
    worker.acknowledge()


def test_submit_does_not_wait_for_the_operation_before(worker: Worker) -> None:
    gate = threading.Event()

    def held() -> None:
        gate.wait(PATIENCE_MS / 1000)

    worker.submit("held", held)
    worker.submit("next", nothing)
    assert not worker.finished
    gate.set()
    assert [token for token, _ in collect(worker, 2)] == ["held", "next"]


def test_close_finishes_what_was_submitted_and_gives_the_descriptor_back() -> None:
    worker = Worker()
    for number in range(10):
        worker.submit(number, nothing)
    worker.close()
    assert [token for token, _ in worker.finished] == list(range(10))
    with pytest.raises(OSError):
        os.fstat(worker.fd)


def test_descriptor_is_not_inherited_and_does_not_block(worker: Worker) -> None:
    assert not os.get_inheritable(worker.fd)
    assert not os.get_blocking(worker.fd)


def test_error_that_is_a_bug_comes_out_too() -> None:
    worker = Worker()

    def work() -> None:
        raise AssertionError("a bug")

    worker.submit("token", work)
    worker.close()

    token, error = worker.finished.popleft()
    assert token == "token"
    assert isinstance(error, AssertionError)
