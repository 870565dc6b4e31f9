"""Faults of Controller Reset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.events import EventType
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS, OFFSET
from nvmelab.spec.status import Status

CC, CSTS = OFFSET["cc"], OFFSET["csts"]


class Resettable(Controller):
    """What the variants share: `before_reset` is called when the host clears CC.EN, and
    `after_reset` when everything is gone; `cqs` then has what there was."""

    def before_reset(self) -> None:
        pass

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        pass

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        begins = offset == CC and not value & 1 and self.life.cc.en
        cqs, sqs = tuple(self.cqs.values()), tuple(self.sqs.values())
        if begins:
            self.before_reset()
        super().mmio_write(offset, size, value)
        if begins:
            self.after_reset(cqs, sqs)


class StaysReady(Resettable):
    """CSTS.RDY stays 1 after the fifth reset."""

    resets = 0

    def before_reset(self) -> None:
        self.resets += 1

    def mmio_read(self, offset: int, size: int) -> int:
        return super().mmio_read(offset, size) | (offset == CSTS and self.resets >= 5)


class KeepsAdminPhase(Resettable):
    """The admin completion queue goes on with the phase tag that it had (NVMeVirt: B24)."""

    phase = 1
    admin = True

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for cq in cqs:
            if (cq.id == 0) == self.admin:
                self.phase = cq.phase

    def add_cq(self, cq: CompletionQueue) -> None:
        super().add_cq(cq)
        if (cq.id == 0) == self.admin:
            cq.phase = self.phase


class KeepsPhase(KeepsAdminPhase):
    """The same for I/O completion queues."""

    admin = False


class KeepsAdminTail(Resettable):
    """The admin completion queue goes on where it was."""

    tail = 0

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for cq in cqs:
            if cq.id == 0:
                self.tail = cq.tail

    def add_cq(self, cq: CompletionQueue) -> None:
        super().add_cq(cq)
        if cq.id == 0:
            cq.tail = self.tail % cq.size


class KeepsHead(Resettable):
    """The next I/O submission queue with the same identifier begins where the last one was."""

    head = 0

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for sq in sqs:
            if sq.id == 1:
                self.head = sq.head

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        if id == 1:
            self.sqs[id].head = self.sqs[id].tail = self.head % size


class ForgetsAdminQueue(Resettable):
    """A Controller Reset clears AQA, ASQ and ACQ."""

    def before_reset(self) -> None:
        for name in ("aqa", "asq", "acq"):
            self.life.registers[name] = 0


class ForgetsAqa(Resettable):
    """A Controller Reset clears AQA when RDY becomes 0."""

    def run(self) -> bool:
        lags = self.life.rdy_lags and not self.life.cc.en
        left = super().run()
        if lags and not self.life.rdy_lags:
            self.life.registers["aqa"] = 0
        return left


class KeepsCompletionQueues(Resettable):
    """I/O completion queues outlive a reset."""

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for cq in cqs:
            if cq.id:
                self.cqs[cq.id] = cq
        self._reorder()


class KeepsQueues(KeepsCompletionQueues):
    """So do submission queues."""

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for sq in sqs:
            if sq.id:
                sq.stopped = False
                sq.cq.sqs += 1
                self.sqs[sq.id] = sq
        super().after_reset(cqs, sqs)


class WrongStatus(Controller):
    """Delete I/O Completion Queue of one that does not exist fails with Completion Queue Invalid
    (QEMU)."""

    def finish(self, request: Request, status: int = 0) -> None:
        if not request.sq.id and request.opcode == AdminOpcode.DELETE_IO_CQ and status:
            status = Status.COMPLETION_QUEUE_INVALID
        super().finish(request, status)


class RingsTheDead(Resettable):
    """The doorbell of a queue that is gone has its completion queue written."""

    ghosts: Sequence[SubmissionQueue] = ()

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        self.ghosts = sqs

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        for ghost in self.ghosts:
            rung = offset == DOORBELLS + 8 * ghost.id
            if ghost.id and ghost.id not in self.sqs and rung and value != ghost.head:
                self.memory.store_u64(ghost.cq.base + ghost.cq.tail * CQE_SIZE, 0)
        super().mmio_write(offset, size, value)


class WritesAfterReset(Resettable):
    """A command that was rung gets its completion although there was a reset."""

    late: tuple[int, ...] = ()

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        self.late = tuple(
            sq.cq.base + sq.cq.tail * CQE_SIZE for sq in sqs if sq.id and sq.head != sq.tail
        )

    def run(self) -> bool:
        if not self.life.csts.rdy:
            for addr in self.late:
                self.memory.store_u64(addr, 0)
            self.late = ()
        return super().run()


class FetchesAfterReset(Resettable):
    """What was rung on the first I/O submission queue before a reset is fetched after it."""

    tail = 0

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for sq in sqs:
            if sq.id == 1:
                self.tail = sq.tail - sq.head

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        if id == 1:
            self.sqs[id].tail, self.tail = self.tail % size, 0


class DoesNotWaitForStorage(Resettable):
    """RDY becomes 0 although the storage still reads for old commands."""

    @property
    def storage_busy(self) -> bool:
        return False

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        for sq in sqs:
            for request in sq.working:
                request.dropped = False


class NeverIdle(Controller):
    """A reset with operations of the storage outstanding never ends."""

    def _finish_step(self) -> None:
        assert self.worker
        token, _ = self.worker.finished[0]
        super()._finish_step()
        if isinstance(token, Request) and token.dropped:
            self.in_worker += 1


class PostsLeftovers(Resettable):
    """What a full completion queue held back is posted to the next queue of that identifier."""

    def before_reset(self) -> None:
        self.leftovers = {cq.id: tuple(cq.finished) for cq in self.cqs.values()}

    leftovers: dict[int, tuple[Request, ...]]

    def add_cq(self, cq: CompletionQueue) -> None:
        super().add_cq(cq)
        if hasattr(self, "leftovers"):
            cq.finished.extend(self.leftovers.pop(cq.id, ()))


class KeepsFeatures(Controller):
    """A reset leaves all features as they are."""

    def clear(self) -> None:
        kept: Any = self.__dict__.get("features")
        super().clear()
        if kept:
            self.features._values = kept._values


class NumberOfQueuesOnce(Controller):
    """The number of queues can be set until the first I/O queue was created, ever."""

    def clear(self) -> None:
        kept: Any = self.__dict__.get("features")
        super().clear()
        self.features.queues_created = bool(kept and kept.queues_created)


class AbortsEventRequests(Resettable):
    """A reset completes Asynchronous Event Requests with Command Abort Requested."""

    def before_reset(self) -> None:
        parked = list(self.events.parked)
        for request in parked:
            self.events.abort(request.cid)
        if parked:
            self._post(self.cqs[0])


class CountsOldEventRequests(Resettable):
    """Asynchronous Event Requests from before a reset count towards the limit."""

    def before_reset(self) -> None:
        self.kept = self.events.parked

    def after_reset(self, cqs: Sequence[CompletionQueue], sqs: Sequence[SubmissionQueue]) -> None:
        self.events.parked = self.kept


class ReportsToOldQueue(Resettable):
    """An event after a reset completes a request from before it, in the old queue."""

    old: tuple[Request, ...] = ()

    def before_reset(self) -> None:
        self.old = tuple(self.events.parked)

    def run(self) -> bool:
        if self.old and self.life.live:
            self.memory.store_u64(self.old[0].sq.cq.base, EventType.NOTICE)
            self.old = ()
        return super().run()


BROKEN: dict[str, list[type[Controller]]] = {
    "reset.ready": [StaysReady],
    "reset.admin-ring": [KeepsAdminPhase, KeepsAdminTail],
    "reset.io-ring": [KeepsPhase, KeepsHead],
    "reset.admin-registers": [ForgetsAdminQueue, ForgetsAqa],
    "reset.queues-gone": [KeepsCompletionQueues, KeepsQueues, RingsTheDead],
    "reset.queues-unknown": [WrongStatus, KeepsQueues],
    "reset.rung": [WritesAfterReset, FetchesAfterReset],
    "reset.in-flight": [DoesNotWaitForStorage, NeverIdle],
    "reset.full-cq": [PostsLeftovers],
    "reset.features": [KeepsFeatures],
    "reset.number-of-queues": [NumberOfQueuesOnce],
    "reset.async-events": [AbortsEventRequests, CountsOldEventRequests, ReportsToOldQueue],
}
