"""The verdict: who broke which rule, or, of a run that came to rest, who has the ball.

Judges what a `Monitor` has seen when the events end. `rest` says that nothing followed: the source
was declared hung. Without it, commands that are under way are just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal

import msgspec

from nvmelab.check.ball import STAGES, Party, Stage, agreed, owed
from nvmelab.check.model import Sq
from nvmelab.check.monitor import Monitor
from nvmelab.check.rule import Finding
from nvmelab.check.rules import PROGRESS, RULES

Word = Literal["driver", "device", "platform", "undecided", "clean"]
State = Stage | Literal["ready", "shutdown", "set up", "given up"]
STATES: dict[State, str] = dict(STAGES.items())
STATES |= {
    "ready": "CSTS.RDY does not say what CC.EN asked for",
    "shutdown": "CSTS.SHST does not say that the shutdown is complete",
    "set up": "set up by Linux, not completed",
    "given up": "set up by Linux, and given up by it",
}
"""What is said of commands, of the controller itself, and of Linux's trace."""


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


class Verdict(msgspec.Struct, frozen=True):
    """What is to be said of a run."""

    verdict: Word
    stuck: list[Stuck]
    findings: list[Finding]
    pattern: Pattern | None
    in_flight: int
    """Commands that were rung and not completed where the events end."""
    rule: str
    """What a stuck run breaks, with its reference; empty if none is."""
    notes: list[str]
    """What the source could not show, and what to record to see it."""
    exercised: list[str]
    """The rules that something in the run has tried."""

    @property
    def deciding(self) -> Stuck | None:
        """Of what is stuck, that which the verdict is about: the entries of the known bug, or the
        first that only that party can have the ball of."""
        mine = [part for part in self.stuck if part.ball == [self.verdict]]
        bug = (self.pattern.sqid, "rung") if self.pattern else None
        known = [part for part in mine if (part.sqid, part.state) == bug]
        return next(iter(known + mine + self.stuck), None)


OVER_COMMITTED = "lost wake-up on an over-committed queue"
AFFECTED = "QEMU before 7.2.15, 8.2.8, 9.0.4 and 9.1.2 (issue 2388)"


def judge(monitor: Monitor, *, rest: bool) -> Verdict:
    """The verdict on what was seen."""
    stuck = [part for sq in monitor.sqs.values() for part in _waiting(sq, monitor)]
    in_flight = sum(part.count for part in stuck)
    stuck += [
        Stuck(0, None, state, 1, ["device"], due.text, [due.since])  # type: ignore[arg-type]
        for state, due in monitor.due.items()
    ]
    pattern = next(filter(None, map(_lost_wakeup, monitor.sqs.values())), None)
    errors = [finding for finding in monitor.findings if finding.severity == "error"]
    word: Word
    if rest and monitor.failed:
        word = "undecided"
    elif rest and stuck:
        parties = agreed(part.ball for part in stuck)
        word = _weighed(parties[0] if len(parties) == 1 else "undecided", errors)
    elif rest and monitor.shadows:
        word = "undecided"
    elif errors:
        breakers = {finding.party for finding in errors}
        word = breakers.pop() if len(breakers) == 1 else "undecided"
    else:
        word = "undecided" if pattern else "clean"
    return Verdict(
        verdict=word,
        stuck=stuck if rest else [],
        findings=monitor.findings,
        pattern=pattern,
        in_flight=in_flight,
        rule=_broken_by_rest(monitor, stuck, word) if rest else "",
        notes=_notes(monitor, stuck, pattern, word, rest=rest),
        exercised=monitor.exercised,
    )


def _weighed(word: Word, errors: Sequence[Finding]) -> Word:
    """Who has the ball, in the light of who broke a rule before. Where nobody can tell who has it,
    a breach decides; where one side has it, and only the other one broke rules, nobody knows what
    came of that."""
    parties = {finding.party for finding in errors}
    if word == "undecided":
        return parties.pop() if len(parties) == 1 else word
    return word if not parties or word in parties else "undecided"


def _broken_by_rest(monitor: Monitor, waiting: list[Stuck], word: Word) -> str:
    """The rule that a run at rest breaks, in words."""
    if not waiting or word not in PROGRESS:
        return ""
    for due in monitor.due.values():
        return RULES[due.rule].said
    if all(part.state == "posted" for part in waiting) and word == "device":
        return RULES["interrupts.raised"].said
    if word == "device" and _stalled(monitor, waiting):
        return RULES["cq.other-stalled"].said
    return PROGRESS[word].said


def _stalled(monitor: Monitor, waiting: list[Stuck]) -> bool:
    """A completion queue is full, and what the device owes is to commands of others that have room:
    more than is finished there."""
    if not any(cq.full for cq in monitor.cqs.values()):
        return False
    for part in waiting:
        sq = monitor.sqs.get(part.sqid)
        cq = sq.cq if sq and sq.from_start else None
        if part.ball != ["device"] or part.state not in ("rung", "fetched", "finished"):
            continue
        if not cq or not cq.entries or len(cq.posted) + len(cq.finished) >= cq.entries - 1:
            return False
    return True


def _notes(
    monitor: Monitor, waiting: list[Stuck], pattern: Pattern | None, word: Word, *, rest: bool
) -> list[str]:
    notes = []
    if rest and monitor.failed:
        notes.append(
            f"line {monitor.failed} says that the controller has failed (CSTS.CFS), and nothing is "
            "owed after that: what went before it decides, such as an address that is no memory"
        )
    if rest and monitor.shutdown and any(part.state in STAGES for part in waiting):
        notes.append(
            f"line {monitor.shutdown} asked for a shutdown: a controller that is shut down does "
            "nothing until it is reset"
        )
    if rest and not waiting and monitor.shadows:
        notes.append(
            "shadow doorbells are on, so an entry that was stored and not rung does not show: "
            "record it with -device nvme,dbcs=off, or on nvmelab run --doorbells trapped"
        )
    elif rest and not waiting:
        notes.append(
            "no command is outstanding on this device: what waits, waits for something else"
        )
    parties = {finding.party for finding in monitor.findings if finding.severity == "error"}
    if rest and word == "undecided" and waiting and len(parties) == 1:
        notes.append(
            f"the {parties.pop()} broke a rule before, and what is owed now is another's: whether "
            "the one comes of the other does not show; mend the first, and look again"
        )
    if pattern and not rest:
        notes.append(
            "a healthy run whose log is cut here would look the same; if this is where everything "
            "stood still, say so with --hung"
        )
    if rest and monitor.unsure and any(not sq.from_start for sq in monitor.sqs.values()):
        notes.append(
            f"the completion in line {monitor.unsure} may be of several queues, whose creation is "
            "not in the log: record it from the start of the driver on"
        )
    if rest and word == "undecided" and waiting and any(len(part.ball) > 1 for part in waiting):
        notes.append(
            "this source shows neither what the host reads nor whether an interrupt reached it: "
            "let the driver log its interrupts and what it reaps, or run it on nvmelab run"
        )
    return notes


def _waiting(sq: Sq, monitor: Monitor) -> list[Stuck]:
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
        for stage, count, parties, text in owed(monitor.standing(sq))
    ]


def _lost_wakeup(sq: Sq) -> Pattern | None:
    """An entry waits because no request was free, one became free, and nothing was fetched."""
    if sq.dry is None or sq.freed is None or not sq.rung:
        return None
    rung, dry = sq.dry
    return Pattern(OVER_COMMITTED, sq.id, rung, dry, sq.freed, sq.rung[-1])
