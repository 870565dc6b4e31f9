"""What a page shows of a log: its events in order, and after each the state of one queue pair.

A recorder stands between the reader and the monitor, and asks the monitor after each event. It
keeps the last events only, each with what it has changed, so that a log of any length takes no more
memory than its page.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

from nvmelab.check.model import Command, Cq, Sq, Values
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import waiting
from nvmelab.limits import PAGE_CIDS_MAX, PAGE_COMMANDS_MAX, PAGE_EVENTS_MAX, PAGE_LINE_BYTES_MAX
from nvmelab.trace.clock import Clock

Snapshot = dict[str, Any]
"""A queue pair: `n`, `m` the entries of SQ and CQ; `t` tail, `h` head; `r` rung and not fetched;
`f`, `d`, `p` the CIDs that are fetched, finished and posted, oldest first, the first PAGE_CIDS_MAX
of them, and `F`, `D`, `P` how many there are; `c` head of the CQ, `e` its tail and `a` the phase
tag of the next entry, where entries show; `k` the last SQHD, likewise; `i` an interrupt is owed;
`q` the CQ; `b` who must act, as pairs of parties and words."""

_SQ_FIRST = ("mmio_doorbell_sq", "update_sq_tail", "sqe", "del_sq", "ub_db_wr_invalid_sqtail")
_SQ_SECOND = ("command", "create_sq")
_CQ_FIRST = ("mmio_doorbell_cq", "update_cq_head", "cqe", "del_cq", "ub_db_wr_invalid_cqhead")
_CQ_SECOND = ("finished", "create_cq")
_OTHERS = (
    *("msix", "interrupt", "parked", "started", "stopped", "reset", "start_failed", "err_cfs"),
    *("cc", "csts", "shutdown_set", "shutdown_cleared", "dbbuf_config", "fetching_ends"),
    *("pool_after_fetch", "pool_at_post", "fetched_to", "ub_db_wr_invalid_sq"),
    *("ub_db_wr_invalid_cq", "ub_db_wr_misaligned", "mask_with_msix", "prp_offset", "no_memory"),
    *("admin_empty", "admin_unaligned", "page_size", "unsupported_css", "cq_not_cleared"),
)
KINDS = (*_SQ_FIRST, *_SQ_SECOND, *_CQ_FIRST, *_CQ_SECOND, *_OTHERS)
"""The events that a page shows, by their names in `trace.taken`."""


class Row(msgspec.Struct, array_like=True):
    """One event."""

    line: int
    us: int | None
    """Its time in microseconds since the first one that has a time."""
    kind: int
    """Its place in KINDS."""
    sqid: int
    """The queue pair that it concerns; -1 for the controller."""
    values: list[int]
    changes: Snapshot
    """What is different in that pair after it."""
    text: str
    """The line itself."""


class Recorder:
    """Feed it with `handlers`, and the lines with `line`, as a monitor and a reader want it."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.rows: deque[Row] = deque()
        self.base: dict[int, Snapshot] = {}
        """The pairs as they were before the first row."""
        self.commands: deque[Command] = deque(maxlen=PAGE_COMMANDS_MAX)
        self.dropped = 0
        """Events before the first row."""
        self._now: dict[int, Snapshot] = {}
        self._text = b""
        self._us: int | None = None
        self._clock = Clock()
        self.handlers = dict(monitor.handlers)
        for kind, name in enumerate(KINDS):
            if name in monitor.handlers:
                self.handlers[name] = self._recorded(kind, name)

    def line(self, text: bytes, us: int | None = None) -> None:
        """The line whose event is told of next; `us` is its time in microseconds since the start,
        if that is not in the line itself."""
        self._text, self._us = text, us

    def _recorded(self, kind: int, name: str) -> Callable[[int, Values], None]:
        monitor = self.monitor

        def recorded(at: int, values: Values) -> None:
            monitor.handlers[name](at, values)
            if name == "command" and monitor.last:
                self.commands.append(monitor.last)
            self._keep(at, kind, self._pairs(name, values), values)

        return recorded

    def _pairs(self, name: str, values: Values) -> list[Sq]:
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
            return [sq for sq in monitor.sqs.values() if sq.cq and sq.cq.vector == values[0]]
        if name == "interrupt" or name == "pool_at_post":
            return [monitor.last_finished] if monitor.last_finished else []
        if name == "parked":
            return [monitor.sqs[0]] if 0 in monitor.sqs else []
        if name == "fetching_ends":
            return [monitor.last_rung] if monitor.last_rung else []
        return []

    def _keep(self, at: int, kind: int, pairs: list[Sq], values: Values) -> None:
        """A row for the event, and one more for each further pair that it has changed."""
        text = self._text[:PAGE_LINE_BYTES_MAX].decode(errors="replace").strip()
        us = self._clock.read(self._text) if self._us is None else self._us
        own = pairs[0] if pairs else None
        changes = self._changes(own) if own else {}
        self._add(Row(at, us, kind, own.id if own else -1, [*values], changes, text))
        for sq in pairs[1:]:
            changes = self._changes(sq)
            if changes:
                self._add(Row(at, us, kind, sq.id, [*values], changes, text))
        if not self.monitor.sqs:
            self._now.clear()

    def _add(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) > PAGE_EVENTS_MAX:
            gone = self.rows.popleft()
            self.dropped += 1
            if gone.sqid >= 0:
                self.base.setdefault(gone.sqid, {}).update(gone.changes)

    def _changes(self, sq: Sq) -> Snapshot:
        new = snapshot(sq, self.monitor)
        old = self._now.get(sq.id)
        self._now[sq.id] = new
        if old is None:
            return new
        return {key: value for key, value in new.items() if old.get(key) != value}


def snapshot(sq: Sq, monitor: Monitor) -> Snapshot:
    """One queue pair, as it is known now."""
    cq = sq.cq or Cq(sq.id, None, from_start=False)
    flight = [command.cid for command in sq.flight.values() if not command.parked]
    finished = [command.cid for command in cq.finished if command.sq is sq]
    posted = [command.cid for command in cq.posted if command.sq is sq]
    exact = monitor.exact and cq.from_start
    return {
        "n": sq.entries,
        "m": cq.entries,
        "q": cq.id,
        "t": sq.tail,
        "h": sq.head,
        "r": len(sq.rung),
        "F": len(flight),
        "D": len(finished),
        "P": len(posted),
        "f": flight[:PAGE_CIDS_MAX],
        "d": finished[:PAGE_CIDS_MAX],
        "p": posted[:PAGE_CIDS_MAX],
        "c": cq.head,
        "e": cq.tail if exact else None,
        "a": cq.phase if exact else None,
        "k": sq.told if exact else None,
        "i": cq.unsignalled > 0,
        "b": [
            [" or ".join(part.ball), f"{part.count} {part.state}: {part.owed}"]
            for part in waiting(sq, unsure=monitor.unsure > 0)
        ],
    }
