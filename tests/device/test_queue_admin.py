"""Create and Delete I/O Submission and Completion Queue, and Abort."""

from __future__ import annotations

import pytest

from nvmelab.device.controller import Step
from nvmelab.spec.admin import (
    Abort,
    AsyncEventRequest,
    CreateIoCq,
    CreateIoSq,
    DeleteIoCq,
    DeleteIoSq,
    GetFeatures,
)
from nvmelab.spec.commands import Command
from nvmelab.spec.nvm import Flush, Write
from nvmelab.spec.status import DNR
from tests.device.conftest import PAGE, RAM, Bench, HostSq, ManualWorker

INVALID_FIELD = 0x002 | DNR
ABORT_REQUESTED = 0x007
PRP_OFFSET = 0x013 | DNR
CQ_INVALID = 0x100 | DNR
QUEUE_ID = 0x101 | DNR
QUEUE_SIZE = 0x102 | DNR
VECTOR = 0x108 | DNR
DELETION = 0x10C | DNR


def enabled(**config: int) -> Bench:
    """An enabled controller whose I/O queue 1 exists on both sides."""
    bench = Bench(**{"queue_entries": 16, "io_queues": 8, "vectors": 9, **config})  # type: ignore[arg-type]
    bench.enable()
    bench.create_pair(1)
    return bench


def slow() -> tuple[Bench, HostSq, ManualWorker]:
    worker = ManualWorker()
    bench = Bench(worker=worker)
    bench.enable()
    return bench, bench.create_pair(1), worker


def sector(bench: Bench, lba: int) -> bytes:
    view = memoryview(bytearray(512))
    bench.backends[0].read(512 * lba, [view])
    return bytes(view)


def write_of(bench: Bench, lba: int) -> Write:
    data = bench.allocate(PAGE)
    bench.memory.write(data, b"x" * 512)
    return Write(cid=lba, nsid=1, prp1=data, slba=lba)


# Create I/O Completion Queue.


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (CreateIoCq(qid=0, qsize=4, prp1=RAM), QUEUE_ID),
        (CreateIoCq(qid=1, qsize=4, prp1=RAM), QUEUE_ID),
        (CreateIoCq(qid=9, qsize=4, prp1=RAM), QUEUE_ID),
        (CreateIoCq(qid=0xFFFF, qsize=4, prp1=RAM), QUEUE_ID),
        (CreateIoCq(qid=2, qsize=1, prp1=RAM), QUEUE_SIZE),
        (CreateIoCq(qid=2, qsize=17, prp1=RAM), QUEUE_SIZE),
        (CreateIoCq(qid=2, qsize=0x10000, prp1=RAM), QUEUE_SIZE),
        (CreateIoCq(qid=2, qsize=4, prp1=RAM, pc=0), INVALID_FIELD),
        (CreateIoCq(qid=2, qsize=4, prp1=RAM + 4), PRP_OFFSET),
        (CreateIoCq(qid=2, qsize=4, prp1=RAM + 0x800), PRP_OFFSET),
        (CreateIoCq(qid=2, qsize=4, prp1=RAM, ien=1, iv=9), VECTOR),
        (CreateIoCq(qid=2, qsize=4, prp1=RAM, ien=1, iv=0xFFFF), VECTOR),
    ],
)
def test_illegal_create_cq_is_refused(command: Command, status: int) -> None:
    bench = enabled()
    assert bench.execute(command).status == status


@pytest.mark.parametrize(
    "command",
    [
        CreateIoCq(qid=8, qsize=16, prp1=RAM, ien=1, iv=8),
        CreateIoCq(qid=2, qsize=2, prp1=RAM, ien=1, iv=0),
        CreateIoCq(qid=2, qsize=4, prp1=RAM, ien=0, iv=0),
    ],
)
def test_create_cq_at_its_limits_succeeds(command: Command) -> None:
    bench = enabled()
    assert bench.execute(command).status == 0


def test_create_cq_with_a_vector_but_without_msix_is_refused() -> None:
    bench = enabled()
    bench.msix(False)
    assert bench.execute(CreateIoCq(qid=2, qsize=4, prp1=RAM, ien=1, iv=1)).status == VECTOR


def test_create_cq_with_vector_0_and_without_msix_succeeds() -> None:
    bench = enabled()
    bench.msix(False)
    assert bench.execute(CreateIoCq(qid=2, qsize=4, prp1=RAM, ien=1, iv=0)).status == 0


def test_refused_create_cq_leaves_its_identifier_free() -> None:
    bench = enabled()
    bench.execute(CreateIoCq(qid=2, qsize=1, prp1=RAM))
    assert bench.execute(CreateIoCq(qid=2, qsize=4, prp1=RAM)).status == 0


def test_queue_address_must_be_aligned_to_the_selected_page_size() -> None:
    bench = Bench()
    bench.prepare(align=4 * PAGE)
    bench.write_cc(en=1, mps=2)
    bench.settle()
    page = bench.allocate(4 * PAGE, align=4 * PAGE)
    assert bench.execute(CreateIoCq(qid=1, qsize=4, prp1=page + PAGE)).status == PRP_OFFSET
    assert bench.execute(CreateIoCq(qid=1, qsize=4, prp1=page)).status == 0
    assert bench.execute(CreateIoSq(qid=1, qsize=4, prp1=page + PAGE, cqid=1)).status == PRP_OFFSET


@pytest.mark.parametrize("iocqes", [0, 3, 5, 15])
def test_create_cq_without_16_byte_entries_is_refused(iocqes: int) -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1, iocqes=iocqes)
    bench.settle()
    assert bench.execute(CreateIoCq(qid=1, qsize=4, prp1=RAM)).status == QUEUE_SIZE


@pytest.mark.parametrize("iosqes", [0, 5, 7, 15])
def test_create_sq_without_64_byte_entries_is_refused(iosqes: int) -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1, iosqes=iosqes)
    bench.settle()
    assert bench.execute(CreateIoCq(qid=1, qsize=4, prp1=bench.allocate(PAGE))).status == 0
    assert bench.execute(CreateIoSq(qid=1, qsize=4, prp1=RAM, cqid=1)).status == QUEUE_SIZE


def test_entry_sizes_may_be_set_after_the_enable() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1, iosqes=0, iocqes=0)
    bench.settle()
    bench.write_cc(en=1)
    assert bench.execute(Flush(nsid=1), bench.create_pair()).status == 0


# Create I/O Submission Queue.


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (CreateIoSq(qid=0, qsize=4, prp1=RAM, cqid=1), QUEUE_ID),
        (CreateIoSq(qid=1, qsize=4, prp1=RAM, cqid=1), QUEUE_ID),
        (CreateIoSq(qid=9, qsize=4, prp1=RAM, cqid=1), QUEUE_ID),
        (CreateIoSq(qid=0xFFFF, qsize=4, prp1=RAM, cqid=1), QUEUE_ID),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=0), QUEUE_ID),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=9), QUEUE_ID),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=0xFFFF), QUEUE_ID),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=2), CQ_INVALID),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=8), CQ_INVALID),
        (CreateIoSq(qid=2, qsize=1, prp1=RAM, cqid=1), QUEUE_SIZE),
        (CreateIoSq(qid=2, qsize=17, prp1=RAM, cqid=1), QUEUE_SIZE),
        (CreateIoSq(qid=2, qsize=0x10000, prp1=RAM, cqid=1), QUEUE_SIZE),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=1, pc=0), INVALID_FIELD),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM + 8, cqid=1), PRP_OFFSET),
        (CreateIoSq(qid=2, qsize=4, prp1=RAM + 0xFC0, cqid=1), PRP_OFFSET),
    ],
)
def test_illegal_create_sq_is_refused(command: Command, status: int) -> None:
    bench = enabled()
    assert bench.execute(command).status == status


@pytest.mark.parametrize("qprio", range(4))
def test_priority_of_a_queue_is_ignored_under_round_robin(qprio: int) -> None:
    bench = enabled()
    command = CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=1, qprio=qprio)
    assert bench.execute(command).status == 0


def test_refused_create_sq_leaves_its_identifier_free_and_the_cq_unbound() -> None:
    bench = enabled()
    bench.create_cq(2, entries=4)
    bench.execute(CreateIoSq(qid=2, qsize=1, prp1=RAM, cqid=2))
    assert bench.execute(DeleteIoCq(qid=2)).status == 0
    assert bench.execute(CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=1)).status == 0


# Sizes and bindings.


@pytest.mark.parametrize("sq_entries", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("cq_entries", [2, 3, 4, 5, 8])
def test_queues_of_any_two_sizes_work_together(sq_entries: int, cq_entries: int) -> None:
    bench = Bench(queue_entries=8)
    bench.enable()
    sq = bench.create_sq(1, entries=sq_entries, cq=bench.create_cq(1, entries=cq_entries))
    done = [bench.execute(Flush(cid=cid, nsid=1), sq) for cid in range(20)]
    assert [(entry.cid, entry.status) for entry in done] == [(cid, 0) for cid in range(20)]


def test_queue_of_65536_entries_wraps() -> None:
    bench = Bench(queue_entries=65536, trace=False)
    bench.enable()
    sq = bench.create_pair(entries=65536)
    sq.tail = 0xFFFF
    sq.ring()
    bench.settle()
    assert len(sq.cq.reap()) == 0xFFFF
    done = [bench.execute(Flush(cid=cid, nsid=1), sq) for cid in (1, 2)]
    assert [(entry.cid, entry.sqhd, entry.phase) for entry in done] == [(1, 0, 1), (2, 1, 0)]


@pytest.mark.parametrize(
    "binding", [[1, 1, 1], [3, 3, 1], [2, 3, 1], [8, 8, 8, 8, 8, 8, 8, 8], [1, 2, 1, 2]]
)
def test_completions_come_to_the_cq_their_sq_is_bound_to(binding: list[int]) -> None:
    bench = Bench(io_queues=8)
    bench.enable()
    cqs = {qid: bench.create_cq(qid, entries=16) for qid in set(binding)}
    sqs = [bench.create_sq(i, entries=4, cq=cqs[cqid]) for i, cqid in enumerate(binding, 1)]
    for sq in sqs:
        sq.submit(Flush(cid=100 + sq.qid, nsid=1))
    bench.settle()
    found = {qid: {(done.sqid, done.cid) for done in cq.reap()} for qid, cq in cqs.items()}
    assert found == {
        qid: {(i, 100 + i) for i, cqid in enumerate(binding, 1) if cqid == qid} for qid in cqs
    }


# Deletion.


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (DeleteIoSq(qid=0), QUEUE_ID),
        (DeleteIoSq(qid=2), QUEUE_ID),
        (DeleteIoSq(qid=9), QUEUE_ID),
        (DeleteIoSq(qid=0xFFFF), QUEUE_ID),
        (DeleteIoCq(qid=0), QUEUE_ID),
        (DeleteIoCq(qid=2), QUEUE_ID),
        (DeleteIoCq(qid=0xFFFF), QUEUE_ID),
        (DeleteIoCq(qid=1), DELETION),
    ],
)
def test_illegal_delete_is_refused(command: Command, status: int) -> None:
    bench = enabled()
    assert bench.execute(command).status == status


def test_cq_can_be_deleted_once_its_last_sq_is() -> None:
    bench = enabled()
    bench.execute(CreateIoSq(qid=2, qsize=4, prp1=RAM, cqid=1))
    statuses = [
        bench.execute(command).status
        for command in (
            DeleteIoSq(qid=1), DeleteIoCq(qid=1), DeleteIoSq(qid=2), DeleteIoCq(qid=1)
        )
    ]  # fmt: skip
    assert statuses == [0, DELETION, 0, 0]


def test_deleted_queue_does_not_exist_any_more() -> None:
    bench = enabled()
    bench.execute(DeleteIoSq(qid=1))
    bench.execute(DeleteIoCq(qid=1))
    assert bench.execute(DeleteIoSq(qid=1)).status == QUEUE_ID
    assert bench.execute(DeleteIoCq(qid=1)).status == QUEUE_ID


def test_recreated_queue_begins_at_zero_with_phase_one() -> None:
    bench = Bench()
    bench.enable()
    old = bench.create_pair(entries=4)
    for cid in range(5):
        bench.execute(Flush(cid=cid, nsid=1), old)
    bench.execute(DeleteIoSq(qid=1))
    bench.execute(DeleteIoCq(qid=1))
    done = bench.execute(Flush(cid=9, nsid=1), bench.create_pair(entries=4))
    assert (done.cid, done.sqhd, done.phase) == (9, 1, 1)


def test_recreated_queue_may_have_another_size_and_binding() -> None:
    bench = Bench()
    bench.enable()
    bench.create_pair(1, entries=2)
    cq = bench.create_cq(2, entries=8)
    bench.execute(DeleteIoSq(qid=1))
    done = bench.execute(Flush(cid=9, nsid=1), bench.create_sq(1, entries=8, cq=cq))
    assert (done.cid, done.sqid) == (9, 1)


@pytest.mark.parametrize("stepwise", [False, True])
def test_command_that_was_not_fetched_dies_with_its_queue(stepwise: bool) -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    pair.submit(write_of(bench, 7))
    bench.admin.submit(DeleteIoSq(cid=1, qid=2))
    if stepwise:
        bench.step("fetch", 0)
        bench.step("execute", 0)
    bench.settle()
    assert [done.status for done in bench.admin_cq.reap()] == [0]
    assert (pair.cq.reap(), sector(bench, 7)) == ([], bytes(512))


@pytest.mark.parametrize("stepwise", [False, True])
def test_command_that_was_fetched_and_not_begun_dies_with_its_queue(stepwise: bool) -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    pair.submit(write_of(bench, 7))
    bench.step("fetch", 2)
    bench.admin.submit(DeleteIoSq(cid=1, qid=2))
    if stepwise:
        bench.step("fetch", 0)
        bench.step("execute", 0)
    bench.settle()
    assert [done.status for done in bench.admin_cq.reap()] == [0]
    assert (pair.cq.reap(), sector(bench, 7)) == ([], bytes(512))


def test_sq_and_cq_deleted_in_one_burst_leave_nothing_behind() -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    pair.submit(write_of(bench, 7), write_of(bench, 8))
    bench.admin.submit(DeleteIoSq(cid=1, qid=2), DeleteIoCq(cid=2, qid=2))
    bench.settle()
    assert [(done.cid, done.status) for done in bench.admin_cq.reap()] == [(1, 0), (2, 0)]
    assert (pair.cq.reap(), sector(bench, 7), sector(bench, 8)) == ([], bytes(512), bytes(512))


def test_queue_deleted_and_created_in_one_burst_takes_nothing_from_its_old_ring() -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    pair.submit(write_of(bench, 7))
    new = bench.allocate(PAGE)
    bench.admin.submit(
        DeleteIoSq(cid=1, qid=2), CreateIoSq(cid=2, qid=2, qsize=4, prp1=new, cqid=2)
    )
    bench.settle()
    assert [done.status for done in bench.admin_cq.reap()] == [0, 0]
    assert (pair.cq.reap(), sector(bench, 7)) == ([], bytes(512))


def test_finished_command_that_was_not_posted_dies_with_its_queue() -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    pair.submit(Flush(cid=5, nsid=1))
    bench.step("fetch", 2)
    bench.step("execute", 2)
    bench.admin.submit(DeleteIoSq(cid=1, qid=2))
    bench.step("fetch", 0)
    bench.step("execute", 0)
    bench.settle()
    assert [done.status for done in bench.admin_cq.reap()] == [0]
    assert pair.cq.reap() == []


def test_commands_of_another_sq_on_the_same_cq_survive_a_deletion() -> None:
    bench = enabled()
    cq = bench.create_cq(2, entries=16)
    doomed, other = bench.create_sq(2, entries=8, cq=cq), bench.create_sq(3, entries=8, cq=cq)
    for cid in (1, 2):
        doomed.submit(Flush(cid=cid, nsid=1))
        other.submit(Flush(cid=cid, nsid=1))
    for _ in range(2):
        for qid in (2, 3):
            bench.step("fetch", qid)
            bench.step("execute", qid)
    bench.admin.submit(DeleteIoSq(qid=2))
    bench.step("fetch", 0)
    bench.step("execute", 0)
    bench.settle()
    assert [(done.sqid, done.cid) for done in cq.reap()] == [(3, 1), (3, 2)]


def test_deletion_waits_for_slow_work_and_completes_after_it() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(cid=9, qid=1))
    bench.settle()
    worker.release()
    bench.settle()
    assert bench.admin_cq.reap() == []
    worker.release()
    bench.settle()
    assert [(done.cid, done.status) for done in bench.admin_cq.reap()] == [(9, 0)]


def test_nothing_of_a_queue_is_posted_after_the_completion_of_its_deletion() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1), Flush(cid=3, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(qid=1))
    for _ in range(3):
        worker.release()
    bench.settle()
    before = len(pair.cq.reap())
    assert len(bench.admin_cq.reap()) == 1 and before <= 3
    bench.settle()
    assert pair.cq.reap() == []


def test_nothing_more_is_fetched_while_a_deletion_waits() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(qid=1))
    bench.settle()
    pair.submit(write_of(bench, 7))
    bench.settle()
    worker.release()
    bench.settle()
    assert (len(bench.admin_cq.reap()), sector(bench, 7)) == (1, bytes(512))


def test_reset_while_a_deletion_waits_ends_both() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(qid=1))
    bench.settle()
    bench.write_cc(en=0)
    worker.release()
    bench.settle()
    assert (bench.csts.rdy, pair.cq.reap(), bench.admin_cq.reap()) == (0, [], [])
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


def test_second_deletion_while_one_waits_is_refused() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(cid=1, qid=1), DeleteIoSq(cid=2, qid=1))
    bench.settle()
    worker.release()
    bench.settle()
    statuses = {done.cid: done.status for done in bench.admin_cq.reap()}
    assert statuses == {1: 0, 2: QUEUE_ID}


def test_identifier_is_used_while_a_deletion_waits() -> None:
    bench, pair, _ = slow()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(cid=1, qid=1))
    assert bench.execute(CreateIoSq(qid=1, qsize=4, prp1=RAM, cqid=1)).status == QUEUE_ID
    assert bench.execute(DeleteIoCq(qid=1)).status == DELETION


def test_full_completion_queue_does_not_hold_up_a_deletion() -> None:
    bench, _, worker = slow()
    small = bench.create_sq(2, entries=8, cq=bench.create_cq(2, entries=2))
    small.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1), Flush(cid=3, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(cid=9, qid=2))
    for _ in range(3):
        worker.release()
    bench.settle()
    assert [(done.cid, done.status) for done in bench.admin_cq.reap()] == [(9, 0)]


def test_work_of_a_deleted_queue_does_not_touch_a_new_one_of_that_identifier() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.admin.submit(DeleteIoSq(cid=1, qid=1))
    worker.release()
    bench.settle()
    pair.cq.reap()
    bench.admin_cq.reap()
    again = bench.create_sq(1, entries=4, cq=pair.cq)
    bench.settle()
    assert pair.cq.reap() == []
    again.submit(Flush(cid=2, nsid=1))
    bench.settle()
    worker.release()
    bench.settle()
    assert [(done.cid, done.sqhd) for done in pair.cq.reap()] == [(2, 1)]


def test_creation_and_deletion_are_traced() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair(3, entries=4)
    bench.execute(DeleteIoSq(qid=3))
    bench.execute(DeleteIoCq(qid=3))
    assert bench.traced("create_sq", "create_cq", "del_sq", "del_cq") == [
        ("create_cq", (pair.cq.base, 3, 3, 3, 0b11, 1)),
        ("create_sq", (pair.base, 3, 3, 3, 0b001)),
        ("del_sq", (3,)),
        ("del_cq", (3,)),
    ]


# Abort.


def test_command_that_was_not_begun_is_aborted() -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    pair.submit(write_of(bench, 7))
    bench.step("fetch", 2)
    bench.admin.submit(Abort(cid=1, sqid=2, aborted_cid=7))
    bench.step("fetch", 0)
    bench.step("execute", 0)
    bench.settle()
    assert [(done.cid, done.status & 0x7FF) for done in pair.cq.reap()] == [(7, ABORT_REQUESTED)]
    assert [(done.status, done.dw0) for done in bench.admin_cq.reap()] == [(0, 0)]
    assert sector(bench, 7) == bytes(512)


@pytest.mark.parametrize(("sqid", "cid"), [(1, 5), (0, 5), (2, 0), (0xFFFF, 0xFFFF)])
def test_abort_of_nothing_succeeds_and_says_not_aborted(sqid: int, cid: int) -> None:
    bench = enabled()
    done = bench.execute(Abort(sqid=sqid, aborted_cid=cid))
    assert (done.status, done.dw0) == (0, 1)


def test_abort_of_itself_says_not_aborted() -> None:
    bench = enabled()
    done = bench.execute(Abort(cid=3, sqid=0, aborted_cid=3))
    assert (done.status, done.dw0) == (0, 1)


def test_abort_of_slow_work_lets_it_complete_once() -> None:
    bench, pair, worker = slow()
    pair.submit(Flush(cid=5, nsid=1))
    bench.settle()
    assert bench.execute(Abort(sqid=1, aborted_cid=5)).dw0 == 1
    worker.release()
    bench.settle()
    assert [(done.cid, done.status) for done in pair.cq.reap()] == [(5, 0)]


def test_abort_of_a_parked_event_request_completes_it_before_itself() -> None:
    bench = enabled()
    bench.admin.submit(AsyncEventRequest(cid=7))
    bench.settle()
    bench.admin.submit(Abort(cid=8, sqid=0, aborted_cid=7))
    bench.settle()
    found = [(done.cid, done.status & 0x7FF, done.dw0) for done in bench.admin_cq.reap()]
    assert found == [(7, ABORT_REQUESTED, 0), (8, 0, 0)]


# What the admin queue does not take.


@pytest.mark.parametrize("bits", [0x0100, 0x0200, 0x4000, 0x8000])
def test_fused_and_sgl_commands_are_invalid_fields(bits: int) -> None:
    bench = enabled()
    sqe = bytearray(GetFeatures(cid=1, fid=1).encode())
    sqe[1] |= bits >> 8
    assert bench.execute(bytes(sqe)).status == INVALID_FIELD


@pytest.mark.parametrize("opcode", [0x03, 0x07, 0x0B, 0x0D, 0x7F, 0x80, 0xC0, 0xFF])
def test_unknown_admin_opcode_is_refused(opcode: int) -> None:
    bench = enabled()
    done = bench.execute(bytes([opcode, 0, 0x34, 0x12]).ljust(64, b"\0"))
    assert (done.status, done.cid) == (0x001 | DNR, 0x1234)


@pytest.mark.parametrize("opcode", [0x03, 0x04, 0x05, 0x0C, 0x19, 0x80, 0xFF])
def test_unknown_io_opcode_is_refused(opcode: int) -> None:
    bench = enabled()
    done = bench.execute(bytes([opcode]).ljust(64, b"\0"), bench.create_pair(2))
    assert done.status == 0x001 | DNR


def test_create_commands_do_not_exist_on_an_io_queue() -> None:
    bench = enabled()
    pair = bench.create_pair(2)
    assert bench.execute(CreateIoCq(qid=3, qsize=4, prp1=RAM), pair).status == 0x001 | DNR
    assert Step("fetch", 3) not in bench.enabled()
