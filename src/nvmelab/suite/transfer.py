"""Checks of transfers: every legal shape of PRPs and PRP lists, the bytes around the data, the
largest transfer, and what a bad pointer may do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import msgspec

from nvmelab.host.buffers import ENTRIES_PER_PAGE, PAGE
from nvmelab.memory import GuestMemory
from nvmelab.spec.admin import GetLogPage, Identify
from nvmelab.spec.commands import Command
from nvmelab.spec.identify import Cns
from nvmelab.spec.nvm import Read, Write
from nvmelab.spec.status import Status
from nvmelab.suite.arena import (
    OWN_LIMIT,
    PRPS,
    Arena,
    Medium,
    Shape,
    lists,
    transfer_limit,
)
from nvmelab.suite.base import Bench, check

DPTR = "Base 2.2, 4.1.1 (DPTR)"
MDTS = "Base 2.2, 5.1.13.2.1 (MDTS)"
OFFSETS = (0, 4, 8, 508, 512, 516, 1024, 2048, 4092)
FIRMWARE_SLOTS = 3
"""A log page of 512 bytes whose contents do not change."""
VENDOR_SPECIFIC = 3072
"""Where that part of Identify Controller begins."""
MDTS_MAX = 8 << 20
SHAPES = "Base 2.2, 4.3.1 and 4.1.1 (DPTR)"
_RIGHT = "the data gets where the PRPs say, and no other byte of memory is changed"


class Transfers:
    """Writes and reads of a namespace in any shape, each compared with plain ones."""

    def __init__(self, bench: Bench, pages: int) -> None:
        self.bench = bench
        self.medium = Medium(bench)
        self.arena = Arena(bench, pages)
        self.block = self.medium.block
        self.content: dict[int, bytes] = {}

    def slba(self, nlb: int) -> int:
        """Where that many blocks are."""
        return self.bench.random.randrange(min(self.medium.blocks - nlb, 4096) + 1)

    def write(self, size: int, shape: Shape) -> tuple[int, bytes]:
        """Write noise in that shape; where it is on the medium, and what."""
        nlb = size // self.block
        slba, data = self.slba(nlb), self.bench.random.randbytes(size)
        self.arena.place(size, shape, data)
        self._do(Write(nsid=1, slba=slba, nlb=nlb, prp1=self.arena.prp1, prp2=self.arena.prp2))
        self.arena.judge(f"a Write of {size} bytes ({shape})")
        return slba, data

    def read(self, slba: int, data: bytes, shape: Shape) -> None:
        """Read what is there in that shape."""
        nlb = len(data) // self.block
        self.arena.place(len(data), shape)
        self._do(Read(nsid=1, slba=slba, nlb=nlb, prp1=self.arena.prp1, prp2=self.arena.prp2))
        self.arena.judge(f"a Read of {len(data)} bytes ({shape})", data)

    def _do(self, command: Read | Write) -> None:
        self.medium.qpair.submit(command).check()

    def compare(self, slba: int, data: bytes, shape: Shape) -> None:
        """What was written in that shape is there."""
        seen = self.medium.load(slba, len(data) // self.block)
        if seen != data:
            at = next(at for at, byte in enumerate(seen) if byte != data[at])
            self.bench.expect(
                False,
                f"after a Write of {len(data)} bytes ({shape}) byte {at} of the data on the "
                f"medium is {seen[at]:#04x}, not {data[at]:#04x}",
            )

    def both(self, size: int, shape: Shape) -> None:
        """Write in that shape, compare, and read other data of that size in that shape."""
        slba, data = self.write(size, shape)
        self.compare(slba, data, shape)
        data = self.bench.random.randbytes(size)
        slba = self.slba(size // self.block)
        self.medium.store(slba, data)
        self.read(slba, data, shape)

    def each(self, cases: Iterable[tuple[int, Shape]]) -> None:
        """All of them that this namespace can do. Skips the check if there is none."""
        done = 0
        for size, shape in cases:
            if 0 < size <= self.medium.limit and size % self.block == 0:
                self.both(size, shape)
                done += 1
        if not done:
            self.bench.skip(
                f"blocks of {self.block} bytes and transfers of at most {self.medium.limit} bytes "
                "have no such shape"
            )


def _offsets(bench: Bench, *more: int) -> list[int]:
    """Dword aligned offsets of any kind, those of `more` that are some among them."""
    drawn = (4 * bench.random.randrange(PAGE // 4) for _ in range(2))
    found = {*OFFSETS, *drawn, *(offset for offset in more if 0 <= offset < PAGE)}
    return sorted(found)


def _sizes_for(block: int, offset: int, pages: int) -> tuple[int, ...]:
    """The least and the most bytes in whole blocks that need exactly that many pages from that
    offset on."""
    least = ((pages - 1) * PAGE - offset) // block * block + block if pages > 1 else block
    most = (pages * PAGE - offset) // block * block
    return tuple(sorted({least, most})) if least <= most else ()


@check("transfer.one-page", ref=SHAPES, expected=_RIGHT)
def one_page(bench: Bench) -> None:
    """Data within the page of PRP1, ending before its end or exactly there, at many offsets."""
    transfers = Transfers(bench, 8)
    block = transfers.block
    offsets = _offsets(bench, PAGE - block, PAGE - block - 4, PAGE - 3 * block)
    transfers.each(
        (size, Shape(offset)) for offset in offsets for size in _sizes_for(block, offset, 1)
    )


@check("transfer.two-pages", ref=SHAPES, expected=_RIGHT)
def two_pages(bench: Bench) -> None:
    """Data that goes on in the page of PRP2, ending before its end or exactly there."""
    transfers = Transfers(bench, 8)
    block = transfers.block
    transfers.each(
        (size, Shape(offset, scattered))
        for offset in _offsets(bench, PAGE - block + 4)
        for scattered in (False, True)
        for size in _sizes_for(block, offset, 2)
    )


@check("transfer.list", ref=SHAPES, expected=_RIGHT)
def prp_list(bench: Bench) -> None:
    """PRP lists of 2, 3 and more entries, from any qword of their page, contiguous or not."""
    transfers = Transfers(bench, 160)
    choose = bench.random.choice
    cases = []
    for entries in (2, 3, 4, 8, 17, 32, transfers.medium.limit // PAGE - 1):
        for list_offset in (0, 8, 8 * bench.random.randrange(2, 256)):
            for scattered in (False, True):
                offset = choose(_offsets(bench))
                sizes = _sizes_for(transfers.block, offset, entries + 1)
                if entries > 1 and sizes:
                    cases.append((choose(sizes), Shape(offset, scattered, list_offset)))
    transfers.each(cases)


@check(
    "transfer.list-to-page-end",
    ref=PRPS,
    expected="the last entry of a page of the list is a page of data when no more are needed",
)
def list_to_page_end(bench: Bench) -> None:
    """PRP lists whose last entry is the last one of the list's page: nothing is chained."""
    transfers = Transfers(bench, 4 + 2 * OWN_LIMIT // PAGE)
    cases = []
    whole = ENTRIES_PER_PAGE
    for entries in (2, 3, 5, 16, 64, transfers.medium.limit // PAGE - 1, whole):
        offset = bench.random.choice((0, 4, 512, 4092))
        sizes = _sizes_for(transfers.block, offset, entries + 1)
        if 1 < entries <= whole and sizes:
            shape = Shape(offset, bench.random.random() < 0.7, PAGE - 8 * entries)
            cases.append((sizes[-1], shape))
            cases.append((sizes[0], shape))
    transfers.each(cases)


@check(
    "transfer.list-chain",
    ref=PRPS,
    expected="the last entry of a page of the list points to its next page when more are needed",
)
def list_chain(bench: Bench) -> None:
    """PRP lists that go on in another page, after 0, 1, 2 or many entries; twice if MDTS allows."""
    limit = transfer_limit(bench.nvme)
    pages = OWN_LIMIT // PAGE
    # Two chains take a whole page of list, which is a transfer of 2 MiB.
    twice = ENTRIES_PER_PAGE + 4
    if not limit or limit >= twice * PAGE:
        pages = twice
    transfers = Transfers(bench, pages + 8)
    medium = transfers.medium
    if pages == twice:
        medium.limit = min(twice * PAGE, medium.blocks * medium.block)
    cases = []
    for before in (1, 2, 7, 0):
        for entries in (before + 2, before + 3, 24):
            offset = bench.random.choice((0, 4, 512, 4092))
            sizes = _sizes_for(transfers.block, offset, entries + 1)
            shape = Shape(offset, bench.random.random() < 0.7, PAGE - 8 * (before + 1))
            assert len(lists(entries, shape.list_offset)) == 2
            cases += [(size, shape) for size in sizes[-1:]]
    if pages == twice:
        sizes = _sizes_for(transfers.block, 0, twice - 1)
        cases += [(size, Shape(0, True, PAGE - 16)) for size in sizes[-1:]]
    transfers.each(cases)


@check(
    "transfer.shapes",
    ref=SHAPES,
    expected="what was written from memory of one shape is read into memory of any other",
)
def shapes(bench: Bench) -> None:
    """Data of any size, written from one shape drawn from the seed and read into two others."""
    transfers = Transfers(bench, 48)
    most = min(transfers.medium.limit, 36 * PAGE) // transfers.block
    for number in range(40):
        nlb = bench.random.randint(1, most if number % 3 == 0 else min(most, 40))
        size = nlb * transfers.block
        slba, data = transfers.write(size, _any_shape(bench, size))
        for _ in range(2):
            transfers.read(slba, data, _any_shape(bench, size))


def _any_shape(bench: Bench, size: int) -> Shape:
    """Any legal one for that many bytes, with a list of one page."""
    source = bench.random
    offset = source.choice((0, 0, 4 * source.randrange(PAGE // 4)))
    last = ENTRIES_PER_PAGE - max(1, (offset + size) // PAGE)
    return Shape(
        offset, source.random() < 0.7, 8 * source.choice((0, last, source.randint(0, last)))
    )


@check(
    "transfer.unused-prp2",
    ref="Base 2.2, 4.1.1 (DPTR)",
    expected="PRP2 is reserved when the data ends in the page of PRP1: nothing is done with it",
)
def unused_prp2(bench: Bench) -> None:
    """Garbage in PRP2, addresses of memory among it, when PRP1 is enough."""
    transfers = Transfers(bench, 8)
    arena, block = transfers.arena, transfers.block
    if block > PAGE:
        bench.skip(f"a block of {block} bytes does not fit in a page")
    data = bench.random.randbytes(block)
    slba = transfers.slba(1)
    transfers.medium.store(slba, data)
    for offset in sorted({0, 4, PAGE - block - 4, PAGE - block} & set(range(PAGE - block + 1))):
        inside = arena.base + (arena.pages - 1) * PAGE
        for prp2 in (inside, inside + 4, inside + 1, 1 << 63, (1 << 64) - 1):
            what = f"a Read of {block} bytes at offset {offset} with {prp2:#x} in PRP2"
            arena.place(block, Shape(offset))
            command = Read(nsid=1, slba=slba, nlb=1, prp1=arena.prp1, prp2=prp2)
            pending = transfers.medium.qpair.submit(command).wait()
            # A device need not look at reserved fields, and may refuse what is in them.
            if not pending.ok:
                arena.forgive(arena.prp1, block)
            arena.judge(what, data if pending.ok else b"")


@check(
    "transfer.admin",
    ref=SHAPES,
    expected="Identify and Get Log Page data goes on in the page of PRP2",
)
def admin(bench: Bench) -> None:
    """Identify and log page data at many offsets, with a second page elsewhere."""
    arena = Arena(bench, 8)
    wanted = bench.nvme.identify_data(Cns.CONTROLLER)
    for offset in _offsets(bench):
        for scattered in (False, True):
            arena.place(PAGE, Shape(offset, scattered))
            _identify(bench, arena, wanted, f"an Identify at offset {offset}")
    log_page = GetLogPage(lid=FIRMWARE_SLOTS, numd=128, nsid=0xFFFF_FFFF)
    arena.place(512, Shape())
    if not bench.nvme.admin.submit(placed(log_page, arena)).wait().ok:
        return
    log = arena.data()
    for size in (4, 256, 508, 512):
        part = msgspec.structs.replace(log_page, numd=size // 4)
        for offset in {0, 4, PAGE - size, PAGE - 4, PAGE - size + 4} - {PAGE}:
            arena.place(size, Shape(offset, scattered=True))
            bench.nvme.run(placed(part, arena))
            arena.judge(f"a log page of {size} bytes at offset {offset}", log[:size])


_C = TypeVar("_C", bound=Command)


def placed(command: _C, arena: Arena) -> _C:
    """The command with its data in the room of the arena."""
    return msgspec.structs.replace(command, prp1=arena.prp1, prp2=arena.prp2)


def _identify(bench: Bench, arena: Arena, wanted: bytes, what: str) -> None:
    """Identify Controller gets there, but for what is the vendor's own and may change."""
    bench.nvme.run(placed(Identify(cns=Cns.CONTROLLER), arena))
    arena.judge(what, wanted[:VENDOR_SPECIFIC] + arena.data()[VENDOR_SPECIFIC:])


@check(
    "transfer.mdts",
    ref=MDTS,
    expected="a command that transfers as much as MDTS says succeeds, and one with a block more is "
    "aborted with Invalid Field in Command",
)
def mdts(bench: Bench) -> None:
    """Transfers of exactly MDTS, and of one block more."""
    limit = transfer_limit(bench.nvme)
    if not limit:
        bench.skip("MDTS is 0: there is no limit")
    if limit > MDTS_MAX:
        bench.skip(f"MDTS is {limit} bytes, and checks transfer at most {MDTS_MAX}")
    # A page of list for each 2 MiB, and some.
    transfers = Transfers(bench, limit // PAGE + limit // (2 << 20) + 8)
    medium = transfers.medium
    most = limit // medium.block
    if not most or most + 1 > min(medium.blocks, 1 << 16):
        bench.skip(f"no command for more than {limit} bytes of this namespace can be made")
    for shape in (Shape(), Shape(516), Shape(0, True, 8)):
        transfers.both(most * medium.block, shape)
    for shape in (Shape(), Shape(4)):
        transfers.arena.place((most + 1) * medium.block, shape)
        for command in (Read(nsid=1, nlb=most + 1), Write(nsid=1, nlb=most + 1)):
            pending = medium.qpair.submit(placed(command, transfers.arena)).wait()
            bench.expect(
                pending.status == Status.INVALID_FIELD_IN_COMMAND,
                f"a {type(command).__name__} of {(most + 1) * medium.block} bytes, where MDTS is "
                f"{limit}, got the status {pending.status.label}",
            )


@check(
    "transfer.memory-end",
    ref=PRPS,
    expected="data may lie in the last bytes of memory",
)
def memory_end(bench: Bench) -> None:
    """Reads, writes and an Identify in the very last bytes of the memory that we share."""
    memory = bench.link.memory
    if not isinstance(memory, GuestMemory):
        bench.skip("where memory ends is not known")
    transfers = Transfers(bench, 8)
    medium, block = transfers.medium, transfers.block
    end = memory.regions[-1].end
    pages = 4
    arena = Arena(bench, pages, end - pages * PAGE)
    try:
        wanted = bench.nvme.identify_data(Cns.CONTROLLER)
        arena.place(PAGE, Shape(), first=pages - 1)
        _identify(bench, arena, wanted, "an Identify into the last page of memory")
        for size in {block, PAGE, 2 * PAGE, PAGE + block}:
            count = -(-size // PAGE)
            if size % block or count > 2 or size > medium.limit:
                continue
            shape = Shape(-size % PAGE if size % PAGE % 4 == 0 else 0)
            data = bench.random.randbytes(size)
            medium.store(0, data)
            nlb = size // block
            arena.place(size, shape, first=pages - count)
            medium.qpair.submit(placed(Read(nsid=1, nlb=nlb), arena)).check()
            arena.judge(f"a Read of {size} bytes to the end of memory", data)
            arena.place(size, shape, data[::-1], first=pages - count)
            medium.qpair.submit(placed(Write(nsid=1, nlb=nlb), arena)).check()
            arena.judge(f"a Write of {size} bytes from the end of memory")
            transfers.compare(0, data[::-1], shape)
    finally:
        # Nobody has allocated these pages, so nobody else will clear them.
        memory.write(arena.base, bytes(pages * PAGE))
