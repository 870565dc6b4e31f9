"""Where a check puts data so that it sees every byte that a device changes, and the plain way to a
namespace that other ways are compared with."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from nvmelab.host.buffers import ENTRIES_PER_PAGE, PAGE, Buffer
from nvmelab.host.driver import Controller
from nvmelab.spec.identify import Cns
from nvmelab.spec.nvm import Read, Write
from nvmelab.suite.base import Bench

PRPS = "Base 2.2, 4.3.1"
OWN_LIMIT = 512 << 10
"""Largest transfer that checks ask for where MDTS would allow more."""
PLAIN = 2 * PAGE
"""Largest transfer that needs no PRP list, wherever it is."""


class Shape(NamedTuple):
    """How data lies in memory."""

    offset: int = 0
    """Of the first byte in its page."""
    scattered: bool = False
    """The pages come in any order, or follow each other."""
    list_offset: int = 0
    """Of the first entry of the PRP list in its page, where there is a list."""

    def __str__(self) -> str:
        pages = "scattered" if self.scattered else "contiguous"
        return f"PRP1 offset {self.offset}, {pages} pages, list offset {self.list_offset}"


def lists(entries: int, list_offset: int) -> list[int]:
    """How many entries each page of a PRP list has that begins there, pointers to the next one
    included."""
    found: list[int] = []
    room = ENTRIES_PER_PAGE - list_offset // 8
    while entries > room:
        found.append(room)
        entries -= room - 1
        room = ENTRIES_PER_PAGE
    return [*found, entries]


class Arena:
    """Pages of noise, some of which hold data or PRP lists at a time. A device may change the
    bytes it is told to and no other, so all of them are compared after each command."""

    def __init__(self, bench: Bench, pages: int, base: int | None = None) -> None:
        """`pages` of them, at an address of the link's choice unless one is given."""
        self.pages = pages
        self.base = bench.nvme.pool.zeroed(pages * PAGE) if base is None else base
        self._bench = bench
        self._memory = bench.link.memory
        self._noise = bench.random.randbytes(pages * PAGE)
        self._image = bytearray()
        self._pieces: list[tuple[int, int]] = []
        self.prp1 = self.prp2 = 0

    def place(self, size: int, shape: Shape, data: bytes = b"", first: int | None = None) -> None:
        """Make room for `size` bytes in that shape, with `data` in them or noise. Contiguous pages
        begin with that of number `first`, or anywhere."""
        count = -(-(shape.offset + size) // PAGE)
        lengths = lists(count - 1, shape.list_offset) if count > 2 else []
        # The first and the last page stay free, so that there is something on either side.
        free = list(range(1, self.pages - 1))
        if shape.scattered:
            chosen = self._bench.random.sample(free, count)
        else:
            start = (
                self._bench.random.randint(1, self.pages - 1 - count) if first is None else first
            )
            chosen = list(range(start, start + count))
        taken = [at for at in free if at not in chosen]
        list_pages = self._bench.random.sample(taken, len(lengths))
        self._image = bytearray(self._noise)
        self._pieces = []
        at, rest = shape.offset, size
        for page in chosen:
            step = min(PAGE - at, rest)
            self._pieces.append((page * PAGE + at, step))
            at, rest = 0, rest - step
        self.prp1 = self.base + chosen[0] * PAGE + shape.offset
        self.prp2 = self.base + chosen[1] * PAGE if count == 2 else 0
        if lengths:
            entries = [self.base + page * PAGE for page in chosen[1:]]
            self._write_lists(entries, lengths, list_pages, shape.list_offset)
        if data:
            self._put(data)
        self.refresh()

    def _write_lists(
        self, entries: list[int], lengths: list[int], pages: list[int], offset: int
    ) -> None:
        self.prp2 = self.base + pages[0] * PAGE + offset
        for number, length in enumerate(lengths):
            chained = number + 1 < len(lengths)
            part, entries = entries[: length - chained], entries[length - chained :]
            if chained:
                part.append(self.base + pages[number + 1] * PAGE)
            at = pages[number] * PAGE + offset
            self._image[at : at + 8 * length] = struct.pack(f"<{length}Q", *part)
            offset = 0
        assert not entries

    def _put(self, data: bytes) -> None:
        assert len(data) == sum(length for _, length in self._pieces)
        at = 0
        for start, length in self._pieces:
            self._image[start : start + length] = data[at : at + length]
            at += length

    def patch(self, addr: int, data: bytes) -> None:
        """Put other bytes at an address, as if they belonged there."""
        self._image[addr - self.base : addr - self.base + len(data)] = data
        self.refresh()

    def refresh(self) -> None:
        """Write all of it to memory."""
        self._memory.write(self.base, bytes(self._image))

    def forgive(self, addr: int, length: int) -> None:
        """Those bytes may have been changed: take them as they are."""
        self._image[addr - self.base : addr - self.base + length] = self._memory.read(addr, length)

    def forgive_data(self) -> None:
        """The data may have been changed."""
        for start, length in self._pieces:
            self.forgive(self.base + start, length)

    def data(self) -> bytes:
        """What is in the room that was made."""
        read = self._memory.read
        return b"".join(read(self.base + start, length) for start, length in self._pieces)

    def judge(self, what: str, data: bytes = b"", *, expected: str = "", ref: str = PRPS) -> None:
        """Everything is as it was, but for `data` where room was made. Raises Finding."""
        if data:
            self._put(data)
        seen = self._memory.read(self.base, self.pages * PAGE)
        if seen == self._image:
            return
        at = next(at for at, byte in enumerate(seen) if byte != self._image[at])
        wrong = sum(one != other for one, other in zip(seen, self._image, strict=True))
        self._bench.expect(
            False,
            f"{what}: {wrong} bytes of memory are not as they should be, the first is "
            f"{self._name(at)} (address {self.base + at:#x})",
            expected=expected,
            ref=ref,
        )

    def _name(self, at: int) -> str:
        """What is at that byte of the arena."""
        done = 0
        for start, length in self._pieces:
            if start <= at < start + length:
                return f"byte {done + at - start} of the data"
            done += length
        start, length = min(
            self._pieces, key=lambda piece: min(abs(piece[0] - at), abs(sum(piece) - at))
        )
        if at < start:
            return f"{start - at} bytes before a page's part of the data"
        return f"{at - start - length} bytes behind a page's part of the data"


def transfer_limit(nvme: Controller) -> int:
    """MDTS in bytes, 0 if there is no limit (Base 2.2, 5.1.13.2.1)."""
    mdts = nvme.identify().mdts
    return 1 << 12 + nvme.cap.mpsmin + mdts if mdts else 0


class Medium:
    """A namespace and a queue pair, with reads and writes that need no PRP list. Skips the check
    where the namespace cannot be written, or has metadata."""

    def __init__(self, bench: Bench, nsid: int = 1) -> None:
        data = bench.nvme.identify_data(Cns.NAMESPACE, nsid=nsid)
        self.namespace = bench.nvme.namespace(nsid)
        self.nsid = nsid
        self.block = self.namespace.block
        self.blocks = self.namespace.blocks
        at = 128 + 4 * (data[26] & 0xF)
        if any(data[at : at + 2]):
            bench.skip(f"the blocks of namespace {nsid} have metadata")
        if self.namespace.identity.nsattr & 1:
            bench.skip(f"namespace {nsid} is write protected")
        limit = transfer_limit(bench.nvme)
        self.limit = min(limit, OWN_LIMIT) if limit else OWN_LIMIT
        """Largest transfer of the checks in bytes, whole blocks."""
        self.limit = min(self.limit, self.blocks * self.block) // self.block * self.block
        if not self.limit:
            bench.skip(f"a block of {self.block} bytes is more than the checks transfer")
        self.qpair = bench.nvme.create_qpair(entries=min(16, bench.nvme.cap.mqes))
        self._step = max(1, PLAIN // self.block)
        self._buffers = [bench.nvme.buffer(self._step * self.block) for _ in range(16)]

    def store(self, slba: int, data: bytes) -> None:
        """Write whole blocks, a few pages at a time."""
        nlb = len(data) // self.block
        for first in range(0, nlb, self._step * len(self._buffers)):
            pending = []
            for at, count, buffer in self._parts(first, nlb):
                buffer.write(data[at * self.block : (at + count) * self.block])
                prp1, prp2 = _prps(buffer, count * self.block)
                command = Write(nsid=self.nsid, slba=slba + at, nlb=count, prp1=prp1, prp2=prp2)
                pending.append(self.qpair.submit(command, buffer=buffer))
            for write in pending:
                write.check()

    def load(self, slba: int, nlb: int) -> bytes:
        """Read blocks, a few pages at a time."""
        found: list[bytes] = []
        for first in range(0, nlb, self._step * len(self._buffers)):
            pending = []
            for at, count, buffer in self._parts(first, nlb):
                prp1, prp2 = _prps(buffer, count * self.block)
                command = Read(nsid=self.nsid, slba=slba + at, nlb=count, prp1=prp1, prp2=prp2)
                pending.append((self.qpair.submit(command, buffer=buffer), count, buffer))
            for read, count, buffer in pending:
                read.check()
                found.append(buffer.read(0, count * self.block))
        return b"".join(found)

    def _parts(self, first: int, nlb: int) -> Iterator[tuple[int, int, Buffer]]:
        """From block `first` of `nlb`: one small transfer for each buffer."""
        for number, buffer in enumerate(self._buffers):
            at = first + number * self._step
            if at < nlb:
                yield at, min(self._step, nlb - at), buffer


def _prps(buffer: Buffer, size: int) -> tuple[int, int]:
    """PRPs for the first bytes of a buffer: PRP2 is reserved where they fit in one page."""
    return (buffer.addr, 0) if size <= PAGE else buffer.prps()
