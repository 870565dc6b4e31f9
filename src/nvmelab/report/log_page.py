"""The page of a log: the verdict, a timeline of every queue, and the log to step through, event by
event. One HTML file that needs nothing else: no network, no font, no script from outside.

The verdict is HTML, so that it can be read where no script runs; everything else is packed (JSON,
deflated, base64). All text of the log is data: escaped, or put into text nodes by the script. A
policy in the page lets no other script run, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import zlib
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from nvmelab.check.ball import STAGES
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import Verdict
from nvmelab.check.waiting import STATES
from nvmelab.report.diagnosis import evidence_of
from nvmelab.report.log_lines import Line
from nvmelab.report.log_verdict import page_heading, verdict_html
from nvmelab.report.log_words import blind_spots, breach, commands, line_of, proof
from nvmelab.report.markup import escape
from nvmelab.report.recorder import KINDS, Ball, History, Recorder, Stay
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.layout import OpenEnum
from nvmelab.trace.qemu_reader import Counts

_TEMPLATES = importlib.resources.files("nvmelab.report") / "templates"
_SCRIPTS = ("data", "words", "timeline", "state", "walk")


def log_page(recorder: Recorder, verdict: Verdict, counts: Counts, *, name: str, hung: bool) -> str:
    """The page. `name` is what the user calls the log."""
    lines, monitor = recorder.lines, recorder.monitor
    rows = [*lines.kept, *lines.rows]
    timed = any(row.us is not None for row in rows)
    io = [sq for sq in monitor.sqs.values() if sq.id]
    doorbells = not io or any(sq.most for sq in io)
    blind = blind_spots(monitor, counts, timed=timed, doorbells=doorbells)
    if lines.left_out:
        blind.append(_left_out(counts.unit, lines.left_out, len(lines.kept), verdict, rows))
    data = _data(recorder, rows, verdict, timed=timed) | {
        "name": name,
        "unit": counts.unit,
        "hung": hung,
    }
    packed = zlib.compress(msgspec.json.encode(data), 6)
    script = "".join(_template(f"log/{name}.js") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    title = page_heading(verdict, monitor, counts.unit, hung=hung)
    parts = {
        "TITLE": escape(f"{title}: {name}"),
        "DIGEST": digest,
        "STYLE": _template("log/page.css"),
        "VERDICT": verdict_html(verdict, monitor, counts, rows, blind, name=name, hung=hung),
        "DATA": base64.b64encode(packed).decode(),
        "SCRIPT": script,
    }
    # Cut at the places first: what is put in one of them may look like another.
    first, *rest = _template("log/page.html").split("@@")
    page = [first]
    for place, text in zip(rest[::2], rest[1::2], strict=True):
        page += [parts[place], text]
    return "".join(page)


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _left_out(unit: str, last: int, kept: int, verdict: Verdict, rows: list[Line]) -> str:
    here = {row.number for row in rows}
    missing = sum(line not in here for line in evidence_of(verdict))
    said = f"What went before: {unit}s 1 to {last:,} are left out, to keep the page small"
    if kept:
        said += f", but for {kept:,} that something here rests on"
    if missing:
        said += f"; {missing} that the verdict rests on are left out too"
    return said + "."


def _data(recorder: Recorder, rows: list[Line], verdict: Verdict, *, timed: bool) -> dict[str, Any]:
    balls: dict[Ball, int] = {}
    queues = {sqid: _history(history, balls) for sqid, history in sorted(recorder.queues.items())}
    numbers = [row.number for row in rows]
    return {
        "kinds": KINDS,
        "first": recorder.lines.left_out + 1,
        "numbers": _deltas(numbers),
        "us": _deltas(_times(rows)) if timed else None,
        "kind": [row.kind for row in rows],
        "queue": [row.queues for row in rows],
        "values": [row.values for row in rows],
        "text": "\n".join(_text(row) for row in rows),
        "queues": queues,
        "controller": recorder.controller,
        "balls": list(balls),
        "stages": STAGES,
        "commands": _commands(recorder.stays()),
        "marks": _marks(verdict, recorder.monitor),
        "stuck": [part.sqid for part in verdict.stuck],
        "taken": verdict.taken_back or 0,
        "open": _opening(verdict, recorder.monitor),
        "open_queue": _given_up(verdict, recorder.monitor),
        "opcodes": [_names(AdminOpcode), _names(NvmOpcode)],
    }


def _text(row: Line) -> str:
    """In one line: a text in a capture may have any character."""
    return row.text.decode(errors="replace").strip().replace("\n", " ")


def _marks(verdict: Verdict, monitor: Monitor) -> list[tuple[int, str, str]]:
    """The lines that the verdict rests on, each with its flag: the numbers of the proof, what was
    found, where lines are missing, and others of the same kind as those of the proof."""
    found = {line: (str(number), text) for number, (line, text) in enumerate(proof(verdict), 1)}
    for finding in sorted(verdict.findings, key=lambda finding: finding.severity):
        for line in finding.evidence:
            flag = "!" if finding.severity == "error" else "n"
            found.setdefault(line, (flag, f"{finding.party}: {finding.text}"))
    for line, (text, _rule) in monitor.gaps.items():
        found.setdefault(line, ("?", f"lines are missing before this one: {text}"))
    for taken in monitor.taken_back:
        were = "was" if taken.count == 1 else "were"
        said = f"{commands(taken.count)} {were} outstanding, and the host ends that here"
        found.setdefault(taken.at, ("x", said))
    given_up = monitor.taken_back[-1].stuck if _given_up(verdict, monitor) else []
    for part in verdict.stuck or given_up:
        for line in part.evidence:
            found.setdefault(line, (".", f"SQ {part.sqid}: {STATES[part.state]}, since this line"))
    return [(line, *found[line]) for line in sorted(found)]


def _opening(verdict: Verdict, monitor: Monitor) -> int:
    """The line to open the page at; 0 is the end of a hang, or the last work of a queue."""
    back = monitor.taken_back[-1].at if monitor.taken_back else 0
    if verdict.stuck:
        return verdict.taken_back - 1 if verdict.taken_back else 0
    first = breach(verdict)
    if first:
        return line_of(first)
    if verdict.pattern:
        return max(proof(verdict)).line
    return next(iter(monitor.gaps), 0) or max(back - 1, 0)


def _given_up(verdict: Verdict, monitor: Monitor) -> int:
    """The queue to open the page at, where it is opened at what the host gave up; else 0."""
    back = monitor.taken_back
    mine = back and not verdict.stuck and _opening(verdict, monitor) == back[-1].at - 1
    return back[-1].stuck[0].sqid if mine else 0


def _deltas(numbers: list[int]) -> list[int]:
    """Each less the one before it: small numbers pack well."""
    return numbers[:1] + [after - before for before, after in pairwise(numbers)]


def _times(rows: list[Line]) -> list[int]:
    """Of each line. Time stands still where a line has none, or an earlier one."""
    return list(accumulate((row.us or 0 for row in rows), max))


def _history(history: History, balls: dict[Ball, int]) -> dict[str, tuple[list[int], list[Any]]]:
    """The same with deltas, and numbers for who must act."""
    return {
        name: (
            _deltas(lines),
            [balls.setdefault(ball, len(balls)) for ball in values] if name == "ball" else values,
        )
        for name, (lines, values) in history.fields.items()
    }


def _commands(stays: list[Stay]) -> list[list[int]]:
    """For each its queue, the place in the timeline's lane, how many it stands for, its CID,
    opcode, status, SQ slot (-1 is not known), and the lines where it was rung, fetched, finished,
    posted, released, parked, forgotten (0 is never)."""
    stays.sort(key=_begin)
    found = []
    for stay, place in zip(stays, _places(stays), strict=True):
        command = stay.command
        told = (command.cid, command.opcode, command.status) if command else (-1, 0, 0)
        stages = (
            (command.fetched, command.finished, command.posted, command.released)
            if command
            else (0, 0, 0, 0)
        )
        slot = -1 if stay.slot is None else stay.slot
        place = -1 if stay.parked and not stages[1] else place
        found.append(
            [
                *(stay.sqid, place, stay.entries, *told, slot, stay.rung, *stages),
                *(stay.parked, stay.gone),
            ]
        )
    return found


def _begin(stay: Stay) -> int:
    return stay.rung or (stay.command.fetched if stay.command else 0)


def _places(stays: list[Stay]) -> list[int]:
    """For each the lowest place in the lane of its queue that is free while it stays."""
    free: dict[int, list[int]] = {}
    taken: dict[int, list[tuple[int, int]]] = {}
    found = []
    for stay in stays:
        heap, places = taken.setdefault(stay.sqid, []), free.setdefault(stay.sqid, [])
        while heap and heap[0][0] <= _begin(stay):
            heappush(places, heappop(heap)[1])
        place = heappop(places) if places else len(heap)
        if stay.end:
            heappush(heap, (stay.end, place))
        else:
            heappush(heap, (1 << 63, place))
        found.append(place)
    return found


def _names(opcodes: type[OpenEnum]) -> dict[int, str]:
    return {int(opcode): opcode.label for opcode in opcodes}
