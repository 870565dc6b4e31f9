"""Faults in the creation and deletion of queues."""

from __future__ import annotations

from typing import Any

import msgspec

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.spec.admin import CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq
from nvmelab.spec.commands import AdminOpcode, Command
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS
from nvmelab.spec.status import Status

KINDS: dict[int, type[Command]] = {
    int(kind.opcode): kind for kind in (CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq)
}


class AltersCommands(Controller):
    """Sees each command about queues before it is carried out."""

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        kind = KINDS.get(request.opcode) if sq.id == 0 else None
        if kind:
            answer = self.look(request, kind.from_words(request.words))
            if answer is not None:
                sq.fetched.popleft()
                self.finish(request, answer)
                return
        super()._execute(sq)

    def look(self, request: Request, command: Any) -> int | None:
        """A status ends the command with it; None lets it go on."""
        raise NotImplementedError

    @staticmethod
    def replace(request: Request, command: Command, **changes: int) -> None:
        data = msgspec.structs.replace(command, **changes).encode()
        words = (int.from_bytes(data[at : at + 4], "little") for at in range(0, 64, 4))
        request.words = tuple(words)


class AcceptsQueueZero(AltersCommands):
    """Creates queue 0 once more, as far as anybody is told."""

    def look(self, request: Request, command: Any) -> int | None:
        creates = request.opcode in (AdminOpcode.CREATE_IO_CQ, AdminOpcode.CREATE_IO_SQ)
        return 0 if creates and command.qid == 0 else None


class AcceptsQueuesBeyond(AltersCommands):
    """Takes any identifier, also those that have no doorbell."""

    def look(self, request: Request, command: Any) -> int | None:
        return 0 if command.qid > self.config.io_queues else None


class ReplacesQueueInUse(AltersCommands):
    """Forgets the old queue of an identifier that is created again."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoCq) and command.qid in self.cqs and command.qid:
            del self.cqs[command.qid]
        if isinstance(command, CreateIoSq) and command.qid in self.sqs and command.qid:
            self.remove_sq(self.sqs[command.qid])
        return None


class CountsRefusedQueues(AltersCommands):
    """A submission queue that is refused counts as bound to its completion queue."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoSq) and command.qid in self.sqs:
            self.cqs[command.cqid].sqs += 1
        return None


class _Revision2(AltersCommands):
    """Says that it is of revision 2.0, which leaves less open."""

    def clear(self) -> None:
        super().clear()
        self.life.registers["vs"] = 0x0002_0000


class AnyBadCqidIsInvalidCq(_Revision2):
    """Answers every bad CQID alike, as QEMU does."""

    def look(self, request: Request, command: Any) -> int | None:
        bad = isinstance(command, CreateIoSq) and command.cqid in (0, 0xFFFF)
        return Status.COMPLETION_QUEUE_INVALID if bad else None


class AnyBadCqidIsInvalidIdentifier(_Revision2):
    """Answers a CQ that was not created like one that cannot exist."""

    def look(self, request: Request, command: Any) -> int | None:
        bad = isinstance(command, CreateIoSq) and command.cqid not in self.cqs
        return Status.INVALID_QUEUE_IDENTIFIER if bad else None


class ListIsBadOffset(_Revision2):
    """Refuses a completion queue that is not contiguous with another status."""

    def look(self, request: Request, command: Any) -> int | None:
        listed = isinstance(command, CreateIoCq) and not command.pc
        return Status.PRP_OFFSET_INVALID if listed else None


class BindsToAdminQueue(AltersCommands):
    """Creates a submission queue on the admin completion queue."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoSq) and command.cqid == 0:
            self.add_sq(command.qid, command.prp1, command.qsize, self.cqs[0])
            return 0
        return None


class CreatesMissingCq(AltersCommands):
    """Takes a submission queue whose completion queue may come later."""

    def look(self, request: Request, command: Any) -> int | None:
        missing = isinstance(command, CreateIoSq) and command.cqid not in self.cqs
        return 0 if missing and command.cqid <= self.config.io_queues else None


class CreatesBeforeItLooks(AltersCommands):
    """A queue whose size is wrong is refused, and exists."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoCq | CreateIoSq) and command.qsize == 1:
            if isinstance(command, CreateIoCq):
                cq = CompletionQueue(command.qid, command.prp1, 2, 0, False)
                self.add_cq(cq)
            else:
                self.add_sq(command.qid, command.prp1, 2, self.cqs[command.cqid])
            return Status.INVALID_QUEUE_SIZE
        return None


class TakesAnySize(AltersCommands):
    """Cuts a queue that is too large to the largest size."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoCq | CreateIoSq):
            size = min(command.qsize, self.config.queue_entries)
            self.replace(request, command, qsize=size)
        return None


class TakesAnyVector(AltersCommands):
    """Does not compare the vector with the size of the table."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoCq) and command.iv >= self.config.vectors:
            self.replace(request, command, ien=0)
        return None


class OneVectorLess(AltersCommands):
    """Refuses the last vector of the table."""

    def look(self, request: Request, command: Any) -> int | None:
        last = isinstance(command, CreateIoCq) and command.iv == self.config.vectors - 1
        return Status.INVALID_INTERRUPT_VECTOR if last else None


class TakesListForRing(AltersCommands):
    """Takes the PRP list of a submission queue for the queue itself."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoSq):
            self.replace(request, command, pc=1)
        return None


class TakesCqListForRing(AltersCommands):
    """Takes the PRP list of a completion queue for the queue itself."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoCq):
            self.replace(request, command, pc=1)
        return None


class RoundsBaseDown(AltersCommands):
    """Drops the offset of a completion queue's base."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoCq):
            self.replace(request, command, prp1=command.prp1 & ~0xFFF)
        return None


class RoundsSqBaseDown(AltersCommands):
    """Drops the offset of a submission queue's base."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, CreateIoSq):
            self.replace(request, command, prp1=command.prp1 & ~0xFFF)
        return None


class WritesBehindTheEnd(Controller):
    """Zeroes the entry after the one it has written, also behind the last."""

    def _post(self, cq: CompletionQueue) -> None:
        if cq.tail == cq.size - 1 and cq.id:
            self.memory.store_u64(cq.base + cq.size * CQE_SIZE, 0)
        super()._post(cq)


class FewDoorbells(Controller):
    """Only the first 15 queues have doorbells."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset < DOORBELLS + 16 * 8:
            super().mmio_write(offset, size, value)


class SameIdentifierForBoth(Controller):
    """Binds a submission queue to the completion queue of its own identifier, if there is one."""

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, self.cqs.get(id, cq))


class OneQueueOfAVector(Controller):
    """Raises a vector for the first completion queue on it, and for no other."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        mine = [other.id for other in self.cqs.values() if other.vector == cq.vector]
        if cq.id and cq.id != min(mine):
            cq.unsignalled = False
            return
        super()._interrupt(cq)


class _TwoFree(CompletionQueue):
    @property
    def full(self) -> bool:
        return (self.tail + 2) % self.size == self.head or super().full


class KeepsTwoFree(Controller):
    """Keeps two entries of a completion queue free."""

    def add_cq(self, cq: CompletionQueue) -> None:
        super().add_cq(_TwoFree(cq.id, cq.base, cq.size, cq.vector, cq.ien))


class DeletesTwice(AltersCommands):
    """The deletion of a queue that does not exist succeeds."""

    def look(self, request: Request, command: Any) -> int | None:
        sq, cq = isinstance(command, DeleteIoSq), isinstance(command, DeleteIoCq)
        gone = (sq and command.qid not in self.sqs) or (cq and command.qid not in self.cqs)
        return 0 if gone else None


class DeletesQueueZero(AltersCommands):
    """The admin queue can be deleted (SPDK issue 2172), as far as anybody is told."""

    def look(self, request: Request, command: Any) -> int | None:
        return 0 if isinstance(command, DeleteIoSq) and command.qid == 0 else None


class DeletesBoundQueue(AltersCommands):
    """A completion queue goes although submission queues are bound to it."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, DeleteIoCq) and command.qid in self.cqs:
            self.cqs[command.qid].sqs = 0
        return None


class BoundQueueIsBadIdentifier(AltersCommands):
    """Answers the deletion of a bound completion queue like that of one that does not exist."""

    def look(self, request: Request, command: Any) -> int | None:
        bound = isinstance(command, DeleteIoCq) and command.qid and self.cqs[command.qid].sqs
        return Status.INVALID_QUEUE_IDENTIFIER if bound else None


class KeepsPhaseOfOld(Controller):
    """A new completion queue goes on with the phase tag of the old one."""

    def remove_cq(self, cq: CompletionQueue) -> None:
        super().remove_cq(cq)
        self.left = {**getattr(self, "left", {}), cq.id: cq.phase}

    def add_cq(self, cq: CompletionQueue) -> None:
        super().add_cq(cq)
        cq.phase = getattr(self, "left", {}).get(cq.id, 1)


class KeepsHeadOfOld(Controller):
    """A new submission queue begins where the old one was."""

    def remove_sq(self, sq: SubmissionQueue) -> None:
        super().remove_sq(sq)
        self.left = {**getattr(self, "left", {}), sq.id: sq.head}

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        head = getattr(self, "left", {}).get(id, 0) % size
        self.sqs[id].head = self.sqs[id].tail = head


class GoesOnAfterDeletion(Controller):
    """Takes what is left in a ring once more after it was deleted."""

    def remove_sq(self, sq: SubmissionQueue) -> None:
        super().remove_sq(sq)
        while sq.head != sq.tail:
            self._fetch(sq)
            self._execute(sq)


class PostsAfterDeletion(Controller):
    """Posts what had finished when its queue was deleted, as soon as there is room."""

    def remove_sq(self, sq: SubmissionQueue) -> None:
        finished = sq.cq.finished
        super().remove_sq(sq)
        sq.cq.finished = finished


class BlamesTheCommand(Controller):
    """Completes what its queue's deletion has aborted as if the command had been wrong."""

    def remove_sq(self, sq: SubmissionQueue) -> None:
        finished = list(sq.cq.finished)
        super().remove_sq(sq)
        for request in finished:
            if request.sq is sq:
                self.finish(request, Status.INVALID_FIELD_IN_COMMAND)


class DeletionNeverEnds(AltersCommands):
    """A deletion waits until every completion of the queue is posted, and nobody tells it."""

    def look(self, request: Request, command: Any) -> int | None:
        if isinstance(command, DeleteIoSq) and command.qid in self.sqs:
            sq = self.sqs[command.qid]
            if sq.outstanding:
                sq.deletion, sq.stopped = request, True
        return None

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        super()._execute(sq)
        for other in self.sqs.values():
            if other.deletion is request:
                sq.cq.finished.pop()


class ForgetsTheOthers(Controller):
    """A deletion drops everything that waits for room in the completion queue."""

    def remove_sq(self, sq: SubmissionQueue) -> None:
        super().remove_sq(sq)
        sq.cq.finished.clear()


BROKEN: dict[str, list[type[Controller]]] = {
    "queues.cq-identifiers": [AcceptsQueueZero, AcceptsQueuesBeyond, ReplacesQueueInUse],
    "queues.sq-identifiers": [
        AcceptsQueueZero,
        AcceptsQueuesBeyond,
        ReplacesQueueInUse,
        CountsRefusedQueues,
    ],
    "queues.sq-cqid-absent": [AnyBadCqidIsInvalidIdentifier, CreatesMissingCq],
    "queues.sq-cqid": [AnyBadCqidIsInvalidCq, BindsToAdminQueue],
    "queues.cq-size": [CreatesBeforeItLooks, TakesAnySize],
    "queues.sq-size": [CreatesBeforeItLooks, TakesAnySize],
    "queues.vector": [TakesAnyVector, OneVectorLess],
    "queues.contiguous": [TakesListForRing, TakesCqListForRing, ListIsBadOffset],
    "queues.aligned": [RoundsBaseDown, RoundsSqBaseDown],
    "queues.page-end": [WritesBehindTheEnd],
    "queues.all": [FewDoorbells],
    "queues.any-identifier": [SameIdentifierForBoth, FewDoorbells],
    "queues.shared-vector": [OneQueueOfAVector],
    "queues.smallest": [KeepsTwoFree],
    "queues.delete-refused": [DeletesTwice, DeletesQueueZero],
    "queues.delete-bound": [DeletesBoundQueue, BoundQueueIsBadIdentifier],
    "queues.recreate": [KeepsPhaseOfOld, KeepsHeadOfOld],
    "queues.delete-busy": [GoesOnAfterDeletion],
    "queues.delete-unposted": [PostsAfterDeletion, ForgetsTheOthers],
    "queues.delete-held": [BlamesTheCommand, DeletionNeverEnds],
}
