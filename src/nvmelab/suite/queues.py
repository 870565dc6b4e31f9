"""Checks of the creation of I/O queues: what is refused, and what must work.

Most refusals are a "should" of the specification. They are judged only where an acceptance cannot
mean anything (a queue of one entry holds nothing, a second queue of the same identifier has no
doorbell); where an acceptance could be harmless, the queue must then be what was asked for. The
status is judged only where the specification says "shall", and of controllers of revision 2.0 or
later where earlier revisions said "should".
"""

from __future__ import annotations

from nvmelab.host.buffers import PAGE
from nvmelab.host.errors import DeviceError
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import CompletionQueue, SubmissionQueue
from nvmelab.spec.admin import CreateIoCq, CreateIoSq
from nvmelab.spec.commands import Command
from nvmelab.spec.features import Feature
from nvmelab.spec.registers import CQE_SIZE, REVISION_2_0, SQE_SIZE
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.rings import load

ENTRIES = 4
LAST_QID = 0xFFFF
CREATE_CQ = "Base 2.2, 5.2.1"
CREATE_SQ = "Base 2.2, 5.2.2"


def refused(
    bench: Bench, command: Command, what: str, *statuses: Status, expected: str = "", ref: str = ""
) -> None:
    """The admin command fails: with one of these statuses, or with any if there are none."""
    pending = bench.nvme.admin.submit(command).wait()
    bench.expect(not pending.ok, f"{what} was accepted", expected=expected, ref=ref)
    bench.expect(
        not statuses or pending.status in statuses,
        f"{what} was refused with {pending.status.label} ({int(pending.status):#05x})",
        expected=expected,
        ref=ref,
    )


def strict(bench: Bench) -> bool:
    """The controller says that it is of revision 2.0 or later: the first one that is known to say
    which status a bad CQID or PC gets."""
    return bench.nvme["vs"] >= REVISION_2_0


def usable(bench: Bench, qid: int) -> None:
    """A queue pair of that identifier can be created, works, and can be deleted."""
    cq = bench.nvme.create_cq(entries=min(ENTRIES, bench.nvme.cap.mqes), qid=qid)
    qpair = bench.nvme.create_sq(entries=min(ENTRIES, bench.nvme.cap.mqes), cq=cq, qid=qid)
    load(bench, [qpair], 2 * ENTRIES + 1)
    bench.nvme.delete_qpair(qpair)


def allocated(bench: Bench) -> tuple[int, int]:
    """Start the controller anew, asking for as many queues as there can be: how many submission
    and completion queues it gives. Beyond these is beyond what it supports."""
    bench.nvme.start(io_queues=LAST_QID)
    dw0 = bench.nvme.get_feature(Feature.NUMBER_OF_QUEUES)
    return (dw0 & 0xFFFF) + 1, (dw0 >> 16) + 1


def beyond(bench: Bench, count: int) -> list[int]:
    """Identifiers of queues that do not exist when there are `count`."""
    if count >= LAST_QID:
        return []
    return sorted({count + 1, bench.random.randint(count + 1, LAST_QID), LAST_QID})


def _cq(bench: Bench, qid: int, *, entries: int = ENTRIES, ien: int = 0, iv: int = 0) -> CreateIoCq:
    base = bench.nvme.pool.zeroed(entries * CQE_SIZE)
    return CreateIoCq(qid=qid, qsize=entries, prp1=base, pc=1, ien=ien, iv=iv)


def _sq(bench: Bench, qid: int, cqid: int, *, entries: int = ENTRIES) -> CreateIoSq:
    base = bench.nvme.pool.zeroed(entries * SQE_SIZE)
    return CreateIoSq(qid=qid, qsize=entries, prp1=base, pc=1, cqid=cqid)


def cq_at(bench: Bench, qid: int, base: int, entries: int) -> CompletionQueue:
    """The driver's side of a completion queue that was created by a command of one's own."""
    cq = CompletionQueue(bench.link, bench.nvme.doorbells, qid, base, entries)
    bench.nvme.cqs[qid] = cq
    return cq


def sq_at(bench: Bench, qid: int, base: int, entries: int, cq: CompletionQueue) -> Qpair:
    """The driver's side of a submission queue that was created by a command of one's own."""
    sq = SubmissionQueue(bench.link, bench.nvme.doorbells, qid, base, entries, cq)
    bench.nvme.sqs[qid] = sq
    return Qpair(bench.nvme.pool, sq)


def _works_as_asked(bench: Bench, qpair: Qpair, what: str, ref: str) -> None:
    """What should have been refused was accepted: then it works like any other queue."""
    try:
        load(bench, [qpair], 2 * ENTRIES + 1)
    except DeviceError as error:
        bench.expect(False, f"{what} was accepted and does not work: {error}", ref=ref)


@check(
    "queues.cq-identifiers",
    ref=f"{CREATE_CQ} (QID)",
    expected="Create I/O Completion Queue is refused for an identifier that is 0, in use, or "
    "beyond Number of Queues (no queue could be meant), and changes nothing",
)
def cq_identifiers(bench: Bench) -> None:
    """Completion queues with identifiers that are 0, in use, or too large."""
    _, count = allocated(bench)
    refused(bench, _cq(bench, 0), "a CQ with identifier 0")
    bench.nvme.identify()
    qpair = bench.nvme.create_qpair(entries=min(ENTRIES, bench.nvme.cap.mqes))
    load(bench, [qpair], ENTRIES + 1)
    in_use = _cq(bench, qpair.cq.qid, entries=2 * ENTRIES)
    refused(bench, in_use, f"a second CQ with identifier {qpair.cq.qid}")
    load(bench, [qpair], 2 * ENTRIES + 1)
    for qid in beyond(bench, count):
        refused(bench, _cq(bench, qid), f"a CQ with identifier {qid}, of {count} allocated,")
    load(bench, [qpair], ENTRIES + 1)
    bench.nvme.delete_qpair(qpair)
    usable(bench, qpair.cq.qid)


@check(
    "queues.sq-identifiers",
    ref=f"{CREATE_SQ} (QID)",
    expected="Create I/O Submission Queue is refused for an identifier that is 0, in use, or "
    "beyond Number of Queues (no queue could be meant), and changes nothing",
)
def sq_identifiers(bench: Bench) -> None:
    """Submission queues with identifiers that are 0, in use, or too large."""
    count, _ = allocated(bench)
    cq = bench.nvme.create_cq(entries=min(ENTRIES, bench.nvme.cap.mqes))
    refused(bench, _sq(bench, 0, cq.qid), "an SQ with identifier 0")
    bench.nvme.identify()
    qpair = bench.nvme.create_sq(entries=min(ENTRIES, bench.nvme.cap.mqes), cq=cq)
    load(bench, [qpair], ENTRIES + 1)
    in_use = _sq(bench, qpair.qid, cq.qid, entries=2 * ENTRIES)
    refused(bench, in_use, f"a second SQ with identifier {qpair.qid}")
    load(bench, [qpair], 2 * ENTRIES + 1)
    for qid in beyond(bench, count):
        command = _sq(bench, qid, cq.qid)
        refused(bench, command, f"an SQ with identifier {qid}, of {count} allocated,")
    load(bench, [qpair], ENTRIES + 1)
    # A refused queue that counts as bound would keep the completion queue from being deleted.
    bench.nvme.delete_qpair(qpair)
    usable(bench, qpair.qid)


@check(
    "queues.sq-cqid-absent",
    ref=f"{CREATE_SQ} (Figure 480, CQID)",
    expected="an SQ on a CQ that could exist and does not is refused (from revision 2.0 on: with "
    "Completion Queue Invalid)",
)
def sq_cqid_absent(bench: Bench) -> None:
    """Submission queues on a completion queue that was never created, or was deleted."""
    missing = min(2, bench.nvme.io_queues)
    statuses = [Status.COMPLETION_QUEUE_INVALID]
    if not strict(bench):
        statuses.append(Status.INVALID_QUEUE_IDENTIFIER)
    refused(bench, _sq(bench, 1, missing), f"an SQ on CQ {missing}, never created,", *statuses)
    usable(bench, 1)
    refused(bench, _sq(bench, 1, 1), "an SQ on CQ 1, which was deleted,", *statuses)
    usable(bench, 1)


@check(
    "queues.sq-cqid",
    ref=f"{CREATE_SQ} (Figure 480, CQID)",
    expected="an SQ on CQ 0, or on one beyond what the controller supports, is refused (from "
    "revision 2.0 on: with Invalid Queue Identifier)",
)
def sq_cqid(bench: Bench) -> None:
    """Submission queues on the admin completion queue, and on identifiers that are too large."""
    _, count = allocated(bench)
    either = (Status.INVALID_QUEUE_IDENTIFIER, Status.COMPLETION_QUEUE_INVALID)
    exact = either[:1] if strict(bench) else either
    refused(bench, _sq(bench, 1, 0), "an SQ on CQ 0, the admin queue's,", *exact)
    bench.nvme.identify()
    usable(bench, 1)
    for cqid in beyond(bench, count):
        # A controller may support more than it has allocated; hardly the largest there can be.
        statuses = exact if cqid == LAST_QID else either
        what = f"an SQ on CQ {cqid}, of {count} allocated,"
        refused(bench, _sq(bench, 1, cqid), what, *statuses)
    usable(bench, 1)


@check(
    "queues.cq-size",
    ref=f"{CREATE_CQ} (QSIZE) and 3.3.3.1",
    expected="Create I/O Completion Queue is refused for one entry (it would have no room for any) "
    "and for more than CAP.MQES allows, and creates nothing",
)
def cq_size(bench: Bench) -> None:
    """Completion queues of one entry, and of more than CAP.MQES allows."""
    refused(bench, _cq(bench, 1, entries=1), "a CQ of 1 entry (QSIZE 0)")
    usable(bench, 1)
    most = bench.nvme.cap.mqes
    for entries in sorted({most + 1, 65_536}):
        if entries > most:
            command = _cq(bench, 1, entries=entries)
            refused(bench, command, f"a CQ of {entries} entries, where CAP.MQES allows {most},")
    usable(bench, 1)


@check(
    "queues.sq-size",
    ref=f"{CREATE_SQ} (QSIZE) and 3.3.3.1",
    expected="Create I/O Submission Queue is refused for one entry (it would have no room for any) "
    "and for more than CAP.MQES allows, and creates nothing",
)
def sq_size(bench: Bench) -> None:
    """Submission queues of one entry, and of more than CAP.MQES allows."""
    cq = bench.nvme.create_cq(entries=min(ENTRIES, bench.nvme.cap.mqes))
    most = bench.nvme.cap.mqes
    refused(bench, _sq(bench, 1, cq.qid, entries=1), "an SQ of 1 entry (QSIZE 0)")
    for entries in sorted({most + 1, 65_536}):
        if entries > most:
            command = _sq(bench, 1, cq.qid, entries=entries)
            refused(bench, command, f"an SQ of {entries} entries, where CAP.MQES allows {most},")
    bench.nvme.delete_cq(cq.qid)
    usable(bench, 1)


@check(
    "queues.vector",
    ref=f"{CREATE_CQ} (Figure 477, Invalid Interrupt Vector)",
    expected="Create I/O Completion Queue with interrupts is refused for a vector that does not "
    "exist (the queue could never signal), and creates nothing",
)
def vector(bench: Bench) -> None:
    """Interrupt vectors beyond the MSI-X table, and the last one of it."""
    vectors = bench.link.vectors
    for number in sorted({vectors, bench.random.randint(vectors, 0xFFFF), 0xFFFF}):
        command = _cq(bench, 1, ien=1, iv=number)
        refused(bench, command, f"a CQ with vector {number}, of {vectors} in the table,")
    usable(bench, 1)
    last = bench.nvme.create_cq(
        entries=min(ENTRIES, bench.nvme.cap.mqes), vector=vectors - 1, interrupts=True
    )
    load(
        bench,
        [bench.nvme.create_sq(entries=min(ENTRIES, bench.nvme.cap.mqes), cq=last)],
        2 * ENTRIES + 1,
    )


@check(
    "queues.contiguous",
    ref=f"{CREATE_CQ} (PC)",
    expected="where CAP.CQR is 1, a CQ that is not contiguous is refused (from revision 2.0 on: "
    "with Invalid Field in Command); an SQ too, or it is used as its PRP list says",
)
def contiguous(bench: Bench) -> None:
    """Queues that are described by PRP lists, where CAP.CQR asks for contiguous ones."""
    if not bench.nvme.cap.cqr:
        bench.skip("CAP.CQR is 0: queues need not be contiguous")
    nvme, pool = bench.nvme, bench.nvme.pool
    ring, prp_list = pool.zeroed(PAGE), pool.zeroed(PAGE)
    bench.link.memory.write(prp_list, ring.to_bytes(8, "little"))
    command = CreateIoCq(qid=1, qsize=ENTRIES, prp1=prp_list, pc=0)
    statuses = (Status.INVALID_FIELD_IN_COMMAND,) if strict(bench) else ()
    refused(bench, command, "a CQ with PC 0 (CAP.CQR is 1)", *statuses)
    cq = nvme.create_cq(entries=min(ENTRIES, nvme.cap.mqes), qid=1)
    attempt = nvme.admin.submit(
        CreateIoSq(qid=1, qsize=ENTRIES, prp1=prp_list, pc=0, cqid=cq.qid)
    ).wait()
    if attempt.ok:
        qpair = sq_at(bench, 1, ring, ENTRIES, cq)
        _works_as_asked(bench, qpair, "an SQ with PC 0 (CAP.CQR is 1)", f"{CREATE_SQ} (PC)")
        nvme.delete_qpair(qpair)
    else:
        nvme.delete_cq(cq.qid)
    usable(bench, 1)


@check(
    "queues.aligned",
    ref=f"{CREATE_CQ} and 5.2.2 (PRP1)",
    expected="a base that does not begin a page is refused, or is where the queue then is",
)
def aligned(bench: Bench) -> None:
    """Queues whose memory does not begin a page."""
    nvme = bench.nvme
    for offset in (CQE_SIZE, PAGE // 2, 64 * bench.random.randint(1, PAGE // 64 - 1)):
        base = nvme.pool.zeroed(2 * PAGE) + offset
        command: Command = CreateIoCq(qid=1, qsize=ENTRIES, prp1=base, pc=1)
        if nvme.admin.submit(command).wait().ok:
            cq = cq_at(bench, 1, base, ENTRIES)
            qpair = nvme.create_sq(entries=min(ENTRIES, nvme.cap.mqes), cq=cq, qid=1)
            what = f"a CQ {offset} bytes into a page"
            _works_as_asked(bench, qpair, what, f"{CREATE_CQ} (PRP1)")
            nvme.delete_qpair(qpair)
        usable(bench, 1)
        base = nvme.pool.zeroed(2 * PAGE) + offset
        cq = nvme.create_cq(entries=min(ENTRIES, nvme.cap.mqes), qid=1)
        command = CreateIoSq(qid=1, qsize=ENTRIES, prp1=base, pc=1, cqid=1)
        if nvme.admin.submit(command).wait().ok:
            qpair = sq_at(bench, 1, base, ENTRIES, cq)
            what = f"an SQ {offset} bytes into a page"
            _works_as_asked(bench, qpair, what, f"{CREATE_SQ} (PRP1)")
            nvme.delete_qpair(qpair)
        else:
            nvme.delete_cq(1)
    usable(bench, 1)


@check(
    "queues.page-end",
    ref=f"{CREATE_CQ} (QSIZE, PRP1)",
    expected="nothing behind the last entry of a queue is written, and every entry is used",
)
def page_end(bench: Bench) -> None:
    """Queues that end with a page, and one entry before and after that."""
    sq_full, cq_full = PAGE // SQE_SIZE, PAGE // CQE_SIZE
    guard = b"\xa5" * 256
    for more in (-1, 0, 1):
        entries, sq_entries = cq_full + more, sq_full + more
        if entries > bench.nvme.cap.mqes:
            continue
        base = bench.nvme.pool.zeroed(3 * PAGE)
        behind = base + entries * CQE_SIZE
        bench.link.memory.write(behind, guard)
        bench.nvme.run(CreateIoCq(qid=1, qsize=entries, prp1=base, pc=1))
        cq = cq_at(bench, 1, base, entries)
        qpair = bench.nvme.create_sq(entries=sq_entries, cq=cq, qid=1, ring_each=False)
        buffer = bench.nvme.buffer(512)
        pending = [qpair.read(slba=0, buffer=buffer) for _ in range(entries + 3)]
        qpair.wait_all()
        for command in pending:
            command.check()
        seen = bench.link.memory.read(behind, len(guard))
        bench.expect(
            seen == guard, f"the bytes behind a CQ of {entries} entries became {seen[:32].hex()}"
        )
        bench.nvme.delete_qpair(qpair)


@check(
    "queues.all",
    ref="Base 2.2, 5.1.25.2.1",
    expected="every queue pair that Number of Queues has allocated works, all at the same time",
)
def all_queues(bench: Bench) -> None:
    """As many queue pairs as are allocated (at most 32) at the same time, deleted one by one."""
    bench.nvme.start(io_queues=32)
    count = min(bench.nvme.io_queues, 32)
    sizes = [min(bench.random.randint(2, 6), bench.nvme.cap.mqes) for _ in range(count)]
    qpairs = [bench.nvme.create_qpair(entries=entries) for entries in sizes]
    load(bench, qpairs, 9)
    bench.random.shuffle(qpairs)
    while qpairs:
        bench.nvme.delete_qpair(qpairs.pop())
        load(bench, qpairs[-3:], 1)


@check(
    "queues.any-identifier",
    ref="Base 2.2, 3.3.3.2",
    expected="any identifier up to Number of Queues may be used, in any order, and an SQ's need "
    "not be that of its CQ",
)
def any_identifier(bench: Bench) -> None:
    """The highest identifier alone, and submission queues crossed with completion queues."""
    nvme, top = bench.nvme, bench.nvme.io_queues
    usable(bench, top)
    if top == 1:
        return
    first, last = (nvme.create_cq(entries=min(ENTRIES, nvme.cap.mqes), qid=qid) for qid in (1, top))
    crossed = [
        nvme.create_sq(entries=min(ENTRIES, nvme.cap.mqes), cq=last, qid=1),
        nvme.create_sq(entries=ENTRIES + 1, cq=first, qid=top),
    ]
    load(bench, crossed, 2 * ENTRIES + 1)
    nvme.delete_sq(1)
    nvme.delete_cq(top)
    load(bench, crossed[1:], ENTRIES)
    if top > 2:
        usable(bench, bench.random.randint(2, top - 1))


@check(
    "queues.shared-vector",
    ref=f"{CREATE_CQ} (IV)",
    expected="two completion queues may raise the same vector, and each does so",
)
def shared_vector(bench: Bench) -> None:
    """Two completion queues on one vector, whose handler looks at both."""
    if bench.nvme.io_queues < 2:
        bench.skip("the controller has one I/O queue")
    number = bench.link.vectors - 1
    cqs = [
        bench.nvme.create_cq(entries=min(3, bench.nvme.cap.mqes), vector=number) for _ in range(2)
    ]
    qpairs = [bench.nvme.create_sq(entries=min(ENTRIES, bench.nvme.cap.mqes), cq=cq) for cq in cqs]
    buffer = bench.nvme.buffer(512)
    bench.link.take_interrupts(number)

    def served() -> bool:
        if bench.link.take_interrupts(number):
            for cq in cqs:
                cq.reap()
        return not any(qpair.outstanding for qpair in qpairs)

    for round in range(40):
        busy = [qpair for qpair in qpairs if bench.random.random() < 0.7] or qpairs[:1]
        for qpair in busy:
            for _ in range(bench.random.randint(1, ENTRIES - 1)):
                qpair.read(slba=round, buffer=buffer)
        bench.expect(
            bench.link.wait(served),
            f"vector {number} of two CQs was not raised: {cqs[0].state()}; {cqs[1].state()}",
        )


@check(
    "queues.smallest",
    ref="Base 2.2, 3.3.3.1",
    expected="queues of two entries work, the admin queues too",
)
def smallest(bench: Bench) -> None:
    """An admin queue pair and several I/O queue pairs of two entries each."""
    nvme = bench.nvme
    nvme.enable(sq_entries=2, cq_entries=2)
    nvme.io_queues = nvme.set_number_of_queues(4)
    for _ in range(3):
        nvme.identify()
    qpairs = [nvme.create_qpair(entries=2) for _ in range(min(4, nvme.io_queues))]
    load(bench, qpairs, 15)
    for qpair in qpairs:
        nvme.delete_qpair(qpair)
    nvme.identify()
