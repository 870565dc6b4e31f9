"""Devices that break one rule: our controller with one step changed."""

from __future__ import annotations

from nvmelab.corpus.breaches.breach import Breach
from nvmelab.corpus.faults import CompletesTwice, OverrunsCq, PhaseStays
from nvmelab.device.controller import Controller
from nvmelab.device.lifecycle import LifeCycle
from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.queues import CompletionQueue as HostQueue
from nvmelab.spec.admin import CreateIoCq, DoorbellBufferConfig
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.status import DNR, Status


class FetchesTwice(Controller):
    """The first entry of an I/O queue is fetched twice."""

    again = False

    def _fetch(self, sq: SubmissionQueue) -> None:
        before = sq.head
        super()._fetch(sq)
        if sq.id and before == 0 and not self.again:
            sq.head, self.again = before, True


class SkipsSlot(Controller):
    """The second entry of an I/O completion queue goes into the third slot."""

    def _post(self, cq: CompletionQueue) -> None:
        if cq.id and cq.tail == 1:
            cq.tail = 2
        super()._post(cq)


class SqhdAhead(Controller):
    """SQHD is one more than the head."""

    def _post(self, cq: CompletionQueue) -> None:
        sq = cq.finished[0].sq
        head = sq.head
        sq.head = (head + 1) % sq.size
        super()._post(cq)
        sq.head = head


class WrongCid(Controller):
    """The completion of an I/O command has another CID."""

    def _post(self, cq: CompletionQueue) -> None:
        if cq.id:
            cq.finished[0].cid ^= 0x80
        super()._post(cq)


class RefusesSharedCq(Controller):
    """A second submission queue of a completion queue is refused."""

    def finish(self, request: Request, status: int = 0) -> None:
        if request.sq.id == 0 and request.opcode == AdminOpcode.CREATE_IO_SQ:
            cqid = request.words[11] >> 16
            if self.cqs[cqid].sqs > 1:
                self.remove_sq(self.sqs[request.words[10] & 0xFFFF])
                status = Status.INVALID_QUEUE_IDENTIFIER | DNR
        super().finish(request, status)


class AnswersAtOnce(Controller):
    """An Asynchronous Event Request is completed although there is no event."""

    def _execute(self, sq: SubmissionQueue) -> None:
        super()._execute(sq)
        if self.events.parked:
            request = self.events.parked.popleft()
            request.sq.outstanding += 1
            self.finish(request)


class UnknownStatus(Controller):
    """Reads end with a status code type that is reserved."""

    def finish(self, request: Request, status: int = 0) -> None:
        super().finish(request, 0x500 if request.sq.id and request.opcode == 2 else status)


class FetchesAfterReset(Controller):
    """An entry that was rung is fetched after the reset."""

    left: SubmissionQueue | None = None

    def clear(self) -> None:
        rung = [sq for sq in self.sqs.values() if sq.id and sq.head != sq.tail]
        super().clear()
        self.left = rung[0] if rung else None

    def run(self) -> bool:
        if self.left and not self.life.csts.rdy:
            sq, self.left = self.left, None
            self._fetch(sq)
        return super().run()


class PostsAfterReset(Controller):
    """A command that was being carried out is completed after the reset."""

    left: tuple[CompletionQueue, Request] | None = None

    def clear(self) -> None:
        busy = [(sq.cq, request) for sq in self.sqs.values() if sq.id for request in sq.working]
        super().clear()
        self.left = busy[0] if busy else None

    def run(self) -> bool:
        if self.left and not self.life.csts.rdy:
            (cq, request), self.left = self.left, None
            cq.finished.append(request)
            self._post(cq)
        return super().run()


class _NeverRises(LifeCycle):
    @property
    def _rdy_may_rise(self) -> bool:
        return False


class NeverReady(Controller):
    """CSTS.RDY does not follow CC.EN."""

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]
        self.life = _NeverRises(self)


class _NeverComplete(LifeCycle):
    @property
    def shutdown_lags(self) -> bool:
        return False


class NeverShutDown(Controller):
    """A shutdown never becomes complete."""

    def __init__(self, *arguments: object, **more: object) -> None:
        super().__init__(*arguments, **more)  # type: ignore[arg-type]
        self.life = _NeverComplete(self)


def polls(nvme: Driver) -> None:
    """A completion queue without interrupts has a vector of its own."""
    nvme.start(io_queues=4)
    base = nvme.link.allocate(4096)
    nvme.run(CreateIoCq(qid=1, qsize=4, prp1=base, ien=0, iv=5))
    cq = nvme.cqs[1] = HostQueue(nvme.link, nvme.doorbells, 1, base, 4)
    nvme.create_sq(entries=4, cq=cq).read(slba=0).check()


class InterruptsPoller(Controller):
    """A completion queue whose interrupts are disabled raises one."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        ien, cq.ien = cq.ien, True
        super()._interrupt(cq)
        cq.ien = ien


class PostsAfterDeletion(Controller):
    """The last completion of a submission queue is posted once more when it was deleted."""

    last: Request | None = None
    left: Request | None = None

    def _post(self, cq: CompletionQueue) -> None:
        request = cq.finished[0]
        super()._post(cq)
        if request.sq.id:
            self.last = request
        elif self.left:
            left, self.left = self.left, None
            left.sq.cq.finished.append(left)

    def remove_sq(self, sq: SubmissionQueue) -> None:
        super().remove_sq(sq)
        if self.last and self.last.sq is sq:
            self.left, self.last = self.last, None


def crossed(nvme: Driver) -> None:
    """Submission queue 1 has completion queue 2, and there is a completion queue 1."""
    nvme.start(io_queues=4)
    nvme.create_cq(entries=4)
    nvme.create_sq(entries=4, cq=nvme.create_cq(entries=4)).read(slba=0).check()


class PostsToItsNumber(Controller):
    """A completion is posted to the queue that has the number of its submission queue."""

    def _post(self, cq: CompletionQueue) -> None:
        request = cq.finished[0]
        other = self.cqs[request.sq.id]
        if other is not cq:
            other.finished.append(cq.finished.popleft())
            request.sq.cq = other
        super()._post(other)
        request.sq.cq = cq


def leaves_one_full(nvme: Driver) -> None:
    """A command is submitted while the completion queue of another queue is full."""
    nvme.start(io_queues=4)
    full = nvme.create_qpair(entries=8, cq_entries=3, release="held")
    other = nvme.create_qpair(entries=4)
    for number in range(5):
        full.read(slba=number)
    nvme.link.settle()
    other.read(slba=0).check()


class StallsOthers(Controller):
    """Nothing is done for any queue while one completion queue is full."""

    def run(self) -> bool:
        return not any(cq.waits for cq in self.cqs.values()) and super().run()


def aborts(nvme: Driver) -> None:
    """A command that the storage has is aborted, and another one follows."""
    nvme.start(io_queues=4)
    queue = nvme.create_qpair(entries=4)
    storage = nvme.link.storage
    assert storage
    storage.hold = True
    read = queue.read(slba=0)
    nvme.link.settle()
    nvme.abort(read).wait()
    storage.let_go()
    read.wait()
    queue.read(slba=0).wait()


class ClaimsAbort(Controller):
    """An Abort says that a command was aborted, which goes on and succeeds."""

    def finish(self, request: Request, status: int = 0) -> None:
        if not request.sq.id and request.opcode == AdminOpcode.ABORT:
            request.dw0 = 0
        super().finish(request, status)


def resets_with_shadows(nvme: Driver) -> None:
    """Shadow doorbells are used, and after a reset they are not."""
    nvme.start(io_queues=4)
    # Nothing else is to come there: what such a device stores would be taken for the driver's.
    pages = (0x1030_0000, 0x1030_1000)
    nvme.run(DoorbellBufferConfig(prp1=pages[0], prp2=pages[1]))
    nvme.doorbells.use_shadow(*pages)
    nvme.create_qpair(entries=4).read(slba=0).check()
    nvme.start(io_queues=4)
    nvme.create_qpair(entries=4).read(slba=0).check()


class KeepsShadows(Controller):
    """The shadow doorbells outlive a reset."""

    def clear(self) -> None:
        pages = self.shadows.pages
        super().clear()
        self.shadows.pages = pages


class InterruptsTwice(Controller):
    """Each interrupt is raised twice."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        super()._interrupt(cq)
        super()._interrupt(cq)


class NeverInterrupts(Controller):
    """No interrupt is raised for what is posted to an I/O queue."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        if cq.id and cq.ien:
            cq.unsignalled = False
        else:
            super()._interrupt(cq)


BREACHES = [
    Breach(name, rule, "device", device=device)
    for name, rule, device in (
        ("fetches-twice", "sq.fetched-early", FetchesTwice),
        ("overruns-cq", "cq.overrun", OverrunsCq),
        ("skips-slot", "cq.slot", SkipsSlot),
        ("phase-stays", "cq.phase", PhaseStays),
        ("sqhd-ahead", "cq.sqhd", SqhdAhead),
        ("wrong-cid", "cq.unknown-command", WrongCid),
        ("completes-twice", "cq.unknown-command", CompletesTwice),
        ("refuses-shared-cq", "queues.refused", RefusesSharedCq),
        ("answers-at-once", "commands.event-told", AnswersAtOnce),
        ("unknown-status", "commands.status-type", UnknownStatus),
        ("fetches-after-reset", "reset.fetched-while-disabled", FetchesAfterReset),
        ("posts-after-reset", "reset.posted-while-disabled", PostsAfterReset),
        ("never-ready", "reset.ready", NeverReady),
        ("never-shut-down", "reset.shutdown-complete", NeverShutDown),
        ("posts-after-deletion", "cq.after-deletion", PostsAfterDeletion),
        ("interrupts-twice", "interrupts.unasked", InterruptsTwice),
        ("never-interrupts", "interrupts.raised", NeverInterrupts),
    )
] + [
    Breach("interrupts-poller", "interrupts.disabled", "device", polls, InterruptsPoller),
    Breach("posts-to-its-number", "cq.wrong-queue", "device", crossed, PostsToItsNumber),
    Breach("claims-abort", "commands.abort-answered", "device", aborts, ClaimsAbort),
    Breach("keeps-shadows", "reset.shadows-kept", "device", resets_with_shadows, KeepsShadows),
    Breach("stalls-others", "cq.other-stalled", "device", leaves_one_full, StallsOthers),
]
