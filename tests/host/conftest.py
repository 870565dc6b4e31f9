"""A driver on a controller in this process, and a device that does nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.doorbells import Doorbells
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.queues import CompletionQueue, Flow, Release, SubmissionQueue
from nvmelab.link.base import Storage
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.storage.base import Backend
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

DISK = 1 << 18


class Rig(NamedTuple):
    driver: Driver
    controller: Controller
    function: NvmeFunction
    worker: HeldWorker | None


def connect(disk: Backend | None = None, *, worker: HeldWorker | None = None, **config: Any) -> Rig:
    """A driver that has not enabled its controller yet."""
    namespace = Namespace(1, RamBackend(DISK) if disk is None else disk, "test")
    controller = Controller(
        ControllerConfig(**config),
        [namespace],
        GuestMemory(),
        worker=worker,
    )
    function = NvmeFunction(controller)
    link = InprocLink(function, size=16 << 20, storage=worker)
    return Rig(Driver(link), controller, function, worker)


class DeadLink:
    """Registers that are plain memory, and a device that never does anything. `written` has every
    register write in order, as (offset, value)."""

    name = "dead device"
    vectors = 4
    storage: Storage | None = None
    step: Callable[[Callable[[int], int]], bool] | None = None

    def __init__(self) -> None:
        self.memory = GuestMemory()
        self.memory.map(0x1000, bytearray(1 << 17))
        self.registers: dict[int, int] = {}
        self.written: list[tuple[int, int]] = []
        self.waits = 0
        self.raised: set[int] = set()
        self._next = 0x1000

    def read(self, offset: int, size: int) -> int:
        return self.registers.get(offset, 0)

    def write(self, offset: int, size: int, value: int) -> None:
        self.written.append((offset, value))

    def config_read(self, offset: int, size: int) -> int:
        return 0

    def config_write(self, offset: int, size: int, value: int) -> None: ...

    def allocate(self, size: int) -> int:
        addr = self._next
        self._next += -(-size // 4096) * 4096
        return addr

    def free_all(self) -> None:
        self._next = 0x1000

    def wait(self, done: Callable[[], bool]) -> bool:
        self.waits += 1
        return done()

    def settle(self) -> None: ...

    def take_interrupts(self, vector: int) -> int:
        raised = vector in self.raised
        self.raised.discard(vector)
        return int(raised)

    def close(self) -> None: ...


def rings(
    link: DeadLink,
    entries: int,
    cq_entries: int | None = None,
    *,
    qid: int = 1,
    flow: Flow = "inflight",
    release: Release = "batch",
    ring_each: bool = True,
    interrupts: bool = False,
) -> SubmissionQueue:
    """A queue pair by itself, whose device's side a test writes by hand."""
    doorbells = Doorbells(link, 0)
    cq_entries = cq_entries or entries
    cq = CompletionQueue(
        link,
        doorbells,
        qid,
        link.allocate(16 * cq_entries),
        cq_entries,
        vector=1,
        interrupts=interrupts,
        release=release,
    )
    base = link.allocate(64 * entries)
    return SubmissionQueue(link, doorbells, qid, base, entries, cq, flow=flow, ring_each=ring_each)
