"""Lines of a log that belong together: a doorbell that is written, and what it says. One without
the other shows that lines are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvmelab.check.chain import Handler
from nvmelab.check.model import Values
from nvmelab.spec.registers import DOORBELLS

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor


class Pairing:
    """Looks at doorbells in a log that may lack lines."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._written: tuple[int, int] | None = None
        """The doorbell that was written last, by its place, and its value: until what it says is
        told."""
        self._pairs = False
        """The log has shown such a pair: it has both lines of each."""
        self.handlers: dict[str, Handler] = {
            "write": self._write,
            "mmio_doorbell_sq": lambda at, values: self._said(at, 2 * values[0], values[1]),
            "mmio_doorbell_cq": lambda at, values: self._said(at, 2 * values[0] + 1, values[1]),
            "ub_db_wr_misaligned": self._refused,
            "ub_db_wr_invalid_sq": self._refused,
            "ub_db_wr_invalid_cq": self._refused,
            "ub_db_wr_invalid_sqtail": self._refused,
            "ub_db_wr_invalid_cqhead": self._refused,
        }

    def _write(self, at: int, values: Values) -> None:
        addr, data, _size = values
        if self._written and self._pairs:
            self._lacks(at)
        self._written = ((addr - DOORBELLS) // 4, data & 0xFFFF) if addr >= DOORBELLS else None

    def _said(self, at: int, place: int, value: int) -> None:
        if self._written == (place, value):
            self._pairs = True
        elif self._written and self._pairs:
            self._lacks(at)
        self._written = None

    def _refused(self, _at: int, _values: Values) -> None:
        self._written = None

    def _lacks(self, at: int) -> None:
        assert self._written
        place, value = self._written
        text = (
            f"{value:#x} is written to the doorbell at {DOORBELLS + 4 * place:#x}, and no more said"
        )
        self._monitor.lacks(at, text)
