"""A driver of one queue pair that does nothing by itself: somebody else says which step is next.

`Polling` takes large steps, `InterruptDriven` the small ones of a driver whose handler runs while
the device goes on. Both submit as long as their queue has room, and never have to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nvmelab.host.queues import CompletionQueue, Pending, SubmissionQueue
from nvmelab.spec.commands import Command, Completion

Prepare = Callable[[SubmissionQueue], tuple[int, Command | bytes]]
"""Called before a command is written: its CID, and the command."""

Kept = tuple[str, Completion | None]


class SteppedDriver(Protocol):
    """What the two have in common. A step that finds nothing to do is not enabled."""

    def enabled(self) -> list[str]:
        """The steps that could be taken now. `submit` is the only one that it never owes."""
        ...

    def take(self, name: str) -> None:
        """Take one of them. Raises DeviceError for a completion that cannot be."""
        ...

    def save(self) -> Kept:
        """What a step changes beside the queues, to be given to `load`."""
        ...

    def load(self, kept: Kept) -> None:
        """Be as at that `save`."""
        ...


class Polling:
    """It looks at the completion queue whenever it likes. The steps:

    submit       a command is written, and the tail doorbell
    reap         an entry is taken, the head doorbell written, its SQ Head Pointer believed
    """

    def __init__(self, sq: SubmissionQueue, prepare: Prepare) -> None:
        self.sq = sq
        self.cq: CompletionQueue = sq.cq
        self._prepare = prepare

    def enabled(self) -> list[str]:
        names = ["submit"] if self.sq.room else []
        if self.cq.ready:
            names.append("reap")
        return names

    def take(self, name: str) -> None:
        if name == "submit":
            self.write()
            self.sq.ring()
        else:
            self.cq.reap(1)

    def write(self) -> Pending:
        """Write one command."""
        cid, command = self._prepare(self.sq)
        return self.sq.submit(command, cid=cid)

    def save(self) -> Kept:
        return ("", None)

    def load(self, kept: Kept) -> None:
        pass


class InterruptDriven:
    """It looks at the completion queue only after an interrupt. The steps:

    submit       a command is written
    ring         the tail doorbell is written
    deliver      the handler begins: the interrupt reaches the processor
    look         the handler takes an entry
    release      it writes the head doorbell
    believe      it makes use of the entry: SQ Head Pointer and command
    return       it has seen that there is no further entry, and ends

    An interrupt that is raised while the handler runs is kept for it: it begins again.
    """

    def __init__(self, sq: SubmissionQueue, prepare: Prepare, raised: Callable[[], bool]) -> None:
        self.sq = sq
        self.cq: CompletionQueue = sq.cq
        self._prepare = prepare
        self._raised = raised
        """The vector was raised and the handler has not begun since."""
        self.handler = "idle"
        """`idle`, or `running`."""
        self.entry: Completion | None = None
        """Taken, and not made use of yet."""

    def enabled(self) -> list[str]:
        names = ["submit"] if self.sq.room and self.sq.rung == self.sq.tail else []
        if self.sq.rung != self.sq.tail:
            names.append("ring")
        if self.handler == "idle":
            if self._raised():
                names.append("deliver")
        elif self.entry is None:
            names.append("look" if self.cq.ready else "return")
        else:
            names.append("release" if self.cq.rung != self.cq.head else "believe")
        return names

    def take(self, name: str) -> None:
        match name:
            case "submit":
                self.write()
            case "ring":
                self.sq.ring()
            case "deliver":
                self.cq.acknowledge()
                self.handler = "running"
            case "look":
                self.entry = self.cq.take()
            case "release":
                self.cq.ring()
            case "believe":
                assert self.entry
                self.cq.believe(self.entry)
                self.entry = None
            case _:
                self.leave()

    def write(self) -> Pending:
        """Write one command."""
        cid, command = self._prepare(self.sq)
        return self.sq.submit(command, cid=cid)

    def leave(self) -> None:
        """The handler ends."""
        self.handler = "idle"

    def save(self) -> Kept:
        return (self.handler, self.entry)

    def load(self, kept: Kept) -> None:
        self.handler, self.entry = kept
