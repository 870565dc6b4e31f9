"""Where commands stand, and who is said to have the ball."""

from __future__ import annotations

import pytest

from nvmelab.corpus.personas import PERSONAS
from nvmelab.spec.nvm import Flush
from nvmelab.standing import forgotten_by, outstanding_of
from tests.device.conftest import Bench, HostSq, ManualWorker


def test_idle_queues_have_nothing_outstanding() -> None:
    bench = Bench()
    bench.enable()
    bench.create_pair()

    assert outstanding_of(bench.controller) == []


def test_commands_are_counted_by_where_they_stand() -> None:
    bench = Bench(worker=ManualWorker())
    bench.enable()
    sq = bench.create_sq(1, entries=8, cq=bench.create_cq(1, entries=8))
    sq.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1))
    bench.settle()
    sq.submit(Flush(cid=3, nsid=1))

    assert outstanding_of(bench.controller) == [
        "SQ 1 (tail 3, head 2 of 8): 1 rung, not fetched; 2 fetched, not finished; "
        "0 finished, not posted (CQ 1 is not full)"
    ]


def over_committed(persona: str) -> tuple[Bench, HostSq, ManualWorker]:
    """Six commands in a queue of 4 entries; the storage has those for which there is a request."""
    worker = ManualWorker()
    wakeups = PERSONAS[persona].wakeups
    bench = Bench(worker=worker, wakeups=wakeups, shadow_doorbells=not wakeups)
    bench.enable()
    sq = bench.create_sq(1, entries=4, cq=bench.create_cq(1, entries=4))
    for first in (0, 3):
        sq.submit(*(Flush(cid=first + cid, nsid=1) for cid in range(3)))
        bench.settle()
    return bench, sq, worker


def finish(bench: Bench, sq: HostSq, worker: ManualWorker, count: int) -> None:
    for _ in range(count):
        worker.release()
        bench.settle()
        sq.cq.reap()
        bench.settle()


def test_a_queue_that_nobody_will_look_at_is_named() -> None:
    bench, sq, worker = over_committed("qemu-9.0")
    assert forgotten_by(bench.controller) == []  # the storage is busy
    finish(bench, sq, worker, 4)
    (said,) = forgotten_by(bench.controller)
    assert said.startswith(
        "SQ 1 (tail 2, head 0 of 4): 2 commands are rung, not fetched: fetch them (4 requests are "
        "free); nothing is scheduled: the device has the ball"
    )
    sq.ring()  # which is all it takes
    bench.settle()
    assert forgotten_by(bench.controller) == [] and worker.held() == 2


@pytest.mark.parametrize("persona", ["nvmelab", "qemu-9.1.2"])
def test_no_queue_of_a_sound_device_is_named(persona: str) -> None:
    bench, sq, worker = over_committed(persona)
    finish(bench, sq, worker, 6)
    assert worker.held() == 0 and outstanding_of(bench.controller) == []
    assert forgotten_by(bench.controller) == []


def test_a_host_that_has_not_released_its_completions_may_still_act() -> None:
    bench, sq, worker = over_committed("qemu-9.0")
    finish(bench, sq, worker, 3)
    worker.release()
    bench.settle()
    assert forgotten_by(bench.controller) == []
    sq.cq.reap()
    assert forgotten_by(bench.controller)
