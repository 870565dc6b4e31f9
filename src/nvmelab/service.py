"""One disk image served on one socket: the parts of the package put together.

A `Disk` says what to serve, a `Service` serves it from a loop it is given. Both `nvmelab serve` and
`nvmelab run` are made of this.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import time
from collections.abc import Callable

import msgspec

from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import Verdict
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.doorbells import DoorbellPage
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.judging import Judging
from nvmelab.limits import CHECK_REST_S, DOORBELL_IDLE_S, DOORBELL_PAGE_QUEUES, DOORBELL_SPIN_S
from nvmelab.link.control import SUFFIX, ControlServer
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.server import Server, ServerError
from nvmelab.memory import GuestMemory
from nvmelab.schedule import Schedule
from nvmelab.snapshot import Observer, Snapshot, check_of, cut
from nvmelab.spec.registers import DOORBELLS
from nvmelab.standing import forgotten_by, outstanding_of
from nvmelab.storage.base import Backend, ImageError
from nvmelab.storage.delayed import DelayedWorker
from nvmelab.storage.file import CACHE_MODES, CacheMode, FileBackend
from nvmelab.storage.worker import Worker
from nvmelab.trace.bus import Bus, Emit
from nvmelab.trace.capture import CaptureFile
from nvmelab.trace.events import EVENTS
from nvmelab.trace.file import TraceFile

_log = logging.getLogger("nvmelab.service")


class Disk(msgspec.Struct, frozen=True):
    """What one controller serves."""

    path: str
    config: ControllerConfig = ControllerConfig()
    cache: CacheMode = CACHE_MODES["writeback"]
    read_only: bool = False
    discard: bool = True
    probe: bool = True
    """Refuse an image that looks like another format than raw."""
    lock: bool = True
    block: int = 512
    """Logical block size in bytes."""
    physical: int = 512
    """Physical block size in bytes."""
    aio: str | None = None
    """What QEMU was told to use; for the report, as we have I/O of our own."""
    persona: str = "nvmelab"
    """Whose rules the controller follows: `config.wakeups` are its."""
    latency_ns: int = 0
    """How long each operation of the storage takes at least."""


class Service:
    """Serves one disk on the UNIX socket `socket_path`, from `loop`; beside it is a control socket.

    `mapped` offers the doorbell page to the guest. A `schedule` chooses the controller's steps.
    `check` judges the guest and the controller.
    `on_disconnect` is called when a guest is gone. Raises ImageError, ServerError, TraceError and
    ScheduleError, with nothing left behind.
    """

    def __init__(
        self,
        disk: Disk,
        socket_path: str,
        loop: Loop,
        *,
        trace: TraceFile | None = None,
        capture: CaptureFile | None = None,
        mapped: bool = False,
        schedule: Schedule | None = None,
        check: LiveMonitor | None = None,
        on_disconnect: Callable[[], None] | None = None,
    ) -> None:
        assert not ((trace or capture or schedule or check) and mapped), "it hides the order"
        self.disk = disk
        self.socket_path = socket_path
        self.trace = trace
        self.capture = capture
        self.schedule = schedule
        self.judging = Judging(check) if check else None
        self.verdict: Verdict | None = None
        """On the last guest, once it is gone."""
        self._loop = loop
        if mapped:
            _refuse_too_many_queues(disk)
        self._on_disconnect = on_disconnect
        self.left_behind: list[str] = []
        """Queues on which the last guest had commands outstanding when it went, in words."""
        self.forgotten: list[str] = []
        """Those of them that nobody would ever have looked at again, in words."""
        self._active_until = 0.0
        self._polling = False
        with contextlib.ExitStack() as stack:
            namespace = _open_namespace(disk, stack)
            for file in (trace, capture, schedule):
                if file:  # only now: nothing is overwritten for an image that cannot be served
                    file.open()
                    stack.callback(file.close)
            worker = _worker(disk, schedule)
            stack.callback(worker.close)  # before the image, which it may be writing to
            page = _shared_page(stack) if mapped else None
            self.controller = Controller(
                disk.config,
                [namespace],
                GuestMemory(),
                clock=time.perf_counter_ns,
                worker=worker,
                doorbells=DoorbellPage(page[1], disk.config.io_queues + 1) if page else None,
            )
            self.controller.trace = self._emitter()
            self.function = NvmeFunction(self.controller)
            self.server = Server(
                self.function,
                socket_path,
                loop,
                doorbells=page[0] if page else None,
                on_disconnect=self._guest_gone,
            )
            stack.callback(self.server.close)
            self._observer = Observer(self.controller)
            stack.callback(ControlServer(socket_path + SUFFIX, loop, self.state).close)
            loop.add(worker.fd, lambda _events: worker.acknowledge())
            stack.callback(loop.remove, worker.fd)
            self._take_turns(stack, mapped)
            self._stack = stack.pop_all()

    def _take_turns(self, stack: contextlib.ExitStack, mapped: bool) -> None:
        """Let the loop take the controller's steps."""
        turn = self._turn(mapped)
        self._loop.add_worker(turn)
        stack.callback(self._loop.remove_worker, turn)
        stack.callback(self._loop.limit_sleep, self, None)

    def _emitter(self) -> Emit | None:
        """Where the controller's events go: into the files, and to the judge."""
        live = self.judging.live if self.judging else None
        if self.trace is None and self.capture is None:
            return live.emit if live else None
        if self.trace is None and live is None:
            return self.capture.emit if self.capture else None
        bus = self.trace.bus if self.trace else Bus()
        if self.capture:
            bus.subscribe(self.capture.listen, EVENTS)
        if live:
            bus.subscribe(live, EVENTS)
        return bus.emitter

    def close(self) -> None:
        """Disconnect the guest, make the image durable, give everything back."""
        self._stack.close()

    def _guest_gone(self) -> None:
        self.left_behind = outstanding_of(self.controller)
        self.forgotten = forgotten_by(self.controller)
        if self.judging:
            self.verdict = self.judging.verdict()
        if self._on_disconnect:
            self._on_disconnect()

    def tell_of_trouble(
        self, callback: Callable[[Verdict], None], stopped: Callable[[], bool]
    ) -> None:
        """As `Judging.tell_of_trouble`."""
        assert self.judging
        self.judging.tell_of_trouble(callback, stopped)
        self._loop.limit_sleep(self, CHECK_REST_S)

    def state(self) -> bytes:
        """How it stands, as its control socket says it: a `Snapshot` as JSON."""
        observer, judging = self._observer, self.judging
        stopped = judging is not None and judging.stopped()
        sqs, cqs, left_out = observer.queues(stopped=stopped)
        return msgspec.json.encode(
            Snapshot(
                version=1,
                time_ns=self.controller.clock(),
                image=cut(self.disk.path),
                serial=self.disk.config.serial,
                device=self.disk.persona,
                guest=self.server.connected,
                controller=observer.controller(),
                sqs=sqs,
                cqs=cqs,
                sqs_left_out=left_out,
                totals=observer.totals(),
                check=check_of(judging.verdict(), judging.live.events) if judging else None,
                stopped=stopped,
            )
        )

    def _turn(self, mapped: bool) -> Callable[[], bool]:
        """What the loop calls each time: no more than this service needs."""
        if mapped:
            return self._polling_turn
        if self.schedule or self.trace or self.capture or self.judging:
            return self._watched_turn
        return self.function.run

    def _watched_turn(self) -> bool:
        """As `function.run`, or steps that are drawn. The log of a turn is in the file before the
        loop sleeps."""
        schedule = self.schedule
        busy = schedule.turn(self.controller) if schedule else self.function.run()
        if self.trace:
            self.trace.flush()
        if self.capture:
            self.capture.flush()
        if self.judging:
            self.judging.look()
        return busy

    def _polling_turn(self) -> bool:
        """As `function.run`; besides, the loop must not sleep long while doorbells can be rung
        that announce themselves to nobody."""
        busy = self.function.run()
        doorbells = self.controller.doorbells
        assert doorbells
        now = time.monotonic()
        if busy or doorbells.take_rung():
            self._active_until = now + DOORBELL_SPIN_S
        enabled = bool(self.controller.life.csts.rdy)
        if enabled != self._polling:
            self._polling = enabled
            self._loop.limit_sleep(self, DOORBELL_IDLE_S if enabled else None)
        return bool(busy or (enabled and now < self._active_until))


def _refuse_too_many_queues(disk: Disk) -> None:
    if disk.config.io_queues > DOORBELL_PAGE_QUEUES:
        raise ServerError(
            f"{disk.path}: the one doorbell page that can be mapped has room for "
            f"{DOORBELL_PAGE_QUEUES} I/O queue pairs, not {disk.config.io_queues}; "
            "give a smaller max_ioqpairs=, or leave out --doorbells mapped"
        )


def _worker(disk: Disk, schedule: Schedule | None) -> Worker:
    if disk.latency_ns:
        return DelayedWorker(disk.latency_ns, schedule.seed if schedule else None)
    return Worker()


def _open_namespace(disk: Disk, stack: contextlib.ExitStack) -> Namespace:
    """The image as a namespace, closed with the stack. Raises ImageError."""
    backend = FileBackend(
        disk.path,
        cache=disk.cache,
        read_only=disk.read_only,
        discard=disk.discard,
        lock=disk.lock,
        probe=disk.probe,
    )
    stack.callback(backend.close)
    if backend.size % disk.block:
        raise ImageError(
            f"{disk.path}: {backend.size} bytes are no multiple of the {disk.block}-byte logical "
            f"block; round it up with: truncate -s %{disk.block} {disk.path}"
        )
    if not backend.read_only:
        stack.callback(_last_flush, backend)
    return Namespace(1, backend, disk.config.serial, block=disk.block, physical=disk.physical)


def _last_flush(backend: Backend) -> None:
    """As QEMU does when it ends: what the guest wrote and did not flush becomes durable too."""
    try:
        backend.flush()
    except OSError as error:
        _log.error("%s: the last flush failed: %s", backend.name, error.strerror)


def _shared_page(stack: contextlib.ExitStack) -> tuple[int, memoryview]:
    """A memfd that stands for BAR0 up to the end of the doorbell page, and the page itself."""
    size = DOORBELLS + DoorbellPage.SIZE
    fd = os.memfd_create("nvmelab-doorbells", os.MFD_CLOEXEC)
    stack.callback(os.close, fd)
    os.ftruncate(fd, size)
    return fd, memoryview(mmap.mmap(fd, size))[DOORBELLS:]
