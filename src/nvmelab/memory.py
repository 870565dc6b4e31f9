"""Guest memory as a controller sees it: regions at bus addresses, copied in and out.

A region is a writable buffer (an mmap of the guest's RAM, or plain memory in-process) that stands
at a bus address. Reads and writes may cross from one region into the next.

Stores that the peer is watching (completion queue entries, doorbells) go through `store_u32` and
`store_u64`, which are single aligned stores. `struct.pack_into` must never be used on such memory:
CPython zeroes the target before it packs, and a polling peer sees the zeroes.

Python has no memory fence, but for `fence`. x86-64 keeps the order of stores; AArch64 does not
promise to.
"""

from __future__ import annotations

import struct
import threading
from bisect import bisect_right

from nvmelab.limits import DMA_REGIONS_MAX

Buffer = memoryview | bytearray


_LOCK = threading.Lock()


def fence() -> None:
    """What was stored before this is there for the peer to see before anything after it is loaded:
    the one order that x86-64 does not keep by itself. Taking a lock is a locked instruction, and
    those are full fences."""
    with _LOCK:
        pass


class MemoryFault(Exception):
    """An address range that no region covers, or a write to a read-only one.

    Usual cause: the host put a bus address into a queue entry or a PRP that is not RAM.
    """

    def __init__(self, addr: int, length: int, why: str) -> None:
        super().__init__(f"{why}: {length} bytes at {addr:#x}")
        self.addr = addr
        self.length = length
        self.why = why


class Region:
    """One contiguous piece of guest memory: bus addresses `start` up to, not including, `end`."""

    __slots__ = ("end", "longs", "start", "view", "words", "writable")

    def __init__(self, start: int, buffer: Buffer, writable: bool) -> None:
        self.view = memoryview(buffer).cast("B")
        size = len(self.view)
        if size == 0 or start % 8 or size % 8:
            raise ValueError(f"region of {size} bytes at {start:#x} is not a multiple of 8 bytes")
        self.start = start
        self.end = start + size
        self.writable = writable
        self.words = self.view.cast("I")
        self.longs = self.view.cast("Q")


_NOWHERE = Region(0, bytearray(8), False)
_NOWHERE.end = 0


class GuestMemory:
    """The regions of one guest. Addresses are bus addresses (for a PC guest: guest physical)."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._regions: list[Region] = []
        self._last = _NOWHERE

    @property
    def regions(self) -> list[Region]:
        """The regions in the order of their addresses."""
        return list(self._regions)

    def map(self, start: int, buffer: Buffer, *, writable: bool = True) -> None:
        """Place `buffer` at bus address `start`. Raises ValueError if it overlaps a region, if its
        size or address is not a multiple of 8 bytes, or if there are too many regions."""
        if len(self._regions) >= DMA_REGIONS_MAX:
            raise ValueError(f"more than {DMA_REGIONS_MAX} memory regions")
        region = Region(start, buffer, writable)
        at = bisect_right(self._starts, start)
        before = self._regions[at - 1] if at else _NOWHERE
        if start < before.end or (at < len(self._starts) and region.end > self._starts[at]):
            raise ValueError(f"region at {start:#x} overlaps another one")
        self._starts.insert(at, start)
        self._regions.insert(at, region)

    def unmap(self, start: int, size: int) -> None:
        """Remove the region that is exactly `size` bytes at `start`. Raises KeyError if there is
        none. The buffer is freed when the last view into it is gone."""
        at = bisect_right(self._starts, start) - 1
        if at < 0 or self._starts[at] != start or self._regions[at].end != start + size:
            raise KeyError(start)
        del self._starts[at], self._regions[at]
        self._last = _NOWHERE

    def clear(self) -> None:
        """Remove all regions."""
        self._starts.clear()
        self._regions.clear()
        self._last = _NOWHERE

    def _find(self, addr: int, length: int) -> Region:
        """The region that holds `addr`. `length` is for the error message only."""
        at = bisect_right(self._starts, addr) - 1
        if at < 0 or addr >= self._regions[at].end:
            raise MemoryFault(addr, length, "no guest memory there")
        self._last = self._regions[at]
        return self._last

    def read(self, addr: int, length: int) -> bytes:
        """A private copy of `length` bytes at `addr`. Raises MemoryFault."""
        region = self._last
        if not region.start <= addr < region.end:
            region = self._find(addr, length)
        at = addr - region.start
        if addr + length <= region.end:
            return region.view[at : at + length].tobytes()
        return b"".join(self.views(addr, length, write=False))

    def unpack(self, layout: struct.Struct, addr: int) -> tuple[int, ...]:
        """The fields of a structure of integers at `addr`, each copied out once. Raises
        MemoryFault."""
        region = self._last
        if not region.start <= addr < region.end:
            region = self._find(addr, layout.size)
        if addr + layout.size <= region.end:
            return layout.unpack_from(region.view, addr - region.start)
        return layout.unpack(self.read(addr, layout.size))

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        """Copy `data` to `addr`. Nothing is written if part of the range faults."""
        at = 0
        for view in self.views(addr, len(data), write=True):
            view[:] = data[at : at + len(view)]
            at += len(view)

    def views(self, addr: int, length: int, *, write: bool) -> list[memoryview]:
        """The memory itself, in as many pieces as it has regions. `write` says that the pieces
        will be written to. Raises MemoryFault."""
        region = self._last
        if not region.start <= addr < region.end:
            region = self._find(addr, length)
        at = addr - region.start
        if addr + length <= region.end and (region.writable or not write):
            return [region.view[at : at + length]]
        pieces: list[memoryview] = []
        while True:
            if write and not region.writable:
                raise MemoryFault(addr, length, "guest memory is read-only")
            at = addr - region.start
            size = min(length, region.end - addr)
            pieces.append(region.view[at : at + size])
            addr += size
            length -= size
            if length <= 0:
                return pieces
            region = self._find(addr, length)

    def load_u32(self, addr: int) -> int:
        """One aligned 4-byte load. `addr` must be a multiple of 4. Raises MemoryFault."""
        region = self._last
        if not region.start <= addr < region.end:
            region = self._find(addr, 4)
        return region.words[(addr - region.start) >> 2]

    def store_u32(self, addr: int, value: int) -> None:
        """One aligned 4-byte store. `addr` must be a multiple of 4. Raises MemoryFault."""
        region = self._last
        if not region.start <= addr < region.end:
            region = self._find(addr, 4)
        if not region.writable:
            raise MemoryFault(addr, 4, "guest memory is read-only")
        region.words[(addr - region.start) >> 2] = value

    def store_u64(self, addr: int, value: int) -> None:
        """One aligned 8-byte store. `addr` must be a multiple of 8. Raises MemoryFault."""
        region = self._last
        if not region.start <= addr < region.end:
            region = self._find(addr, 8)
        if not region.writable:
            raise MemoryFault(addr, 8, "guest memory is read-only")
        region.longs[(addr - region.start) >> 3] = value
