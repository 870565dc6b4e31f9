"""The controller as a PCI function: configuration space, BAR0, MSI-X, resets.

NVMe over PCIe Transport, 3.1.1 (BAR0), 3.8 (header and capabilities); PCI Local Bus 3.0, 6.8.2
(MSI-X). There is no INTx, no MSI and no expansion ROM. The MSI-X table itself is kept by whoever
places the function on a bus; BAR0 has a hole where it stands.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from nvmelab.device.controller import Controller
from nvmelab.memory import GuestMemory
from nvmelab.spec.registers import DOORBELLS

CONFIG_SIZE = 256
PAGE = 4096
BAR0_MIN = 16384

_COMMAND, _STATUS, _BAR0, _CAPABILITIES = 0x04, 0x06, 0x10, 0x34
_MSIX, _PM, _PCIE = 0x40, 0x60, 0x80
_BUS_MASTER = 1 << 2
_MSIX_ENABLE = 1 << 15
_FLR = 1 << 15


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


class NvmeFunction:
    """Implements `link.base.PciFunction` for one controller."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.memory: GuestMemory = controller.memory
        config = controller.config
        self.vectors = config.vectors
        self.pending: Callable[[int], bool] = _nothing_pending
        self.doorbells_end = DOORBELLS + 8 * (config.io_queues + 1)
        """Offset in BAR0 of the first byte behind the last doorbell."""
        self._table = _up(self.doorbells_end, PAGE)
        self._pba = self._table + _up(16 * config.vectors, PAGE)
        size = BAR0_MIN
        while size < self._pba + PAGE:
            size *= 2
        self.bars = {0: size}
        self._config = bytearray(CONFIG_SIZE)
        self._writable = bytearray(CONFIG_SIZE)
        self._power_on()

    @property
    def interrupt(self) -> Callable[[int], None]:
        return self.controller.interrupt

    @interrupt.setter
    def interrupt(self, raise_vector: Callable[[int], None]) -> None:
        self.controller.interrupt = raise_vector

    def _power_on(self) -> None:
        config = self.controller.config
        space, writable = self._config, self._writable
        space[:] = bytes(CONFIG_SIZE)
        struct.pack_into("<HH", space, 0, config.pci_vendor, config.pci_device)
        struct.pack_into("<H", space, _STATUS, 1 << 4)  # there is a list of capabilities
        # Revision 2 of class 01 (mass storage), 08 (non-volatile memory), 02 (NVMe I/O).
        struct.pack_into("<I", space, 0x08, 0x0108_0202)
        struct.pack_into("<I", space, _BAR0, 0b100)  # 64 bits wide, not prefetchable
        struct.pack_into("<HH", space, 0x2C, config.pci_subsystem_vendor, config.pci_subsystem)
        space[_CAPABILITIES] = _MSIX
        struct.pack_into(
            "<BBHII", space, _MSIX, 0x11, _PM, config.vectors - 1, self._table, self._pba
        )
        # Power management version 3; No_Soft_Reset, so D3hot to D0 keeps the state.
        struct.pack_into("<BBHHH", space, _PM, 0x01, _PCIE, 3, 1 << 3, 0)
        # PCI Express endpoint, version 2; FLR, role-based error reporting; link x1 2.5 GT/s.
        struct.pack_into(
            "<BBHIHHIHH",
            space,
            _PCIE,
            0x10,
            0,
            0x0002,
            1 << 28 | 1 << 15,
            0,
            0,
            1 << 4 | 1,
            0,
            1 << 4 | 1,
        )
        writable[:] = bytes(CONFIG_SIZE)
        struct.pack_into("<H", writable, _COMMAND, 0x0547)
        writable[0x0C] = writable[0x3C] = 0xFF  # cache line size, interrupt line
        struct.pack_into("<Q", writable, _BAR0, (1 << 64) - self.bars[0])
        struct.pack_into("<H", writable, _MSIX + 2, 0xC000)
        struct.pack_into("<H", writable, _PM + 4, 0x0003)
        struct.pack_into("<H", writable, _PCIE + 8, 0x7FFF)
        self._config_changed()

    def _config_changed(self) -> None:
        (command,) = struct.unpack_from("<H", self._config, _COMMAND)
        (control,) = struct.unpack_from("<H", self._config, _MSIX + 2)
        self.controller.life.bus_master = bool(command & _BUS_MASTER)
        self.controller.msix_enabled = bool(control & _MSIX_ENABLE)

    def config_read(self, offset: int, length: int) -> bytes:
        return bytes(self._config[offset : offset + length])

    def config_write(self, offset: int, data: bytes) -> None:
        for at, byte in enumerate(data, offset):
            mask = self._writable[at]
            self._config[at] = self._config[at] & ~mask | byte & mask
        control = _PCIE + 8
        end = offset + len(data)
        if offset <= control + 1 < end and data[control + 1 - offset] << 8 & _FLR:
            self.reset()
            return
        self._config_changed()

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        if offset + size <= self.doorbells_end:
            return self.controller.mmio_read(offset, size)
        if self._pba <= offset < self._pba + PAGE:
            first = 8 * (offset - self._pba)
            vectors = range(first, min(first + 8 * size, self.vectors))
            return sum(1 << vector - first for vector in vectors if self.pending(vector))
        return 0

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        if offset + size <= self.doorbells_end:
            self.controller.mmio_write(offset, size, value)

    def reset(self) -> None:
        self.controller.life.reset()
        self._power_on()

    def step(self, choose: Callable[[int], int]) -> bool:
        steps = self.controller.enabled()
        if steps:
            self.controller.take(steps[choose(len(steps))])
        return bool(steps)

    def run(self) -> bool:
        page = self.controller.doorbells
        if page:
            for index, value in page.changed():
                self.controller.mmio_write(DOORBELLS + 4 * index, 4, value)
        return self.controller.run()


def _nothing_pending(vector: int) -> bool:
    return False
