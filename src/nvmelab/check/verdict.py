"""The verdict: who broke which rule, or, of a run that came to rest, who has the ball.

Judges what a `Monitor` has seen when the events end. `rest` says that nothing followed: the source
was declared hung. Without it, commands that are under way are just that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import msgspec

from nvmelab.check.ball import STAGES, agreed
from nvmelab.check.monitor import Monitor
from nvmelab.check.rule import Finding, errors_of
from nvmelab.check.rules import PROGRESS, RULES
from nvmelab.check.waiting import Pattern, Stuck, TakenBack, lost_wakeup, waiting_of
from nvmelab.limits import CHECK_REST_S

TimeOf = Callable[[int], float | None]
"""The time of an event, or of a line, in seconds; None if that does not show."""

Word = Literal["driver", "device", "platform", "undecided", "clean"]


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
    taken_back: int | None = None
    """What is stuck was so when the host ended it: the line that tells of that."""
    lives: list[int] = []
    """The lines that enabled the controller: the first ones, and the last."""

    @property
    def deciding(self) -> Stuck | None:
        """Of what is stuck, that which the verdict is about: the entries of the known bug, or the
        first that only that party can have the ball of."""
        mine = [part for part in self.stuck if part.ball == [self.verdict]]
        bug = (self.pattern.sqid, "rung") if self.pattern else None
        known = [part for part in mine if (part.sqid, part.state) == bug]
        return next(iter(known + mine + self.stuck), None)

    @property
    def told(self) -> str:
        """In one line: the first breach, or what the verdict is about; empty without either."""
        said = [finding.said for finding in errors_of(self.findings)]
        part = self.deciding
        return next(iter(said), part.said if part else "")


class _Scene(NamedTuple):
    """What the verdict is about: how things stand, or how they stood when the host ended them."""

    rest: bool
    stuck: list[Stuck]
    pattern: Pattern | None
    failed: int
    gap: int
    taken: TakenBack | None = None
    age: float | None = None
    """How long the oldest of what was taken back had been waiting, in seconds, if times show."""


def judge(monitor: Monitor, *, rest: bool, time_of: TimeOf = lambda _number: None) -> Verdict:
    """The verdict on what was seen. `time_of` gives the time of an event, or of a line, in seconds:
    what the host ended after it had waited for long was at rest, whoever says so."""
    scene = _scene(monitor, rest, time_of)
    rest, stuck = scene.rest, scene.stuck
    in_flight = 0 if scene.taken else sum(part.count for part in stuck)
    if not scene.taken:
        stuck = stuck + [
            Stuck(0, None, state, 1, ["device"], due.text, [due.since])  # type: ignore[arg-type]
            for state, due in monitor.due.items()
        ]
    errors = errors_of(monitor.findings)
    pattern = scene.pattern or _pattern_then(monitor, scene, time_of)
    word: Word
    if rest and (scene.failed or (scene.gap and stuck)):
        word = "undecided"
    elif rest and stuck:
        parties = agreed(part.ball for part in stuck)
        word = _weighed(parties[0] if len(parties) == 1 else "undecided", errors)
    elif rest and (monitor.shadows or _unknown_then(monitor, scene, time_of)):
        word = "undecided"
    elif errors:
        breakers = {finding.party for finding in errors}
        word = breakers.pop() if len(breakers) == 1 else "undecided"
    else:
        word = "undecided" if pattern or monitor.gaps else "clean"
    return Verdict(
        verdict=word,
        stuck=stuck if rest else [],
        findings=monitor.findings,
        pattern=pattern,
        in_flight=in_flight,
        rule=_broken_by_rest(monitor, stuck, word) if rest else "",
        notes=_notes(monitor, scene, stuck, word, time_of),
        exercised=monitor.exercised,
        taken_back=scene.taken.at if scene.taken else None,
        lives=list(monitor.lives),
    )


def _scene(monitor: Monitor, rest: bool, time_of: TimeOf) -> _Scene:
    """Which moment decides. What waited for long when the host ended it does, unless something
    waits now as well. Where all is declared to stand still so does what was ended last, if times do
    not show that it had just begun, or if it was the guest itself that ended."""
    sqs = monitor.sqs.values()
    now = waiting_of(sqs, monitor.standing)
    if not now or monitor.shutdown:
        for taken in monitor.taken_back:
            age = _age(taken, time_of)
            last = taken is monitor.taken_back[-1] and not monitor.enabled
            ends = rest and last and (age is None or taken.by_function)
            if ends or (age is not None and age >= CHECK_REST_S and not taken.only_late):
                pattern = None if taken.gap else taken.pattern
                kept = (taken.stuck, pattern, taken.failed, taken.gap)
                return _Scene(True, *kept, taken, age)
    gap = _gap(monitor, now)
    return _Scene(rest, now, None if gap else lost_wakeup(sqs), monitor.failed, gap)


def _age(taken: TakenBack, time_of: TimeOf) -> float | None:
    begin, end = time_of(taken.since), time_of(taken.at)
    return None if begin is None or end is None else end - begin


def _unknown_then(monitor: Monitor, scene: _Scene, time_of: TimeOf) -> bool:
    """Something was taken back, and whether it had waited for long does not show."""
    back = monitor.taken_back
    return not scene.taken and bool(back) and _age(back[-1], time_of) is None


def _pattern_then(monitor: Monitor, scene: _Scene, time_of: TimeOf) -> Pattern | None:
    """The signature of a known bug in what was taken back, if it may have waited for long."""
    last = monitor.taken_back[-1] if _unknown_then(monitor, scene, time_of) else None
    return last.pattern if last and not last.gap else None


_TOLD_BY = {
    "rung": {"command"},
    "fetched": {"finished"},
    "finished": {"msix", "interrupt", "cqe"},
}
"""What tells that commands have left a state."""


def _gap(monitor: Monitor, now: list[Stuck]) -> int:
    """The first line that shows that others are missing. A log without a single fetch, or without
    a single end of a command, was filtered: what is never told of cannot be owed."""
    if monitor.complete:
        return 0
    for part in now:
        kinds = _TOLD_BY.get(part.state, monitor.seen)
        sq = monitor.sqs[part.sqid]
        silent = part.state == "rung" and not sq.from_start and not sq.fetched
        if silent or not monitor.seen.intersection(kinds):
            return part.evidence[-1]
    return monitor.gap


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
    monitor: Monitor, scene: _Scene, waiting: list[Stuck], word: Word, time_of: TimeOf
) -> list[str]:
    """What the source could not show, and what to do about it."""
    rest, unit, notes = scene.rest, monitor.unit, _of_taken_back(monitor, scene, time_of)
    if rest and scene.failed:
        notes.append(
            f"{unit} {scene.failed} says that the controller has failed (CSTS.CFS), and nothing is "
            "owed after that: what went before it decides, such as an address that is no memory"
        )
    if rest and not scene.taken and monitor.shutdown and any(p.state in STAGES for p in waiting):
        notes.append(
            f"{unit} {monitor.shutdown} asked for a shutdown: a controller that is shut down does "
            "nothing until it is reset"
        )
    if rest and not waiting and monitor.shadows:
        notes.append(
            "shadow doorbells are on, so an entry that was stored and not rung does not show: "
            "record it with -device nvme,dbcs=off, or on nvmelab run --doorbells trapped"
        )
    elif rest and not waiting and not monitor.taken_back:
        notes.append(
            "no command is outstanding on this device: what waits, waits for something else"
        )
    parties = {finding.party for finding in errors_of(monitor.findings)}
    if rest and word == "undecided" and waiting and len(parties) == 1:
        notes.append(
            f"the {parties.pop()} broke a rule before, and what is owed now is another's: whether "
            "the one comes of the other does not show; mend the first, and look again"
        )
    if scene.pattern and not rest:
        notes.append(
            "a healthy run whose log is cut here would look the same; if this is where everything "
            "stood still, say so with --hung"
        )
    return notes + _of_source(monitor, scene, waiting, word)


def _of_source(monitor: Monitor, scene: _Scene, waiting: list[Stuck], word: Word) -> list[str]:
    """What the log itself lacks."""
    notes = []
    for line, (text, rule) in list(monitor.gaps.items())[:1]:
        breach = f", or the {RULES[rule].party} breaks {rule}" if rule else ""
        notes.append(
            f"{monitor.unit} {line} cannot follow from those before it ({text}): some are missing, "
            f"by a filter or a cut{breach}; nothing is said of what was counted there: record all, "
            "with -trace 'pci_nvme_*'"
        )
    if not scene.rest:
        return notes
    if scene.gap and waiting and not monitor.gaps:
        notes.append(
            "this log never tells of a fetch, or never of the end of a command: it was filtered; "
            "record all, with -trace 'pci_nvme_*'"
        )
    unknown = [sq for sq in monitor.sqs.values() if sq.entries is None and sq.id]
    if unknown and any(part.entries is None and part.sqid for part in waiting):
        most = max(max(sq.most, sq.cq.most if sq.cq else 0) for sq in unknown)
        notes.append(
            f"the sizes of the queues are not in the log, so laps are not counted: give them, with "
            f"--sq-entries {most + 1} if {most} is the last slot, as far as the log shows"
        )
    if monitor.unsure and any(not sq.from_start for sq in monitor.sqs.values()):
        notes.append(
            f"the completion in {monitor.unit} {monitor.unsure} may be of several queues, whose "
            "creation is not in the log: record it from the start of the driver on"
        )
    if word == "undecided" and waiting and any(len(part.ball) > 1 for part in waiting):
        notes.append(
            "this source shows neither what the host reads nor whether an interrupt reached it: "
            "let the driver log its interrupts and what it reaps"
            + (", or run it on nvmelab run" if not monitor.complete else "")
        )
    return notes


def _of_taken_back(monitor: Monitor, scene: _Scene, time_of: TimeOf) -> list[str]:
    """What the host ended before it was done."""
    unit = monitor.unit
    if scene.taken:
        waited = "" if scene.age is None else f", after {scene.age:.1f} s"
        where = f"{unit} {scene.taken.at} {scene.taken.how}{waited}"
        return [f"{where}: what is stuck was so before that"]
    if not monitor.taken_back:
        return []
    taken = monitor.taken_back[-1]
    age = _age(taken, time_of)
    commands = "1 command was" if taken.count == 1 else f"{taken.count} commands were"
    said = f"{commands} outstanding where {unit} {taken.at} {taken.how}"
    if age is not None:
        return [f"{said}, for {age:.1f} s: that alone is no hang"]
    return [
        f"{said}; whether for long does not show: record it with -msg timestamp=on, or leave out "
        f"that {unit} and what follows, if it stood still there"
    ]
