"""The verdict: who broke which rule, or, of a run that came to rest, who has the ball.

Judges what a `Monitor` has seen when the events end. `rest` says that nothing followed: the source
was declared hung. Without it, commands that are under way are just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import msgspec

from nvmelab.check.model import Sq
from nvmelab.check.monitor import Monitor
from nvmelab.check.rule import Finding
from nvmelab.check.rules import PROGRESS, RULES

Word = Literal["driver", "device", "platform", "undecided", "clean"]
State = Literal["rung", "fetched", "finished", "posted", "ready", "shutdown", "set up", "given up"]


class Stuck(msgspec.Struct, frozen=True):
    """Commands of one queue that wait in one state, and who must act; or the controller itself."""

    sqid: int
    """0 also for what concerns no queue."""
    entries: int | None
    state: State
    """`rung`: not fetched. `fetched`: not finished. `finished`: not posted. `posted`: not
    released. `ready`, `shutdown`: CSTS does not say what CC asked for. Of Linux's trace: `set up`:
    not completed. `given up`: Linux did not wait for it any longer."""
    count: int
    ball: list[str]
    """The parties that may have it; more than one where the source cannot tell."""
    owed: str
    """What should happen."""
    evidence: list[int]
    controller: str = ""
    """Its name, where the source has several."""


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
        word = _weighed(_agreed(stuck), errors)
    elif rest and monitor.shadows:
        word = "undecided"
    elif errors:
        parties = {finding.party for finding in errors}
        word = parties.pop() if len(parties) == 1 else "undecided"
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


def _agreed(waiting: Sequence[Stuck]) -> Word:
    """The one party that certainly has a ball, or the only one that may have all of them. What a
    host has reaped and not released yet does not show, so a ball that may be its, or the
    platform's, says nothing against one that is certain."""
    certain = {part.ball[0] for part in waiting if len(part.ball) == 1}
    may = certain or set(waiting[0].ball).intersection(*(part.ball for part in waiting))
    return may.pop() if len(may) == 1 else "undecided"  # type: ignore[return-value]


class Owed(NamedTuple):
    """What is owed to the commands of one queue in one state."""

    state: State
    commands: int
    ball: list[str]
    text: str


def owed(sq: Sq, monitor: Monitor) -> list[Owed]:
    """Who must act for the commands of a queue that are not completed, by where they are. Takes no
    longer for many commands than for few."""
    cq = sq.cq
    full = cq is not None and cq.full
    host = ["driver", "platform"]
    parts = []
    if sq.rung:
        parts.append(Owed("rung", len(sq.rung), *_of_rung(sq, full, monitor)))
    flight = len(sq.flight) - sq.parked
    if flight:
        # A completion may have been taken for that of another queue.
        unsure = monitor.unsure > 0 and not sq.from_start
        ball = ["driver", "device", "platform"] if unsure else ["device"]
        text = "finish it" if flight == 1 else "finish them"
        if full and not monitor.finishing_shows:
            ball, text = host, "release entries of the full CQ: the device may wait for that"
        parts.append(Owed("fetched", flight, ball, text))
    if sq.finished and full:
        parts.append(Owed("finished", sq.finished, host, "release entries of the full CQ"))
    elif sq.finished:
        parts.append(Owed("finished", sq.finished, ["device"], "post it"))
    if sq.posted and cq and cq.unsignalled:
        parts.append(Owed("posted", sq.posted, ["device"], "raise the interrupt"))
    elif sq.posted:
        parts.append(Owed("posted", sq.posted, host, "reap it, and release its entry"))
    if monitor.shutdown:
        text = f"reset the controller: line {monitor.shutdown} asked for its shutdown"
        parts = [part._replace(ball=["driver"], text=text) for part in parts]
    return parts


def _waiting(sq: Sq, monitor: Monitor) -> list[Stuck]:
    """The same, with the lines that brought the commands there."""
    cq = sq.cq
    lines: dict[State, Iterable[int]] = {
        "rung": sq.rung,
        "fetched": (command.fetched for command in sq.flight.values() if not command.parked),
        "finished": (command.finished for command in cq.finished if command.sq is sq) if cq else (),
        "posted": (command.finished for command in cq.posted if command.sq is sq) if cq else (),
    }
    return [
        Stuck(sq.id, sq.entries, state, count, ball, text, list(islice(lines[state], 8)))
        for state, count, ball, text in owed(sq, monitor)
    ]


def _of_rung(sq: Sq, full: bool, monitor: Monitor) -> tuple[list[str], str]:
    """Who has the ball of entries that are rung and not fetched. A device may be out of requests
    only because of commands that it does not finish itself, or that a full CQ holds back."""
    if sq.dead:
        owed = f"delete the queue, whose tail in line {sq.dead} cannot be, and create it"
        return ["driver"], owed
    if full and not (sq.flight and monitor.finishing_shows):
        return ["driver", "platform"], "release entries of the full CQ: its commands hold requests"
    return ["device"], "fetch it" if len(sq.rung) == 1 else "fetch them"


def _lost_wakeup(sq: Sq) -> Pattern | None:
    """An entry waits because no request was free, one became free, and nothing was fetched."""
    if sq.dry is None or sq.freed is None or not sq.rung:
        return None
    rung, dry = sq.dry
    return Pattern(OVER_COMMITTED, sq.id, rung, dry, sq.freed, sq.rung[-1])
