"""Where a command's data is: Physical Region Pages to pieces of guest memory.

NVMe Base 2.2, section 4.3.1 (PRP entries and lists). SGLs are not implemented (SGLS is 0).
"""

from __future__ import annotations

import functools
import operator
import struct
from typing import TYPE_CHECKING

from nvmelab.memory import GuestMemory
from nvmelab.spec.commands import Command
from nvmelab.spec.status import NvmeError, Status
from nvmelab.trace.bus import Emit

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

PRP_SIZE = 8


def _misplaced(what: str, value: int) -> NvmeError:
    return NvmeError(Status.PRP_OFFSET_INVALID, f"{what} {value:#x} has a bad offset")


def _list_entries(
    memory: GuestMemory, pointer: int, count: int, page_size: int, trace: Emit | None
) -> list[int]:
    """The `count` page addresses of a PRP list, following its chain. Each list page is copied once
    and then judged."""
    if pointer % PRP_SIZE:
        raise _misplaced("PRP list pointer", pointer)
    pages: list[int] = []
    while True:
        room = (page_size - pointer % page_size) // PRP_SIZE
        wanted = count - len(pages)
        chained = wanted > room
        taken = room if chained else wanted
        entries = struct.unpack(f"<{taken}Q", memory.read(pointer, taken * PRP_SIZE))
        if functools.reduce(operator.or_, entries) % page_size:
            bad = next(entry for entry in entries if entry % page_size)
            if trace:
                trace("err_invalid_prplist_ent", bad)
            raise _misplaced("PRP list entry", bad)
        pages += entries
        if not chained:
            return pages
        # The last entry of a list page that is not enough points to the next page. It had to be
        # page aligned like the others, so the next page is a whole one and the walk gets on.
        pointer = pages.pop()


def map_prp(
    memory: GuestMemory,
    prp1: int,
    prp2: int,
    length: int,
    page_size: int,
    *,
    write: bool,
    trace: Emit | None = None,
) -> list[memoryview]:
    """The pieces of guest memory that hold `length` (at least 1) bytes, in order.

    `write` says that the pieces will be written to. Pages that follow each other are one piece.
    Raises NvmeError for a bad offset and MemoryFault for an address that is not guest memory.
    """
    first = page_size - prp1 % page_size
    rest = length - first
    if trace:
        trace("map_prp", min(first, length), length, prp1, prp2, length // page_size + 1)
    if prp1 & 3:
        raise _misplaced("PRP1", prp1)
    if rest <= 0:
        if trace:
            trace("map_addr", prp1, length)
        return memory.views(prp1, length, write=write)
    if rest <= page_size:
        if prp2 % page_size:
            if trace:
                trace("err_invalid_prp2_align", prp2)
            raise _misplaced("PRP2", prp2)
        addresses = [prp2]
    else:
        addresses = _list_entries(memory, prp2, -(-rest // page_size), page_size, trace)
    pieces: list[memoryview] = []
    start, end = prp1, prp1 + first
    for address in addresses:
        if address != end:
            pieces += memory.views(start, end - start, write=write)
            start = address
        end = address + page_size
    end -= -rest % page_size  # what the transfer leaves of its last page
    if trace:
        trace("map_addr", prp1, first)
        for number, address in enumerate(addresses):
            trace("map_addr", address, min(page_size, rest - number * page_size))
    return pieces + memory.views(start, end - start, write=write)


def check_length(controller: Controller, nbytes: int) -> None:
    """Refuse a command that would transfer more than MDTS (Base 2.2, 5.1.13.2.1)."""
    mdts = controller.config.mdts
    if mdts and nbytes > 4096 << mdts:
        if controller.trace:
            controller.trace("err_mdts", nbytes)
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"{nbytes} bytes are above MDTS")


def to_host(controller: Controller, command: Command, data: bytes) -> None:
    """Copy `data` to where the command's PRPs point. Raises NvmeError and MemoryFault."""
    at = 0
    for piece in pieces(controller, command, len(data), write=True):
        piece[:] = data[at : at + len(piece)]
        at += len(piece)


def from_host(controller: Controller, command: Command, length: int) -> bytes:
    """A private copy of the `length` bytes the command's PRPs point to. Raises NvmeError and
    MemoryFault."""
    return b"".join(pieces(controller, command, length, write=False))


def pieces(
    controller: Controller, command: Command, length: int, *, write: bool
) -> list[memoryview]:
    """The pieces of guest memory a command's PRPs point to, as `map_prp` gives them."""
    return map_prp(
        controller.memory,
        command.prp1,
        command.prp2,
        length,
        controller.life.page_size,
        write=write,
        trace=controller.trace,
    )
