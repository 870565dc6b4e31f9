"""Faults of the rings."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.spec.registers import DOORBELLS


class ForgetsLastEntry(Controller):
    """Never fetches the entry in the last slot of a ring before the tail has wrapped past it."""

    def _fetch(self, sq: SubmissionQueue) -> None:
        if sq.id and sq.head == sq.size - 1 and sq.tail == 0:
            sq.stopped = True
            return
        super()._fetch(sq)


class KeepsPhase(Controller):
    """The phase tag does not invert at the wrap."""

    def _post(self, cq: CompletionQueue) -> None:
        super()._post(cq)
        if cq.id:
            cq.phase = 1


class DropsWhenFull(Controller):
    """A completion that finds no free entry is dropped (a controller of linux-nvme, 2026-02)."""

    def finish(self, request: Request, status: int = 0) -> None:
        cq = request.sq.cq
        if cq.id and (cq.tail + 1 + len(cq.finished)) % cq.size == cq.head:
            request.sq.outstanding -= 1
            return
        super().finish(request, status)


class IgnoresReleaseOfFullQueue(Controller):
    """The head doorbell of a full completion queue is not looked at when it releases one entry."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        cq = self.cqs.get((offset - DOORBELLS) >> 3) if offset >= DOORBELLS + 8 else None
        if cq and offset & 4 and cq.full and value == (cq.head + 1) % cq.size:
            return
        super().mmio_write(offset, size, value)


class OverrunsCompletionQueue(Controller):
    """A completion queue is used to its last entry: the host then sees an empty ring."""

    def _post(self, cq: CompletionQueue) -> None:
        super()._post(cq)
        if cq.id and cq.full and cq.finished:
            super()._post(cq)


class SqhdLags(Controller):
    """SQHD is one entry behind, for ever."""

    def _post(self, cq: CompletionQueue) -> None:
        sq = cq.finished[0].sq
        head = sq.head
        if sq.id:
            sq.head = (head - 1) % sq.size
        super()._post(cq)
        sq.head = head


class LargestQueueIsOneLess(Controller):
    """A queue of CAP.MQES + 1 entries wraps one entry early."""

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        if size == self.config.queue_entries:
            self.sqs[id].size -= 1


class TakesOneLess(Controller):
    """Of a ring that was filled with one doorbell, the last entry waits for the next one."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        sq = self.sqs.get((offset - DOORBELLS) >> 3) if offset >= DOORBELLS + 8 else None
        if sq and not offset & 4 and (value + 1) % sq.size == sq.head and sq.size > 2:
            value = (value - 1) % sq.size
        super().mmio_write(offset, size, value)


class OneFullStopsAll(Controller):
    """While any completion queue is full, nothing is fetched from any queue."""

    def _fetch(self, sq: SubmissionQueue) -> None:
        if any(cq.id and cq.finished and cq.full for cq in self.cqs.values()):
            return
        super()._fetch(sq)

    def run(self) -> bool:
        return super().run() and not any(cq.finished and cq.full for cq in self.cqs.values())


class SqidIsCqid(Controller):
    """A completion queue entry names the completion queue instead of the submission queue."""

    def _post(self, cq: CompletionQueue) -> None:
        sq = cq.finished[0].sq
        number, sq.id = sq.id, cq.id
        super()._post(cq)
        sq.id = number


class DeletionTakesNeighbours(Controller):
    """Deleting a submission queue drops what the others on its completion queue have finished."""

    def remove_sq(self, sq: SubmissionQueue) -> None:
        super().remove_sq(sq)
        for other in self.sqs.values():
            if other.cq is sq.cq:
                other.stopped = True


class LosesWhatWasReleasedInPart(Controller):
    """The head doorbell of several entries at once is taken for one."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        cq = self.cqs.get((offset - DOORBELLS) >> 3) if offset >= DOORBELLS + 8 else None
        if cq and offset & 4 and cq.size > 2:
            value = (cq.head + 1) % cq.size if value != cq.head else value
        super().mmio_write(offset, size, value)


BROKEN: dict[str, list[type[Controller]]] = {
    "rings.same-size": [ForgetsLastEntry, KeepsPhase],
    "rings.small-cq": [DropsWhenFull],
    "rings.large-cq": [ForgetsLastEntry],
    "rings.sqhd-flow": [SqhdLags],
    "rings.sqhd-flow-small-cq": [DropsWhenFull],
    "rings.largest": [LargestQueueIsOneLess],
    "rings.full-sq": [TakesOneLess],
    "rings.full-cq": [IgnoresReleaseOfFullQueue, OverrunsCompletionQueue, DropsWhenFull],
    "rings.other-queues-go-on": [OneFullStopsAll],
    "rings.shared-cq": [SqidIsCqid],
    "rings.shared-cq-delete": [DeletionTakesNeighbours],
    "rings.phase": [KeepsPhase],
    "rings.partial-reap": [LosesWhatWasReleasedInPart],
    "rings.sqhd": [SqhdLags],
}
