"""Faults in what commands are answered, and in interrupts."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.dispatch import IO_COMMANDS
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.nvm import Read
from nvmelab.spec.status import Status


class SmallIdentifiers(Controller):
    """Keeps 12 bits of a command identifier (the firmware of Apple's T2, and its like)."""

    def _fetch(self, sq: SubmissionQueue) -> None:
        super()._fetch(sq)
        if sq.id and sq.fetched:
            sq.fetched[-1].cid &= 0xFFF


class SmallAdminIdentifiers(Controller):
    """Keeps 8 bits of an admin command's identifier."""

    def _fetch(self, sq: SubmissionQueue) -> None:
        super()._fetch(sq)
        if not sq.id and sq.fetched:
            sq.fetched[-1].cid &= 0xFF


class LastIdentifierIsNone(Controller):
    """Takes the identifier FFFFh for "no command"."""

    def finish(self, request: Request, status: int = 0) -> None:
        if request.cid != 0xFFFF:
            super().finish(request, status)


class IdentifiersOfTheController(Controller):
    """Takes an identifier that another queue has in use for a conflict."""

    def _execute(self, sq: SubmissionQueue) -> None:
        cid = sq.fetched[0].cid
        others = (other for other in self.sqs.values() if other is not sq)
        if sq.id and any(request.cid == cid for other in others for request in other.working):
            self.finish(sq.fetched.popleft(), Status.COMMAND_ID_CONFLICT)
            return
        super()._execute(sq)


class FindsByIdentifierAlone(Controller):
    """Keeps commands by their identifier alone: the status of one queue's goes to another's."""

    def finish(self, request: Request, status: int = 0) -> None:
        mixed: dict[int, int] = self.__dict__.setdefault("mixed", {})
        status = mixed.pop(id(request), status)
        for sq in self.sqs.values():
            for other in sq.working:
                if other.cid == request.cid and sq is not request.sq and request.sq.id:
                    mixed[id(other)], status = status, 0
        super().finish(request, status)


class _Answers(Controller):
    """Ends some I/O commands with a status of its own."""

    def _execute(self, sq: SubmissionQueue) -> None:
        answer = self.answer(sq.fetched[0]) if sq.id else None
        if answer is None:
            super()._execute(sq)
        else:
            self.finish(sq.fetched.popleft(), answer)

    def answer(self, request: Request) -> int | None:
        raise NotImplementedError


class UnknownOpcodeSucceeds(_Answers):
    """Completes what it does not know with success."""

    def answer(self, request: Request) -> int | None:
        return None if request.opcode in IO_COMMANDS else 0


class UnknownOpcodeIsInvalidField(_Answers):
    """Blames a field for an unknown opcode."""

    def answer(self, request: Request) -> int | None:
        return None if request.opcode in IO_COMMANDS else Status.INVALID_FIELD_IN_COMMAND


class AnyNamespaceIsTheFirst(_Answers):
    """Reads and writes namespace 1 whatever the NSID is."""

    def answer(self, request: Request) -> int | None:
        if request.nsid not in self.namespaces:
            words = list(request.words)
            words[1] = request.nsid = 1
            request.words = tuple(words)
        return None


class CountsBadNamespacesTwice(Controller):
    """A command to a namespace that does not exist stays in the count (OpenVMM, PR 3474)."""

    def _post(self, cq: CompletionQueue) -> None:
        request = cq.finished[0]
        super()._post(cq)
        if request.status & 0x7FF == Status.INVALID_NAMESPACE_OR_FORMAT:
            request.sq.outstanding += 1


class RangesWrap(_Answers):
    """Adds the first block and the number of blocks in 64 bits."""

    def answer(self, request: Request) -> int | None:
        if request.opcode in (NvmOpcode.READ, NvmOpcode.WRITE):
            command = Read.from_words((request.opcode, *request.words[1:]))
            if command.slba + command.nlb > 2**64:
                words = list(request.words)
                words[10] = words[11] = 0
                request.words = tuple(words)
        return None


class WritesWhatFits(_Answers):
    """Writes the blocks that exist, and refuses the command then."""

    def answer(self, request: Request) -> int | None:
        space = self.namespaces.get(request.nsid)
        if space and request.opcode == NvmOpcode.WRITE:
            slba, nlb = request.words[10] | request.words[11] << 32, request.words[12] + 1
            if slba < space.nsze < slba + nlb:
                space.backend.write(slba << space.shift, [memoryview(b"\xee" * 512)])
        return None


class AllowsOneMore(_Answers):
    """Takes the size of a namespace for its last block."""

    def answer(self, request: Request) -> int | None:
        space = self.namespaces.get(request.nsid)
        beyond = space and request.words[11] == 0 and request.words[10] == space.nsze
        return 0 if beyond and request.words[12] & 0xFFFF == 0 else None


class RaisesNeighbours(Controller):
    """Raises the vector of every completion queue."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        super()._interrupt(cq)
        for other in self.cqs.values():
            if other is not cq and other.ien and cq.id:
                self.interrupt(other.vector)


class IgnoresIen(Controller):
    """Raises the vector of a completion queue without interrupts."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        super()._interrupt(cq)
        if not cq.ien:
            self.interrupt(cq.vector)


class InterruptsAtCreation(Controller):
    """Raises the vector of a completion queue when it is created."""

    def add_cq(self, cq: CompletionQueue) -> None:
        super().add_cq(cq)
        if cq.id and cq.ien:
            self.interrupt(cq.vector)


class VectorIsIdentifier(Controller):
    """Raises the vector of the queue's identifier."""

    def add_cq(self, cq: CompletionQueue) -> None:
        cq.vector = cq.id
        super().add_cq(cq)


class InterruptsOnlyWhenEmpty(Controller):
    """Raises no interrupt while an earlier entry was not released."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        if cq.id and (cq.tail - cq.head) % cq.size > 1:
            cq.unsignalled = False
            return
        super()._interrupt(cq)


class InterruptsOncePerLap(Controller):
    """Raises no interrupt for the last entry of a ring."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        if cq.id and cq.tail == 0:
            cq.unsignalled = False
            return
        super()._interrupt(cq)


class RefusesFlushOfAll(_Answers):
    """Refuses the Flush of all namespaces that VWC promises."""

    def answer(self, request: Request) -> int | None:
        broadcast = request.opcode == NvmOpcode.FLUSH and request.nsid == 0xFFFF_FFFF
        return Status.INVALID_NAMESPACE_OR_FORMAT if broadcast else None


class FlushesOnlyTheFirst(_Answers):
    """Knows Flush for namespace 1 only."""

    def answer(self, request: Request) -> int | None:
        other = request.opcode == NvmOpcode.FLUSH and request.nsid not in (1, 0xFFFF_FFFF)
        return Status.INVALID_FIELD_IN_COMMAND if other else None


class DropsReserved(Controller):
    """Drops a command whose dwords 2 and 3 are not zero."""

    def finish(self, request: Request, status: int = 0) -> None:
        if not any(request.words[2:4]):
            super().finish(request, status)


class CompletesReservedTwice(Controller):
    """Refuses a command because of dword 15, and carries it out."""

    def finish(self, request: Request, status: int = 0) -> None:
        super().finish(request, status)
        if request.words[15] and request.sq.id:
            super().finish(request, Status.INVALID_FIELD_IN_COMMAND)


class DropsReservedAdmin(Controller):
    """Drops an Identify whose dword 13 is not zero."""

    def finish(self, request: Request, status: int = 0) -> None:
        identify = request.sq.id == 0 and request.opcode == AdminOpcode.IDENTIFY
        if not (identify and request.words[13]):
            super().finish(request, status)


BROKEN: dict[str, list[type[Controller]]] = {
    "commands.identifiers": [SmallIdentifiers, SmallAdminIdentifiers, LastIdentifierIsNone],
    "commands.same-identifier": [IdentifiersOfTheController, FindsByIdentifierAlone],
    "commands.opcode": [UnknownOpcodeSucceeds, UnknownOpcodeIsInvalidField],
    "commands.namespace": [AnyNamespaceIsTheFirst, CountsBadNamespacesTwice],
    "commands.range": [RangesWrap, WritesWhatFits, AllowsOneMore],
    "commands.interrupts": [
        RaisesNeighbours,
        IgnoresIen,
        InterruptsAtCreation,
        VectorIsIdentifier,
    ],
    "commands.interrupt-handler": [InterruptsOnlyWhenEmpty, InterruptsOncePerLap],
    "commands.flush": [RefusesFlushOfAll, FlushesOnlyTheFirst],
    "commands.reserved": [DropsReserved, CompletesReservedTwice, DropsReservedAdmin],
}
