"""The monitor on events as they happen: what a controller of ours emits to its bus.

Logs of QEMU's device have the same events, of which the reader takes the same fields: see
`trace.qemu_reader`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from nvmelab.check.chain import Handler
from nvmelab.check.monitor import Monitor
from nvmelab.limits import LIVE_EVENTS_KEPT, LIVE_MARK_S, LIVE_MARKS_KEPT
from nvmelab.trace.events import EVENTS as EVENTS_TABLE
from nvmelab.trace.qemu_log import event_text
from nvmelab.trace.taken import TAKEN


class Feeder:
    """Gives events, whole, to the handlers of a monitor, which take some of their values."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers
        self.takers: dict[str, Handler] = {name: self._first(name) for name in TAKEN}
        """By event: what takes all of its values."""

    def take(self, number: int, name: str, values: tuple[Any, ...]) -> None:
        """Take an event; those that are not in TAKEN are of no use here."""
        taker = self.takers.get(name)
        if taker:
            taker(number, values)

    def _first(self, name: str) -> Handler:
        """Takes the first of these events. At its first call a handler of a monitor is replaced;
        what takes the others has no detour."""
        taken = TAKEN[name]
        pick = _picker(taken.fields, len(EVENTS_TABLE[name].fields))

        def first(number: int, values: tuple[Any, ...]) -> None:
            self._handlers[taken.handler](number, pick(values) if pick else values)
            handler = self._handlers[taken.handler]
            self.takers[name] = _picking(handler, pick) if pick else handler

        return first


class LiveMonitor:
    """A monitor of one controller, without the rules that are `waived`. `emit` is an emitter for
    it; on a bus with other listeners this is one, for all events. They are numbered from 1, those
    that no rule is about as well: as in a capture, or a log, of the same run."""

    def __init__(self, waived: Iterable[str] = ()) -> None:
        self.monitor = Monitor(waived=waived, complete=True)
        self.monitor.cc = 0  # it is there from power-on on
        self.events = 0
        self.recent: deque[tuple[int, str, tuple[Any, ...]]] = deque(maxlen=LIVE_EVENTS_KEPT)
        """The last events with their numbers: what the evidence of a verdict was."""
        self._marks: list[tuple[int, float]] = []
        """How many events there were, and when: not of long ago."""
        self._takers = Feeder(self.monitor.handlers).takers

    def emit(self, name: str, *values: Any) -> None:
        """Take an event."""
        number = self.events = self.events + 1
        taker = self._takers.get(name)
        if taker:
            self.recent.append((number, name, values))
            taker(number, values)

    def mark(self, now: float) -> None:
        """All events so far have happened, at the latest now. In seconds since some time."""
        marks = self._marks
        if marks and now - marks[-1][1] < LIVE_MARK_S:
            marks[-1] = self.events, marks[-1][1]
            return
        marks.append((self.events, now))
        if len(marks) > 2 * LIVE_MARKS_KEPT:
            del marks[:LIVE_MARKS_KEPT]

    def time_of(self, number: int) -> float | None:
        """When that event had happened, at the latest; None before the first mark after it."""
        at = bisect_left(self._marks, (number, 0.0))
        return self._marks[at][1] if at < len(self._marks) else None

    def text_of(self, number: int) -> str:
        """That event as the line of a log; empty if it is not kept."""
        found = (event_text(name, values) for at, name, values in self.recent if at == number)
        return next(found, "")

    def __call__(self, name: str, values: tuple[Any, ...]) -> None:
        self.emit(name, *values)


_Pick = Callable[[tuple[Any, ...]], tuple[int, ...]]


def _picker(fields: tuple[int, ...], count: int) -> _Pick | None:
    """What takes these fields of an event's `count` values; None if it is all of them."""
    if len(fields) == count:
        return None
    if len(fields) > 1:
        return itemgetter(*fields)
    return lambda values: tuple([values[field] for field in fields])


def _picking(handler: Handler, pick: _Pick) -> Handler:
    return lambda number, values: handler(number, pick(values))
