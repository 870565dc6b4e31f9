"""Faults of doorbell writes that cannot mean anything."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.events import AsyncEvents
from nvmelab.device.queues import CompletionQueue
from nvmelab.spec.events import ErrorEvent
from nvmelab.spec.registers import DOORBELLS
from tests.suite.broken.events import IgnoresRetain, NeverMasks, NeverReports, OtherEvents


class BadDoorbells(Controller):
    """Doorbell writes that cannot mean anything go to `bad`, before they are dealt with."""

    def bad(self, qid: int, head: bool, value: int) -> None:
        """The doorbell of CQ `qid`, or else of SQ `qid`, was written."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset >= DOORBELLS and self.sqs:
            qid, head = offset - DOORBELLS >> 3, bool(offset & 4)
            queue = self.cqs.get(qid) if head else self.sqs.get(qid)
            if queue is None or not queue.may_become(value):
                self.bad(qid, head, value)
        super().mmio_write(offset, size, value)


class Fails(BadDoorbells):
    """A bad value is a fatal failure of the controller."""

    def bad(self, qid: int, head: bool, value: int) -> None:
        self.life.fatal()


class FailsUnasked(BadDoorbells):
    """A bad value is a fatal failure where nobody has asked for events."""

    def bad(self, qid: int, head: bool, value: int) -> None:
        if not self.events.parked:
            self.life.fatal()


class StopsOthers(BadDoorbells):
    """A bad value stops every I/O queue."""

    def bad(self, qid: int, head: bool, value: int) -> None:
        for sq in self.sqs.values():
            sq.stopped |= sq.id > 0


class StaysBad(BadDoorbells):
    """A queue that had a bad value is stopped for ever, even if it is created again."""

    def clear(self) -> None:
        super().clear()
        self._bad: set[int] = set()

    def bad(self, qid: int, head: bool, value: int) -> None:
        self._bad.add(qid)

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        self.sqs[id].stopped = id in self._bad


class BeginsWhereWritten(BadDoorbells):
    """A doorbell that is written before its queue exists is where the queue begins."""

    def clear(self) -> None:
        super().clear()
        self._early: dict[int, int] = {}

    def bad(self, qid: int, head: bool, value: int) -> None:
        if not head and qid not in self.sqs:
            self._early[qid] = value

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        early = self._early.pop(id, 0)
        self.sqs[id].head = self.sqs[id].tail = early % size


class _OtherInformation(AsyncEvents):
    def report(self, type: int, info: int, lid: int, *, sqid: int = 0xFFFF) -> None:
        other = {
            int(ErrorEvent.INVALID_DOORBELL_VALUE): ErrorEvent.INVALID_DOORBELL_REGISTER,
            int(ErrorEvent.INVALID_DOORBELL_REGISTER): ErrorEvent.INVALID_DOORBELL_VALUE,
        }
        super().report(type, other.get(info, info), lid, sqid=sqid)


class TakesValueForRegister(OtherEvents):
    """The information of the two kinds of events is exchanged."""

    kind = _OtherInformation


BROKEN: dict[str, list[type[Controller]]] = {
    "doorbells.tail": [NeverReports, TakesValueForRegister, Fails, StopsOthers],
    "doorbells.head": [NeverReports, TakesValueForRegister, Fails, StaysBad],
    "doorbells.event-once": [NeverMasks, IgnoresRetain],
    "doorbells.missing-queue": [TakesValueForRegister, Fails, BeginsWhereWritten],
    "doorbells.without-request": [FailsUnasked, StopsOthers, StaysBad],
    "doorbells.head-beyond": [Fails, StaysBad, TakesValueForRegister],
}
