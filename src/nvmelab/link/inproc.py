"""Driver and device in one process: registers are calls, memory is shared, time is steps."""

from __future__ import annotations

import mmap
from collections.abc import Callable

from nvmelab.limits import INPROC_TURNS_MAX
from nvmelab.link.base import PciFunction, Storage
from nvmelab.link.pages import Pages
from nvmelab.link.pci import enable_function
from nvmelab.memory import GuestMemory

_BASE = 0x1000_0000


class InprocLink:
    """A `HostLink` to a PCI function in this process, with `size` bytes of memory between them.

    The device does nothing between two calls of `wait` or `settle`. `storage` is the hand on the
    device's storage, if there is one. `close` is called when the link is closed.
    """

    def __init__(
        self,
        function: PciFunction,
        *,
        size: int = 64 << 20,
        storage: Storage | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = "in-process controller"
        self.storage = storage
        self.vectors = function.vectors
        self.step: Callable[[Callable[[int], int]], bool] | None = function.step
        self._function = function
        self.memory: GuestMemory = function.memory
        # Takes up room only where it was written.
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.map(_BASE, memoryview(memory))
        self._pages = Pages(self.memory, _BASE, _BASE + size)
        self._raised = [0] * function.vectors
        self._close = close
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
        return self._pages.allocate(size)

    def free_all(self) -> None:
        self._pages.free_all()

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
        self.memory.clear()
        self._close()
