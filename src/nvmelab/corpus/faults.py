"""Planted faults: one side of a queue pair, changed in one place. Each is a class of bug that the
field has had; the explorer must find every one, and name the side that was changed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue, Request
from nvmelab.host.queues import Pending
from nvmelab.host.stepped import InterruptDriven, Polling


class PostsBeforeData(Controller):
    """A read is completed when the storage has been asked for its data."""

    def later(self, request: Request, work: Callable[[], None]) -> bool:
        handed_over = super().later(request, work)
        if request.sq.id and handed_over:
            self.finish(request)
        return handed_over

    def _finish_step(self) -> None:
        assert self.worker
        token, _error = self.worker.finished[0]
        if isinstance(token, Request) and token.sq.id:
            self.worker.finished.popleft()
            self.in_worker -= 1
            token.sq.working.discard(token)
        else:
            super()._finish_step()


class PhaseStays(Controller):
    """The phase tag is not inverted when a completion queue wraps."""

    def _post(self, cq: CompletionQueue) -> None:
        super()._post(cq)
        if cq.id:
            cq.phase = 1


class _NeverFull(CompletionQueue):
    __slots__ = ()

    @property
    def full(self) -> bool:
        return False


class OverrunsCq(Controller):
    """Completions are posted whether or not the host has released a slot."""

    def add_cq(self, cq: CompletionQueue) -> None:
        if cq.id:
            cq = _NeverFull(cq.id, cq.base, cq.size, cq.vector, cq.ien)
        super().add_cq(cq)


class CompletesTwice(Controller):
    """A command that finishes while another one waits to be posted is posted twice."""

    def finish(self, request: Request, status: int = 0) -> None:
        super().finish(request, status)
        finished = request.sq.cq.finished
        if request.sq.id and len(finished) == 2:
            finished.append(request)


class SkipsInterrupt(Controller):
    """An entry that is posted while an earlier one is not released raises no interrupt."""

    def _interrupt(self, cq: CompletionQueue) -> None:
        if cq.id and (cq.tail - cq.head) % cq.size > 1:
            cq.unsignalled = False
        else:
            super()._interrupt(cq)


class TailWrapsLate(Polling):
    """The tail goes one slot too far before it wraps."""

    def write(self) -> Pending:
        pending = super().write()
        if self.sq.tail == 0:
            self.sq.tail = self.sq.entries
        return pending


class TailWrapsEarly(Polling):
    """The last slot of the ring is never used: the tail wraps one slot too early."""

    def write(self) -> Pending:
        pending = super().write()
        if self.sq.tail == self.sq.entries - 1:
            self.sq.tail = 0
        return pending


class ChecksThenWaits(InterruptDriven):
    """It sees that the queue is empty, and then forgets the interrupts that came meanwhile before
    it waits for the next one."""

    def enabled(self) -> list[str]:
        if self.handler == "leaving":
            return [name for name in super().enabled() if name in ("submit", "ring")] + ["wait"]
        return super().enabled()

    def take(self, name: str) -> None:
        if name == "wait":
            self.cq.acknowledge()
            self.handler = "idle"
        else:
            super().take(name)

    def leave(self) -> None:
        self.handler = "leaving"


class Fault(msgspec.Struct, frozen=True):
    """A fault by name, and the class that has it."""

    name: str
    party: str
    """Who has it: `device` or `driver`."""
    text: str
    controller: type[Controller] = Controller
    polling: type[Polling] = Polling
    interrupt_driven: type[InterruptDriven] = InterruptDriven
    grain: str = "coarse"
    """The grain of steps that shows it."""
    rule: str = ""
    """The rule that it breaks; empty for one that leaves a command behind."""


SOUND = Fault("", "", "no fault")

FAULTS = {
    fault.name: fault
    for fault in (
        Fault(
            "posts-before-data",
            "device",
            "a read is completed before its data is in host memory",
            controller=PostsBeforeData,
            rule="data.late",
        ),
        Fault(
            "phase-stays",
            "device",
            "the phase tag is not inverted when the completion queue wraps",
            controller=PhaseStays,
            rule="cq.phase",
        ),
        Fault(
            "overruns-cq",
            "device",
            "completions are posted to a full completion queue",
            controller=OverrunsCq,
            rule="cq.overrun",
        ),
        Fault(
            "completes-twice",
            "device",
            "two commands that finish together: one of them is completed twice",
            controller=CompletesTwice,
            rule="cq.unknown-command",
        ),
        Fault(
            "skips-interrupt",
            "device",
            "no interrupt for an entry that is posted while an earlier one is not released",
            controller=SkipsInterrupt,
            grain="fine",
        ),
        Fault(
            "tail-wraps-late",
            "driver",
            "the submission queue's tail goes one slot too far before it wraps",
            polling=TailWrapsLate,
            rule="sq.tail",
        ),
        Fault(
            "tail-wraps-early",
            "driver",
            "the submission queue's tail wraps one slot too early",
            polling=TailWrapsEarly,
            rule="sq.tail",
        ),
        Fault(
            "checks-then-waits",
            "driver",
            "interrupts that come between its last look and its waiting are forgotten",
            interrupt_driven=ChecksThenWaits,
            grain="fine",
        ),
    )
}
