"""The extra lines of the reporter of QEMU issue 2388: what they tell a monitor.

They name no queue, so that of the line beside them is meant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Values

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor


class Reporter:
    """Tells a monitor of heads, and of requests that are free or not."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "fetched_to": self._fetched_to,
            "fetching_ends": self._fetching_ends,
            "pool_after_fetch": self._pool_after_fetch,
            "pool_at_post": self._pool_at_post,
        }

    def _fetched_to(self, _at: int, values: Values) -> None:
        self._monitor.head_next = values[0]

    def _pool_after_fetch(self, at: int, values: Values) -> None:
        self._monitor.pool_next = (at, values[0])

    def _fetching_ends(self, at: int, values: Values) -> None:
        sq_empty, pool_empty = values
        sq = self._monitor.last_rung
        if sq and not sq_empty and pool_empty and sq.rung and sq.dry is None:
            sq.dry = (sq.rung[-1], at)

    def _pool_at_post(self, at: int, values: Values) -> None:
        sq = self._monitor.last_finished
        if sq and not values[0]:
            sq.request_freed(at)
