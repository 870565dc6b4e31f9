"""Memory for data, and the PRPs that describe it. NVMe Base 2.2, section 4.3.1.

    buffer = pool.buffer(12288, offset=512)
    prp1, prp2 = buffer.prps()

A buffer's pages follow each other, or are scattered; it may begin anywhere in its first page, and
its PRP list anywhere in a page. Every legal shape of a list can be asked for.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Sequence

from nvmelab.link.base import HostLink, HostMemory

PAGE = 4096
"""Bytes of a memory page: this driver always enables the controller with CC.MPS 0."""
ENTRIES_PER_PAGE = PAGE // 8


class Pool:
    """Pages of a link's memory. What is dropped is used again."""

    def __init__(self, link: HostLink) -> None:
        self.link = link
        self.memory: HostMemory = link.memory
        self._free: dict[int, list[int]] = {}

    def pages(self, count: int) -> int:
        """The address of `count` contiguous pages, with whatever is in them. Raises MemoryError."""
        free = self._free.get(count)
        return free.pop() if free else self.link.allocate(count * PAGE)

    def give_back(self, addr: int, count: int) -> None:
        """The pages may be used again."""
        self._free.setdefault(count, []).append(addr)

    def zeroed(self, size: int) -> int:
        """The address of `size` bytes of zeroes, which are never used again: a ring's memory may
        be written by a device that does not know that the ring is gone."""
        return self.link.allocate(size)

    def buffer(
        self, size: int, *, offset: int = 0, scattered: bool = False, list_offset: int = 0
    ) -> Buffer:
        """Memory for `size` bytes of data. See `Buffer`."""
        return Buffer(self, size, offset=offset, scattered=scattered, list_offset=list_offset)


class Buffer:
    """`size` bytes that a device can read and write.

    The data begins `offset` bytes into the first page; `scattered` pages do not follow each other,
    and come in falling order. Where there is a PRP list, it begins `list_offset` bytes (a multiple
    of 8) into a page. The memory is used again when nothing refers to the buffer any more.
    """

    def __init__(
        self,
        pool: Pool,
        size: int,
        *,
        offset: int = 0,
        scattered: bool = False,
        list_offset: int = 0,
    ) -> None:
        assert 0 <= offset < PAGE and list_offset % 8 == 0 and 0 <= list_offset < PAGE
        self.size = size
        self.offset = offset
        self.list_offset = list_offset
        self._pool = pool
        self._lists: list[int] = []
        count = max(1, -(-(offset + size) // PAGE))
        if scattered:
            # One page in two, so that no two are neighbours.
            base = pool.pages(2 * count)
            self.pages = [base + PAGE * (2 * i) for i in range(count)][::-1]
            taken = (base, 2 * count)
        else:
            base = pool.pages(count)
            self.pages = [base + PAGE * i for i in range(count)]
            taken = (base, count)
        self._taken = [taken]
        weakref.finalize(self, _give_back, pool, self._taken)

    @property
    def addr(self) -> int:
        """Address of the first byte."""
        return self.pages[0] + self.offset

    def _pieces(self, start: int, length: int) -> list[tuple[int, int]]:
        """(address, bytes) of each page's part of a range of the data."""
        pieces = []
        at, end = self.offset + start, self.offset + start + length
        while at < end:
            step = min(end, (at // PAGE + 1) * PAGE) - at
            pieces.append((self.pages[at // PAGE] + at % PAGE, step))
            at += step
        return pieces

    def read(self, start: int = 0, length: int | None = None) -> bytes:
        """A copy of the data, or of part of it."""
        length = self.size - start if length is None else length
        assert start >= 0 and start + length <= self.size
        memory = self._pool.memory
        return b"".join(memory.read(addr, size) for addr, size in self._pieces(start, length))

    def write(self, data: bytes, start: int = 0) -> None:
        """Put `data` at byte `start`."""
        assert start >= 0 and start + len(data) <= self.size
        at = 0
        for addr, size in self._pieces(start, len(data)):
            self._pool.memory.write(addr, data[at : at + size])
            at += size

    def fill(self, byte: int = 0) -> None:
        """Set every byte."""
        self.write(bytes([byte]) * self.size)

    def prps(self) -> tuple[int, int]:
        """PRP1 and PRP2 for all of the data, writing the PRP list if one is needed."""
        rest = self.pages[1:]
        if not rest:
            return self.addr, 0
        if len(rest) == 1:
            return self.addr, rest[0]
        return self.addr, self._write_list(rest)

    def _write_list(self, entries: Sequence[int]) -> int:
        """Write a PRP list, chained from page to page where one is not enough; its address. A last
        entry of a page is a chain only if more than one entry is still to come."""
        todo = list(entries)
        offset = self.list_offset
        pages: list[tuple[int, list[int]]] = []
        while todo:
            room = (PAGE - offset) // 8
            take = len(todo) if len(todo) <= room else room - 1
            pages.append((offset, todo[:take]))
            todo, offset = todo[take:], 0
        while len(self._lists) < len(pages):
            self._lists.append(self._pool.pages(1))
            self._taken.append((self._lists[-1], 1))
        for number, (at, part) in enumerate(pages):
            if number + 1 < len(pages):
                part.append(self._lists[number + 1])
            data = struct.pack(f"<{len(part)}Q", *part)
            self._pool.memory.write(self._lists[number] + at, data)
        return self._lists[0] + self.list_offset


def _give_back(pool: Pool, taken: list[tuple[int, int]]) -> None:
    for addr, count in taken:
        pool.give_back(addr, count)
