"""What the controller itself does, as far as a monitor sees it: it is set up, enabled, reset and
shut down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Cq, Offer, Sq, Values
from nvmelab.limits import LIVES_MAX

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor


class Life:
    """Moves the controller of a monitor, and ends its queues."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._admin_entries: tuple[int, int] | None = None
        self._bases: tuple[int | None, int | None] = (None, None)  # ASQ and ACQ
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "cc": self._cc,
            "aqattr": self._aqattr,
            "asq": self._asq,
            "acq": self._acq,
            "shutdown_set": self._shutdown_set,
            "shutdown_cleared": self._shutdown_cleared,
            "started": self._started,
            "stopped": self._stopped,
            "reset": self._reset,
            "start_failed": self._err_cfs,
            "err_cfs": self._err_cfs,
            "offers": self._offers,
        }

    def _cc(self, _at: int, values: Values) -> None:
        self._monitor.cc = values[0]
        self._monitor.page_size = 1 << 12 + (values[0] >> 7 & 0xF)

    def _aqattr(self, _at: int, values: Values) -> None:
        self._admin_entries = ((values[0] & 0xFFF) + 1, (values[0] >> 16 & 0xFFF) + 1)

    def _asq(self, _at: int, values: Values) -> None:
        self._bases = values[0], self._bases[1]

    def _acq(self, _at: int, values: Values) -> None:
        self._bases = self._bases[0], values[0]

    def _started(self, at: int, _values: Values) -> None:
        monitor = self._monitor
        if monitor.enabled:
            monitor.twice = monitor.twice or (monitor.enabled, at)
        monitor.clear()
        if monitor.cc is not None and not monitor.cc & 1 and not monitor.complete:
            monitor.cc = monitor.page_size = None  # the line that set it is missing
        monitor.enabled, monitor.down = at, 0
        monitor.lives.append(at)
        del monitor.lives[LIVES_MAX:-1]  # the first ones, and the last
        sq_entries, cq_entries = self._admin_entries or (None, None)
        cq = monitor.cqs[0] = Cq(0, cq_entries, from_start=True)
        cq.vector = 0  # always (Base 2.2, 3.1.4.10)
        sq = monitor.sqs[0] = Sq(0, cq, sq_entries, from_start=True)
        sq.base, cq.base = self._bases

    def _stopped(self, at: int, _values: Values) -> None:
        monitor = self._monitor
        if not monitor.shutdown:  # that took all back
            monitor.take_back(at, "resets the controller", monitor.sqs.values())
        monitor.clear()
        monitor.enabled, monitor.down = 0, at

    def _reset(self, at: int, values: Values) -> None:
        monitor = self._monitor
        monitor.take_back(at, "resets the function", monitor.sqs.values(), by_function=True)
        monitor.sqs.clear()  # they were
        self._stopped(at, values)
        self._monitor.cc, self._bases = 0, (0, 0)

    def _shutdown_set(self, at: int, _values: Values) -> None:
        self._monitor.take_back(at, "asks for a shutdown", self._monitor.sqs.values())
        self._monitor.shutdown = at

    def _shutdown_cleared(self, _at: int, _values: Values) -> None:
        self._monitor.shutdown = 0

    def _err_cfs(self, at: int, _values: Values) -> None:
        self._monitor.failed = at

    def _offers(self, _at: int, values: Values) -> None:
        self._monitor.offer = Offer(values)
