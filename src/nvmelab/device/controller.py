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
    poll_sq N    the shadow of SQ N's tail is looked at; poll_cq N: that of CQ N's head
    arm_sq N     the EventIdx of SQ N says that the host must ring; arm_cq N: that of CQ N
    post N       the oldest finished command of CQ N gets its completion queue entry
    interrupt N  CQ N raises its interrupt for the entries posted since the last one

With `ControllerConfig.wakeups` it behaves as devices do that remember wake-ups: `fetch N` and
`post N` are then whole runs of a bottom half (see `wakeups`), and `pass` is all that are scheduled.

NVMe Base 2.2, chapter 3. Not implemented: CMB, PMR, SGLs, metadata, weighted arbitration,
fused commands, pin interrupts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import NamedTuple

import msgspec

from nvmelab.device import dispatch, io, rings
from nvmelab.device.doorbells import DoorbellPage
from nvmelab.device.events import AsyncEvents
from nvmelab.device.features import Features
from nvmelab.device.lifecycle import LifeCycle
from nvmelab.device.namespaces import Namespace, flush, identity
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.device.shadow import ShadowDoorbells
from nvmelab.device.statistics import Statistics
from nvmelab.device.wakeups import BottomHalves, WakeupRules
from nvmelab.limits import FETCH_BURST
from nvmelab.memory import GuestMemory, MemoryFault
from nvmelab.spec.commands import NvmOpcode
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS, PROPERTIES_SIZE, SQE_SIZE
from nvmelab.storage.worker import StorageWorker
from nvmelab.trace.bus import Emit

_WORDS = struct.Struct("<16I")


class ControllerConfig(msgspec.Struct, frozen=True):
    """What a controller is made with. Counts are counts, not 0's based."""

    serial: str = "nvmelab"
    model: str = "nvmelab NVMe Ctrl"
    firmware: str = "0.1"
    pci_vendor: int = 0x1B36
    pci_device: int = 0x0010
    pci_subsystem_vendor: int = 0x1AF4
    pci_subsystem: int = 0x1100
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
    shadow_doorbells: bool = True
    """Offer shadow doorbells, where they are possible."""
    wakeups: WakeupRules | None = None
    """Look at a queue only when one of these rules has scheduled it; without shadow doorbells."""

    def __post_init__(self) -> None:
        """Raises ValueError for what an Identify structure cannot hold."""
        assert not (self.wakeups and self.shadow_doorbells), "shadow doorbells wake by other rules"
        for name, size in (("serial", 20), ("model", 40), ("firmware", 8)):
            text = getattr(self, name)
            if len(text) > size or not text.isascii() or not text.isprintable():
                raise ValueError(f"{name} {text!r}: give at most {size} printable ASCII characters")


class Step(NamedTuple):
    """One thing a controller could do now. `id` is the queue it concerns, 0 if none."""

    name: str
    id: int = 0


_step = cache(Step)
"""An explorer asks for the same few steps all the time."""


class Controller:
    """One controller with its namespaces.

    `interrupt(vector)` raises an MSI-X vector; the link sets it. `clock()` gives nanoseconds and
    serves statistics only. `worker` takes slow storage operations, or all of them; without one they
    are carried out in the step.
    """

    def __init__(
        self,
        config: ControllerConfig,
        namespaces: Sequence[Namespace],
        memory: GuestMemory,
        *,
        clock: Callable[[], int] = lambda: 0,
        worker: StorageWorker | None = None,
        doorbells: DoorbellPage | None = None,
    ) -> None:
        assert 2 <= config.queue_entries <= 65536
        self.config = config
        self.memory = memory
        self.namespaces = {namespace.nsid: namespace for namespace in namespaces}
        self.interrupt: Callable[[int], None] = lambda _vector: None
        self.clock = clock
        self.worker = worker
        self.data_deferred = worker is not None and worker.carries_data
        """Reads and writes finish later, when the worker says so."""
        self.doorbells = doorbells
        self.trace: Emit | None = None
        self.statistics = Statistics()
        self.subnqn = f"nqn.2014-08.org.nvmexpress:uuid:{identity(config.serial, 'subsystem')}"
        self.msix_enabled = False
        self.life = LifeCycle(self)
        self.shadows = ShadowDoorbells(self)
        self.bottom_halves = BottomHalves(config.wakeups) if config.wakeups else None
        self.sqs: dict[int, SubmissionQueue] = {}
        self.cqs: dict[int, CompletionQueue] = {}
        self._order: tuple[tuple[SubmissionQueue, ...], tuple[CompletionQueue, ...]] = ((), ())
        self.in_worker = 0
        """Operations that the worker was given and has not finished."""
        self.clear()

    def clear(self) -> None:
        """All queues and commands, features and events are gone, as after any reset."""
        for sq in self.sqs.values():
            sq.end()
        self.sqs.clear()
        self.cqs.clear()
        self.shadows.end()
        if self.bottom_halves:
            self.bottom_halves.scheduled.clear()
        self._reorder()
        self.features = Features(self)
        self.events = AsyncEvents(self)
        for namespace in self.namespaces.values():
            namespace.write_through = not namespace.backend.write_cache

    # Registers.

    def mmio_read(self, offset: int, size: int) -> int:
        """A read of 1, 2, 4 or 8 bytes of the properties or doorbells. Doorbells read as zero
        (NVMe over PCIe Transport, 3.1.2: reading one has no defined value)."""
        trace = self.trace
        if trace:
            trace("mmio_read", offset, size)
            if offset % 4 and size >= 4:
                trace("ub_mmiord_misaligned32", offset)
            elif size < 4:
                trace("ub_mmiord_toosmall", offset)
        if offset + size > PROPERTIES_SIZE:
            return 0
        return self.life.registers.read(offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A write of 1, 2, 4 or 8 bytes of the properties or doorbells. Takes effect at once."""
        trace = self.trace
        if trace:
            trace("mmio_write", offset, value, size)
        if offset >= DOORBELLS:
            rings.doorbell_written(self, offset - DOORBELLS, value)
        else:
            self.life.write(offset, size, value)

    # Queues.

    def add_cq(self, cq: CompletionQueue) -> None:
        """Bring a completion queue into being."""
        if self.trace:
            rings.trace_stale_phase(self, cq)
        self.cqs[cq.id] = cq
        self._reorder()
        self.features.queues_created |= cq.id > 0
        if self.doorbells:
            self.doorbells.zero(2 * cq.id + 1)
        self.shadows.begin_cq(cq)

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        """Bring a submission queue into being, bound to `cq`."""
        wakeups, limit = self.config.wakeups, self.config.outstanding_max
        if wakeups and limit is None:
            limit = size + wakeups.extra_requests
        sq = self.sqs[id] = SubmissionQueue(id, base, size, cq, limit)
        cq.sqs += 1
        self._reorder()
        if self.doorbells:
            self.doorbells.zero(2 * id)
        self.shadows.begin_sq(sq)

    def _reorder(self) -> None:
        """The queues by identifier, as a turn goes through them: it must not change under it, and
        equal states must list their steps alike."""
        self._order = (
            tuple(self.sqs[id] for id in sorted(self.sqs)),
            tuple(self.cqs[id] for id in sorted(self.cqs)),
        )

    def remove_cq(self, cq: CompletionQueue) -> None:
        """End a completion queue that no submission queue is bound to."""
        del self.cqs[cq.id]
        if self.bottom_halves:
            self.bottom_halves.forget(cq)
        self._reorder()

    def remove_sq(self, sq: SubmissionQueue) -> None:
        """End a submission queue. Its commands that have no completion yet get none: they count
        as aborted (Base 2.2, 5.2.4)."""
        del self.sqs[sq.id]
        if self.bottom_halves:
            self.bottom_halves.forget(sq)
        self._reorder()
        sq.end()

    # Steps.

    def enabled(self) -> list[Step]:
        """The steps that could be taken now, in a fixed order for equal states."""
        steps: list[Step] = []
        life = self.life
        if life.unsettled:
            if life.rdy_lags:
                steps.append(Step("rdy"))
            if life.shutdown_lags:
                steps.append(Step("shutdown"))
        if self.worker and self.worker.finished:
            steps.append(Step("finish"))
        if not life.live:
            return steps
        if self.bottom_halves:
            return steps + self._scheduled(self.bottom_halves)
        sqs, cqs = self._order
        for sq in sqs:
            if sq.shadow and (step := self.shadows.step_sq(sq)):
                steps.append(_step(f"{step}_sq", sq.id))
            if sq.may_fetch:
                steps.append(_step("fetch", sq.id))
            if sq.fetched:
                steps.append(_step("execute", sq.id))
        for cq in cqs:
            if cq.shadow and (step := self.shadows.step_cq(cq)):
                steps.append(_step(f"{step}_cq", cq.id))
            if cq.finished and not cq.full:
                steps.append(_step("post", cq.id))
            if cq.unsignalled:
                steps.append(_step("interrupt", cq.id))
        return steps

    def _scheduled(self, bottom_halves: BottomHalves) -> list[Step]:
        """The bottom halves that may run now: submission queues first, by identifier."""
        if not bottom_halves.scheduled:
            return []
        if bottom_halves.rules.order == "lifo":
            return [Step("pass")]
        sqs, cqs = self._order
        return [_step("fetch", sq.id) for sq in sqs if bottom_halves.runnable(sq)] + [
            _step("post", cq.id) for cq in cqs if bottom_halves.runnable(cq)
        ]

    def take(self, step: Step) -> None:
        """Take one step that `enabled` lists."""
        if self.bottom_halves and step.name in ("fetch", "post"):
            queue = self.sqs[step.id] if step.name == "fetch" else self.cqs[step.id]
            self.bottom_halves.run(self, queue)
            return
        match step.name:
            case "pass":
                assert self.bottom_halves
                self.bottom_halves.run_pass(self)
            case "rdy":
                self.life.rdy_step()
            case "shutdown":
                self.life.shutdown_step()
            case "finish":
                self._finish_step()
            case "poll_sq" | "arm_sq":
                self.shadows.take_sq(self.sqs[step.id])
            case "poll_cq" | "arm_cq":
                self.shadows.take_cq(self.cqs[step.id])
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
        life, worker, shadows = self.life, self.worker, self.shadows
        while worker and worker.finished:
            self._finish_step()
        if life.unsettled:  # it may have waited for the storage
            if life.rdy_lags:
                life.rdy_step()
            if life.shutdown_lags:
                life.shutdown_step()
        if not life.live:
            return bool(self.enabled())
        if self.bottom_halves:
            self.bottom_halves.run_pass(self)
            return bool(self.enabled())
        sqs, cqs = self._order
        for sq in sqs:
            self.fetch_run(sq)
        for cq in cqs:
            self.post_run(cq)
        if not life.live:
            return bool(self.enabled())
        # What is left is behind the burst, or had to wait for the place of a command just posted.
        if shadows.pages and shadows.pending:
            return True
        return bool(worker and worker.finished) or any(sq.may_fetch for sq in sqs)

    def fetch_run(self, sq: SubmissionQueue) -> None:
        """Fetch and carry out what stands in the queue, at most FETCH_BURST commands."""
        life, shadows = self.life, self.shadows
        while sq.fetched and life.live:
            self._execute(sq)  # fetched by a single step before
        burst = FETCH_BURST
        while burst and life.live:
            if not sq.may_fetch and not (sq.shadow and shadows.find_entries(sq)):
                return
            self._fetch(sq)
            if sq.fetched:
                self._execute(sq)
            burst -= 1

    def post_run(self, cq: CompletionQueue) -> None:
        """Post what has finished, as far as there is room, and raise one interrupt."""
        life, shadows = self.life, self.shadows
        while cq.finished and life.live:
            if cq.full and not (cq.shadow and shadows.find_room(cq)):
                break
            self._post(cq)
        if cq.shadow and life.live:
            shadows.find_room(cq)  # the real doorbell may have been written
        if cq.unsignalled and life.live:
            self._interrupt(cq)

    def _fetch(self, sq: SubmissionQueue) -> None:
        addr = sq.base + sq.head * SQE_SIZE
        try:
            words = self.memory.unpack(_WORDS, addr)
        except MemoryFault:
            if self.trace:
                self.trace("err_addr_read", addr)
            self.life.fatal()
            return
        slot = sq.head
        sq.head = slot + 1
        if sq.head == sq.size:
            sq.head, sq.laps = 0, sq.laps + 1
        sq.outstanding += 1
        request = Request(sq, words, self.clock())
        sq.fetched.append(request)
        if self.trace:
            dispatch.trace_fetch(self.trace, request, slot)

    def _execute(self, sq: SubmissionQueue) -> None:
        dispatch.execute(self, sq.fetched.popleft())

    def later(self, request: Request, work: Callable[[], None]) -> bool:
        """Hand `work` of `request` to the worker; False if there is none and it was done here.
        Raises OSError in the second case."""
        if self.worker is None:
            work()
            self._trace_later(request)
            return False
        request.sq.working.add(request)
        self.in_worker += 1
        self.worker.submit(request, work)
        return True

    def _trace_later(self, request: Request) -> None:
        """What the storage was asked for is done. A read or write has events of its own, and had
        them already if only its flush was left."""
        if not self.trace:
            return
        if request.opcode not in (NvmOpcode.READ, NvmOpcode.WRITE):
            self.trace("misc_cb", request.cid)
        elif self.data_deferred:
            io.trace_moved(self.trace, request, self.namespaces[request.nsid])

    def flush_all(self, done: Callable[[OSError | None], None]) -> None:
        """Make everything durable, in the worker if there is one; then call `done`."""
        work = partial(flush, self.namespaces.values())
        if self.worker:
            self.in_worker += 1
            self.worker.submit(done, work)
            return
        try:
            work()
        except OSError as error:
            done(error)
        else:
            done(None)

    @property
    def storage_busy(self) -> bool:
        """The worker has not finished all that it was given."""
        return self.in_worker > 0

    def _finish_step(self) -> None:
        assert self.worker
        token, error = self.worker.finished.popleft()
        self.in_worker -= 1
        if not isinstance(error, OSError | None):
            raise error
        if not isinstance(token, Request):
            assert callable(token)
            token(error)
            return
        sq = token.sq
        sq.working.discard(token)
        if token.dropped:
            return
        if error:
            dispatch.host_error(self, token, error)
        else:
            self._trace_later(token)
            self.finish(token)
        if sq.deletion and not sq.working:
            self.remove_sq(sq)
            self.finish(sq.deletion)

    def finish(self, request: Request, status: int = 0) -> None:
        """The command is done: it waits for its completion queue entry. `status` is the status
        field without the phase bit."""
        request.status = status
        cq = request.sq.cq
        cq.finished.append(request)
        if self.bottom_halves:
            self.bottom_halves.finished(cq)
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
            self.life.fatal()
            return
        if self.trace:
            dispatch.trace_post(self.trace, request)
        tail = cq.tail + 1
        if tail == cq.size:
            cq.tail = 0
            cq.phase ^= 1
        else:
            cq.tail = tail
        if self.bottom_halves:
            self.bottom_halves.posting(sq)
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
