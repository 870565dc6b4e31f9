"""The memory that a link gives to a driver: whole pages, one after the other."""

from __future__ import annotations

from nvmelab.link.base import HostMemory

PAGE = 4096


class Pages:
    """Pages of `memory` from bus address `start` up to, not including, `end`.

    They are zero when they are handed out: they have to be at first, unless `clear` says that
    anything may be in them.
    """

    def __init__(self, memory: HostMemory, start: int, end: int, *, clear: bool = False) -> None:
        self._memory = memory
        self._start, self._next, self._end = start, start, end
        self._clear = clear

    def allocate(self, size: int) -> int:
        """See `HostLink.allocate`."""
        addr, end = self._next, self._next + -(-size // PAGE) * PAGE
        if end > self._end:
            raise MemoryError(f"no {size} bytes left of the link's memory")
        self._next = end
        if self._clear:
            self._memory.write(addr, bytes(size))
        return addr

    def free_all(self) -> None:
        """See `HostLink.free_all`."""
        used = self._next - self._start
        if used:
            self._memory.write(self._start, bytes(used))
        self._next = self._start
