"""A driver on a controller in this process, and a device that does nothing at all."""

from __future__ import annotations

from typing import NamedTuple

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Driver
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.storage.base import Backend
from nvmelab.storage.ram import RamBackend

DISK = 1 << 20


class Rig(NamedTuple):
    driver: Driver
    controller: Controller
    function: NvmeFunction


def connect(disk: Backend | None = None, **config: int) -> Rig:
    """A driver that has not enabled its controller yet."""
    namespace = Namespace(1, RamBackend(DISK) if disk is None else disk, "test")
    controller = Controller(ControllerConfig(**config), [namespace], GuestMemory())  # type: ignore[arg-type]
    function = NvmeFunction(controller)
    return Rig(Driver(InprocLink(function, size=16 << 20)), controller, function)


class DeadLink:
    """Registers that are plain memory, and a device that never does anything. `written` has every
    register write in order."""

    def __init__(self) -> None:
        self.memory = GuestMemory()
        self.memory.map(0x1000, bytearray(1 << 16))
        self.registers: dict[int, int] = {}
        self.written: list[tuple[int, int]] = []
        self.turns = 0
        self._next = 0x1000

    def read32(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def read64(self, offset: int) -> int:
        return self.registers.get(offset, 0)

    def write32(self, offset: int, value: int) -> None:
        self.written.append((offset, value))

    def write64(self, offset: int, value: int) -> None:
        self.written.append((offset, value))

    def allocate(self, size: int) -> int:
        addr = self._next
        self._next += -(-size // 4096) * 4096
        return addr

    def progress(self) -> bool:
        self.turns += 1
        return False

    def take_interrupts(self, vector: int) -> int:
        return 0
