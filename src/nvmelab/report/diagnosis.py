"""A verdict on a log, for a terminal and for a program."""

from __future__ import annotations

from collections.abc import Callable

from nvmelab.check.rule import Finding
from nvmelab.check.rules import RULES
from nvmelab.check.verdict import Verdict
from nvmelab.check.waiting import AFFECTED, Stuck
from nvmelab.limits import PROOF_LINES_MAX
from nvmelab.report.log_words import heading, known_bug, proof
from nvmelab.report.paragraphs import cut_to_width, paragraph
from nvmelab.report.tried import tried_text
from nvmelab.trace.qemu_reader import Counts

TextOf = Callable[[int], str]
"""What a line, or an event, says; empty if that is not known."""


def _unknown(_number: int) -> str:
    return ""


def diagnosis_text(
    verdict: Verdict, counts: Counts, text_of: TextOf = _unknown, *, rest: bool
) -> str:
    """Several paragraphs; the verdict is in a line that begins with VERDICT."""
    lines = verdict_lines(verdict, rest=rest, unit=counts.unit, text_of=text_of)
    return "\n".join([*lines, paragraph("log", log_text(counts))])


def verdict_lines(
    verdict: Verdict, *, rest: bool, unit: str = "line", text_of: TextOf = _unknown
) -> list[str]:
    """The same without the log; `unit` is what the numbers of the evidence count."""
    lines = [paragraph("STUCK", _stuck(part, unit)) for part in verdict.stuck]
    said = heading(verdict, hung=rest)
    lines.append(paragraph("VERDICT", f"{verdict.verdict}: {said[0].lower()}{said[1:]}"))
    if verdict.rule:
        lines.append(paragraph("rule", verdict.rule))
    for finding in sorted(verdict.findings, key=lambda finding: finding.severity):
        lines += _finding(finding, _next_life(finding, verdict), unit, text_of)
    if verdict.pattern:
        lines.append(paragraph("pattern", known_bug(verdict)))
    lines += _proof(verdict, unit, text_of)
    if not verdict.stuck and verdict.in_flight:
        flight = "1 command is" if verdict.in_flight == 1 else f"{verdict.in_flight} commands are"
        lines.append(paragraph("flight", f"{flight} under way at the end"))
    tried = tried_text(verdict.exercised, unit) + (
        " (--json says which)" if verdict.exercised else ""
    )
    return [*lines, *(paragraph("hint", note) for note in verdict.notes), paragraph("rules", tried)]


def _proof(verdict: Verdict, unit: str, text_of: TextOf) -> list[str]:
    """How a hang came about, line by line."""
    lines, steps = [], proof(verdict)
    for number, step in enumerate(steps[:PROOF_LINES_MAX]):
        lines.append(paragraph("proof" if not number else "", f"{unit} {step.line}: {step.text}"))
        lines += _verbatim(text_of(step.line))
    if len(steps) > PROOF_LINES_MAX:
        lines.append(paragraph("", f"and {len(steps) - PROOF_LINES_MAX} more"))
    return lines


def _verbatim(text: str) -> list[str]:
    """What stands in the log, as one line."""
    return [cut_to_width(f"{'':<11}{text}")] if text else []


def _stuck(part: Stuck, unit: str) -> str:
    """What waits, since which line, and who must act."""
    more = ", ..." * (part.count > len(part.evidence))
    return f"{part.where} ({_numbers(part.evidence, unit)}{more}); {part.who}: {part.owed}"


def _numbers(numbers: list[int], unit: str) -> str:
    distinct = sorted(set(numbers))
    return f"{unit}{'s' * (len(distinct) != 1)} {', '.join(map(str, distinct))}"


def _next_life(finding: Finding, verdict: Verdict) -> int:
    """The line that enabled the controller again after a finding; 0 if none did."""
    return next((line for line in verdict.lives if line > finding.evidence[-1]), 0)


def _finding(finding: Finding, next_life: int, unit: str, text_of: TextOf) -> list[str]:
    said = f"{finding.party}: {finding.text} ({_numbers(finding.evidence, unit)})"
    if next_life:
        said += f"; before {unit} {next_life} enables the controller again: firmware, perhaps"
    error = finding.severity == "error"
    quoted = [line for number in finding.evidence for line in _verbatim(text_of(number))]
    return [
        paragraph("FINDING" if error else "NOTE", said),
        paragraph("", f"{finding.rule}, {finding.ref}"),
        *(quoted if error else ()),
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
        "taken_back": verdict.taken_back,
        "lives": verdict.lives,
        "rule": verdict.rule or None,
        "notes": verdict.notes,
        "exercised": verdict.exercised,
        "not_exercised": [name for name in RULES if name not in verdict.exercised],
    }
