"""Faults in how data gets to where PRPs say."""

from __future__ import annotations

import struct

import msgspec

from nvmelab.device.controller import Controller
from nvmelab.device.queues import Request, SubmissionQueue
from nvmelab.memory import MemoryFault
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.nvm import Read
from nvmelab.spec.status import NvmeError, Status

PAGE = 4096
_DATA = (NvmOpcode.READ, NvmOpcode.WRITE)


class _Walks(Controller):
    """Carries out reads and writes with PRPs walked here, in steps that a fault can change."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if not sq.id or request.opcode not in _DATA:
            super()._execute(sq)
            return
        command = Read.from_words(request.words)
        namespace = self.namespaces.get(command.nsid)
        size = command.nlb << 9
        if namespace is None or size > 4096 << self.config.mdts:
            super()._execute(sq)
            return
        sq.fetched.popleft()
        status = 0
        try:
            pieces = self.walk(command.prp1, command.prp2, size)
            views = [self.memory.views(*piece, write=True)[0] for piece in pieces]
            if request.opcode == NvmOpcode.READ:
                namespace.backend.read(command.slba << 9, views)
            else:
                namespace.backend.write(command.slba << 9, views)
        except NvmeError as error:
            status = error.field
        except MemoryFault:
            status = int(Status.DATA_TRANSFER_ERROR)
        self.finish(request, status)

    def walk(self, prp1: int, prp2: int, size: int) -> list[tuple[int, int]]:
        """(address, bytes) of all pieces."""
        prp1 = self.first(prp1)
        step = min(size, PAGE - prp1 % PAGE)
        pieces, size = [(prp1, step)], size - step
        if size:
            pages = self.rest(prp2, -(-size // PAGE), size)
            for page in pages:
                pieces.append((page, min(size, PAGE)))
                size -= pieces[-1][1]
        return [piece for piece in pieces if piece[1]]

    def first(self, prp1: int) -> int:
        """Where the data begins."""
        return prp1 & ~3

    def rest(self, prp2: int, count: int, size: int) -> list[int]:
        """The pages behind the first one."""
        return [self.page(prp2)] if count == 1 else self.entries(prp2, count)

    def page(self, entry: int) -> int:
        """An entry that is a page of data."""
        if entry % PAGE:
            raise NvmeError(Status.PRP_OFFSET_INVALID, "an offset")
        return entry

    def entries(self, pointer: int, count: int) -> list[int]:
        """The pages that a list names."""
        if pointer % 8:
            raise NvmeError(Status.PRP_OFFSET_INVALID, "a list's offset")
        pages: list[int] = []
        while len(pages) < count:
            room = self.room(pointer)
            last = room - 1
            for at in range(room):
                (entry,) = struct.unpack("<Q", self.memory.read(pointer + 8 * at, 8))
                if at == last and self.chains(count - len(pages)):
                    pointer = entry
                    break
                pages.append(self.page(entry))
                if len(pages) == count:
                    break
        return pages

    def room(self, pointer: int) -> int:
        """Entries from there to the end of the list's page."""
        return (PAGE - pointer % PAGE) // 8

    def chains(self, left: int) -> bool:
        """The last entry of a page of the list, with so many entries still to come, is no data."""
        return left > 1


class WholePageFirst(_Walks):
    """Takes the page of PRP1 for a whole one, whatever its offset."""

    def walk(self, prp1: int, prp2: int, size: int) -> list[tuple[int, int]]:
        if size <= PAGE:
            return [(prp1, size)]
        return super().walk(prp1, prp2, size)


class SectorOffsets(_Walks):
    """PRP1 counts in units of 512 bytes."""

    def first(self, prp1: int) -> int:
        return prp1 & ~511


class ReadsAhead(Controller):
    """A read fills the page of PRP1 to a multiple of 1024 bytes."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        super()._execute(sq)
        if sq.id and request.opcode == NvmOpcode.READ:
            command = Read.from_words(request.words)
            end = command.prp1 + (command.nlb << 9)
            if end % PAGE and end % 1024 and command.prp1 // PAGE == end // PAGE:
                self.memory.write(end, bytes(-end % 1024))


class TwoPagesAreAList(_Walks):
    """Data that ends exactly at the end of the second page is looked for in a list."""

    def rest(self, prp2: int, count: int, size: int) -> list[int]:
        return self.entries(prp2, count) if size == PAGE else super().rest(prp2, count, size)


class AssumesContiguousPages(_Walks):
    """The second page is the one behind the first."""

    def walk(self, prp1: int, prp2: int, size: int) -> list[tuple[int, int]]:
        return super().walk(prp1, (prp1 & -PAGE) + PAGE if size <= PAGE else prp2, size)


class ListAtPageStart(_Walks):
    """A PRP list begins where its page begins."""

    def entries(self, pointer: int, count: int) -> list[int]:
        return super().entries(pointer & -PAGE, count)


class ForgetsThirdEntry(_Walks):
    """The entries behind the second one are taken for contiguous pages."""

    def entries(self, pointer: int, count: int) -> list[int]:
        pages = super().entries(pointer, count)
        return pages[:2] + [pages[1] + PAGE * at for at in range(1, count - 1)]


class AlwaysChains(_Walks):
    """The last entry of a page of the list is always taken for a chain (U-Boot, b21dcebfa6)."""

    def chains(self, left: int) -> bool:
        return True

    def page(self, entry: int) -> int:
        return entry & -PAGE


class NeverChains(_Walks):
    """A list goes on behind its page."""

    def room(self, pointer: int) -> int:
        return PAGE


class IgnoresListOffset(_Walks):
    """A page of the list has 512 entries wherever the list begins (QEMU 5.2)."""

    def room(self, pointer: int) -> int:
        return PAGE // 8


class RepeatsListOffset(_Walks):
    """The next page of a list is taken to begin at the offset of the first."""

    def entries(self, pointer: int, count: int) -> list[int]:
        room = self.room(pointer)
        if count <= room:
            return super().entries(pointer, count)
        (chain,) = struct.unpack("<Q", self.memory.read(pointer + 8 * room - 8, 8))
        first = super().entries(pointer, room - 1) if room > 1 else []
        return first + super().entries(chain + pointer % PAGE, count - room + 1)


class SkipsOddPages(_Walks):
    """An entry that repeats a page's successor is merged, one byte short."""

    def walk(self, prp1: int, prp2: int, size: int) -> list[tuple[int, int]]:
        pieces = super().walk(prp1, prp2, size)
        for at in range(1, len(pieces)):
            if pieces[at][0] < pieces[at - 1][0]:
                pieces[at] = (pieces[at][0] + 4, pieces[at][1] - 4)
                pieces[at - 1] = (pieces[at - 1][0], pieces[at - 1][1] + 4)
                break
        return pieces


class ClearsUnusedPrp2(Controller):
    """Touches the page of PRP2 although all data is in that of PRP1."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        super()._execute(sq)
        if sq.id and request.opcode == NvmOpcode.READ:
            command = Read.from_words(request.words)
            fits = command.prp1 % PAGE + (command.nlb << 9) <= PAGE
            if fits and command.prp2 and command.prp2 % PAGE == 0:
                try:
                    self.memory.write(command.prp2, bytes(4))
                except MemoryFault:
                    pass


def _changed(request: Request, word: int, value: int) -> None:
    words = list(request.words)
    words[word : word + 2] = [value & 0xFFFF_FFFF, value >> 32]
    request.words = tuple(words)


class AdminDataIsContiguous(Controller):
    """Identify data goes on behind the page of PRP1 (bhyve, D19695)."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if not sq.id and request.opcode == AdminOpcode.IDENTIFY:
            prp1 = request.words[6] | request.words[7] << 32
            _changed(request, 8, (prp1 & -PAGE) + PAGE)
        super()._execute(sq)


class WholeLogPages(Controller):
    """A log page is written whole, however little of it was asked for."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if not sq.id and request.opcode == AdminOpcode.GET_LOG_PAGE:
            numd = (request.words[10] >> 16) + 1
            if numd < 128 and (request.words[6] & 0xFFF) + 512 <= PAGE:
                _changed(
                    request, 10, request.words[10] & 0xFFFF | 127 << 16 | request.words[11] << 32
                )
        super()._execute(sq)


class NoLimit(Controller):
    """Names a limit of transfers and does not keep it."""

    def _execute(self, sq: SubmissionQueue) -> None:
        config = self.config
        if sq.id:
            self.config = msgspec.structs.replace(config, mdts=0)
        super()._execute(sq)
        self.config = config


class HalfTheLimit(Controller):
    """Refuses more than half of what it names."""

    def _execute(self, sq: SubmissionQueue) -> None:
        config = self.config
        if sq.id:
            self.config = msgspec.structs.replace(config, mdts=config.mdts - 1)
        super()._execute(sq)
        self.config = config


class LastByteIsOutside(_Walks):
    """Data that ends with the last byte of memory is taken to end behind it."""

    def walk(self, prp1: int, prp2: int, size: int) -> list[tuple[int, int]]:
        pieces = super().walk(prp1, prp2, size)
        if any(addr + length == self.memory.regions[-1].end for addr, length in pieces):
            raise MemoryFault(prp1, size, "behind the end")
        return pieces


class OddAddresses(_Walks):
    """Data begins at any byte (QEMU)."""

    def first(self, prp1: int) -> int:
        return prp1


class RoundsUp(_Walks):
    """PRP1 is rounded up to a dword."""

    def first(self, prp1: int) -> int:
        return prp1 + 3 & ~3


class SpreadsBadEntry(_Walks):
    """An entry with an offset is taken for the page behind."""

    def page(self, entry: int) -> int:
        return entry + PAGE - 1 & -PAGE


class DropsOddLists(_Walks):
    """A command with a list that is not qword aligned is dropped."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if sq.id and request.words[8] & 7 and request.words[12] & 0xFFFF > 16:
            sq.fetched.popleft()
            return
        super()._execute(sq)


class NarrowAddresses(_Walks):
    """Addresses are cut to 32 bits."""

    def walk(self, prp1: int, prp2: int, size: int) -> list[tuple[int, int]]:
        pieces = super().walk(prp1 & 0xFFFF_FFFF, prp2 & 0xFFFF_FFFF, size)
        return [(addr & 0xFFFF_FFFF, length) for addr, length in pieces]


class FaultIsForgotten(Controller):
    """A command whose data cannot be reached is never completed."""

    def finish(self, request: Request, status: int = 0) -> None:
        if status != Status.DATA_TRANSFER_ERROR:
            super().finish(request, status)


BROKEN: dict[str, list[type[Controller]]] = {
    "transfer.one-page": [SectorOffsets, ReadsAhead],
    "transfer.two-pages": [TwoPagesAreAList, AssumesContiguousPages, WholePageFirst],
    "transfer.list": [ListAtPageStart, ForgetsThirdEntry],
    "transfer.list-to-page-end": [AlwaysChains],
    "transfer.list-chain": [NeverChains, IgnoresListOffset, RepeatsListOffset],
    "transfer.shapes": [ForgetsThirdEntry, SkipsOddPages],
    "transfer.unused-prp2": [ClearsUnusedPrp2],
    "transfer.admin": [AdminDataIsContiguous, WholeLogPages],
    "transfer.mdts": [NoLimit, HalfTheLimit],
    "transfer.memory-end": [LastByteIsOutside],
    "transfer.unaligned-prp1": [OddAddresses, RoundsUp],
    "transfer.bad-offsets": [SpreadsBadEntry, DropsOddLists],
    "transfer.no-memory": [NarrowAddresses, FaultIsForgotten],
}
