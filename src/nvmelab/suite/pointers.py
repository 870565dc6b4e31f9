"""Checks of what a bad PRP may do: end its command, and nothing else."""

from __future__ import annotations

import msgspec

from nvmelab.host.buffers import PAGE
from nvmelab.host.queues import Pending
from nvmelab.spec.nvm import Read, Write
from nvmelab.suite.arena import PRPS, Arena, Shape
from nvmelab.suite.base import Bench, check
from nvmelab.suite.transfer import Transfers


@check(
    "transfer.unaligned-prp1",
    ref="Base 2.2, 4.3.1 (Figure 110)",
    expected="if bits 1:0 of PRP1 are set, the command is aborted, or they are taken for zero",
)
def unaligned_prp1(bench: Bench) -> None:
    """Reads and writes with PRP1 at 1, 2 and 3 bytes from a dword."""
    transfers = Transfers(bench, 8)
    arena, qpair, block = transfers.arena, transfers.medium.qpair, transfers.block
    if block >= PAGE:
        bench.skip(f"a block of {block} bytes does not fit in a page behind an offset")
    for offset in (0, 4, PAGE - block - 4):
        for bits in (1, 2, 3):
            old, new = bench.random.randbytes(block), bench.random.randbytes(block)
            slba = transfers.slba(1)
            transfers.medium.store(slba, old)
            where = f"with PRP1 at offset {offset} + {bits}"
            arena.place(block, Shape(offset))
            command = Read(nsid=1, slba=slba, nlb=1, prp1=arena.prp1 + bits)
            pending = qpair.submit(command).wait()
            if not pending.ok:
                arena.forgive(arena.prp1, block + 3)
            arena.judge(f"a Read {where} ({pending.status.label})", old if pending.ok else b"")
            arena.place(block, Shape(offset), new)
            write = Write(nsid=1, slba=slba, nlb=1, prp1=arena.prp1 + bits)
            pending = qpair.submit(write).wait()
            arena.judge(f"a Write {where} ({pending.status.label})")
            if pending.ok:
                transfers.compare(slba, new, Shape(offset))


@check(
    "transfer.bad-offsets",
    ref=PRPS,
    expected="a bad PRP offset ends one command, and changes no memory but the pages it names",
)
def bad_offsets(bench: Bench) -> None:
    """PRP2, entries and list pointers with offsets that they must not have."""
    transfers = Transfers(bench, 16)
    arena, qpair, block = transfers.arena, transfers.medium.qpair, transfers.block
    size = 3 * PAGE + block
    if size % block or block >= PAGE or size > transfers.medium.limit:
        bench.skip(f"blocks of {block} bytes and this MDTS have no such shape")
    data = bench.random.randbytes(size)
    transfers.medium.store(0, data)
    one = PAGE // block + 1
    for bad in (1, 4, 8, 512, PAGE - block):
        # The second page: the data could be where the offset says, or at the page's beginning.
        arena.place(PAGE + block, Shape(0, scattered=True))
        command = Read(nsid=1, nlb=one, prp1=arena.prp1, prp2=arena.prp2 + bad)
        _refusable(arena, qpair.submit(command), arena.prp2, bad, block)
        # The last entry of a list of three.
        arena.place(size, Shape(0, scattered=True, list_offset=64))
        entry = arena.prp2 + 16
        page = int.from_bytes(bench.link.memory.read(entry, 8), "little")
        arena.patch(entry, (page + bad).to_bytes(8, "little"))
        command = Read(nsid=1, nlb=size // block, prp1=arena.prp1, prp2=arena.prp2)
        _refusable(arena, qpair.submit(command), page, bad, block)
    for bad in (1, 2, 4):
        # Only Writes: entries that are read from there are addresses of anything.
        arena.place(size, Shape(0, scattered=True, list_offset=64))
        write = Write(nsid=1, nlb=size // block, prp1=arena.prp1, prp2=arena.prp2 + bad)
        pending = qpair.submit(write).wait()
        arena.judge(f"a Write with a PRP list {bad} bytes from a qword ({pending.status.label})")
    transfers.both(size, Shape(4, True, 8))


def _refusable(arena: Arena, pending: Pending, page: int, bad: int, rest: int) -> None:
    """A Read that may be refused, or may put its last `rest` bytes at either place of `page`."""
    pending.wait()
    what = f"a Read with a PRP entry at offset {bad} of its page ({pending.status.label})"
    arena.forgive(page, bad + rest)
    arena.forgive_data()
    arena.judge(what)


@check(
    "transfer.no-memory",
    ref="Base 2.2, 4.2.3.1 (Data Transfer Error), derived",
    expected="a transfer where there is no memory ends one command, and changes nothing elsewhere",
)
def no_memory(bench: Bench) -> None:
    """Data and PRP lists at addresses that no bus has, equal to good ones in their low bits."""
    transfers = Transfers(bench, 16)
    arena, qpair, block = transfers.arena, transfers.medium.qpair, transfers.block
    size = 3 * PAGE // block * block
    if size < 3 * PAGE or size > transfers.medium.limit:
        bench.skip(f"blocks of {block} bytes and this MDTS have no such shape")
    nlb = size // block
    spare = arena.base + (arena.pages - 1) * PAGE
    for far in (1 << 51, 1 << 48):
        for number in range(4):
            arena.place(size, Shape(0, True, 16))
            command: Read | Write
            command = Read(nsid=1, nlb=nlb, prp1=arena.prp1, prp2=arena.prp2)
            if number == 0:
                command = msgspec.structs.replace(command, prp1=spare + far)
            elif number == 1:
                arena.patch(arena.prp2 + 8, (spare + far).to_bytes(8, "little"))
            elif number == 2:
                command = Write(nsid=1, nlb=nlb, prp1=spare + far, prp2=arena.prp2)
            else:
                # No Read: what is taken for entries could be the address of anything.
                command = Write(nsid=1, nlb=nlb, prp1=arena.prp1, prp2=arena.prp2 + far)
            pending = qpair.submit(command)
            if not _ends(bench, pending):
                return
            if number < 2:
                arena.forgive_data()
            arena.judge(f"a {type(command).__name__} for {spare + far:#x}")
    transfers.both(size, Shape(4, True, 8))


def _ends(bench: Bench, pending: Pending) -> bool:
    """The command is completed, with any status. False if the controller has given up instead."""

    def ended() -> bool:
        return pending.done or bool(bench.nvme.csts.cfs)

    pending.sq.cq.wait(ended, pending.label)
    return pending.done
