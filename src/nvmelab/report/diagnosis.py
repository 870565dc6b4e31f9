"""A verdict on a log, for a terminal and for a program."""

from __future__ import annotations

from nvmelab.check.rule import Finding
from nvmelab.check.rules import RULES
from nvmelab.check.verdict import AFFECTED, Pattern, Stuck, Verdict
from nvmelab.report.paragraphs import paragraph
from nvmelab.report.tried import tried_text
from nvmelab.trace.qemu_reader import Counts

STATES = {
    "rung": "rung, never fetched",
    "fetched": "fetched, never finished",
    "finished": "finished, never posted",
    "posted": "posted, and not released by the host",
    "set up": "set up by Linux, never completed",
    "given up": "set up by Linux, and given up by it",
}
_CONTROLLER = {"ready": "not ready as CC.EN says", "shutdown": "its shutdown is not complete"}


def diagnosis_text(verdict: Verdict, counts: Counts, *, rest: bool) -> str:
    """Several paragraphs; the verdict is in a line that begins with VERDICT."""
    lines = verdict_lines(verdict, rest=rest, unit=counts.unit)
    return "\n".join([*lines, paragraph("log", log_text(counts))])


def verdict_lines(verdict: Verdict, *, rest: bool, unit: str = "line") -> list[str]:
    """The same without the log; `unit` is what the numbers of the evidence count."""
    lines = [paragraph("STUCK", stuck_text(part, unit)) for part in verdict.stuck]
    said: str = verdict.verdict
    if said == "clean":
        said += ": nothing stands still" if rest else ": no rule that this can show is broken"
    lines.append(paragraph("VERDICT", said))
    if verdict.rule:
        lines.append(paragraph("rule", verdict.rule))
    for finding in sorted(verdict.findings, key=lambda finding: finding.severity):
        lines += _finding(finding, unit)
    if verdict.pattern:
        lines += _pattern(verdict.pattern, unit)
    if not verdict.stuck and verdict.in_flight:
        flight = "1 command is" if verdict.in_flight == 1 else f"{verdict.in_flight} commands are"
        lines.append(paragraph("flight", f"{flight} under way at the end"))
    tried = tried_text(verdict.exercised, unit)
    return [*lines, *(paragraph("hint", note) for note in verdict.notes), paragraph("rules", tried)]


def stuck_text(part: Stuck, unit: str | None) -> str:
    """What waits, and who must act; with the numbers of its evidence unless `unit` is None."""
    ball = " or ".join(part.ball)
    where = f", {_numbers(part.evidence, unit)}" if unit else ""
    if part.state in _CONTROLLER:
        return f"the controller: {_CONTROLLER[part.state]}{where}; {ball}: {part.owed}"
    size = f" ({part.entries} entries)" if part.entries else ""
    commands = "1 command" if part.count == 1 else f"{part.count} commands"
    more = ", ..." * (unit is not None and part.count > len(part.evidence))
    name = f"{part.controller} SQ {part.sqid}".lstrip()
    said = f"{name}{size}, {commands}: {STATES[part.state]}{where}{more}"
    return f"{said}; {ball}: {part.owed}"


def _numbers(numbers: list[int], unit: str) -> str:
    distinct = sorted(set(numbers))
    return f"{unit}{'s' * (len(distinct) != 1)} {', '.join(map(str, distinct))}"


def _finding(finding: Finding, unit: str) -> list[str]:
    said = f"{finding.party}: {finding.text} ({_numbers(finding.evidence, unit)})"
    return [
        paragraph("FINDING" if finding.severity == "error" else "NOTE", said),
        paragraph("", f"{finding.rule}, {finding.ref}"),
    ]


def _pattern(pattern: Pattern, unit: str) -> list[str]:
    rung = f"{unit} {pattern.rung}: the tail of SQ {pattern.sqid} is rung; no request is free"
    if pattern.dry != pattern.rung:
        rung += f" ({unit} {pattern.dry})"
    lines = [rung, f"{unit} {pattern.freed}: a request becomes free; nothing is fetched after it"]
    if pattern.last_rung > pattern.freed:
        last = f"{unit} {pattern.last_rung}: the last tail that is rung; nothing is fetched"
        lines.append(last)
    return [
        paragraph("pattern", f"{pattern.name}: {AFFECTED}"),
        *(paragraph("", line) for line in lines),
    ]


def evidence_of(verdict: Verdict) -> list[int]:
    """The numbers that a verdict rests on, in order."""
    pattern = verdict.pattern
    numbers = {number for part in verdict.stuck for number in part.evidence}
    numbers |= {number for finding in verdict.findings for number in finding.evidence}
    if pattern:
        numbers |= {pattern.rung, pattern.dry, pattern.freed, pattern.last_rung}
    return sorted(numbers)


def log_text(counts: Counts) -> str:
    if counts.unit == "event":
        return f"a capture of {counts.events:,} events" + (f"; {counts.cut}" if counts.cut else "")
    lines = "1 line" if counts.lines == 1 else f"{counts.lines:,} lines"
    text = f"{lines}, {counts.events:,} of {counts.of}" + (f"; {counts.cut}" if counts.cut else "")
    if counts.damaged:
        text += f"; {len(counts.damaged)} of them damaged, the first in line {counts.damaged[0]}"
    if counts.overlong:
        text += f"; {counts.overlong} too long to be lines of a log"
    return text


def diagnosis_json(verdict: Verdict, counts: Counts) -> dict[str, object]:
    """One object."""
    said = verdict_json(verdict)
    return said | {
        "lines": counts.lines,
        "events": counts.events,
        "damaged": len(counts.damaged),
        "unit": counts.unit,
        "cut": counts.cut or None,
    }


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """The same without the log."""
    pattern = verdict.pattern
    return {
        "verdict": verdict.verdict,
        "stuck": [
            {
                "controller": part.controller or None,
                "sqid": part.sqid,
                "entries": part.entries,
                "state": part.state,
                "count": part.count,
                "ball": part.ball[0] if len(part.ball) == 1 else "undecided",
                "may_be": part.ball,
                "owed": part.owed,
                "evidence": part.evidence,
            }
            for part in verdict.stuck
        ],
        "findings": [
            {
                "rule": finding.rule,
                "party": finding.party,
                "ref": finding.ref,
                "severity": finding.severity,
                "text": finding.text,
                "evidence": finding.evidence,
            }
            for finding in verdict.findings
        ],
        "pattern": (
            {
                "name": pattern.name,
                "affected": AFFECTED,
                "sqid": pattern.sqid,
                "evidence": [pattern.rung, pattern.dry, pattern.freed, pattern.last_rung],
            }
            if pattern
            else None
        ),
        "in_flight": verdict.in_flight,
        "rule": verdict.rule or None,
        "notes": verdict.notes,
        "exercised": verdict.exercised,
        "not_exercised": [name for name in RULES if name not in verdict.exercised],
    }
