"""Driver and device in one process: registers are calls, memory is shared, time is steps."""

from __future__ import annotations

from collections.abc import Callable

from nvmelab.limits import INPROC_TURNS_MAX
from nvmelab.link.base import PciFunction, Storage
from nvmelab.link.pci import enable_function
from nvmelab.memory import GuestMemory

_BASE = 0x1000_0000
_PAGE = 4096


class InprocLink:
    """A `HostLink` to a PCI function in this process, with `size` bytes of memory between them.

    The device does nothing between two calls of `wait` or `settle`. `storage` is the hand on the
    device's storage, if there is one.
    """

    def __init__(
        self,
        function: PciFunction,
        *,
        size: int = 64 << 20,
        storage: Storage | None = None,
        name: str = "in-process controller",
    ) -> None:
        self.name = name
        self.storage = storage
        self.vectors = function.vectors
        self.step: Callable[[Callable[[int], int]], bool] | None = function.step
        self._function = function
        self.memory: GuestMemory = function.memory
        self._ram = bytearray(size)
        self.memory.map(_BASE, self._ram)
        self._next, self._end = _BASE, _BASE + size
        self._raised = [0] * function.vectors
        self._writes = 0
        function.interrupt = self._raise
        enable_function(self)

    def _raise(self, vector: int) -> None:
        self._raised[vector] += 1

    def read(self, offset: int, size: int) -> int:
        return self._function.bar_read(0, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        self._writes += 1
        self._function.bar_write(0, offset, size, value)

    def config_read(self, offset: int, size: int) -> int:
        return int.from_bytes(self._function.config_read(offset, size), "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        self._function.config_write(offset, value.to_bytes(size, "little"))

    def allocate(self, size: int) -> int:
        addr, end = self._next, self._next + -(-size // _PAGE) * _PAGE
        if end > self._end:
            raise MemoryError(f"no {size} bytes left of the link's memory")
        self._next = end
        return addr

    def free_all(self) -> None:
        used = self._next - _BASE
        self._ram[:used] = bytes(used)
        self._next = _BASE

    def wait(self, done: Callable[[], bool]) -> bool:
        for _ in range(INPROC_TURNS_MAX):
            if done():
                return True
            before = self._writes
            if not self._function.run():
                if done():
                    return True
                if self._writes == before:  # looking was all it did: no doorbell was rung
                    return False
        return False

    def settle(self) -> None:
        self.wait(lambda: False)

    def take_interrupts(self, vector: int) -> int:
        count, self._raised[vector] = self._raised[vector], 0
        return count

    def close(self) -> None:
        pass
