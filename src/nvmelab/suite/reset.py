"""Checks of Controller Reset and shutdown: what ends, what stays, and what works afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec

from nvmelab.host.buffers import Buffer
from nvmelab.host.driver import Controller
from nvmelab.host.errors import CommandFailed
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import CompletionQueue, SubmissionQueue
from nvmelab.link.base import Storage
from nvmelab.link.nbd import NbdServer
from nvmelab.spec.admin import CreateIoSq, DeleteIoCq, DeleteIoSq, GetFeatures
from nvmelab.spec.features import Feature
from nvmelab.spec.registers import CQE_SIZE, IOCQES, IOSQES, SQE_SIZE, Cc
from nvmelab.spec.status import Status
from nvmelab.suite.base import Bench, check
from nvmelab.suite.rings import load

RESET = "Base 2.2, 3.7.2"
PHASE = "Base 2.2, 4.2.4 and 3.7.2"
PROBE = GetFeatures(fid=Feature.NUMBER_OF_QUEUES)
"""A command that every controller has and that moves no data."""
PATTERN = 0xA5
"""What watched memory is filled with."""


def stop(nvme: Controller) -> None:
    """Controller Reset. Unlike `disable` it leaves memory as it is: a device that has not stopped
    would write there."""
    nvme.write_cc(msgspec.structs.replace(nvme.cc, en=0, shn=0))
    nvme.wait_csts("CSTS.RDY 0", rdy=0)
    nvme.cqs.clear()
    nvme.sqs.clear()


def go_on(nvme: Controller) -> None:
    """After `stop`: enable the controller with an admin queue in memory of its own."""
    nvme.prepare()
    nvme.write_cc(Cc(en=1, iosqes=IOSQES, iocqes=IOCQES))
    nvme.wait_csts("CSTS.RDY 1", rdy=1)
    nvme.io_queues = nvme.set_number_of_queues(16)


class Watch:
    """Memory that belongs to the host alone since CSTS.RDY became 0: no command exists that could
    have the controller write there."""

    def __init__(
        self, bench: Bench, cqs: Iterable[CompletionQueue], buffers: Iterable[Buffer] = ()
    ) -> None:
        self._bench = bench
        self._ranges = [
            (f"the memory of completion queue {cq.qid}", cq.base, cq.entries * CQE_SIZE)
            for cq in cqs
        ]
        self._ranges += [("a data buffer", buffer.addr, buffer.size) for buffer in buffers]
        for _, addr, size in self._ranges:
            bench.link.memory.write(addr, bytes([PATTERN]) * size)

    def check(self) -> None:
        """Nothing was written since. Raises Finding."""
        for what, addr, size in self._ranges:
            data = self._bench.link.memory.read(addr, size)
            changed = [at for at in range(size) if data[at] != PATTERN]
            self._bench.expect(
                not changed,
                f"{len(changed)} bytes of {what}, which ended with the reset, were written after "
                f"CSTS.RDY had become 0, the first at byte {changed[:1]}",
                expected="the controller is idle when CSTS.RDY is 0, and forgets its queues",
            )


def works(bench: Bench, commands: int = 9) -> None:
    """The controller is as good as new: I/O on a fresh queue pair with the first identifier."""
    load(bench, [bench.nvme.create_qpair(entries=min(4, bench.nvme.cap.mqes))], commands)


@check(
    "reset.ready",
    ref="Base 2.2, 3.1.4.6 (CSTS.RDY) and 3.5.1",
    expected="CSTS.RDY follows CC.EN, down and up, however often",
)
def ready(bench: Bench) -> None:
    """CC.EN cleared and set 16 times, with a command in between."""
    for _ in range(16):
        stop(bench.nvme)
        bench.nvme.prepare(sq_entries=2, cq_entries=2)
        bench.nvme.write_cc(Cc(en=1, iosqes=IOSQES, iocqes=IOCQES))
        bench.nvme.wait_csts("CSTS.RDY 1", rdy=1)
        bench.nvme.run(PROBE)
    bench.nvme.start()
    works(bench)


_ANEW = "after a reset the phase tag is 1 and the rings begin at entry 0, wherever they were before"


@check("reset.admin-ring", ref=PHASE, expected=_ANEW)
def admin_ring(bench: Bench) -> None:
    """A reset after every number of commands on the admin queue, over two laps."""
    for entries in (2, 3, 4):
        for commands in range(1, 2 * entries + 1):
            bench.nvme.enable(sq_entries=entries, cq_entries=entries)
            for _ in range(commands):
                bench.nvme.run(PROBE)


@check("reset.io-ring", ref=PHASE, expected=_ANEW)
def io_ring(bench: Bench) -> None:
    """A reset after every number of commands on an I/O queue, over two laps."""
    for entries in (2, 3):
        for commands in range(1, 2 * entries + 1):
            bench.nvme.start()
            qpair = bench.nvme.create_qpair(entries=min(entries, bench.nvme.cap.mqes))
            buffer = bench.nvme.buffer()
            for _ in range(commands):
                qpair.read(slba=0, buffer=buffer).check()
    bench.nvme.start()
    works(bench)


@check(
    "reset.admin-registers",
    ref="Base 2.2, 3.7.2, 3.1.4.8, 3.1.4.9 and 3.1.4.10",
    expected="a Controller Reset leaves AQA, ASQ and ACQ as they were",
)
def admin_registers(bench: Bench) -> None:
    """AQA, ASQ and ACQ after a reset, and the controller enabled with what is in them."""
    nvme = bench.nvme
    for sq_entries, cq_entries in ((3, 5), (6, 4)):
        nvme.enable(sq_entries=sq_entries, cq_entries=cq_entries)
        names = ("aqa", "asq", "acq")
        before = {name: nvme[name] for name in names}
        for _ in range(cq_entries + 1):
            nvme.run(PROBE)
        old = nvme.admin
        stop(nvme)
        for name in names:
            seen = nvme[name]
            bench.expect(
                seen == before[name],
                f"{name.upper()} was {before[name]:#x}, and is {seen:#x} after a Controller Reset",
            )
        bench.link.memory.write(old.cq.base, bytes(cq_entries * CQE_SIZE))
        bench.link.memory.write(old.sq.base, bytes(sq_entries * SQE_SIZE))
        cq = CompletionQueue(bench.link, nvme.doorbells, 0, old.cq.base, cq_entries, vector=0)
        sq = SubmissionQueue(bench.link, nvme.doorbells, 0, old.sq.base, sq_entries, cq)
        nvme.admin = Qpair(nvme.pool, sq)
        nvme.write_cc(Cc(en=1, iosqes=IOSQES, iocqes=IOCQES))
        nvme.wait_csts("CSTS.RDY 1", rdy=1)
        for _ in range(cq_entries + 1):
            nvme.run(PROBE)


@check(
    "reset.queues-gone",
    ref=RESET,
    expected="a reset deletes all I/O queues: they cannot be deleted again, and their doorbells "
    "have nothing fetched",
)
def queues_gone(bench: Bench) -> None:
    """I/O queues from before a reset are deleted, used and rung."""
    nvme = bench.nvme
    qpairs = [nvme.create_qpair(entries=2) for _ in range(min(3, nvme.io_queues))]
    buffer = nvme.buffer(4096)
    for qpair in qpairs:
        qpair.read(slba=0, buffer=buffer).check()
        # Another one in the other slot, of which the device has not heard.
        qpair.sq.ring_each = False
        qpair.read(slba=0, buffer=buffer)
    cqs = [nvme.admin.cq, *(qpair.cq for qpair in qpairs)]
    stop(nvme)
    watch = Watch(bench, cqs, [buffer])
    go_on(nvme)
    for qpair in qpairs:
        qid = qpair.qid
        orphan = CreateIoSq(qid=qid, qsize=2, prp1=nvme.pool.zeroed(4096), pc=1, cqid=qid)
        for command in (DeleteIoSq(qid=qid), DeleteIoCq(qid=qid), orphan):
            done = nvme.admin.submit(command).wait()
            bench.expect(
                not done.ok,
                f"queue pair {qid} was deleted by a reset, and afterwards {command!r} succeeded",
            )
    # To the second entry, if the device remembers no head, and to the first, if it does.
    for tail in (1, 0):
        for qpair in qpairs:
            nvme.doorbells.write(2 * qpair.qid, tail)
            nvme.doorbells.write(2 * qpair.qid + 1, tail)
        bench.link.settle()
    nvme.run(PROBE)
    watch.check()
    # Once more: what those doorbells did to the controller is nobody's business.
    nvme.start()
    works(bench)


@check(
    "reset.queues-unknown",
    ref="Base 2.2, 5.2.3 and 5.2.4 (figures 484 and 486)",
    expected="deleting a queue that is gone since the reset fails with Invalid Queue Identifier",
)
def queues_unknown(bench: Bench) -> None:
    """The status of Delete I/O Submission and Completion Queue after a reset."""
    nvme = bench.nvme
    qid = nvme.create_qpair(entries=2).qid
    nvme.start()
    for command in (DeleteIoSq(qid=qid), DeleteIoCq(qid=qid)):
        done = nvme.admin.submit(command).wait()
        bench.expect(
            not done.ok and done.status == Status.INVALID_QUEUE_IDENTIFIER,
            f"{type(command).__name__} of queue {qid}, which does not exist, ended with "
            f"{done.status.label} ({int(done.status):#05x})",
        )


def _reaped(cq: CompletionQueue, wanted: int) -> bool:
    return cq.reaped >= wanted


def _waiting(cq: CompletionQueue) -> bool:
    """An entry is there, and was not reaped."""
    return cq.peek() is not None


@check(
    "reset.rung",
    ref=RESET,
    expected="commands that were rung end with the reset; nothing is written for them after RDY 0",
)
def rung(bench: Bench) -> None:
    """Reads on several queues, then a reset at once, or after some completions."""
    nvme = bench.nvme
    entries = min(8, nvme.cap.mqes)
    for _ in range(6):
        qpairs = [nvme.create_qpair(entries=entries) for _ in range(min(3, nvme.io_queues))]
        buffers = [nvme.buffer(4096) for _ in qpairs]
        for qpair, buffer in zip(qpairs, buffers, strict=True):
            for slba in range(bench.random.randint(1, entries - 1)):
                qpair.read(slba=slba, buffer=buffer)
        nvme.admin.submit(PROBE)
        first = qpairs[0].cq
        wanted = bench.random.randrange(qpairs[0].outstanding)
        if wanted:
            first.wait(partial(_reaped, first, wanted), "a completion")
        cqs = [nvme.admin.cq, *(qpair.cq for qpair in qpairs)]
        stop(nvme)
        watch = Watch(bench, cqs, buffers)
        bench.link.settle()
        go_on(nvme)
        works(bench)
        watch.check()
        nvme.start()


def waits_for_disks(storage: Storage) -> bool:
    """QEMU's device waits for its disks within the write to CC, and nothing else of that machine
    goes on meanwhile. Its disks are our NBD server: what is held then must be released before, so
    that the replies and the write arrive together."""
    return isinstance(storage, NbdServer)


def submit_held(bench: Bench, storage: Storage) -> tuple[list[Qpair], list[Buffer]]:
    """Commands on two queues of which the storage holds some back."""
    nvme = bench.nvme
    entries = min(4, nvme.cap.mqes)
    qpairs = [nvme.create_qpair(entries=entries) for _ in range(min(2, nvme.io_queues))]
    buffers: list[Buffer] = []
    storage.hold = True
    for qpair in qpairs:
        for number in range(entries - 1):
            buffers.append(nvme.buffer(512))
            if number % 2:
                qpair.write(slba=number, buffer=buffers[-1])
            else:
                qpair.read(slba=number, buffer=buffers[-1])
    if not bench.link.wait(lambda: storage.held() > 0):
        bench.skip("the device asks nothing of its storage")
    bench.link.settle()
    return qpairs, buffers


@check(
    "reset.in-flight",
    ref=RESET,
    expected="the controller is idle when RDY is 0: nothing is written for old commands after it",
)
def in_flight(bench: Bench) -> None:
    """A reset while the storage holds commands back, which are released meanwhile."""
    nvme, storage = bench.nvme, bench.storage()
    for _ in range(3):
        try:
            qpairs, buffers = submit_held(bench, storage)
            cqs = [nvme.admin.cq, *(qpair.cq for qpair in qpairs)]
            if waits_for_disks(storage):
                storage.let_go()
            nvme.write_cc(msgspec.structs.replace(nvme.cc, en=0))
            while not bench.link.wait(lambda: not nvme.csts.rdy) and storage.held():
                storage.release(bench.random.randrange(storage.held()))
            nvme.wait_csts("CSTS.RDY 0, with nothing held back by the storage any more", rdy=0)
            watch = Watch(bench, cqs, buffers)
        finally:
            storage.let_go()
        bench.link.settle()
        watch.check()
        nvme.cqs.clear()
        nvme.sqs.clear()
        go_on(nvme)
        works(bench)
        watch.check()
        nvme.start()


@check(
    "reset.full-cq",
    ref=RESET,
    expected="completions that found no room end with the reset, and appear in no later queue",
)
def full_cq(bench: Bench) -> None:
    """A reset while a completion queue is full: an I/O queue, then the admin queue."""
    nvme = bench.nvme
    entries = min(8, nvme.cap.mqes)
    for admin in (False, True):
        if admin:
            nvme.enable(sq_entries=entries, cq_entries=2)
            full = nvme.admin
            full.cq.release = "held"
            for _ in range(entries - 1):
                full.submit(PROBE)
        else:
            full = nvme.create_qpair(entries=entries, cq_entries=2, release="held")
            buffer = nvme.buffer(4096)
            for number in range(entries - 1):
                full.read(slba=number, buffer=buffer)
        cq = full.cq
        cq.wait(partial(_waiting, cq), "the first completion", serve=False)
        bench.link.settle()
        stop(nvme)
        watch = Watch(bench, [cq])
        go_on(nvme)
        qpair = nvme.create_qpair(entries=entries, cq_entries=2)
        load(bench, [qpair], 9)
        watch.check()
        nvme.start()


CHANGES = {
    Feature.ARBITRATION: 1,
    Feature.TEMPERATURE_THRESHOLD: 1,
    Feature.VOLATILE_WRITE_CACHE: 1,
    Feature.INTERRUPT_COALESCING: 0x0102,
    Feature.WRITE_ATOMICITY_NORMAL: 1,
    Feature.ASYNC_EVENT_CONFIGURATION: 1,
}
"""Features of which every value is legal that differs in these bits from a legal one, and whose
value persists over no reset (Base 2.2, figure 386; NVM Command Set 1.2, 4.1.3 for 0Ah)."""


@check(
    "reset.features",
    ref="Base 2.2, 4.4 (figures 125 and 126), 5.1.25 (figure 386) and 3.1.4.5 (CC.EN)",
    expected="a reset sets features that do not persist to what they were after the reset before",
)
def features(bench: Bench) -> None:
    """Features changed, and read again after a reset."""
    nvme = bench.nvme
    before: dict[Feature, int] = {}
    for fid, bits in CHANGES.items():
        try:
            value = nvme.get_feature(fid)
            nvme.set_feature(fid, value ^ bits)
            if nvme.get_feature(fid) != value:
                before[fid] = value
        except CommandFailed:
            continue  # not every controller has it, or lets it be changed
    if not before:
        bench.skip("no feature of this controller can be changed")
    nvme.start()
    kept = [
        f"{fid.label} is {seen:#x}, not {value:#x}"
        for fid, value in before.items()
        if (seen := nvme.get_feature(fid)) != value
    ]
    bench.expect(not kept, f"a reset leaves what Set Features has changed: {', '.join(kept)}")


@check(
    "reset.number-of-queues",
    ref="Base 2.2, 5.1.25.2.1",
    expected="the number of queues can be set after every reset, and Get Features tells the same",
)
def number_of_queues(bench: Bench) -> None:
    """Number of Queues set, queues created, and the same with another number after a reset."""
    nvme = bench.nvme
    for pairs in (2, 1, 3):
        nvme.enable()
        allocated = nvme.set_feature(Feature.NUMBER_OF_QUEUES, pairs - 1 << 16 | pairs - 1)
        works(bench)
        seen = nvme.get_feature(Feature.NUMBER_OF_QUEUES)
        bench.expect(
            seen == allocated,
            f"Set Features gave {allocated:#010x} for the number of queues, Get Features {seen:#x}",
        )


@check(
    "reset.async-events",
    ref="Base 2.2, 5.1.2",
    expected="Asynchronous Event Requests that a reset ends get no completion, and count no more",
)
def async_events(bench: Bench) -> None:
    """As many Asynchronous Event Requests as may be, a reset, and the same again."""
    nvme = bench.nvme
    limit = min(nvme.identify().aerl, 24)
    for _ in range(3):
        requests = [nvme.async_event_request() for _ in range(limit)]
        nvme.run(PROBE)
        refused = [request for request in requests if request.done and not request.ok]
        bench.expect(
            not refused,
            f"{len(refused)} of {limit} Asynchronous Event Requests, after a reset with as many "
            f"outstanding, failed: {refused[:1]}",
        )
        nvme.admin.cq.reap()
        cq = nvme.admin.cq
        stop(nvme)
        entry = cq.peek()
        # What has happened at this very moment may still be told: that is a success.
        bench.expect(
            entry is None or not entry.status & 0x7FF,
            f"a reset with {limit} Asynchronous Event Requests outstanding brought {entry}",
        )
        watch = Watch(bench, [cq])
        go_on(nvme)
        nvme.run(PROBE)
        watch.check()
