"""Snapshots of a controller that is serving, for a person: `nvmelab top`."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import NamedTuple

from nvmelab.check.ball import STAGES, Ball
from nvmelab.report.units import size_text, time_text
from nvmelab.snapshot import Cq, Snapshot, Sq

_HEAD = (
    f"{'SQ':>5}{'entries':>8}{'head':>6}{'tail':>6}{'out/limit':>12}"
    f"{'CQ':>6}{'head':>6}{'tail':>6}{'ph':>3}{'done':>6}{'vec':>5}{'cmds/s':>10}"
)
_INDENT = " " * 7
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
    lines = [Line(text) for text in _about(now, before, width)]
    cqs = {cq.id: cq for cq in now.cqs}
    found, told = [], set[int]()
    for sq in now.sqs:
        found.append(_Row(sq, cqs.get(sq.cq), cqs.get(sq.cq) if sq.cq not in told else None))
        told.add(sq.cq)
    if found:
        lines += [Line(""), Line(_HEAD)]
    earlier = {sq.id: sq for sq in before.sqs} if before else {}
    seconds = _seconds(now, before)
    blocks = [(row, _block(row, earlier.get(row.sq.id), seconds, width)) for row in found]
    left = rows - len(lines) - 1
    fits = sum(len(block) for _, block in blocks) <= left
    # What fits keeps its place: a line that jumps up and down cannot be read.
    blocks.sort(key=lambda part: (not part[0].stuck, not (fits or part[0].waits)))
    while blocks and len(blocks[0][1]) <= left:
        _, block = blocks.pop(0)
        lines += block
        left -= len(block)
    if blocks or now.sqs_left_out:
        waiting = sum(row.waits for row, _ in blocks)
        lines.append(Line(_further(len(blocks) + now.sqs_left_out, waiting)))
    return lines


def _further(count: int, waiting: int) -> str:
    queues = "1 further queue" if count == 1 else f"{count} further queues"
    return f"{queues}, with {f'commands waiting on {waiting}' if waiting else 'nothing waiting'}"


def _about(now: Snapshot, before: Snapshot | None, width: int) -> list[str]:
    """The controller as a whole."""
    totals = now.totals
    guest = "a guest is connected" if now.guest else "no guest is connected"
    device = "" if now.device == "nvmelab" else f", device {now.device}"
    parts = [
        ("image", f"{now.image}: serial {now.serial}{device}; {guest}"),
        ("state", _state(now)),
        ("rates", _rates(now, before)),
        (
            "total",
            f"{totals.commands:,} commands, {size_text(totals.bytes)}, {totals.errors:,} errors, "
            f"{totals.doorbells:,} doorbells, {totals.interrupts:,} interrupts",
        ),
    ]
    check = now.check
    if check:
        findings = "1 finding" if check.findings == 1 else f"{check.findings} findings"
        said = f"so far {check.verdict}, {findings}, {check.events:,} events"
        parts.append(("check", f"{said}{'; ' if check.told else ''}{check.told}"))
    lines: list[str] = []
    for name, text in parts:
        lines += textwrap.wrap(
            _printable(text), width, initial_indent=f"{name:<7}", subsequent_indent=_INDENT
        )
    return lines


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
    return "ready" if state.bus_master else "ready, but no bus master: it cannot reach memory"


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
    rate = "-"
    if earlier and seconds and sq.total >= earlier.total:
        rate = f"{(sq.total - earlier.total) / seconds:,.0f}"
    text = f"{sq.id:>5}{sq.entries:>8}{sq.head:>6}{sq.tail:>6}{f'{sq.outstanding}/{sq.limit}':>12}"
    text += f"{sq.cq:>6}"
    if cq:
        vector = "-" if cq.vector is None else str(cq.vector)
        text += f"{cq.head:>6}{cq.tail:>6}{cq.phase:>3}{cq.finished:>6}{vector:>5}"
    else:
        text += f"{'-':>6}{'-':>6}{'-':>3}{'-':>6}{'-':>5}"
    lines = [Line(f"{text}{rate:>10}", row.stuck)]
    for said in _said(row):
        wrapped = textwrap.wrap(
            _printable(said), width, initial_indent=_INDENT, subsequent_indent=_INDENT + "  "
        )
        lines += [Line(part, row.stuck) for part in wrapped]
    return lines


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
        yield oldest + (f"; ball: {' or '.join(sq.ball.parties)}" if sq.ball else "")
    if cq and cq.stuck and cq.ball and not _told_of(sq, cq):
        # A driver may release late, as long as the queue is not full.
        stuck, late = ("STUCK", "") if cq.full else ("STUCK?", ", or it releases late")
        full = " is full" * cq.full
        yield f"{stuck}{_for(cq.still_ns)}: CQ {cq.id}{full}: {_said_of(cq.ball)}{late}"


def _told_of(sq: Sq, cq: Cq) -> bool:
    """What is said of the submission queue says that its CQ is full, and whose matter that is."""
    waits = sq.stuck and cq.full and sq.finished
    return bool(waits and sq.ball and cq.ball and sq.ball.parties == cq.ball.parties)


def _said_of(ball: Ball) -> str:
    return f"{' or '.join(ball.parties)}: {ball.text}"


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
