"""What a page shows of a log, recorded while the judge reads it.

A recorder stands between the reader and the monitor, and looks at the monitor after each event: it
notes what has changed in the queues that the event concerns, and the lines between which each
command was in each state. The state at any line follows from that without a replay, and is the
monitor's own. What a long log costs is bounded: its last lines are kept, and what is still under
way.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable
from itertools import groupby, islice
from typing import Any

import msgspec

from nvmelab.check.ball import owed
from nvmelab.check.model import Command, Cq, Sq, Values
from nvmelab.check.monitor import Monitor
from nvmelab.limits import PAGE_ALIVE_MAX, PAGE_COMMANDS_MAX, PAGE_KEPT_MAX, PAGE_LINES_MAX
from nvmelab.report.log_lines import Line, Lines

_SQ_FIRST = ("mmio_doorbell_sq", "update_sq_tail", "sqe", "del_sq", "ub_db_wr_invalid_sqtail")
_SQ_SECOND = ("command", "create_sq")
_CQ_FIRST = ("mmio_doorbell_cq", "update_cq_head", "cqe", "del_cq", "ub_db_wr_invalid_cqhead")
_CQ_SECOND = ("finished", "create_cq")
_RESETS = ("started", "stopped", "reset")
_OTHERS = (
    *("msix", "interrupt", "parked", *_RESETS, "start_failed", "err_cfs"),
    *("cc", "csts", "shutdown_set", "shutdown_cleared", "dbbuf_config", "fetching_ends"),
    *("pool_after_fetch", "pool_at_post", "fetched_to", "ub_db_wr_invalid_sq"),
    *("ub_db_wr_invalid_cq", "ub_db_wr_misaligned", "mask_with_msix", "prp_offset", "no_memory"),
    *("admin_empty", "admin_unaligned", "page_size", "unsupported_css", "cq_not_cleared"),
)
KINDS = (*_SQ_FIRST, *_SQ_SECOND, *_CQ_FIRST, *_CQ_SECOND, *_OTHERS)
"""The events that a page shows, by their names in `trace.taken`."""

FIELDS = (
    *("entries", "from_start", "tail", "head", "rung", "taken", "told", "ball"),
    *("cq", "cq_entries", "cq_head", "cq_tail", "phase", "owes_interrupt", "interrupt", "released"),
)
"""What is noted of a queue pair: of the SQ its size, whether it was seen from its creation on, its
tail and head, how many entries are rung and not fetched, how many requests are taken, the last SQHD
that a completion said, and who must act (a Ball); of the CQ its number, size and head, its tail and
the phase tag of the next entry where entries show, whether an interrupt is owed, the line of the
last one, and how many completions of the SQ were released. None is not known."""

Ball = tuple[tuple[str, tuple[str, ...], str], ...]
"""For each stage at which the queue has commands: the parties that may have to act, and what they
should do."""


class Stay(msgspec.Struct, eq=False):
    """A command while the device has it, or entries of a queue that are never fetched."""

    sqid: int
    rung: int
    """The line of the doorbell that told of it; 0 if none did."""
    command: Command | None = None
    """Its stages are those that the monitor knows."""
    entries: int = 1
    slot: int | None = None
    parked: int = 0
    """The line from which on it is an Asynchronous Event Request that waits for an event."""
    gone: int = 0
    """The line at which it was forgotten: a reset, a deleted queue, another one with its CID."""

    @property
    def end(self) -> int:
        """The line that ends it; 0 if none does."""
        return self.gone or (self.command.released if self.command else 0)


class History:
    """How the fields of one queue pair went on: for each the lines where it changed, and its value
    from there on."""

    def __init__(self) -> None:
        self.fields: dict[str, tuple[list[int], list[Any]]] = {}
        self._last: tuple[Any, ...] | None = None

    def note(self, at: int, values: tuple[Any, ...] | None) -> None:
        """The values of FIELDS after line `at`; None if there is no such queue any more."""
        if values == self._last:
            return
        old, self._last = self._last, values
        if (old is None) != (values is None):
            self._put("exists", at, values is not None)
        if values is None:
            return
        for number, (name, value) in enumerate(zip(FIELDS, values, strict=True)):
            if old is None or old[number] != value:
                self._put(name, at, value)

    def _put(self, name: str, at: int, value: Any) -> None:
        lines, values = self.fields.setdefault(name, ([], []))
        if lines and lines[-1] == at:
            values[-1] = value
        else:
            lines.append(at)
            values.append(value)

    def forget(self, before: int) -> None:
        """What was replaced by that line."""
        for lines, values in self.fields.values():
            gone = bisect_right(lines, before) - 1
            if gone > 0:
                del lines[:gone], values[:gone]


class Recorder:
    """Feed it with `handlers`, and before that with every `line`."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.lines = Lines(self._wanted)
        self.line = self.lines.add
        self.queues: dict[int, History] = {}
        self.controller: tuple[list[int], list[list[str]]] = ([], [])
        """What the controller itself owes, or that it has failed: as a field of a History."""
        self.events = 0
        self._balls: dict[Ball, Ball] = {}
        self._sqs: dict[int, Sq] = {}
        self._alive: dict[Command, Stay] = {}
        self._ended: deque[Stay] = deque(maxlen=PAGE_COMMANDS_MAX)
        self._interrupts: dict[int, int] = {}
        """By CQ, the last interrupt; and the CQs that are owed one."""
        self._owing: set[int] = set()
        self._released: Counter[int] = Counter()
        self._general: tuple[Any, ...] = ()
        self._evidence: tuple[tuple[int, ...], frozenset[int]] = ((), frozenset())
        monitor.on_released = self._on_released
        self.handlers = dict(monitor.handlers)
        for kind, name in enumerate(KINDS):
            if name in monitor.handlers:
                self.handlers[name] = self._recorded(kind, name)

    def stays(self) -> list[Stay]:
        """The commands that the window shows, and the entries that were never fetched."""
        waiting = [stay for sq in self._sqs.values() for stay in _unfetched(sq, 0)]
        found = [*self._ended, *self._alive.values(), *waiting]
        return [stay for stay in found if not 0 < stay.end <= self.lines.left_out]

    # Events.

    def _recorded(self, kind: int, name: str) -> Callable[[int, Values], None]:
        monitor = self.monitor

        def recorded(at: int, values: Values) -> None:
            before = monitor.sqs.get(values[1]) if name == "command" else None
            replaced = before.flight.get(values[0]) if before else None
            if name in _RESETS:
                self._forget_all(at)
            monitor.handlers[name](at, values)
            self.events += 1
            if name == "command" and monitor.last:
                self._fetched(at, monitor.last, replaced)
                self._parked(at, monitor.last)
            elif name == "parked" and 0 in monitor.sqs:
                self._parked(at, monitor.sqs[0].flight.get(values[0]))
            touched = self._touched(name, values)
            if name in ("msix", "interrupt"):
                raised = (sq.cq for sq in touched if sq.cq and sq.cq.ien)  # the others' are masked
                self._interrupts.update((cq.id, at) for cq in raised)
            self._look(at, touched, name)
            self.lines.tells(at, kind, tuple(sq.id for sq in touched), values)
            if self.events % PAGE_LINES_MAX == 0:
                for history in self.queues.values():
                    history.forget(self.lines.left_out)

        return recorded

    def _parked(self, at: int, command: Command | None) -> None:
        stay = self._alive.get(command) if command and command.parked else None
        if stay and not stay.parked:
            stay.parked = at

    def _touched(self, name: str, values: Values) -> list[Sq]:
        """The queues that an event may have changed, its own first."""
        monitor = self.monitor
        if name in _SQ_FIRST or name in _SQ_SECOND:
            sq = monitor.sqs.get(values[0 if name in _SQ_FIRST else 1])
            return [sq] if sq else []
        if name in _CQ_FIRST or name in _CQ_SECOND:
            cq = monitor.cqs.get(values[0 if name in _CQ_FIRST else 1])
            found = [sq for sq in monitor.sqs.values() if sq.cq is cq]
            own = values[5] if name == "cqe" else None
            if name == "finished" and monitor.last_finished in found:
                own = monitor.last_finished.id if monitor.last_finished else None
            return sorted(found, key=lambda sq: sq.id != own)
        if name == "msix":
            cqs = {cq for cq in monitor.cqs.values() if cq.vector == values[0]}
            if len(cqs) > 1:
                cqs = {cq for cq in cqs if self._told_by(cq)}
            if cqs or any(cq.vector == values[0] for cq in monitor.cqs.values()):
                return [sq for sq in monitor.sqs.values() if sq.cq in cqs]
        if name in ("msix", "interrupt"):
            last = monitor.last_finished
            return [sq for sq in monitor.sqs.values() if sq.cq is last.cq] if last else []
        if name == "pool_at_post":
            return [monitor.last_finished] if monitor.last_finished else []
        if name == "parked":
            return [monitor.sqs[0]] if 0 in monitor.sqs else []
        if name == "fetching_ends":
            return [monitor.last_rung] if monitor.last_rung else []
        return []

    def _told_by(self, cq: Cq) -> bool:
        """An interrupt that may be for several queues is for this one: something was posted since
        its last one."""
        if cq.id in self._owing:
            return True
        return bool(cq.posted) and cq.posted[-1].posted > self._interrupts.get(cq.id, 0)

    def _look(self, at: int, touched: list[Sq], name: str) -> None:
        monitor = self.monitor
        general = (
            monitor.unsure > 0,
            *(monitor.shutdown, monitor.failed, monitor.exact, monitor.shadows),
            *monitor.due.values(),
        )
        admin = name == "finished" and monitor.last_finished and monitor.last_finished.id == 0
        if admin or name in _RESETS or general != self._general:
            self._general = general
            self._note_controller(at)
            for sqid, sq in list(self._sqs.items()):
                if monitor.sqs.get(sqid) is not sq:
                    self._closed(at, sq)
            touched = list(monitor.sqs.values())
        for sq in touched:
            if self._sqs.get(sq.id) is not sq:
                self._sqs[sq.id] = sq
            self.queues.setdefault(sq.id, History()).note(at, self._values(sq))

    def _note_controller(self, at: int) -> None:
        monitor = self.monitor
        texts = [f"device: {due.text}" for due in monitor.due.values()]
        if monitor.failed:
            texts.append(f"it has failed (CSTS.CFS), line {monitor.failed}")
        if monitor.shadows:
            texts.append("shadow doorbells are on")
        lines, values = self.controller
        if not values or values[-1] != texts:
            lines.append(at)
            values.append(texts)
            if len(lines) > PAGE_LINES_MAX:
                del lines[: PAGE_LINES_MAX // 2], values[: PAGE_LINES_MAX // 2]

    def _values(self, sq: Sq) -> tuple[Any, ...]:
        """FIELDS."""
        cq = sq.cq or Cq(sq.id, None, from_start=False)
        exact = self.monitor.exact and cq.from_start
        if cq.unsignalled:
            self._owing.add(cq.id)
        else:
            self._owing.discard(cq.id)
        return (
            *(sq.entries, sq.from_start, sq.tail, sq.head, len(sq.rung), sq.taken),
            *(sq.told if exact else None, self._ball(sq)),
            *(cq.id, cq.entries, cq.head),
            *((cq.tail, cq.phase, cq.unsignalled > 0) if exact else (None, None, None)),
            *(self._interrupts.get(cq.id, 0), self._released[sq.id]),
        )

    def _ball(self, sq: Sq) -> Ball:
        """The same object for the same ball, as long as there are not too many of them."""
        rows = owed(self.monitor.standing(sq))
        ball = tuple((row.stage, row.parties, row.text) for row in rows)
        if len(self._balls) > PAGE_KEPT_MAX:
            self._balls.clear()
        return self._balls.setdefault(ball, ball)

    # Commands.

    def _fetched(self, at: int, command: Command, replaced: Command | None) -> None:
        sq = command.sq
        if replaced:
            self._gone(at, replaced)
        stay = self._alive[command] = Stay(sq.id, command.rung, command)
        if sq.entries and sq.head is not None:
            stay.slot = (sq.head - 1) % sq.entries
        if len(self._alive) > PAGE_ALIVE_MAX:
            self._gone(at, next(iter(self._alive)))

    def _on_released(self, command: Command) -> None:
        if self._sqs.get(command.sq.id) is command.sq:
            self._released[command.sq.id] += 1
        stay = self._alive.pop(command, None)
        if stay:
            self._ended.append(stay)
            if not command.released:  # forgotten
                stay.gone = self.lines.rows[-1].number

    def _gone(self, at: int, command: Command) -> None:
        stay = self._alive.pop(command, None)
        if stay:
            stay.gone = at
            self._ended.append(stay)

    def _closed(self, at: int, sq: Sq) -> None:
        """A queue is gone, with all that it had; what is posted still waits to be released."""
        self._ended.extend(_unfetched(sq, at))
        for command in sq.flight.values():
            self._gone(at, command)
        for command in sq.cq.finished if sq.cq else ():
            if command.sq is sq:
                self._gone(at, command)
        self._sqs.pop(sq.id)
        self._released.pop(sq.id, None)
        self.queues[sq.id].note(at, None)

    def _forget_all(self, at: int) -> None:
        for command in list(self._alive):
            self._gone(at, command)
        for sq in list(self._sqs.values()):
            self._closed(at, sq)
        self._interrupts.clear()
        self._owing.clear()

    # Evidence.

    def _wanted(self, line: Line) -> bool:
        """A line before the window is evidence of a finding, or of what is still under way."""
        if line.number in self._told_of():
            return True
        sq = self.monitor.sqs.get(line.queues[0]) if line.queues else None
        if sq is None:
            return False
        if sq.dry and line.number in (*sq.dry, sq.freed):
            return True
        if KINDS[line.kind] == "finished" and sq.cq:
            oldest = (*islice(sq.cq.finished, 64), *islice(sq.cq.posted, 64))
            return any(command.finished == line.number for command in oldest)
        if KINDS[line.kind] == "command":
            command = sq.flight.get(line.values[0])
            return command is not None and command.fetched == line.number and not command.parked
        return (
            KINDS[line.kind] in _SQ_FIRST
            and bool(sq.rung)
            and line.number
            in (
                sq.rung[0],
                sq.rung[-1],
            )
        )

    def _told_of(self) -> frozenset[int]:
        """Evidence of what was found, of gaps, and of what the host has ended."""
        monitor = self.monitor
        back = monitor.taken_back
        counts = (len(monitor.findings), len(monitor.gaps), back[-1].at if back else 0)
        if self._evidence[0] != counts:
            lines = {number for finding in monitor.findings for number in finding.evidence}
            lines.update(monitor.gaps)
            for taken in back:
                lines.add(taken.at)
                lines.update(number for part in taken.stuck for number in part.evidence)
                if taken.pattern:
                    lines.update(msgspec.structs.astuple(taken.pattern)[2:])
            self._evidence = counts, frozenset(lines)
        return self._evidence[1]


def _unfetched(sq: Sq, gone: int) -> list[Stay]:
    return [
        Stay(sq.id, line, entries=len(list(same)), gone=gone) for line, same in groupby(sq.rung)
    ]
