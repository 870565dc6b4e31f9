"""The page of a log: the verdict, a timeline of every queue, and the log to step through, event by
event. One HTML file that needs nothing else: no network, no font, no script from outside.

All text of the log is data to the page, never markup: it is packed (JSON, deflated, base64), and
the script of the page puts it into text nodes only.
"""

from __future__ import annotations

import base64
import html
import importlib.resources
import zlib
from typing import Any

import msgspec

from nvmelab.check.rules import RULES
from nvmelab.check.verdict import AFFECTED, Verdict
from nvmelab.report.diagnosis import STATES, evidence_of, log_text, stuck_text
from nvmelab.report.recorder import KINDS, Recorder
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.layout import OpenEnum
from nvmelab.trace.qemu_reader import Counts

_TEMPLATE = importlib.resources.files("nvmelab.report") / "templates" / "log.html"


def log_page(recorder: Recorder, verdict: Verdict, counts: Counts, *, name: str, hung: bool) -> str:
    """The page. `name` is what the user calls the log."""
    packed = zlib.compress(
        msgspec.json.encode(_data(recorder, verdict, counts, name, hung=hung)), 9
    )
    page = _TEMPLATE.read_text(encoding="utf-8")
    before, _, after = page.partition("@DATA@")
    title = html.escape(f"{_heading(verdict, hung=hung)[0]}: {name}")
    return before.replace("@TITLE@", title) + base64.b64encode(packed).decode() + after


def _data(
    recorder: Recorder, verdict: Verdict, counts: Counts, name: str, *, hung: bool
) -> dict[str, Any]:
    said, why = _heading(verdict, hung=hung)
    pattern = verdict.pattern
    return {
        "name": name,
        "unit": counts.unit,
        "verdict": verdict.verdict,
        "said": said,
        "why": why,
        "rule": verdict.rule,
        "stuck": [
            {
                "text": stuck_text(part, None),
                "party": part.ball[0] if len(part.ball) == 1 else "undecided",
                "sqid": part.sqid,
                "evidence": part.evidence,
            }
            for part in verdict.stuck
        ],
        "findings": [
            msgspec.to_builtins(finding) | {"says": RULES[finding.rule].text}
            for finding in verdict.findings
        ],
        "pattern": (
            {
                "text": f"{pattern.name}: {AFFECTED}",
                "sqid": pattern.sqid,
                "lines": [
                    [pattern.rung, "the tail is rung, and no request is free"],
                    [pattern.dry, "says that no request is free"],
                    [pattern.freed, "a request becomes free; nothing is fetched after it"],
                    [pattern.last_rung, "the last tail that is rung"],
                ],
            }
            if pattern
            else None
        ),
        "notes": verdict.notes,
        "log": log_text(counts),
        "tried": f"{len(verdict.exercised)} of {len(RULES)} rules were tried",
        "evidence": evidence_of(verdict),
        "kinds": KINDS,
        "base": recorder.base,
        "dropped": recorder.dropped,
        "rows": list(recorder.rows),
        "commands": [
            [
                command.sq.id,
                command.cid,
                command.opcode,
                *(command.rung, command.fetched, command.finished),
                *(command.posted, command.released, int(command.parked)),
            ]
            for command in recorder.commands
        ],
        "opcodes": [_names(AdminOpcode), _names(NvmOpcode)],
    }


def _names(opcodes: type[OpenEnum]) -> dict[int, str]:
    return {int(opcode): opcode.label for opcode in opcodes}


def _heading(verdict: Verdict, *, hung: bool) -> tuple[str, str]:
    """The verdict in a few words, and in a sentence or two for somebody who never saw the log."""
    word = verdict.verdict
    errors = [finding for finding in verdict.findings if finding.severity == "error"]
    if word == "clean":
        if hung:
            return "Nothing stands still", "Every command that was rung was completed and released."
        return "Clean", "No rule that such a log can show is broken."
    if verdict.stuck and hung:
        part = next((part for part in verdict.stuck if part.ball == [word]), verdict.stuck[0])
        who = {"undecided": "Nobody can tell who"}.get(word, f"The {word}")
        count = f"{part.count} commands are" if part.count != 1 else "1 command is"
        said = f"{who} holds the ball" if word != "undecided" else "Undecided: who holds the ball?"
        if part.state not in STATES:
            return said, part.owed
        where = f"{count} {STATES[part.state]} on SQ {part.sqid}."
        owed = f"What is owed: {part.owed} ({' or '.join(part.ball)})."
        return said, f"{where} {owed}"
    if errors:
        return (
            f"The {word} breaks a rule" if word != "undecided" else "Both sides break rules",
            f"{errors[0].text[0].upper()}{errors[0].text[1:]}.",
        )
    return "Undecided", " ".join(verdict.notes)
