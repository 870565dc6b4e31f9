"""Abort. Base 2.2, 5.1.1: dword 0 of its completion is 0 if the command was aborted, 1 if not."""

from __future__ import annotations

import pytest

from nvmelab.spec.admin import Abort, AsyncEventRequest, GetFeatures
from nvmelab.spec.features import Feature
from nvmelab.spec.nvm import Flush, Read, Write
from nvmelab.spec.status import Status
from tests.device.conftest import RAM, Bench, HostSq, ManualWorker
from tests.device.disks import Disk

BUFFER = RAM + (6 << 20)


def rig(disk: Disk | None = None, worker: ManualWorker | None = None) -> tuple[Bench, HostSq]:
    bench = Bench(backends=[disk or Disk()], worker=worker)
    bench.enable()
    return bench, bench.create_pair(1, entries=8)


def abort(bench: Bench, sqid: int, cid: int) -> tuple[int, int]:
    """(status, dword 0) of an Abort."""
    done = bench.execute(Abort(cid=0x77, sqid=sqid, aborted_cid=cid))
    return done.status, done.dw0


def take_admin(bench: Bench) -> None:
    """Fetch, carry out and complete one admin command; nothing else happens."""
    for step in ("fetch", "execute", "post", "interrupt"):
        bench.step(step)


@pytest.mark.parametrize(("sqid", "cid"), [(1, 5), (2, 5), (0, 5), (0xFFFF, 0xFFFF), (0, 0x77)])
def test_abort_of_a_command_that_is_not_there_succeeds_and_says_so(sqid: int, cid: int) -> None:
    bench, _ = rig()
    assert abort(bench, sqid, cid) == (Status.SUCCESS, 1)


def test_abort_of_a_fetched_command_completes_it_without_its_effects() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    sq.submit(Write(cid=5, nsid=1, prp1=BUFFER))
    bench.step("fetch", 1)
    bench.admin.submit(Abort(cid=6, sqid=1, aborted_cid=5))
    take_admin(bench)
    bench.settle()
    assert [(done.status, done.dw0) for done in bench.admin_cq.reap()] == [(0, 0)]
    assert [(done.cid, done.status) for done in sq.cq.reap()] == [
        (5, Status.COMMAND_ABORT_REQUESTED)
    ]
    assert disk.calls == []


def test_abort_takes_the_command_it_names_and_no_other() -> None:
    bench, sq = rig()
    sq.submit(*(Read(cid=cid, nsid=1, prp1=BUFFER) for cid in (1, 2, 3)))
    for _ in range(3):
        bench.step("fetch", 1)
    bench.admin.submit(Abort(cid=6, sqid=1, aborted_cid=2))
    take_admin(bench)
    for _ in range(2):
        bench.step("execute", 1)
    bench.settle()
    statuses = {done.cid: done.status for done in sq.cq.reap()}
    assert statuses == {1: 0, 2: Status.COMMAND_ABORT_REQUESTED, 3: 0}


def test_abort_of_a_command_that_was_not_fetched_leaves_it_alone() -> None:
    bench, sq = rig()
    sq.submit(Read(cid=5, nsid=1, prp1=BUFFER))
    bench.admin.submit(Abort(cid=6, sqid=1, aborted_cid=5))
    take_admin(bench)
    bench.settle()
    assert [done.dw0 for done in bench.admin_cq.reap()] == [1]
    assert [(done.cid, done.status) for done in sq.cq.reap()] == [(5, 0)]


def test_abort_of_a_command_in_slow_storage_leaves_it_alone() -> None:
    worker = ManualWorker()
    bench, sq = rig(worker=worker)
    sq.submit(Flush(cid=5, nsid=1))
    bench.settle()
    assert abort(bench, 1, 5) == (Status.SUCCESS, 1)
    worker.release()
    bench.settle()
    assert [(done.cid, done.status) for done in sq.cq.reap()] == [(5, 0)]


def test_abort_of_a_completed_command_leaves_its_completion_alone() -> None:
    bench, sq = rig()
    sq.submit(Read(cid=5, nsid=1, prp1=BUFFER))
    bench.step("fetch", 1)
    bench.step("execute", 1)
    bench.admin.submit(Abort(cid=6, sqid=1, aborted_cid=5))
    take_admin(bench)
    bench.settle()
    assert [done.dw0 for done in bench.admin_cq.reap()] == [1]
    assert [(done.cid, done.status) for done in sq.cq.reap()] == [(5, 0)]


def test_aborted_command_completes_once() -> None:
    bench, sq = rig()
    sq.submit(Read(cid=5, nsid=1, prp1=BUFFER))
    bench.step("fetch", 1)
    bench.admin.submit(*(Abort(cid=cid, sqid=1, aborted_cid=5) for cid in (6, 7)))
    bench.settle()
    assert [done.dw0 for done in bench.admin_cq.reap()] == [0, 1]
    assert len(sq.cq.reap()) == 1


def test_abort_of_a_parked_event_request_completes_it_first() -> None:
    bench, _ = rig()
    bench.admin.submit(AsyncEventRequest(cid=3))
    bench.settle()
    bench.admin.submit(Abort(cid=4, sqid=0, aborted_cid=3))
    bench.settle()
    assert [(done.cid, done.status, done.dw0) for done in bench.admin_cq.reap()] == [
        (3, Status.COMMAND_ABORT_REQUESTED, 0),
        (4, Status.SUCCESS, 0),
    ]


def test_aborted_event_request_makes_room_for_another() -> None:
    bench, _ = rig()
    bench.admin.submit(*(AsyncEventRequest(cid=cid) for cid in range(4)))
    bench.admin.submit(Abort(cid=9, sqid=0, aborted_cid=2))
    bench.admin.submit(AsyncEventRequest(cid=5))
    bench.settle()
    assert [done.cid for done in bench.admin_cq.reap()] == [2, 9]


def test_abort_of_a_later_admin_command_that_is_fetched_completes_it() -> None:
    bench, _ = rig()
    bench.admin.submit(
        Abort(cid=4, sqid=0, aborted_cid=5), GetFeatures(cid=5, fid=Feature.ARBITRATION)
    )
    bench.step("fetch")
    bench.step("fetch")
    bench.step("execute")
    bench.settle()
    statuses = {done.cid: (done.status, done.dw0) for done in bench.admin_cq.reap()}
    assert statuses == {4: (0, 0), 5: (Status.COMMAND_ABORT_REQUESTED, 0)}


def test_command_identifiers_of_other_queues_are_other_commands() -> None:
    bench, sq = rig()
    other = bench.create_pair(2, entries=8)
    sq.submit(Read(cid=5, nsid=1, prp1=BUFFER))
    bench.step("fetch", 1)
    assert abort(bench, 2, 5) == (Status.SUCCESS, 1)
    assert [done.status for done in sq.cq.reap()] == [0]
    assert other.cq.reap() == []
