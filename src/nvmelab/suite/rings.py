"""Checks of the rings: sizes, wraps, phase tags, full queues, several submission queues on one
completion queue."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nvmelab.host.driver import Controller
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Flow, Pending
from nvmelab.spec.registers import CQE_SIZE
from nvmelab.suite.base import Bench, check

SIZES = (2, 3, 4, 5, 6, 7, 8, 9, 16, 64)
CQ_FLOW = "Base 2.2, 3.3.1.2.1"
USAGE = "Base 2.2, 3.3.1.2"


def fits(nvme: Controller, entries: int) -> bool:
    """A queue of that many entries may be created (CAP.MQES)."""
    return entries <= nvme.cap.mqes


def load(bench: Bench, qpairs: list[Qpair], commands: int) -> None:
    """That many small reads on each queue pair, as many outstanding as each takes; all succeed."""
    pending: list[Pending] = []
    buffer = bench.nvme.buffer(512)
    for number in range(commands):
        for qpair in qpairs:
            pending.append(qpair.read(slba=number % 256, buffer=buffer))
    for qpair in qpairs:
        qpair.wait_all()
    for command in pending:
        command.check()


def _sizes(bench: Bench, flow: Flow, cq_of: Callable[[int], int]) -> None:
    """Every size, and at least five laps of the larger ring in each."""
    done = 0
    for entries in SIZES:
        cq_entries = cq_of(entries)
        if not fits(bench.nvme, max(entries, cq_entries)):
            continue
        qpair = bench.nvme.create_qpair(entries=entries, cq_entries=cq_entries, flow=flow)
        # An odd number of laps, and not a whole one: what the next queue inherits would show.
        load(bench, [qpair], 5 * max(entries, cq_entries) + 1)
        bench.nvme.delete_qpair(qpair)
        done += 1
    if not done:
        bench.skip(f"CAP.MQES allows queues of at most {bench.nvme.cap.mqes} entries")


_EACH = "every command completes once, in queues of 2 to 9, 16 and 64 entries"


@check("rings.same-size", ref=USAGE, expected=_EACH)
def same_size(bench: Bench) -> None:
    """Submission and completion queue of the same size, at most entries - 1 outstanding."""
    _sizes(bench, "inflight", lambda entries: entries)


@check("rings.small-cq", ref=CQ_FLOW, expected=_EACH + ", with a completion queue of half the size")
def small_cq(bench: Bench) -> None:
    """A completion queue smaller than its submission queue."""
    _sizes(bench, "inflight", lambda entries: max(2, entries // 2))


@check("rings.large-cq", ref=USAGE, expected=_EACH + ", with a completion queue of 3 entries more")
def large_cq(bench: Bench) -> None:
    """A completion queue larger than its submission queue."""
    _sizes(bench, "inflight", lambda entries: entries + 3)


@check("rings.sqhd-flow", ref="Base 2.2, 4.2.1 (SQHD)", expected=_EACH)
def sqhd_flow(bench: Bench) -> None:
    """A driver that takes the submission queue for full by the last SQHD alone."""
    _sizes(bench, "sqhd", lambda entries: entries)


@check("rings.sqhd-flow-small-cq", ref=CQ_FLOW, expected=_EACH)
def sqhd_flow_small_cq(bench: Bench) -> None:
    """The same with a completion queue of half the size."""
    _sizes(bench, "sqhd", lambda entries: max(2, entries // 2))


@check(
    "rings.largest",
    ref="Base 2.2, 3.1.4.1 (CAP.MQES)",
    expected="queues of CAP.MQES + 1 entries work, filled to the last one, over the wrap",
)
def largest(bench: Bench) -> None:
    """The largest queues that CAP.MQES allows."""
    entries = bench.nvme.cap.mqes
    qpair = bench.nvme.create_qpair(entries=entries, ring_each=False)
    buffer = bench.nvme.buffer(512)
    for _ in range(2):
        pending = [qpair.read(slba=0, buffer=buffer) for _ in range(entries - 1)]
        qpair.wait_all()
        for command in pending:
            command.check()


@check(
    "rings.full-sq",
    ref="Base 2.2, 3.3.1.5",
    expected="entries - 1 commands with one doorbell all complete, wherever in the ring they begin",
)
def full_sq(bench: Bench) -> None:
    """A submission queue filled to the last entry and rung once, at every offset."""
    for entries in (2, 3, 4, 7):
        if not fits(bench.nvme, entries):
            continue
        qpair = bench.nvme.create_qpair(entries=entries, ring_each=False)
        buffer = bench.nvme.buffer(512)
        for _ in range(2 * entries + 1):
            for _ in range(entries - 1):
                qpair.read(slba=0, buffer=buffer)
            qpair.wait_all()
        bench.nvme.delete_qpair(qpair)


@check(
    "rings.full-cq",
    ref=CQ_FLOW,
    expected="a full completion queue gets no further entry, and loses none once there is room",
)
def full_cq(bench: Bench) -> None:
    """The head doorbell held back until the completion queue is full, then rung."""
    for cq_entries in (2, 3, 4, 5):
        for step in (1, cq_entries - 1):
            if fits(bench.nvme, 16):
                _fill_cq(bench, cq_entries, step)


def _fill_cq(bench: Bench, cq_entries: int, step: int) -> None:
    qpair = bench.nvme.create_qpair(entries=16, cq_entries=cq_entries, release="held")
    cq = qpair.cq
    buffer = bench.nvme.buffer(512)
    commands = 12
    pending = [qpair.read(slba=number, buffer=buffer) for number in range(commands)]
    room = cq_entries - 1
    while cq.reaped < commands:
        wanted = min(room, commands - cq.reaped)
        before = cq.reaped

        def enough(target: int = before + wanted) -> bool:
            cq.reap(target - cq.reaped)
            return cq.reaped >= target

        cq.wait(enough, f"entry {before + wanted} of CQ {cq.qid}", serve=False)
        room -= wanted
        bench.link.settle()
        if room == 0:
            bench.expect(
                cq.peek() is None,
                f"a CQ of {cq_entries} entries, of which {cq_entries - 1} were not released, got "
                f"one more: {cq.peek()}",
            )
        todo = min(step, cq_entries - 1 - room)
        cq.ring(todo)
        room += todo
    for command in pending:
        command.check()
    bench.nvme.delete_qpair(qpair)


@check(
    "rings.other-queues-go-on",
    ref=CQ_FLOW,
    expected="a full completion queue stops no queue but those that are bound to it",
)
def other_queues_go_on(bench: Bench) -> None:
    """Commands on one queue pair while the completion queue of another is full."""
    stuffed = bench.nvme.create_qpair(entries=8, cq_entries=2, release="held")
    other = bench.nvme.create_qpair(entries=4)
    buffer = bench.nvme.buffer(512)
    blocked = [stuffed.read(slba=number, buffer=buffer) for number in range(5)]
    bench.link.settle()
    load(bench, [other], 20)
    bench.nvme.identify()
    stuffed.cq.release = "entry"
    stuffed.wait_all()
    for command in blocked:
        command.check()


@check(
    "rings.shared-cq",
    ref="Base 2.2, 3.3",
    expected="several submission queues share a completion queue; SQID and SQHD say whose it is",
)
def shared_cq(bench: Bench) -> None:
    """Four submission queues of different sizes on one completion queue of 4 entries."""
    if bench.nvme.io_queues < 4:
        bench.skip(f"the controller has {bench.nvme.io_queues} I/O queues")
    cq = bench.nvme.create_cq(entries=4)
    qpairs = [
        bench.nvme.create_sq(entries=min(entries, bench.nvme.cap.mqes), cq=cq)
        for entries in (2, 3, 5, 8)
    ]
    load(bench, qpairs, 60)


@check(
    "rings.shared-cq-delete",
    ref="Base 2.2, 5.2.4",
    expected="deleting one of several submission queues leaves the others alone",
)
def shared_cq_delete(bench: Bench) -> None:
    """One of two submission queues on a completion queue is deleted and created again."""
    cq = bench.nvme.create_cq(entries=min(5, bench.nvme.cap.mqes))
    first, second = (bench.nvme.create_sq(entries=4, cq=cq) for _ in range(2))
    for _ in range(3):
        load(bench, [first, second], 7)
        bench.nvme.delete_sq(first.qid)
        load(bench, [second], 7)
        first = bench.nvme.create_sq(entries=4, cq=cq)
    load(bench, [first, second], 7)


@check(
    "rings.phase",
    ref="Base 2.2, 4.2.4",
    expected="the phase tag of a slot changes with each lap, and of no other slot",
)
def phase(bench: Bench) -> None:
    """Every slot of a completion queue after every single completion, over four laps."""
    for entries in (2, 3, 4, 5):
        if not fits(bench.nvme, entries):
            continue
        qpair = bench.nvme.create_qpair(entries=entries)
        buffer = bench.nvme.buffer(512)
        for number in range(1, 4 * entries + 2):
            qpair.read(slba=0, buffer=buffer).check()
            lap, slots = divmod(number, entries)
            new, old = 1 - lap % 2, lap % 2
            wanted = [new if slot < slots else old for slot in range(entries)]
            seen = [_phase_of(bench, qpair, slot) for slot in range(entries)]
            bench.expect(
                seen == wanted,
                f"after {number} completions in a CQ of {entries} entries the phase tags are "
                f"{seen}, not {wanted}",
            )
        bench.nvme.delete_qpair(qpair)


def _phase_of(bench: Bench, qpair: Qpair, slot: int) -> int:
    return bench.link.memory.load_u32(qpair.cq.base + slot * CQE_SIZE + 12) >> 16 & 1


@check(
    "rings.partial-reap",
    ref=USAGE,
    expected="entries may be reaped, and released, one by one or several together",
)
def partial_reap(bench: Bench) -> None:
    """Completions reaped in portions drawn from the seed, the head doorbell in others."""
    qpair = bench.nvme.create_qpair(entries=8, cq_entries=6, release="held")
    buffer = bench.nvme.buffer(512)
    pending: list[Pending] = []
    while len(pending) < 150 or qpair.outstanding:
        while len(pending) < 150 and qpair.sq.room and bench.random.random() < 0.8:
            pending.append(qpair.read(slba=len(pending), buffer=buffer))
        if qpair.outstanding:
            reaped = partial(_reaped, qpair, bench.random.randint(1, 3))
            qpair.cq.wait(reaped, "a completion", serve=False)
        if bench.random.random() < 0.5 or (qpair.cq.head + 1) % 6 == qpair.cq.rung:
            qpair.cq.ring()
    for command in pending:
        command.check()


def _reaped(qpair: Qpair, limit: int) -> bool:
    return bool(qpair.cq.reap(limit))


@check(
    "rings.sqhd",
    ref="Base 2.2, 4.2.1 (SQHD)",
    expected="SQHD never passes what was rung, and covers each command when the queue is idle",
)
def sqhd(bench: Bench) -> None:
    """The SQ head pointer of the last completion, whenever nothing is outstanding."""
    qpair = bench.nvme.create_qpair(entries=min(5, bench.nvme.cap.mqes))
    buffer = bench.nvme.buffer(512)
    for number in range(30):
        for _ in range(number % 4 + 1):
            qpair.read(slba=0, buffer=buffer)
        qpair.wait_all()
        bench.expect(
            qpair.sq.head == qpair.sq.tail,
            f"everything is complete and the last SQHD is {qpair.sq.head}, not {qpair.sq.tail}",
        )
