"""Driver and device in one process: registers are calls, memory is shared, time is steps."""

from __future__ import annotations

from nvmelab.link.base import PciFunction
from nvmelab.memory import GuestMemory

_BASE = 0x1000_0000
_PAGE = 4096


class InprocLink:
    """A `HostLink` to a PCI function in this process, with `size` bytes of memory between them.

    The device does nothing between two calls of `progress`. Bus mastering and MSI-X are enabled
    here, as an operating system would do before it hands the function to a driver.
    """

    def __init__(self, function: PciFunction, *, size: int = 64 << 20) -> None:
        self._function = function
        self.memory: GuestMemory = function.memory
        self.memory.map(_BASE, bytearray(size))
        self._next, self._end = _BASE, _BASE + size
        self._raised = [0] * function.vectors
        function.interrupt = self._raise
        command = int.from_bytes(function.config_read(4, 2), "little") | 0b110
        function.config_write(4, command.to_bytes(2, "little"))
        at = function.config_read(0x34, 1)[0]
        while function.config_read(at, 1)[0] != 0x11:
            at = function.config_read(at + 1, 1)[0]
        function.config_write(at + 3, b"\x80")

    def _raise(self, vector: int) -> None:
        self._raised[vector] += 1

    def read32(self, offset: int) -> int:
        return self._function.bar_read(0, offset, 4)

    def read64(self, offset: int) -> int:
        return self._function.bar_read(0, offset, 8)

    def write32(self, offset: int, value: int) -> None:
        self._function.bar_write(0, offset, 4, value)

    def write64(self, offset: int, value: int) -> None:
        self._function.bar_write(0, offset, 8, value)

    def allocate(self, size: int) -> int:
        addr, end = self._next, self._next + -(-size // _PAGE) * _PAGE
        if end > self._end:
            raise MemoryError(f"no {size} bytes left of the link's memory")
        self._next = end
        return addr

    def progress(self) -> bool:
        return self._function.run()

    def take_interrupts(self, vector: int) -> int:
        count, self._raised[vector] = self._raised[vector], 0
        return count
