"""The judge of a guest while it runs: whether its commands stand still, and whom that is told."""

from __future__ import annotations

import time
from collections.abc import Callable

from nvmelab.check.live import LiveMonitor
from nvmelab.check.rule import errors_of
from nvmelab.check.verdict import Verdict, judge
from nvmelab.limits import CHECK_REST_S


def _never() -> bool:
    return False


class Judging:
    """Call `look` after each turn of the loop; ask for the `verdict` at any time."""

    def __init__(self, live: LiveMonitor) -> None:
        self.live = live
        self.stopped: Callable[[], bool] = _never
        """Whether the guest is stopped because of what was told."""
        self._on_trouble: Callable[[Verdict], None] | None = None
        self._trouble: Verdict | None = None
        self._events = 0
        """How many there were at the last look, and when the last of them came."""
        self._event_at = 0.0
        self._rested = 0
        """How many there were when it was last seen that all stands still."""

    def tell_of_trouble(
        self, callback: Callable[[Verdict], None], stopped: Callable[[], bool]
    ) -> None:
        """Call it once, with the verdict: as soon as the judge accuses somebody of more than a
        note, or commands stand still and it is known whose fault that is. There must be a look
        every CHECK_REST_S seconds then, whatever happens."""
        self._on_trouble, self.stopped = callback, stopped

    def verdict(self) -> Verdict:
        """So far. What stands still has done so for CHECK_REST_S seconds."""
        if self._trouble and self.stopped():
            return self._trouble  # after that nothing is owed by a driver that may not go on
        live, now = self.live, time.monotonic()
        live.mark(now)
        verdict = judge(live.monitor, rest=False, time_of=live.time_of)
        if verdict.in_flight and now - self._event_at > CHECK_REST_S:
            verdict = judge(live.monitor, rest=True, time_of=live.time_of)
        return verdict

    def look(self) -> None:
        """See what has happened since the last look, and tell of trouble."""
        live, now = self.live, time.monotonic()
        quiet = live.events == self._events
        if not quiet:
            self._events, self._event_at = live.events, now
            live.mark(now)
        if self._on_trouble is None:
            return
        broken = bool(errors_of(live.monitor.findings))
        if quiet and self._rested != self._events and now - self._event_at > CHECK_REST_S:
            self._rested = self._events
        elif not broken:
            return
        verdict = self.verdict()
        if broken or verdict.verdict not in ("clean", "undecided"):
            told, self._on_trouble, self._trouble = self._on_trouble, None, verdict
            told(verdict)
