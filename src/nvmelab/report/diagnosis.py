"""A verdict on a log, for a terminal and for a program."""

from __future__ import annotations

from nvmelab.check.monitor import Finding
from nvmelab.check.verdict import AFFECTED, Pattern, Stuck, Verdict
from nvmelab.report.explore import paragraph
from nvmelab.trace.qemu_reader import Counts

_STATES = {
    "rung": "rung, never fetched",
    "fetched": "fetched, never finished",
    "finished": "finished, never posted",
    "posted": "posted, and not released by the host",
}


def diagnosis_text(verdict: Verdict, counts: Counts, *, rest: bool) -> str:
    """Several paragraphs; the verdict is in a line that begins with VERDICT."""
    lines = [paragraph("STUCK", _stuck(part)) for part in verdict.stuck]
    said: str = verdict.verdict
    if said == "clean":
        said += ": nothing stands still" if rest else ": no rule that the log can show is broken"
    lines.append(paragraph("VERDICT", said))
    if verdict.rule:
        lines.append(paragraph("rule", verdict.rule))
    for finding in verdict.findings:
        lines += _finding(finding)
    if verdict.pattern:
        lines += _pattern(verdict.pattern)
    if not rest and verdict.in_flight:
        flight = "1 command is" if verdict.in_flight == 1 else f"{verdict.in_flight} commands are"
        lines.append(paragraph("flight", f"{flight} under way where the log ends"))
    lines += [paragraph("note", note) for note in verdict.notes]
    lines.append(paragraph("log", _log(counts)))
    return "\n".join(lines)


def _stuck(part: Stuck) -> str:
    size = f" ({part.entries} entries)" if part.entries else ""
    commands = "1 command" if part.count == 1 else f"{part.count} commands"
    told = f", {_lines(part.evidence)}" + (", ..." if part.count > len(part.evidence) else "")
    ball = " or ".join(part.ball)
    return f"SQ {part.sqid}{size}, {commands}: {_STATES[part.state]}{told}; {ball}: {part.owed}"


def _lines(lines: list[int]) -> str:
    distinct = sorted(set(lines))
    word = "line" if len(distinct) == 1 else "lines"
    return f"{word} {', '.join(map(str, distinct))}"


def _finding(finding: Finding) -> list[str]:
    return [
        paragraph("FINDING", f"{finding.party}: {finding.text} ({_lines(finding.evidence)})"),
        paragraph("", f"{finding.rule}, {finding.ref}"),
    ]


def _pattern(pattern: Pattern) -> list[str]:
    rung = f"line {pattern.rung}: the tail of SQ {pattern.sqid} is rung; no request is free"
    if pattern.dry != pattern.rung:
        rung += f" (line {pattern.dry})"
    lines = [rung, f"line {pattern.freed}: a request becomes free; nothing is fetched after it"]
    if pattern.last_rung > pattern.freed:
        lines.append(f"line {pattern.last_rung}: the last tail that is rung; nothing is fetched")
    return [
        paragraph("pattern", f"{pattern.name}: {AFFECTED}"),
        *(paragraph("", line) for line in lines),
    ]


def _log(counts: Counts) -> str:
    text = f"{counts.lines:,} lines, {counts.events:,} of the nvme device"
    if counts.damaged:
        text += f"; {len(counts.damaged)} of them damaged, the first in line {counts.damaged[0]}"
    if counts.overlong:
        text += f"; {counts.overlong} too long to be lines of a log"
    return text


def diagnosis_json(verdict: Verdict, counts: Counts) -> dict[str, object]:
    """One object."""
    pattern = verdict.pattern
    return {
        "verdict": verdict.verdict,
        "stuck": [
            {
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
                "severity": "error",
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
        "lines": counts.lines,
        "events": counts.events,
        "damaged": len(counts.damaged),
    }
