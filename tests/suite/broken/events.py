"""Faults of Abort and of asynchronous events."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.events import AsyncEvents
from nvmelab.device.queues import Request, SubmissionQueue
from nvmelab.spec.admin import Abort
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.status import NvmeError, Status


class OtherEvents(Controller):
    """A controller with events of the class `kind`."""

    kind: type[AsyncEvents] = AsyncEvents

    def clear(self) -> None:
        super().clear()
        self.events = self.kind(self)


class _Ends(AsyncEvents):
    def park(self, request: Request) -> None:
        super().park(request)
        self.abort(request.cid)


class EndsRequests(OtherEvents):
    """An Asynchronous Event Request ends at once when there is no event."""

    kind = _Ends


class _NoLimit(AsyncEvents):
    def park(self, request: Request) -> None:
        try:
            super().park(request)
        except NvmeError:
            request.sq.outstanding -= 1


class NoLimit(OtherEvents):
    """A request beyond the limit is never completed."""

    kind = _NoLimit


class ParkedTakePlaces(OtherEvents):
    """While requests are parked, no I/O queue is fetched from."""

    def _fetch(self, sq: SubmissionQueue) -> None:
        if sq.id and self.events.parked:
            sq.stopped = True
            return
        super()._fetch(sq)


class _Miscounts(AsyncEvents):
    def abort(self, cid: int) -> bool:
        found = super().abort(cid)
        if found:
            self.parked.append(self.parked[0])
        return found


class AbortedStillCounts(OtherEvents):
    """An aborted request still counts towards the limit."""

    kind = _Miscounts


class _Succeeds(AsyncEvents):
    def _complete(self, request: Request, dw0: int, status: Status) -> None:
        super()._complete(request, dw0, Status.SUCCESS)


class AbortedSucceeds(OtherEvents):
    """An aborted request looks like one with an event."""

    kind = _Succeeds


class _Unmasked(AsyncEvents):
    def _match(self) -> None:
        self.masked.clear()
        super()._match()
        self.masked.clear()


class NeverMasks(OtherEvents):
    """Events are reported as often as they happen."""

    kind = _Unmasked


class _ReadClears(AsyncEvents):
    def error_log(self) -> bytes:
        self.read(LogPage.ERROR_INFORMATION)
        return super().error_log()


class IgnoresRetain(OtherEvents):
    """RAE makes no difference for the error log."""

    kind = _ReadClears


class _NeverReports(AsyncEvents):
    def report(self, type: int, info: int, lid: int, *, sqid: int = 0xFFFF) -> None:
        return


class NeverReports(OtherEvents):
    """There are no events."""

    kind = _NeverReports


class _OtherLog(AsyncEvents):
    def report(self, type: int, info: int, lid: int, *, sqid: int = 0xFFFF) -> None:
        super().report(type, info, 0, sqid=sqid)


class NamesNoLog(OtherEvents):
    """An event does not say in which log page it is."""

    kind = _OtherLog


class AlwaysAborted(Controller):
    """Abort always says that it did it."""

    def finish(self, request: Request, status: int = 0) -> None:
        if not request.sq.id and request.opcode == AdminOpcode.ABORT:
            request.dw0 = 0
        super().finish(request, status)


class AbortsItself(Controller):
    """The Abort gets the status that is meant for the other command (SPDK, vfio-user)."""

    def finish(self, request: Request, status: int = 0) -> None:
        if not request.sq.id and request.opcode == AdminOpcode.ABORT:
            status = Status.COMMAND_ABORT_REQUESTED
        super().finish(request, status)


class AbortsTwice(Controller):
    """What is aborted is completed at once, and again when the storage is done."""

    def _victims(self, command: Abort) -> list[Request]:
        sq = self.sqs.get(command.sqid)
        return [each for each in sq.working if each.cid == command.aborted_cid] if sq else []

    def _end(self, victim: Request) -> None:
        victim.sq.outstanding += 1
        Controller.finish(self, victim, Status.COMMAND_ABORT_REQUESTED)

    def finish(self, request: Request, status: int = 0) -> None:
        if not request.sq.id and request.opcode == AdminOpcode.ABORT:
            for victim in self._victims(Abort.from_words(request.words)):
                self._end(victim)
                request.dw0 = 0
        super().finish(request, status)


class AbortsEveryQueue(AbortsTwice):
    """The commands of that CID on all queues are aborted, once each."""

    def _victims(self, command: Abort) -> list[Request]:
        queues = self.sqs.values()
        found = [each for sq in queues for each in sq.working if each.cid == command.aborted_cid]
        return found if self.sqs.get(command.sqid) else []

    def _end(self, victim: Request) -> None:
        victim.dropped = True
        victim.sq.working.discard(victim)
        Controller.finish(self, victim, Status.COMMAND_ABORT_REQUESTED)


class WritesAfterAbort(AbortsTwice):
    """An aborted read is completed, and still writes its data."""

    def clear(self) -> None:
        super().clear()
        self._ended: list[Request] = []

    def _end(self, victim: Request) -> None:
        Controller.finish(self, victim, Status.COMMAND_ABORT_REQUESTED)
        self._ended.append(victim)

    def finish(self, request: Request, status: int = 0) -> None:
        if request not in self._ended:
            super().finish(request, status)


BROKEN: dict[str, list[type[Controller]]] = {
    "admin.event-requests": [EndsRequests, NoLimit, ParkedTakePlaces],
    "admin.event-abort": [AbortedStillCounts, AbortedSucceeds],
    "admin.event-temperature": [NeverReports, NeverMasks, NamesNoLog],
    "admin.abort-nothing": [AlwaysAborted],
    "admin.abort": [
        AlwaysAborted,
        AbortsItself,
        AbortsTwice,
        AbortsEveryQueue,
        WritesAfterAbort,
    ],
}
