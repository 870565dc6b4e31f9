"""The event bus: who wants which events gets them, in the order in which they happen.

An emitter holds `bus.emit`, or None when nobody listens to anything, so that an event that nobody
wants costs one test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nvmelab.trace.events import EVENTS

Emit = Callable[..., None]
"""emit(name, *values): the values in the order of the event's table entry."""
Listener = Callable[[str, tuple[object, ...]], None]


class Bus:
    """Listeners by event name."""

    def __init__(self) -> None:
        self._listeners: dict[str, tuple[Listener, ...]] = {}

    def subscribe(self, listener: Listener, names: Iterable[str]) -> None:
        """Call `listener(name, values)` for each event of `names`. Raises KeyError for a name that
        is not in the table."""
        for name in names:
            assert name in EVENTS, name
            self._listeners[name] = (*self._listeners.get(name, ()), listener)

    @property
    def emitter(self) -> Emit | None:
        """What an emitter should hold now: `emit`, or None."""
        return self.emit if self._listeners else None

    def emit(self, name: str, *values: object) -> None:
        """Tell everybody who subscribed to `name`."""
        for listener in self._listeners.get(name, ()):
            listener(name, values)
