"""Checks of the deletion of I/O queues: what is refused, what is over with it, and that nothing of
the old queue is left in a new one."""

from __future__ import annotations

from functools import partial

from nvmelab.host.queues import CompletionQueue, Pending, SubmissionQueue
from nvmelab.spec.admin import DeleteIoCq, DeleteIoSq
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.queues import ENTRIES, LAST_QID, refused, usable
from nvmelab.suite.rings import load

DELETE_CQ = "Base 2.2, 5.2.3"
DELETE_SQ = "Base 2.2, 5.2.4"

BLAMES_THE_COMMAND = (
    Status.INVALID_COMMAND_OPCODE,
    Status.INVALID_FIELD_IN_COMMAND,
    Status.COMMAND_ID_CONFLICT,
    Status.INVALID_NAMESPACE_OR_FORMAT,
    Status.LBA_OUT_OF_RANGE,
)
"""No such status fits a good read whose queue ends."""


@check(
    "queues.delete-refused",
    ref=f"{DELETE_CQ} and 5.2.4 (Invalid Queue Identifier)",
    expected="the deletion of queue 0, or of a queue that does not exist, is refused (there is "
    "nothing to delete) and changes nothing",
)
def delete_refused(bench: Bench) -> None:
    """Deleting queue 0, a queue that was never created, and one queue twice."""
    nvme = bench.nvme
    cq = nvme.create_cq(entries=min(ENTRIES, nvme.cap.mqes))
    qpair = nvme.create_sq(entries=min(ENTRIES, nvme.cap.mqes), cq=cq)
    other = qpair.qid % nvme.io_queues + 1
    never = {0, other, nvme.io_queues + 1, LAST_QID} - {qpair.qid}
    for qid in sorted(never):
        what = "which is the admin queue's" if qid == 0 else "never created"
        refused(bench, DeleteIoSq(qid=qid), f"the deletion of SQ {qid}, {what},")
        refused(bench, DeleteIoCq(qid=qid), f"the deletion of CQ {qid}, {what},")
        load(bench, [qpair], ENTRIES)
    nvme.identify()
    nvme.delete_sq(qpair.qid)
    for again in ("second", "third"):
        refused(bench, DeleteIoSq(qid=qpair.qid), f"the {again} deletion of an SQ")
    nvme.delete_cq(cq.qid)
    for again in ("second", "third"):
        refused(bench, DeleteIoCq(qid=cq.qid), f"the {again} deletion of a CQ")
        refused(bench, DeleteIoSq(qid=qpair.qid), f"the {again} deletion of an SQ without its CQ")
    usable(bench, qpair.qid)


@check(
    "queues.delete-bound",
    ref=DELETE_CQ,
    expected="a CQ with SQs bound to it is not deleted: Invalid Queue Deletion",
)
def delete_bound(bench: Bench) -> None:
    """Deleting a completion queue before the submission queues on it."""
    nvme = bench.nvme
    cq = nvme.create_cq(entries=min(ENTRIES, nvme.cap.mqes))
    qpairs = [
        nvme.create_sq(entries=min(ENTRIES, nvme.cap.mqes), cq=cq)
        for _ in range(min(3, nvme.io_queues))
    ]
    while qpairs:
        what = f"the deletion of a CQ with {len(qpairs)} SQs"
        refused(bench, DeleteIoCq(qid=cq.qid), what, Status.INVALID_QUEUE_DELETION)
        load(bench, qpairs, ENTRIES)
        nvme.delete_sq(qpairs.pop(bench.random.randrange(len(qpairs))).qid)
    nvme.delete_cq(cq.qid)
    usable(bench, cq.qid)


@check(
    "queues.recreate",
    ref="Base 2.2, 4.2.4 and 3.3.1.1",
    expected="a new queue of an old identifier begins at entry 0, with phase tag 1",
)
def recreate(bench: Bench) -> None:
    """Queues deleted after any number of entries, and created again, both or the SQ alone."""
    nvme, draw = bench.nvme, bench.random
    cq: CompletionQueue | None = None
    for _ in range(25):
        cq = cq or nvme.create_cq(entries=min(draw.randint(2, 7), nvme.cap.mqes), qid=1)
        qpair = nvme.create_sq(entries=min(draw.randint(2, 7), nvme.cap.mqes), cq=cq, qid=1)
        load(bench, [qpair], draw.randint(1, 2 * cq.entries) | 1)
        nvme.delete_sq(1)
        if draw.random() < 0.7:
            nvme.delete_cq(1)
            cq = None


def _delete(bench: Bench, sq: SubmissionQueue, deletion: Pending, victims: list[Pending]) -> None:
    """Wait for the deletion of `sq`, reap what was completed before it ended, and judge that."""
    admin, cq = bench.nvme.admin.cq, sq.cq

    def served() -> bool:
        admin.reap()
        if not deletion.done:
            cq.reap()  # a controller may complete the commands first, for which it needs room
        return deletion.done

    admin.wait(served, deletion.label, serve=False)
    deletion.check()
    # No more than there can be: an entry behind them came after the deletion.
    cq.reap(cq.entries - 1)
    del bench.nvme.sqs[sq.qid], cq.sqs[sq.qid]
    for victim in victims:
        if victim.done:
            bench.expect(
                victim.status not in BLAMES_THE_COMMAND,
                f"{victim.label}, a good read, got the status {victim.status.label} while its "
                "queue was deleted",
                expected="a status that fits: success, or aborted because of the deletion",
            )


def _watch(bench: Bench, cq: CompletionQueue, dead: int, waiting: list[Pending]) -> None:
    """Reap `cq` until these commands are done, and then some: nothing of SQ `dead` comes."""

    def look() -> bool:
        entry = cq.peek()
        bench.expect(
            entry is None or entry.sqid != dead,
            f"a completion came after its SQ {dead} was deleted: {entry}",
        )
        cq.reap(1)
        return all(command.done for command in waiting)

    cq.wait(look, f"the completion of another SQ on CQ {cq.qid}", serve=False)
    bench.link.settle()
    look()


NOTHING_AFTER = (
    "once the Delete I/O Submission Queue command is completed, no command of that queue is"
)


def _any(cq: CompletionQueue) -> bool:
    return cq.peek() is not None


@check("queues.delete-busy", ref=DELETE_SQ, expected=NOTHING_AFTER)
def delete_busy(bench: Bench) -> None:
    """A submission queue deleted at once after its doorbell was rung, and created again."""
    nvme = bench.nvme
    cq = nvme.create_cq(entries=min(16, nvme.cap.mqes))
    buffer = nvme.buffer(512)
    for round in range(8):
        qpair = nvme.create_sq(entries=min(8, nvme.cap.mqes), cq=cq, qid=1)
        victims = [qpair.read(slba=round, buffer=buffer) for _ in range(bench.random.randint(1, 7))]
        _delete(bench, qpair.sq, nvme.admin.submit(DeleteIoSq(qid=1)), victims)
        _watch(bench, cq, 1, [])
    load(bench, [nvme.create_sq(entries=min(8, nvme.cap.mqes), cq=cq, qid=1)], 20)


@check("queues.delete-unposted", ref=DELETE_SQ, expected=NOTHING_AFTER)
def delete_unposted(bench: Bench) -> None:
    """A submission queue deleted while its completions wait for room in a full CQ."""
    nvme = bench.nvme
    if nvme.io_queues < 2:
        bench.skip("the controller has one I/O queue")
    buffer = nvme.buffer(512)
    for entries in (2, 3):
        cq = nvme.create_cq(entries=entries, release="held")
        doomed, other = (nvme.create_sq(entries=8, cq=cq) for _ in range(2))
        victims = [doomed.read(slba=1, buffer=buffer) for _ in range(4)]
        cq.wait(partial(_any, cq), "the first completion", serve=False)
        alive = [other.read(slba=2, buffer=buffer) for _ in range(4)]
        bench.link.settle()
        deletion = nvme.admin.submit(DeleteIoSq(qid=doomed.qid))
        bench.link.settle()
        cq.release = "batch"
        _delete(bench, doomed.sq, deletion, victims)
        _watch(bench, cq, doomed.qid, alive)
        for command in alive:
            command.check()
        again = nvme.create_sq(entries=4, cq=cq, qid=doomed.qid)
        load(bench, [again, other], 9)
        nvme.delete_sq(again.qid)
        nvme.delete_qpair(other)


@check("queues.delete-held", ref=DELETE_SQ, expected=NOTHING_AFTER)
def delete_held(bench: Bench) -> None:
    """A submission queue deleted while the storage works on its commands."""
    storage, nvme = bench.storage(), bench.nvme
    namespaces = nvme.active_namespaces()
    cq = nvme.create_cq(entries=16)
    buffer = nvme.buffer(512)
    for _ in range(4):
        qpair = nvme.create_sq(entries=8, cq=cq, qid=1)
        storage.hold = True
        try:
            count = bench.random.randint(2, 7)
            victims = [
                qpair.read(namespaces[number % len(namespaces)], slba=number, buffer=buffer)
                for number in range(count)
            ]
            bench.link.settle()
            done = bench.random.randint(0, 1)
            for _ in range(min(done, storage.held())):
                storage.release(bench.random.randrange(storage.held()))
            # A device may stand still here until its storage has answered: nothing may be asked
            # of it between the doorbell and the release.
            deletion = nvme.admin.submit(DeleteIoSq(qid=1))
        finally:
            storage.hold = False
            while storage.held():
                storage.release(bench.random.randrange(storage.held()))
        _delete(bench, qpair.sq, deletion, victims)
        _watch(bench, cq, 1, [])
    load(bench, [nvme.create_sq(entries=8, cq=cq, qid=1)], 20)
