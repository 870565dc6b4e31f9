"""What waits: the commands of a queue that are not completed, who must act for them, and what the
host took back before they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Literal

import msgspec

from nvmelab.check.ball import STAGES, Party, Stage, Standing, owed
from nvmelab.check.model import Sq

State = Stage | Literal["ready", "shutdown", "set up", "given up"]
STATES: dict[State, str] = dict(STAGES.items())
STATES |= {
    "ready": "CSTS.RDY does not say what CC.EN asked for",
    "shutdown": "CSTS.SHST does not say that the shutdown is complete",
    "set up": "set up by Linux, not completed",
    "given up": "set up by Linux, and given up by it",
}
"""What is said of commands, of the controller itself, and of Linux's trace."""

OVER_COMMITTED = "lost wake-up on an over-committed queue"
AFFECTED = "QEMU before 7.2.15, 8.2.8, 9.0.4 and 9.1.2 (issue 2388)"


class Stuck(msgspec.Struct, frozen=True):
    """Commands of one queue that wait in one state, and who must act; or the controller itself."""

    sqid: int
    """0 also for what concerns no queue."""
    entries: int | None
    state: State
    count: int
    ball: list[Party]
    """The parties that may have it; more than one where the source cannot tell."""
    owed: str
    """What should happen."""
    evidence: list[int]
    controller: str = ""
    """Its name, where the source has several."""

    @property
    def where(self) -> str:
        """What waits, and where."""
        said = STATES[self.state]
        if self.state in ("ready", "shutdown"):
            return f"the controller: {said}"
        size = f" ({self.entries} entries)" if self.entries else ""
        commands = "1 command" if self.count == 1 else f"{self.count} commands"
        return f"{self.controller} SQ {self.sqid}{size}, {commands}: {said}".lstrip()

    @property
    def who(self) -> str:
        """Who may have to act."""
        return " or ".join(self.ball)

    @property
    def said(self) -> str:
        """All but the evidence, in one line."""
        return f"{self.where}; {self.who}: {self.owed}"


class Pattern(msgspec.Struct, frozen=True):
    """The signature of a known bug."""

    name: str
    sqid: int
    rung: int
    """The line of the tail doorbell whose entry waits because no request is free."""
    dry: int
    """The line that says so."""
    freed: int
    """The line that freed a request."""
    last_rung: int
    """The last tail doorbell of that queue."""


class TakenBack(msgspec.Struct, frozen=True):
    """Commands that the host ended by a reset, by deleting their queue or by a shutdown, as they
    stood before that."""

    at: int
    """The line that tells of it."""
    how: str
    """What that line does, in words."""
    by_function: bool
    """By a reset of the PCI function: what a guest's end brings about, too."""
    stuck: list[Stuck]
    pattern: Pattern | None
    failed: int
    """The line of a fatal status before that; 0 if there was none."""
    gap: int
    """The first line that shows that others are missing; 0 if none does."""

    @property
    def since(self) -> int:
        """The oldest line that tells of what waits."""
        return min(line for part in self.stuck for line in part.evidence)

    @property
    def only_late(self) -> bool:
        """All were completed and the driver may have been told: one that releases late has done
        nothing wrong."""
        return all(part.state == "posted" and len(part.ball) > 1 for part in self.stuck)

    @property
    def count(self) -> int:
        """Of the commands."""
        return sum(part.count for part in self.stuck)


def waiting(sq: Sq, standing: Standing) -> list[Stuck]:
    """Who must act for the commands of a queue, with the lines that brought them there."""
    cq = sq.cq
    lines: dict[Stage, Iterable[int]] = {
        "rung": sq.rung,
        "fetched": (command.fetched for command in sq.flight.values() if not command.parked),
        "finished": (command.finished for command in cq.finished if command.sq is sq) if cq else (),
        "posted": (command.finished for command in cq.posted if command.sq is sq) if cq else (),
    }
    return [
        Stuck(sq.id, sq.entries, stage, count, [*parties], text, [*islice(lines[stage], 8)])
        for stage, count, parties, text in owed(standing)
    ]


def waiting_of(sqs: Iterable[Sq], standing: Callable[[Sq], Standing]) -> list[Stuck]:
    """The same for several queues."""
    return [part for sq in sqs for part in waiting(sq, standing(sq))]


def lost_wakeup(sqs: Iterable[Sq]) -> Pattern | None:
    """The first of these queues where an entry waits because no request was free, one became free,
    and nothing was fetched."""
    for sq in sqs:
        if sq.dry is not None and sq.freed is not None and sq.rung:
            rung, dry = sq.dry
            return Pattern(OVER_COMMITTED, sq.id, rung, dry, sq.freed, sq.rung[-1])
    return None
