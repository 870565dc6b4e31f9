"""The NVMe controller: a plain state machine with no thread, socket, clock or random number in it.

A register or doorbell write takes effect when it arrives (`mmio_write`). Everything that takes time
is a named step, which somebody outside takes: `enabled()` lists the steps, `take(step)` takes one,
and `run()` takes them all in a fair fixed order. Whether a step is enabled follows from the state
alone: nothing is remembered as a wake-up, so nothing can be forgotten. The steps:

    rdy          CSTS.RDY follows CC.EN: queue 0 comes into being, or the reset is complete
    shutdown     CSTS.SHST becomes "complete"
    fetch N      the entry at the head of SQ N is copied, the head moves on
    execute N    the oldest fetched command of SQ N is carried out, or handed to the slow storage
    finish       the slow storage has finished a command
    post N       the oldest finished command of CQ N gets its completion queue entry
    interrupt N  CQ N raises its interrupt for the entries posted since the last one

NVMe Base 2.2, chapter 3. Not implemented: CMB, PMR, SGLs, metadata, shadow doorbells, weighted
arbitration, fused commands, pin interrupts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from nvmelab.device import dispatch
from nvmelab.device.doorbells import DoorbellPage
from nvmelab.device.events import AsyncEvents
from nvmelab.device.features import Features
from nvmelab.device.namespaces import Namespace, identity
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.device.registers import RegisterFile
from nvmelab.device.statistics import Statistics
from nvmelab.limits import FETCH_BURST
from nvmelab.memory import GuestMemory, MemoryFault
from nvmelab.spec.events import ErrorEvent, EventType
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.registers import (
    CQE_SIZE,
    DOORBELLS,
    PROPERTIES_SIZE,
    SQE_SIZE,
    Aqa,
    Cap,
    Cc,
    Csts,
    Register,
)
from nvmelab.storage.worker import Worker
from nvmelab.trace.bus import Emit

_WORDS = struct.Struct("<16I").unpack

MPSMAX = 4
"""Largest CC.MPS: 64 KiB pages."""


class ControllerConfig(msgspec.Struct, frozen=True):
    """What a controller is made with. Counts are counts, not 0's based."""

    serial: str = "nvmelab"
    model: str = "nvmelab NVMe Ctrl"
    firmware: str = "0.1"
    pci_vendor: int = 0x1B36
    pci_device: int = 0x0010
    queue_entries: int = 2048
    """Largest I/O queue in entries, 2 to 65536 (CAP.MQES + 1)."""
    io_queues: int = 64
    """I/O submission queues, and as many completion queues."""
    vectors: int = 65
    """MSI-X vectors."""
    mdts: int = 7
    """Largest transfer as a power of two of 4 KiB pages; 0 is no limit."""
    outstanding_max: int | None = None
    """Most commands of one SQ that are fetched and not completed; None is the SQ's entries."""


class Step(NamedTuple):
    """One thing a controller could do now. `id` is the queue it concerns, 0 if none."""

    name: str
    id: int = 0


class Controller:
    """One controller with its namespaces.

    `interrupt(vector)` raises an MSI-X vector; the link sets it. `clock()` gives nanoseconds and serves statistics
    only. `worker` takes slow storage operations; without one they are carried out in the step.
    """

    def __init__(
        self,
        config: ControllerConfig,
        namespaces: Sequence[Namespace],
        memory: GuestMemory,
        *,
        clock: Callable[[], int] = lambda: 0,
        worker: Worker | None = None,
        doorbells: DoorbellPage | None = None,
    ) -> None:
        assert 2 <= config.queue_entries <= 65536
        self.config = config
        self.memory = memory
        self.namespaces = {namespace.nsid: namespace for namespace in namespaces}
        self.interrupt: Callable[[int], None] = _unconnected
        self.clock = clock
        self.worker = worker
        self.doorbells = doorbells
        self.trace: Emit | None = None
        self.statistics = Statistics()
        self.subnqn = f"nqn.2014-08.org.nvmexpress:uuid:{identity(config.serial, 'subsystem')}"
        self.bus_master = False
        """The PCI function may read and write memory and send interrupts."""
        self.msix_enabled = False
        self.registers = RegisterFile()
        self.registers["vs"] = 0x0001_0400
        self.registers["cap"] = int.from_bytes(
            Cap(mqes=config.queue_entries, cqr=1, to=15, css=1, mpsmax=MPSMAX).encode(), "little"
        )
        self.page_size = 4096
        self.sqs: dict[int, SubmissionQueue] = {}
        self.cqs: dict[int, CompletionQueue] = {}
        self._in_worker = 0
        self._resetting = False
        self._shutting_down = False
        self._clear()

    def _clear(self) -> None:
        """All queues and commands, features and events are gone, as after any reset."""
        for sq in self.sqs.values():
            for request in sq.working:
                request.dropped = True
        self.sqs.clear()
        self.cqs.clear()
        self.features = Features(self)
        self.events = AsyncEvents(self)
        for namespace in self.namespaces.values():
            namespace.write_through = not namespace.backend.write_cache

    # Registers.

    @property
    def cc(self) -> Cc:
        return Cc.from_words((self.registers["cc"],))

    @property
    def csts(self) -> Csts:
        return Csts.from_words((self.registers["csts"],))

    def _set_csts(self, **changes: int) -> None:
        csts = msgspec.structs.replace(self.csts, **changes)
        self.registers["csts"] = int.from_bytes(csts.encode(), "little")

    def mmio_read(self, offset: int, size: int) -> int:
        """A read of 1, 2, 4 or 8 bytes of the properties or doorbells. Doorbells read as zero
        (NVMe over PCIe Transport, 3.1.2: reading one has no defined value)."""
        trace = self.trace
        if trace:
            trace("mmio_read", offset, size)
            if offset % 4 and size >= 4:
                trace("ub_mmiord_misaligned32", offset)
            elif size < 4:
                trace("ub_mmiord_toosmall", offset, size)
        if offset + size > PROPERTIES_SIZE:
            return 0
        return self.registers.read(offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A write of 1, 2, 4 or 8 bytes of the properties or doorbells. Takes effect at once."""
        trace = self.trace
        if trace:
            trace("mmio_write", offset, value, size)
        if offset >= DOORBELLS:
            self._doorbell(offset - DOORBELLS, value)
            return
        if trace:
            if offset % 4:
                trace("ub_mmiowr_misaligned32", offset)
            if size < 4:
                trace("ub_mmiowr_toosmall", offset, size)
        touched = self.registers.touched(offset, size, value)
        if not touched and trace:
            trace("ub_mmiowr_invalid", offset, value)
        for register, brought, mask in touched:
            self._register_written(register, brought, mask)

    def _register_written(self, register: Register, value: int, mask: int) -> None:
        registers = self.registers
        name = register.name
        old, new = registers[name], registers.merged(register, value, mask)
        if name == "cc":
            registers[name] = new
            self._cc_written(Cc.from_words((old,)), Cc.from_words((new,)))
        elif name in ("aqa", "asq", "acq"):
            # These may be changed only while the controller is disabled (Base 2.2, 3.1.4.8 to .10).
            if not self.cc.en:
                registers[name] = new
            self._trace_admin_register(name, mask)
        elif name in ("intms", "intmc"):
            both = registers["intms"]
            both = both | value if name == "intms" else both & ~value
            registers["intms"] = registers["intmc"] = both
            if self.trace:
                self.trace(f"mmio_intm_{'set' if name == 'intms' else 'clr'}", value, both)
                if self.msix_enabled:
                    self.trace("ub_mmiowr_intmask_with_msix")
        elif self.trace:
            if name == "csts":
                self.trace("ub_mmiowr_ro_csts")
            else:
                self.trace("ub_mmiowr_invalid", register.offset, value)

    def _trace_admin_register(self, name: str, mask: int) -> None:
        if not self.trace:
            return
        value = self.registers[name]
        if name == "aqa":
            self.trace("mmio_aqattr", value)
        elif mask >> 32 and not mask & 0xFFFF_FFFF:
            self.trace(f"mmio_{name}addr_hi", value >> 32, value)
        else:
            self.trace(f"mmio_{name}addr", value)

    # Life cycle.

    def _cc_written(self, old: Cc, new: Cc) -> None:
        trace = self.trace
        if trace:
            trace("mmio_cfg", self.registers["cc"])
        if old.en and not new.en:
            # A Controller Reset (Base 2.2, 3.7.2): everything is dropped now; RDY follows in a
            # step of its own. AQA, ASQ and ACQ stay.
            self._clear()
            self._resetting = True
            self._shutting_down = False
            self._set_csts(shst=0, cfs=0)
            if trace:
                trace("mmio_stopped")
        if new.shn and not old.shn:
            self._shutting_down = True
            self._set_csts(shst=1)
            if trace:
                trace("mmio_shutdown_set")
        elif old.shn and not new.shn:
            self._shutting_down = False
            self._set_csts(shst=0)
            if trace:
                trace("mmio_shutdown_cleared")

    def reset(self) -> None:
        """PCI reset or function level reset: as at power-on (Base 2.2, 3.7.2)."""
        if self.trace:
            self.trace("pci_reset")
        self._clear()
        self._shutting_down = False
        for name in ("cc", "aqa", "asq", "acq", "intms", "intmc"):
            self.registers[name] = 0
        self._resetting = self._in_worker > 0
        self.registers["csts"] = 0
        if self.doorbells:
            self.doorbells.zero_all()

    def fatal(self) -> None:
        """Controller Fatal Status: nothing is done until the host resets the controller
        (Base 2.2, 9.5)."""
        if self.trace:
            self.trace("err_cfs")
        self._set_csts(cfs=1)

    def _rdy_step(self) -> None:
        if self._resetting:
            self._resetting = False
            if self.doorbells:
                self.doorbells.zero_all()
            self._set_csts(rdy=0)
            return
        if not self._start():
            if self.trace:
                self.trace("err_startfail")
            self.fatal()

    def _start(self) -> bool:
        """Bring queue 0 into being. False if the host has set up something impossible."""
        cc, registers, trace = self.cc, self.registers, self.trace
        page_size = 1 << 12 + cc.mps
        aqa = Aqa.from_words((registers["aqa"],))
        asq, acq = registers["asq"], registers["acq"]
        reason: tuple[str, int] | tuple[str] | tuple[str, int, int] | None = None
        if cc.mps > MPSMAX:
            reason = ("err_startfail_page_too_large", 12 + cc.mps, 12 + MPSMAX)
        elif cc.css:
            reason = ("err_startfail_css", cc.css)
        elif asq % page_size:
            reason = ("err_startfail_asq_misaligned", asq)
        elif acq % page_size:
            reason = ("err_startfail_acq_misaligned", acq)
        elif aqa.asqs < 2:
            reason = ("err_startfail_asqent_sz_zero",)
        elif aqa.acqs < 2:
            reason = ("err_startfail_acqent_sz_zero",)
        if reason:
            if trace:
                trace(*reason)
            return False
        self.page_size = page_size
        self.add_cq(CompletionQueue(0, acq, aqa.acqs, vector=0, ien=True))
        self.add_sq(0, asq, aqa.asqs, self.cqs[0])
        self._set_csts(rdy=1)
        if trace:
            trace("mmio_start_success")
        return True

    def _shutdown_step(self) -> None:
        self._shutting_down = False
        for namespace in self.namespaces.values():
            if not namespace.backend.read_only:
                try:
                    namespace.backend.flush()
                except OSError:
                    self.fatal()
                    return
        self._set_csts(shst=2)

    # Queues.

    def add_cq(self, cq: CompletionQueue) -> None:
        """Bring a completion queue into being."""
        self.cqs[cq.id] = cq
        if self.doorbells:
            self.doorbells.zero(2 * cq.id + 1)

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        """Bring a submission queue into being, bound to `cq`."""
        self.sqs[id] = SubmissionQueue(id, base, size, cq, self.config.outstanding_max)
        cq.sqs += 1
        if self.doorbells:
            self.doorbells.zero(2 * id)

    def remove_sq(self, sq: SubmissionQueue) -> None:
        """End a submission queue. Its commands that have no completion yet get none: they count
        as aborted (Base 2.2, 5.2.4)."""
        del self.sqs[sq.id]
        sq.cq.sqs -= 1
        for request in [request for request in sq.cq.finished if request.sq is sq]:
            sq.cq.finished.remove(request)

    def _doorbell(self, offset: int, value: int) -> None:
        trace = self.trace
        qid = offset >> 3
        value &= 0xFFFF  # the rest is reserved
        if offset & 3:
            if trace:
                trace("ub_db_wr_misaligned", offset + DOORBELLS)
            self._bad_doorbell(ErrorEvent.INVALID_DOORBELL_REGISTER)
        elif offset & 4:
            cq = self.cqs.get(qid)
            if cq is None:
                if trace:
                    trace("ub_db_wr_invalid_cq", qid)
                self._bad_doorbell(ErrorEvent.INVALID_DOORBELL_REGISTER)
            elif value >= cq.size or (value - cq.head) % cq.size > (cq.tail - cq.head) % cq.size:
                if trace:
                    trace("ub_db_wr_invalid_cqhead", qid, value)
                self._bad_doorbell(ErrorEvent.INVALID_DOORBELL_VALUE, qid)
            else:
                if trace:
                    trace("mmio_doorbell_cq", qid, value)
                cq.head = value
        else:
            sq = self.sqs.get(qid)
            if sq is None:
                if trace:
                    trace("ub_db_wr_invalid_sq", qid)
                self._bad_doorbell(ErrorEvent.INVALID_DOORBELL_REGISTER)
            elif value >= sq.size or (value - sq.head) % sq.size < (sq.tail - sq.head) % sq.size:
                # Outside the ring, or more entries than are free. No more is consumed from such a
                # queue until the host deletes and recreates it (Base 2.2, 3.3.1.2).
                if trace:
                    trace("ub_db_wr_invalid_sqtail", qid, value)
                sq.stopped = True
                self._bad_doorbell(ErrorEvent.INVALID_DOORBELL_VALUE, qid)
            else:
                if trace:
                    trace("mmio_doorbell_sq", qid, value)
                sq.tail = value

    def _bad_doorbell(self, info: ErrorEvent, qid: int = 0xFFFF) -> None:
        """The write is ignored and reported (Base 2.2, 5.1.2.1)."""
        if self.csts.rdy:
            self.events.report(EventType.ERROR, info, LogPage.ERROR_INFORMATION, sqid=qid)

    # Steps.

    @property
    def _alive(self) -> bool:
        """Commands may be fetched and completed."""
        csts = self.registers["csts"]
        return self.bus_master and csts & 3 == 1 and not self._resetting

    @property
    def _rdy_lags(self) -> bool:
        if self._resetting:
            return not self._in_worker  # what the storage still does must not outlive the reset
        csts = self.registers["csts"]
        return bool(self.registers["cc"] & 1 and not csts & 3)

    def _may_fetch(self, sq: SubmissionQueue) -> bool:
        return (
            sq.head != sq.tail
            and sq.outstanding < sq.limit
            and not sq.stopped
            and sq.deletion is None
        )

    def enabled(self) -> list[Step]:
        """The steps that could be taken now, in a fixed order for equal states."""
        steps: list[Step] = []
        if self._rdy_lags:
            steps.append(Step("rdy"))
        if self._shutting_down and not self._in_worker:
            steps.append(Step("shutdown"))
        if self.worker and self.worker.finished:
            steps.append(Step("finish"))
        if not self._alive:
            return steps
        for sq in self.sqs.values():
            if self._may_fetch(sq):
                steps.append(Step("fetch", sq.id))
            if sq.fetched:
                steps.append(Step("execute", sq.id))
        for cq in self.cqs.values():
            if cq.finished and not cq.full:
                steps.append(Step("post", cq.id))
            if cq.unsignalled:
                steps.append(Step("interrupt", cq.id))
        return steps

    def take(self, step: Step) -> None:
        """Take one step that `enabled` lists."""
        match step.name:
            case "rdy":
                self._rdy_step()
            case "shutdown":
                self._shutdown_step()
            case "finish":
                self._finish_step()
            case "fetch":
                self._fetch(self.sqs[step.id])
            case "execute":
                self._execute(self.sqs[step.id])
            case "post":
                self._post(self.cqs[step.id])
            case "interrupt":
                self._interrupt(self.cqs[step.id])
            case _:
                raise AssertionError(step)

    def run(self) -> bool:
        """One turn: life cycle, then up to FETCH_BURST commands of each submission queue in turn,
        then whatever can be posted, with one interrupt for each completion queue. True if a step
        is still enabled."""
        if self._rdy_lags:
            self._rdy_step()
        if self._shutting_down and not self._in_worker:
            self._shutdown_step()
        worker = self.worker
        while worker and worker.finished:
            self._finish_step()
        if not self._alive:
            return bool(self.enabled())
        left = False
        for sq in tuple(self.sqs.values()):
            burst = FETCH_BURST
            while burst and sq.head != sq.tail and self._may_fetch(sq) and self._alive:
                self._fetch(sq)
                if sq.fetched:
                    self._execute(sq)
                burst -= 1
            left = left or not burst
        for cq in tuple(self.cqs.values()):
            while cq.finished and not cq.full and self._alive:
                self._post(cq)
                left = True  # a request is free again: its queue may have waited for it
            if cq.unsignalled and self._alive:
                self._interrupt(cq)
        return left and bool(self.enabled())

    def _fetch(self, sq: SubmissionQueue) -> None:
        addr = sq.base + sq.head * SQE_SIZE
        try:
            words = _WORDS(self.memory.read(addr, SQE_SIZE))
        except MemoryFault:
            if self.trace:
                self.trace("err_addr_read", addr)
            self.fatal()
            return
        head = sq.head + 1
        sq.head = 0 if head == sq.size else head
        sq.outstanding += 1
        request = Request(sq, words, self.clock())
        sq.fetched.append(request)
        if self.trace:
            dispatch.trace_fetch(self.trace, request)

    def _execute(self, sq: SubmissionQueue) -> None:
        dispatch.execute(self, sq.fetched.popleft())

    def later(self, request: Request, work: Callable[[], None]) -> bool:
        """Hand `work` of `request` to the worker; False if there is none and it was done here.
        Raises OSError in the second case."""
        if self.worker is None:
            work()
            return False
        request.sq.working.add(request)
        self._in_worker += 1
        self.worker.submit(request, work)
        return True

    def _finish_step(self) -> None:
        assert self.worker
        request, error = self.worker.finished.popleft()
        assert isinstance(request, Request)
        self._in_worker -= 1
        sq = request.sq
        sq.working.discard(request)
        if request.dropped:
            return
        if error:
            dispatch.host_error(self, request, error)
        else:
            self.finish(request)
        if sq.deletion and not sq.working:
            self.remove_sq(sq)
            self.finish(sq.deletion)

    def finish(self, request: Request, status: int = 0) -> None:
        """The command is done: it waits for its completion queue entry. `status` is the status
        field without the phase bit."""
        request.status = status
        cq = request.sq.cq
        cq.finished.append(request)
        if self.trace:
            self.trace("enqueue_req_completion", request.cid, cq.id, request.dw0, 0, status)
            if status:
                self.trace("err_req_status", request.cid, request.nsid, status, request.opcode)

    def _post(self, cq: CompletionQueue) -> None:
        request = cq.finished.popleft()
        sq = request.sq
        addr = cq.base + cq.tail * CQE_SIZE
        high = sq.head | sq.id << 16 | request.cid << 32 | (request.status << 1 | cq.phase) << 48
        try:
            self.memory.store_u64(addr, request.dw0)
            self.memory.store_u64(addr + 8, high)  # last: it holds the phase tag
        except MemoryFault:
            if self.trace:
                self.trace("err_addr_write", addr)
            self.fatal()
            return
        tail = cq.tail + 1
        if tail == cq.size:
            cq.tail = 0
            cq.phase ^= 1
        else:
            cq.tail = tail
        sq.outstanding -= 1
        cq.unsignalled = True
        self.statistics.counter(sq.id, request.opcode).posted(
            request.status, request.nbytes, self.clock() - request.started
        )

    def _interrupt(self, cq: CompletionQueue) -> None:
        cq.unsignalled = False
        if not cq.ien:
            if self.trace:
                self.trace("irq_masked")
            return
        if self.trace:
            self.trace("irq_msix", cq.vector)
        self.statistics.interrupts += 1
        self.interrupt(cq.vector)


def _unconnected(vector: int) -> None:
    """No link is there to take the interrupt."""
