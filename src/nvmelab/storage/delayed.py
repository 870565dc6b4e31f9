"""Storage whose operations take a while, as on a slow disk, and overlap."""

from __future__ import annotations

import heapq
import queue
import random
import time
from collections.abc import Callable

from nvmelab.storage.worker import Worker, attempt

_Operation = tuple[int, int, object, Callable[[], None]]
"""When it is due (ns), its number, token and work."""


class DelayedWorker(Worker):
    """A `Worker` that takes reads and writes too, and ends each operation `latency_ns` after it was
    handed over; with a `seed` between half and one and a half of that, so that they end in another
    order than they came. An operation is carried out when it ends."""

    carries_data = True

    def __init__(self, latency_ns: int, seed: int | None = None) -> None:
        self._latency_ns = latency_ns
        self._source = None if seed is None else random.Random(seed)
        self._number = 0
        self._delayed: queue.SimpleQueue[_Operation | None] = queue.SimpleQueue()
        super().__init__()

    def submit(self, token: object, work: Callable[[], None]) -> None:
        """Have `work` done later."""
        latency = self._latency_ns
        if self._source:
            latency = round(latency * self._source.uniform(0.5, 1.5))
        self._number += 1
        self._delayed.put((time.monotonic_ns() + latency, self._number, token, work))

    def _end(self) -> None:
        self._delayed.put(None)

    def _loop(self) -> None:
        waiting: list[_Operation] = []
        while True:
            left = (waiting[0][0] - time.monotonic_ns()) / 1e9 if waiting else None
            try:
                item = self._delayed.get(timeout=left if left is None else max(left, 0))
            except queue.Empty:
                _due, _number, token, work = heapq.heappop(waiting)
                self._finish(token, attempt(work))
                continue
            if item is None:
                return  # nobody waits for the rest: no completion has said that it was done
            heapq.heappush(waiting, item)
