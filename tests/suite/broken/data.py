"""Faults in where data goes, and when."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from nvmelab.device.controller import Controller
from nvmelab.device.queues import Request, SubmissionQueue
from nvmelab.device.transfer import from_host, to_host
from nvmelab.spec.admin import Identify
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.identify import Cns
from nvmelab.spec.nvm import Flush, Read, Write, WriteZeroes
from nvmelab.spec.status import Status

_COMPARE = 0x05


def _opcode(sq: SubmissionQueue) -> int | None:
    """Of the I/O command that is next."""
    return sq.fetched[0].opcode if sq.id else None


def _reworded(request: Request, changes: dict[int, int]) -> None:
    request.words = tuple(changes.get(at, word) for at, word in enumerate(request.words))


class ForgetsLastBlock(Controller):
    """A write of 33 blocks is one of 32: the counter has 5 bits."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if _opcode(sq) == NvmOpcode.WRITE and request.words[12] & 0xFFFF == 32:
            _reworded(request, {12: request.words[12] - 1})
        super()._execute(sq)


class SwapsQueues(Controller):
    """While reads of two queues are at work, each takes the other's place in memory."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        last: Request | None = self.__dict__.get("last")
        if _opcode(sq) == NvmOpcode.READ:
            if last and last.sq.id != sq.id and last.words[12] == request.words[12]:
                _reworded(request, {10: last.words[10], 11: last.words[11]})
            self.__dict__["last"] = request
        super()._execute(sq)


class KeepsLongerWrite(Controller):
    """A write that lies within the one before is taken for a repetition."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == NvmOpcode.WRITE:
            command = Write.from_words(sq.fetched[0].words)
            start, end = self.__dict__.get("span", (0, 0))
            if start < command.slba and command.slba + command.nlb < end:
                self.finish(sq.fetched.popleft())
                return
            self.__dict__["span"] = command.slba, command.slba + command.nlb
        super()._execute(sq)


class OneMedium(Controller):
    """All namespaces share the blocks of the first."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) in (NvmOpcode.READ, NvmOpcode.WRITE):
            _reworded(sq.fetched[0], {1: 1})
        super()._execute(sq)


class NarrowLba(Controller):
    """Keeps 16 bits of an LBA."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) in (NvmOpcode.READ, NvmOpcode.WRITE):
            _reworded(sq.fetched[0], {10: sq.fetched[0].words[10] & 0xFFFF})
        super()._execute(sq)


class LastBlockIsOutside(Controller):
    """A transfer that ends with the last block is out of range."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) in (NvmOpcode.READ, NvmOpcode.WRITE):
            command = Read.from_words(sq.fetched[0].words)
            if command.slba + command.nlb == self.namespaces[1].nsze:
                self.finish(sq.fetched.popleft(), Status.LBA_OUT_OF_RANGE)
                return
        super()._execute(sq)


class ForcedIsForgotten(Controller):
    """A write with FUA goes past the cache that later reads are served from."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if _opcode(sq) == NvmOpcode.WRITE and request.words[12] >> 30 & 1:
            self.finish(sq.fetched.popleft())
            return
        super()._execute(sq)


class ForcedIsReserved(Controller):
    """Refuses FUA."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == NvmOpcode.READ and sq.fetched[0].words[12] >> 30 & 1:
            self.finish(sq.fetched.popleft(), Status.INVALID_FIELD_IN_COMMAND)
            return
        super()._execute(sq)


class FlushDropsWrites(Controller):
    """A write while a flush is under way in the same queue is lost."""

    def _execute(self, sq: SubmissionQueue) -> None:
        before: int = self.__dict__.get("before", 0)
        opcode = _opcode(sq)
        if opcode is not None:
            self.__dict__["before"] = opcode
        if opcode == NvmOpcode.WRITE and before == Flush.opcode and sq.outstanding > 1:
            self.finish(sq.fetched.popleft())
            return
        super()._execute(sq)


class ResetLosesWrites(Controller):
    """A reset goes back to what was there before the last flush."""

    def clear(self) -> None:
        undo: list[Callable[[], None]] = self.__dict__.setdefault("undo", [])
        for step in reversed(undo):
            step()
        undo.clear()
        super().clear()

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == NvmOpcode.WRITE:
            command = Write.from_words(sq.fetched[0].words)
            backend = self.namespaces[command.nsid].backend
            old = bytearray(command.nlb << 9)
            backend.read(command.slba << 9, [memoryview(old)])
            put = partial(backend.write, command.slba << 9, [memoryview(old)])
            self.__dict__["undo"].append(put)
        super()._execute(sq)


class CompletesBeforeMoving(Controller):
    """A read is completed first, and its data comes with the next command."""

    def _execute(self, sq: SubmissionQueue) -> None:
        late: list[Callable[[], None]] = self.__dict__.setdefault("late", [])
        while late:
            late.pop()()
        if _opcode(sq) == NvmOpcode.READ:
            request = sq.fetched.popleft()
            command = Read.from_words(request.words)
            data = bytearray(command.nlb << 9)
            self.namespaces[command.nsid].backend.read(command.slba << 9, [memoryview(data)])
            late.append(partial(to_host, self, command, bytes(data)))
            self.finish(request)
            return
        super()._execute(sq)


class TakesDataLate(Controller):
    """A write is completed first, and its data is taken with the next command."""

    def _execute(self, sq: SubmissionQueue) -> None:
        late: list[Callable[[], None]] = self.__dict__.setdefault("late", [])
        while late:
            late.pop()()
        if _opcode(sq) == NvmOpcode.WRITE:
            request = sq.fetched.popleft()
            command = Write.from_words(request.words)

            def move() -> None:
                data = bytearray(from_host(self, command, command.nlb << 9))
                backend = self.namespaces[command.nsid].backend
                backend.write(command.slba << 9, [memoryview(data)])

            late.append(move)
            self.finish(request)
            return
        super()._execute(sq)


class AnswersInOrder(Controller):
    """The storage's answers are taken for those of the oldest command of the queue."""

    def _finish_step(self) -> None:
        assert self.worker
        token, error = self.worker.finished[0]
        if isinstance(token, Request) and token.sq.id and token.sq.working:
            oldest = min(token.sq.working, key=lambda request: request.cid)
            self.worker.finished[0] = (oldest, error)
        super()._finish_step()


class ZeroesOneLess(Controller):
    """Write Zeroes of more than one block leaves the last one."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == WriteZeroes.opcode and sq.fetched[0].words[12] & 0xFFFF:
            _reworded(sq.fetched[0], {12: sq.fetched[0].words[12] - 1})
        super()._execute(sq)


class OnlyDeallocates(Controller):
    """Write Zeroes only discards: parts of pages stay as they are."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == WriteZeroes.opcode:
            request = sq.fetched.popleft()
            command = WriteZeroes.from_words(request.words)
            backend = self.namespaces[command.nsid].backend
            backend.discard(command.slba << 9, command.nlb << 9)
            self.finish(request)
            return
        super()._execute(sq)


class RangesFromZero(Controller):
    """The number of blocks of a range is taken for 0's based: one too many is deallocated."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == NvmOpcode.DATASET_MANAGEMENT:
            request = sq.fetched.popleft()
            command = Read.from_words(request.words)
            data = from_host(self, command, 16 * (request.words[10] + 1))
            for at in range(0, len(data), 16):
                nlb = int.from_bytes(data[at + 4 : at + 8], "little") + 1
                slba = int.from_bytes(data[at + 8 : at + 16], "little")
                backend = self.namespaces[1].backend
                backend.write_zeroes(slba << 9, nlb << 9, may_unmap=False)
            self.finish(request)
            return
        super()._execute(sq)


class DeallocatedIsNoise(Controller):
    """A deallocated block reads as something else than DLFEAT says."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if _opcode(sq) == NvmOpcode.DATASET_MANAGEMENT:
            data = from_host(self, Read.from_words(request.words), 16)
            slba = int.from_bytes(data[8:16], "little")
            self.namespaces[1].backend.write(slba << 9, [memoryview(bytearray(b"\xff" * 512))])
        super()._execute(sq)


class _Compares(Controller):
    """Says that it supports Compare."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if not sq.id and request.opcode == AdminOpcode.IDENTIFY:
            command = Identify.from_words(request.words)
            super()._execute(sq)
            if command.cns == Cns.CONTROLLER:
                oncs = self.memory.read(command.prp1 + 520, 1)[0]
                self.memory.write(command.prp1 + 520, bytes([oncs | 1]))
            return
        if _opcode(sq) != _COMPARE:
            super()._execute(sq)
            return
        sq.fetched.popleft()
        command_of = Read.from_words(request.words)
        data = bytearray(command_of.nlb << 9)
        self.namespaces[1].backend.read(command_of.slba << 9, [memoryview(data)])
        self.finish(request, self.result(from_host(self, command_of, len(data)), bytes(data)))

    def result(self, given: bytes, there: bytes) -> int:
        """The status for these two pieces of data."""
        raise NotImplementedError


class ComparesNothing(_Compares):
    """Compare succeeds whatever the data."""

    def result(self, given: bytes, there: bytes) -> int:
        return 0


class ComparesOtherwise(_Compares):
    """A difference is reported as a fault of the medium."""

    def result(self, given: bytes, there: bytes) -> int:
        return 0 if given == there else int(Status.UNRECOVERED_READ_ERROR)


class PretendsToCompare(Controller):
    """Succeeds with a command that it does not support."""

    def _execute(self, sq: SubmissionQueue) -> None:
        if _opcode(sq) == _COMPARE:
            self.finish(sq.fetched.popleft())
            return
        super()._execute(sq)


BROKEN: dict[str, list[type[Controller]]] = {
    "data.random": [ForgetsLastBlock, SwapsQueues],
    "data.overlapping-writes": [KeepsLongerWrite],
    "data.namespaces": [OneMedium],
    "data.first-and-last": [NarrowLba, LastBlockIsOutside],
    "data.forced-access": [ForcedIsForgotten, ForcedIsReserved],
    "data.flush": [FlushDropsWrites],
    "data.after-reset": [ResetLosesWrites],
    "data.buffer-reuse": [CompletesBeforeMoving, TakesDataLate],
    "data.held-read": [AnswersInOrder],
    "data.write-zeroes": [ZeroesOneLess, OnlyDeallocates],
    "data.deallocate": [RangesFromZero, DeallocatedIsNoise],
    "data.compare": [ComparesNothing, ComparesOtherwise, PretendsToCompare],
}
