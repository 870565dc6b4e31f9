"""The monitor on events as they happen: what a controller of ours emits to its bus.

Logs of QEMU's device have the same events, of which the reader takes the same fields: see
`trace.qemu_reader`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from nvmelab.check.monitor import Handler, Monitor
from nvmelab.limits import LIVE_EVENTS_KEPT
from nvmelab.trace.events import EVENTS as EVENTS_TABLE
from nvmelab.trace.taken import TAKEN

EVENTS = frozenset(TAKEN)


class Feeder:
    """Gives events, whole, to the handlers of a monitor, which take some of their values."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers
        self._takers = {
            name: (taken.handler, _picker(taken.fields, len(EVENTS_TABLE[name].fields)))
            for name, taken in TAKEN.items()
        }

    def take(self, number: int, name: str, values: tuple[Any, ...]) -> None:
        """An event of EVENTS; others are of no use here."""
        found = self._takers.get(name)
        if found:
            handler, pick = found
            self._handlers[handler](number, pick(values))


class LiveMonitor:
    """A monitor of one controller, without the rules that are `waived`. `emit` is an emitter for
    it; on a bus with other listeners this is one, for the events EVENTS. Events are numbered from
    1."""

    def __init__(self, waived: Iterable[str] = ()) -> None:
        self.monitor = Monitor(waived=waived)
        self.monitor.cc = 0  # it is there from power-on on
        self.events = 0
        self.recent: deque[tuple[int, str, tuple[Any, ...]]] = deque(maxlen=LIVE_EVENTS_KEPT)
        """The last events with their numbers: what the evidence of a verdict was."""
        self._take = Feeder(self.monitor.handlers).take

    def emit(self, name: str, *values: Any) -> None:
        """Take an event; others than EVENTS are of no use here."""
        if name in EVENTS:
            number = self.events = self.events + 1
            self.recent.append((number, name, values))
            self._take(number, name, values)

    def __call__(self, name: str, values: tuple[Any, ...]) -> None:
        self.emit(name, *values)


def _picker(fields: tuple[int, ...], count: int) -> Callable[[tuple[Any, ...]], tuple[int, ...]]:
    """What takes these fields of an event's `count` values."""
    if len(fields) == count:
        return lambda values: values
    if len(fields) > 1:
        return itemgetter(*fields)
    return lambda values: tuple([values[field] for field in fields])
