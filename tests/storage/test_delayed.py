"""Storage that takes a while. Time is real here, and no test depends on how much of it goes by."""

from __future__ import annotations

import time

from nvmelab.storage.delayed import DelayedWorker
from tests.storage.test_worker import collect, fail, nothing

LATENCY_NS = 20_000_000


def test_an_operation_ends_no_sooner_and_overlaps_with_others() -> None:
    worker = DelayedWorker(LATENCY_NS)
    assert worker.carries_data
    begin = time.monotonic_ns()
    for token in range(20):
        worker.submit(token, nothing)
    ended = collect(worker, 20)
    assert [token for token, _error in ended] == list(range(20))
    assert time.monotonic_ns() - begin >= LATENCY_NS
    worker.close()


def test_what_it_is_to_do_is_done_at_the_end_and_errors_are_told() -> None:
    worker = DelayedWorker(LATENCY_NS)
    done: list[int] = []
    worker.submit("good", lambda: done.append(1))
    worker.submit("bad", fail)
    (good, no_error), (bad, error) = collect(worker, 2)
    assert (good, no_error, done, bad) == ("good", None, [1], "bad")
    assert isinstance(error, OSError)
    worker.close()


def test_a_seed_changes_the_order() -> None:
    orders = []
    for seed in (1, 2):
        worker = DelayedWorker(LATENCY_NS, seed)
        for token in range(20):
            worker.submit(token, nothing)
        orders.append([token for token, _error in collect(worker, 20)])
        worker.close()
    for order in orders:
        assert sorted(order) == list(range(20)) != order  # type: ignore[type-var]
    assert orders[0] != orders[1]


def test_close_does_not_wait_for_what_is_under_way() -> None:
    worker = DelayedWorker(3_600_000_000_000)
    worker.submit("never", nothing)
    worker.close()
    assert not worker.finished
