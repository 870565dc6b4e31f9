"""What a service says about the queues of a guest that is gone."""

from __future__ import annotations

from nvmelab.service import outstanding_of
from nvmelab.spec.nvm import Flush
from tests.device.conftest import Bench, ManualWorker


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
        "SQ 1 (tail 3, head 2 of 8): 1 rung and not fetched, 2 being carried out, "
        "0 finished and not posted (CQ 1 is not full)"
    ]
