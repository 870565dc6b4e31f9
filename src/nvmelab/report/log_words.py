"""A verdict in the words of the page of a log: for somebody who never saw the log."""

from __future__ import annotations

from typing import NamedTuple

from nvmelab.check.monitor import Monitor
from nvmelab.check.rule import Finding, errors_of
from nvmelab.check.verdict import Verdict
from nvmelab.check.waiting import AFFECTED, STATES, Stuck
from nvmelab.trace.qemu_reader import Counts


class Proof(NamedTuple):
    """A line that a verdict rests on, and what it says."""

    line: int
    text: str


def commands(count: int) -> str:
    return "1 command" if count == 1 else f"{count:,} commands"


def breaches_of(verdict: Verdict) -> list[Finding]:
    """What breaks a rule, that which came first before the others."""
    return sorted(errors_of(verdict.findings), key=line_of)


def line_of(finding: Finding) -> int:
    """Where a rule is broken: what came before it in the evidence was only the occasion."""
    return max(finding.evidence, default=0)


def breach(verdict: Verdict) -> Finding | None:
    """The first breach, of the party that is named if one is: a cause comes before its effects.
    None if a known bug explains what waits, or it waited before."""
    word, part = verdict.verdict, verdict.deciding
    errors = [one for one in breaches_of(verdict) if word in (one.party, "undecided")]
    if not errors or (part and verdict.pattern):
        return None
    if part and len(part.ball) == 1 and max(part.evidence, default=0) < line_of(errors[0]):
        return None
    return errors[0]


def heading(verdict: Verdict, *, hung: bool) -> str:
    """The verdict in one sentence."""
    word = verdict.verdict
    if word == "clean":
        return "Nothing stands still here" if hung else "No rule is broken that this can show"
    first, part = breach(verdict), verdict.deciding
    if first and first.party == word:
        return f"The {word} breaks the rules: {first.text}"
    if part and part.ball == [word]:
        return f"The {word} has the ball: {_told(part)}"
    if part and first:
        said = f"The {first.party} breaks a rule, and then it stands still"
        return f"{said}: whose fault that is does not show"
    if part:
        return "It stands still, and whose fault that is does not show"
    if first:
        both = len({finding.party for finding in breaches_of(verdict)}) > 1
        who = f"Both sides break the rules, first the {first.party}"
        return f"{who if both else f'The {first.party} breaks the rules'}: {first.text}"
    if verdict.pattern:
        return "This may be a hang, or it just ends here"
    return "What is here does not decide it"


def _told(part: Stuck) -> str:
    if part.state in ("ready", "shutdown"):
        return STATES[part.state]
    are = "is" if part.count == 1 else "are"
    return f"{commands(part.count)} of SQ {part.sqid} {are} {STATES[part.state]}"


def proof(verdict: Verdict) -> list[Proof]:
    """The lines that prove a hang, in order: how it came about if that is known, and where what
    waits has been since."""
    found: dict[int, str] = {}
    pattern = verdict.pattern
    if pattern:
        full = "; at that moment the device has no free request"
        dry = pattern.dry == pattern.rung
        found[pattern.rung] = f"the driver rings the tail of SQ {pattern.sqid}" + full * dry
        if not dry:
            found[pattern.dry] = (
                "the device has no free request (each command needs one), and stops fetching"
            )
        found[pattern.freed] = "a request becomes free, and the device does not look again"
        if pattern.last_rung > pattern.freed:
            found[pattern.last_rung] = "the last tail that is rung: nothing is fetched any more"
    says = {
        "rung": "the driver rings the tail: what it told of here still waits",
        "fetched": "the device fetches a command that it never finishes",
        "finished": "a command is finished, and its completion is never posted",
        "posted": "a command is finished, and its completion is never released",
        "ready": "CC.EN is written",
        "shutdown": "a shutdown is asked for",
        "set up": "Linux sets up a command, and never sees it completed",
        "given up": "Linux sets up a command, and gives it up",
    }
    for part in verdict.stuck:
        lines = [line for line in dict.fromkeys(part.evidence) if line not in found]
        if pattern and (part.sqid, part.state) == (pattern.sqid, "rung"):
            continue  # the first of them and the last are told of
        if len(lines) > 2:
            later = f"{'at least ' * (part.count > len(part.evidence))}{len(lines) - 1}"
            found[lines[0]] = f"{says[part.state]}; so it is with {later} later ones"
            continue
        for line in lines:
            found[line] = says[part.state]
    if verdict.taken_back:
        found[verdict.taken_back] = "the host gives up: what waits had waited until then"
    return [Proof(line, found[line]) for line in sorted(found)]


def known_bug(verdict: Verdict) -> str:
    return f"{verdict.pattern.name}: {AFFECTED}" if verdict.pattern else ""


def blind_spots(monitor: Monitor, counts: Counts, *, timed: bool, doorbells: bool) -> list[str]:
    """What this source could not show, so that nobody looks for it. `doorbells`: it has some of
    I/O queues."""
    said = []
    if not monitor.exact:
        said.append(
            "Completion queue entries: such a log has no line for them. Phase tags and the SQ head "
            "that a completion told the driver (SQHD) are not known, and that an entry was posted "
            "is known from the interrupt or the head doorbell behind it."
        )
        said.append(
            "What the driver reads, and whether an interrupt reached it; and of an entry of a "
            "submission queue, which command it is, before it is fetched."
        )
    else:
        said.append("Whether an interrupt reached the driver, and what it has read.")
    queues = monitor.sqs.values()
    if any(not sq.from_start for sq in queues):
        said.append("What was before: it begins in the middle, after queues were created.")
    if any(sq.entries is None for sq in queues):
        said.append("How large the queues are; if you know it, give --sq-entries.")
    if monitor.shadows:
        said.append("Entries that were stored in the shadow doorbells, until the device looks.")
    if not doorbells:
        said.append("Doorbells of I/O queues: there is none, as with ioeventfd=on.")
    if not timed:
        said.append("Times: it has none, so the timeline is by lines (QEMU: -msg timestamp=on).")
    if counts.damaged:
        first = counts.damaged[0]
        said.append(f"What {len(counts.damaged)} damaged lines said, the first being line {first}.")
    if counts.cut:
        said.append(f"Its end: {counts.cut}.")
    return said


GLOSSARY = (
    ("SQ, CQ", "submission and completion queue: rings in memory. The driver fills an SQ and the "
     "device empties it; the device fills a CQ and the driver empties it."),
    ("tail, head", "where a ring is filled next, and where it is emptied next."),
    ("ring", "to write a doorbell, a register of the device: the tail of an SQ (new commands are "
     "there), or the head of a CQ (these completions were taken)."),
    ("fetch", "the device reads an entry of an SQ, at its head."),
    ("request", "what a device keeps a command in while it works on it; QEMU's has one for each "
     "entry of the SQ."),
    ("finish, post, reap, release", "the work of a command is done; its completion is written to "
     "the CQ; the driver takes it; it says so by the head doorbell."),
    ("CID", "the number that the driver gives to a command."),
    ("SQHD, phase", "what a completion says besides: how far the SQ is consumed, and a bit that "
     "tells new entries of the CQ from old ones."),
    ("who must act", "for each command, the party without which it does not go on: it has the "
     "ball."),
)  # fmt: skip
"""Words of the page."""
