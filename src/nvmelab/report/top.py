"""Snapshots of a controller that is serving, for a person: `nvmelab top`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from nvmelab.check.ball import STAGES, Ball
from nvmelab.report.units import size_text, time_text
from nvmelab.snapshot import Check, Cq, Snapshot, Sq

_COLUMNS = (
    *(("SQ", 5), ("size", 6), ("head", 6), ("tail", 6), ("rung", 6), ("out/limit", 12)),
    *(("CQ", 6), ("head", 6), ("tail", 6), ("ph", 3), ("done", 6), ("vec", 5), ("cmd/s", 6)),
)
"""Titles and widths, 79 in all: what clears the rest of a line of 80 may clear its 80th letter."""
_INDENT = " " * 7
_READY = "ready"
_SHOWN = 4
"""Lines of queues for which counts make room although nothing waits."""
ROWS = 40
"""Lines of a frame where no terminal says how many there are."""


class Line(NamedTuple):
    text: str
    alert: bool = False
    """It is about a queue that is stuck."""


class _Row(NamedTuple):
    """A submission queue, and its completion queue if that is told of here."""

    sq: Sq
    cq: Cq | None
    shown: Cq | None
    """The completion queue, if no row before this one speaks for it."""

    @property
    def stuck(self) -> bool:
        return self.sq.stuck or bool(self.shown and self.shown.stuck)

    @property
    def waits(self) -> bool:
        return self.stuck or bool(self.sq.written or self.sq.rung or self.sq.outstanding)


def frame(
    now: Snapshot, before: Snapshot | None, *, width: int = 80, rows: int = ROWS
) -> list[Line]:
    """At most `rows` lines. `before` is an earlier snapshot, for rates; there are none without."""
    cqs = {cq.id: cq for cq in now.cqs}
    found, told = [], set[int]()
    for sq in now.sqs:
        found.append(_Row(sq, cqs.get(sq.cq), cqs.get(sq.cq) if sq.cq not in told else None))
        told.add(sq.cq)
    earlier = {sq.id: sq for sq in before.sqs} if before else {}
    seconds = _seconds(now, before)
    blocks = [(row, _block(row, earlier.get(row.sq.id), seconds, width)) for row in found]
    room = rows - 2  # the title of the table, and the count of what is left out
    waiting = max(
        sum(len(block) for row, block in blocks if row.waits),
        min(_SHOWN, sum(len(block) for _, block in blocks)),
    )
    stuck = sum(len(block) for row, block in blocks if row.stuck)
    lines = _head(now, before, found, width, room - waiting, room - stuck)
    if found:
        lines.append(Line(_cells([title for title, _ in _COLUMNS], width)))
    left = rows - len(lines)
    fits = not now.sqs_left_out and sum(len(block) for _, block in blocks) <= left
    # What fits keeps its place: a line that jumps up and down cannot be read.
    blocks.sort(key=lambda part: (not part[0].stuck, not (fits or part[0].waits)))
    left -= not fits
    while blocks and len(blocks[0][1]) <= left:
        _, block = blocks.pop(0)
        lines += block
        left -= len(block)
    if blocks and blocks[0][0].stuck and (left > 0 or not any(line.alert for line in lines[1:])):
        lines += blocks.pop(0)[1][: max(left, 1)]  # rather half of it than nothing
    if blocks or now.sqs_left_out:
        waiting = sum(row.waits for row, _ in blocks)
        lines.append(Line(_further(len(blocks) + now.sqs_left_out, waiting)[:width]))
    return lines[:rows]


def _head(
    now: Snapshot, before: Snapshot | None, found: list[_Row], width: int, good: int, most: int
) -> list[Line]:
    """What stands above the table. Of more than `good` lines the counts are left out, of more than
    `most` whatever is as it should be."""
    alarm = _alarm(now, found)
    parts = _about(now, before)
    lines = _above(alarm, parts, width)
    for name, limit in (
        *(("total", good), ("rates", good)),
        *(("check", most), ("image", most), ("state", most)),
    ):
        if len(lines) > limit and (name != "state" or parts[name] == _READY):
            parts.pop(name, None)
            lines = _above(alarm, parts, width)
    return [*lines, Line("")] if found and len(lines) < good else lines


def _above(alarm: tuple[str, str] | None, parts: dict[str, str], width: int) -> list[Line]:
    lines = [Line(text, True) for text in _named(*alarm, width)] if alarm else []
    return lines + [Line(text) for part in parts.items() for text in _named(*part, width)]


def _further(count: int, waiting: int) -> str:
    queues = "1 further queue" if count == 1 else f"{count} further queues"
    return f"{queues}, with {f'commands waiting on {waiting}' if waiting else 'nothing waiting'}"


def _named(name: str, text: str, width: int) -> list[str]:
    """A text with its name before it."""
    return textwrap.wrap(
        _printable(text), width, initial_indent=f"{name:<7}", subsequent_indent=_INDENT
    )


def _alarm(now: Snapshot, found: list[_Row]) -> tuple[str, str] | None:
    """The headline, with its name: that nothing moves, and who must act."""
    if now.stopped:
        why = "because of another device of it"
        if now.check and now.check.findings:
            why = f"at the first finding: {now.check.told}"
        elif now.check and now.check.told:
            why = f"at its hang: {now.check.told}"
        return "STOP", f"--check=stop has stopped the guest {why}"
    sure: dict[str, list[str]] = {}
    late: dict[str, list[str]] = {}
    still_ns = 0
    for sq, cq in ((row.sq, row.shown) for row in found):
        if sq.stuck:
            who = f"{_parties(sq.ball)} must act" if sq.ball else "nobody can tell who must act"
            sure.setdefault(who, []).append(f"SQ {sq.id}")
            still_ns = max(still_ns, sq.still_ns)
        if _tells(sq, cq):
            assert cq and cq.ball
            queues = sure if cq.full else late
            queues.setdefault(f"{_parties(cq.ball)} must act", []).append(f"CQ {cq.id}")
            still_ns = max(still_ns, cq.still_ns)
    groups = sure or late
    if not groups:
        return None
    said = "; ".join(f"{who} for {_some(names)}" for who, names in groups.items())
    return "STUCK" if sure else "STUCK?", said + _for(still_ns)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _about(now: Snapshot, before: Snapshot | None) -> dict[str, str]:
    """The controller as a whole, by the name of the line."""
    totals = now.totals
    guest = "a guest is connected" if now.guest else "no guest is connected"
    device = "" if now.device == "nvmelab" else f", device {now.device}"
    parts = {
        "image": f"{now.image}: serial {now.serial}{device}; {guest}",
        "state": _state(now),
        "rates": _rates(now, before),
        "total": (
            f"{totals.commands:,} commands, {size_text(totals.bytes)}, {totals.errors:,} errors, "
            f"{totals.doorbells:,} doorbells, {totals.interrupts:,} interrupts"
        ),
    }
    return parts | ({"check": _check(now.check)} if now.check else {})


def _check(check: Check) -> str:
    """What the judge of `--check` says."""
    events = f"{check.events:,} events"
    if check.findings:
        findings = "1 finding" if check.findings == 1 else f"{check.findings} findings"
        return f"judge: {check.verdict}, {findings} in {events}: {check.told}"
    if check.verdict == "clean":
        return f"judge: nothing is wrong in {events}"
    who = "undecided" if check.verdict == "undecided" else f"{check.verdict} must act"
    return f"judge: {who}{f' ({check.told})' if check.told else ''}; {events}"


def _state(now: Snapshot) -> str:
    state = now.controller
    if state.failed:
        return "failed (CSTS.CFS): nothing goes on until the driver resets the controller"
    if state.shutdown != "none":
        return "shut down" if state.shutdown == "complete" else "shutdown is going on"
    if not state.enabled:
        return "disabled (CC.EN 0)" if not state.ready else "being reset (CC.EN 0, CSTS.RDY 1)"
    if not state.ready:
        return "being enabled (CC.EN 1, CSTS.RDY 0)"
    return _READY if state.bus_master else "ready, but no bus master: it cannot reach memory"


def _seconds(now: Snapshot, before: Snapshot | None) -> float:
    """The time between two snapshots; 0 if there was none."""
    return max(now.time_ns - before.time_ns, 0) / 1e9 if before else 0.0


def _rates(now: Snapshot, before: Snapshot | None) -> str:
    seconds = _seconds(now, before)
    if not before or not seconds:
        return "with the next snapshot"
    new, old = now.totals, before.totals

    def rate(count: int, count_before: int) -> int:
        return round(max(count - count_before, 0) / seconds)

    moved = rate(new.bytes, old.bytes)
    return (
        f"{rate(new.commands, old.commands):,} commands/s, "
        f"{size_text(moved) if moved else '0 B'}/s, "
        f"{rate(new.doorbells, old.doorbells):,} doorbells/s, "
        f"{rate(new.interrupts, old.interrupts):,} interrupts/s"
    )


def _block(row: _Row, earlier: Sq | None, seconds: float, width: int) -> list[Line]:
    """A queue, and what waits there."""
    sq, cq = row.sq, row.cq
    vector = "-" if cq is None or cq.vector is None else str(cq.vector)
    cells = [
        *(sq.id, sq.entries, sq.head, sq.tail, sq.rung, f"{sq.outstanding}/{sq.limit}", sq.cq),
        *((cq.head, cq.tail, cq.phase, cq.finished) if cq else "----"),
        *(vector, _rate(sq, earlier, seconds)),
    ]
    lines = [Line(_cells(cells, width), row.stuck)]
    for said in _said(row):
        wrapped = textwrap.wrap(
            _printable(said), width, initial_indent=_INDENT, subsequent_indent=_INDENT + "  "
        )
        lines += [Line(part, row.stuck) for part in wrapped]
    return lines


def _cells(cells: Iterable[object], width: int) -> str:
    """A row of the table: the columns for which there is room."""
    line = ""
    for cell, (_title, size) in zip(cells, _COLUMNS, strict=True):
        if len(line) + size > width:
            break
        line += f"{cell:>{size}}"
    return line


def _rate(sq: Sq, earlier: Sq | None, seconds: float) -> str:
    if not earlier or not seconds or sq.total < earlier.total:
        return "-"
    rate = round((sq.total - earlier.total) / seconds)
    return str(rate) if rate < 100_000 else f"{rate // 1000}k"


def _said(row: _Row) -> Iterable[str]:
    """What waits on a queue, and for whom."""
    sq, cq = row.sq, row.shown
    oldest = _oldest(sq)
    if sq.stuck:
        who = _said_of(sq.ball) if sq.ball else "nobody can tell who must act"
        yield f"STUCK{_for(sq.still_ns)}: {who}"
        if oldest:
            yield oldest
    elif row.waits and oldest:
        yield oldest + (f"; ball: {_parties(sq.ball)}" if sq.ball else "")
    if _tells(sq, cq):
        assert cq and cq.ball
        # A driver may release late, as long as the queue is not full.
        stuck, late = ("STUCK", "") if cq.full else ("STUCK?", ", or it releases late")
        full = " is full" * cq.full
        yield f"{stuck}{_for(cq.still_ns)}: CQ {cq.id}{full}: {_said_of(cq.ball)}{late}"


def _tells(sq: Sq, cq: Cq | None) -> bool:
    """There is something to say of the completion queue that is not said of its SQ."""
    if not cq or not cq.stuck or not cq.ball:
        return False
    waits = sq.stuck and cq.full and sq.finished
    return not (waits and sq.ball and sq.ball.parties == cq.ball.parties)


def _said_of(ball: Ball) -> str:
    return f"{_parties(ball)}: {ball.text}"


def _parties(ball: Ball) -> str:
    return " or ".join(ball.parties)


def _for(still_ns: int) -> str:
    return f" (seen for {time_text(still_ns)})" if still_ns else ""


def _oldest(sq: Sq) -> str:
    oldest = sq.oldest
    if not oldest:
        return ""
    said = STAGES[oldest.state]
    if oldest.age_ns is not None:
        age = time_text(max(oldest.age_ns, 0))
        said = f"fetched {age} ago, {said.removeprefix('fetched, ')}"
    return f"oldest: {oldest.command}, CID {oldest.cid}: {said}"


def _printable(text: str) -> str:
    """Nothing that a terminal would obey: the text is another process's."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
