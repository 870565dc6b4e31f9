"""What admin commands ask for, where a source tells of it by events beside the command and does
not show its entry: QEMU's log, and ours without the entries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Values
from nvmelab.spec.commands import AdminOpcode

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

_OPCODES = {
    "create_sq": AdminOpcode.CREATE_IO_SQ,
    "create_cq": AdminOpcode.CREATE_IO_CQ,
    "del_sq": AdminOpcode.DELETE_IO_SQ,
    "del_cq": AdminOpcode.DELETE_IO_CQ,
    "set_feature": AdminOpcode.SET_FEATURES,
    "dbbuf_config": AdminOpcode.DOORBELL_BUFFER_CONFIG,
}
"""By event, the commands that it tells of."""


class Asking:
    """Tells commands of a monitor what they ask for."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            name: self._asks(name) for name in _OPCODES
        }

    def _asks(self, name: str) -> Callable[[int, Values], None]:
        """The command of that kind that is in flight asks for it. Of several, as where they are
        fetched before one is carried out, nobody knows which is meant, and so what becomes of which
        queue."""
        opcode = _OPCODES[name]

        def asks(_at: int, values: Values) -> None:
            flight = self._monitor.sq(0).flight.values()
            mine = [one for one in flight if one.opcode == opcode and one.asks is None]
            if len(mine) == 1:
                mine[0].asks = name, values
            elif mine and name != "set_feature":
                self._monitor.forget_queues()

        return asks
