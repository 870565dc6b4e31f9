"""Rules about enabling, resetting and shutting down."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from nvmelab.check.model import Values
from nvmelab.check.rule import Rule
from nvmelab.spec.registers import DOORBELLS

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    "reset.enabled-while-ready": Rule(
        "driver",
        "CC.EN is set only when CSTS.RDY is 0 after the last reset",
        "Base 2.2, 3.1.4.5 (CC.EN)",
        ("csts",),
    ),
    "reset.disabled-before-ready": Rule(
        "driver",
        "CC.EN is cleared only when CSTS.RDY is 1",
        "Base 2.2, 3.1.4.5 (CC.EN)",
        ("csts",),
        "note",
    ),
    "reset.doorbell-before-ready": Rule(
        "driver",
        "no tail doorbell is written before the controller that was reset is ready again",
        "Base 2.2, 3.4 (commands are submitted to a controller that is ready)",
        ("stopped", "reset"),
    ),
    "reset.submitted-after-shutdown": Rule(
        "driver",
        "no I/O command is submitted once a shutdown is complete (CSTS.SHST 10b)",
        "Base 2.2, 3.1.4.6 (CSTS.SHST)",
        ("shutdown_set",),
    ),
    "reset.fetched-while-disabled": Rule(
        "device",
        "a controller that was reset, CSTS.RDY 0, fetches nothing before it is enabled again",
        "Base 2.2, 3.1.4.5 (CC.EN)",
        ("stopped", "reset"),
    ),
    "reset.posted-while-disabled": Rule(
        "device",
        "a controller that was reset, CSTS.RDY 0, posts nothing before it is enabled again",
        "Base 2.2, 3.1.4.5 (CC.EN)",
        ("cqe",),
    ),
    "reset.shadows-kept": Rule(
        "device",
        "shadow doorbells are not looked at after a reset, before they are configured again",
        "Base 2.2, 5.2.5 (not retained across a Controller Level Reset)",
        ("dbbuf_config",),
    ),
    "reset.ready": Rule(
        "device",
        "CSTS.RDY follows CC.EN",
        "Base 2.2, 3.1.4.6 (CSTS.RDY)",
        ("cc",),
        kind="eventually",
    ),
    "reset.shutdown-complete": Rule(
        "device",
        "a shutdown that CC.SHN asked for becomes complete: CSTS.SHST is 10b",
        "Base 2.2, 3.6.1 (shutdown)",
        ("csts",),
        kind="eventually",
    ),
}

_EN = 1
_RDY, _CFS, _SHST = 1, 1 << 1, 3 << 2
_COMPLETE = 2 << 2


class Due(NamedTuple):
    """What a controller owes, itself and not one of its queues."""

    rule: str
    since: int
    """The line that asked for it."""
    text: str


class Reset:
    """Looks at what CC asks for, and what CSTS says."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._csts: int | None = None
        self._csts_at = 0
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "cc": self._cc,
            "csts": self._csts_changed,
            "started": self._started,
            "start_failed": self._start_failed,
            "stopped": self._stopped,
            "reset": self._reset,
            "dbbuf_config": self._configured,
            "shutdown_set": self._shutdown_set,
            "shutdown_cleared": self._shutdown_cleared,
            "err_cfs": self._start_failed,
            "write": self._write,
            "mmio_doorbell_sq": self._rung,
            "command": self._command,
            "cqe": self._cqe,
        }

    def _cc(self, at: int, values: Values) -> None:
        monitor = self._monitor
        old, new = monitor.cc, values[0]
        if old is None or not (old ^ new) & _EN:
            return
        if new & _EN:
            if self._csts is not None and self._csts & _RDY:
                text = f"CC.EN is set, and CSTS.RDY is still 1 (CSTS {self._csts:#x})"
                monitor.find("reset.enabled-while-ready", text, self._csts_at, at)
            monitor.due["ready"] = Due("reset.ready", at, "CC.EN is set: CSTS.RDY 1")
        else:
            if self._csts is not None and not self._csts & (_RDY | _CFS):
                text = f"CC.EN is cleared, and CSTS.RDY is not 1 yet (CSTS {self._csts:#x})"
                monitor.find("reset.disabled-before-ready", text, at)
            monitor.due.clear()
            if self._csts is not None and self._csts & _RDY:
                monitor.due["ready"] = Due("reset.ready", at, "CC.EN is cleared: CSTS.RDY 0")

    def _csts_changed(self, at: int, values: Values) -> None:
        self._csts, self._csts_at = values[0], at
        due = self._monitor.due
        enabled = bool((self._monitor.cc or 0) & _EN)
        if bool(values[0] & _RDY) == enabled or values[0] & _CFS:
            due.pop("ready", None)
        if values[0] & _SHST == _COMPLETE or values[0] & _CFS:
            due.pop("shutdown", None)

    def _started(self, _at: int, _values: Values) -> None:
        if self._csts is None:  # QEMU says no more
            self._monitor.due.pop("ready", None)

    def _start_failed(self, _at: int, _values: Values) -> None:
        self._monitor.due.clear()

    def _stopped(self, at: int, _values: Values) -> None:
        self._monitor.due.pop("shutdown", None)
        if self._monitor.shadows:
            self._monitor.shadows_ended = at

    def _configured(self, _at: int, _values: Values) -> None:
        self._monitor.shadows_ended = 0

    def _reset(self, at: int, values: Values) -> None:
        self._stopped(at, values)
        self._monitor.due.clear()
        if self._csts is not None:
            self._csts, self._csts_at = 0, at

    def _shutdown_set(self, at: int, _values: Values) -> None:
        if self._csts is not None:
            text = "CC.SHN asks for a shutdown: CSTS.SHST 10b (complete)"
            self._monitor.due["shutdown"] = Due("reset.shutdown-complete", at, text)

    def _shutdown_cleared(self, _at: int, _values: Values) -> None:
        self._monitor.due.pop("shutdown", None)

    def _write(self, at: int, values: Values) -> None:
        tail = values[0] >= DOORBELLS and not values[0] & 4  # CAP.DSTRD is 0 in all we know
        if tail and self._monitor.down and not self._ready:
            text = f"the doorbell at {values[0]:#x} is written before CSTS.RDY is 1"
            self._monitor.find("reset.doorbell-before-ready", text, self._monitor.down, at)

    def _rung(self, at: int, values: Values) -> None:
        sqid, tail = values
        sq = self._monitor.sqs.get(sqid)
        if self._monitor.shadows or not self._monitor.shutdown:
            return  # a shadow may have been stored long before it is looked at
        if self._csts is not None and self._csts & _SHST != _COMPLETE:
            return  # until then a host need not have stopped
        if sqid and sq and sq.tail is not None and tail != sq.tail:
            text = f"tail {tail} of SQ {sqid} is rung, and the controller has shut down"
            self._monitor.find("reset.submitted-after-shutdown", text, self._monitor.shutdown, at)

    @property
    def _ready(self) -> bool:
        return bool((self._csts or 0) & _RDY)

    def _command(self, at: int, values: Values) -> None:
        if self._monitor.down and not self._ready:
            text = f"CID {values[0]:#x} of SQ {values[1]} is fetched by a controller that was reset"
            self._monitor.contradicts("reset.fetched-while-disabled", text, self._monitor.down, at)

    def _cqe(self, at: int, values: Values) -> None:
        if self._monitor.down and not self._ready:
            text = f"an entry is posted to CQ {values[0]} by a controller that was reset"
            self._monitor.contradicts("reset.posted-while-disabled", text, self._monitor.down, at)
