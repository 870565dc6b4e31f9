"""Rules about the registers: what a driver may write, when, and in which pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Values
from nvmelab.check.rule import Rule
from nvmelab.spec.registers import DOORBELLS, PROPERTIES_SIZE

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    "registers.admin-queue-enabled": Rule(
        "driver",
        "AQA, ASQ and ACQ are written only while CC.EN is 0",
        "Base 2.2, 3.1.4.5 (CC.EN)",
        ("aqattr", "asq", "acq"),
    ),
    "registers.admin-queue-size": Rule(
        "driver",
        "the controller is not enabled with an admin queue of one entry: AQA.ASQS, ACQS are not 0",
        "Base 2.2, 3.1.4.8 (AQA)",
        ("started", "admin_empty"),
    ),
    "registers.admin-queue-base": Rule(
        "driver",
        "ASQ and ACQ are aligned to the memory page that CC.MPS says",
        "Base 2.2, 3.1.4.9 (ASQ) and 3.1.4.10 (ACQ)",
        ("started", "admin_unaligned"),
    ),
    "registers.page-size": Rule(
        "driver",
        "CC.MPS lies between CAP.MPSMIN and CAP.MPSMAX",
        "Base 2.2, 3.1.4.1 (CAP)",
        ("started", "page_size"),
    ),
    "registers.command-set": Rule(
        "driver",
        "CC.CSS is a command set that CAP.CSS has",
        "Base 2.2, 3.1.4.5 (CC.CSS)",
        ("started", "unsupported_css"),
    ),
    "registers.arbitration": Rule(
        "driver",
        "CC.AMS is round robin, or an arbitration mechanism that CAP.AMS has",
        "Base 2.2, 3.1.4.5 (CC.AMS)",
        ("cc",),
    ),
    "registers.cc-enabled": Rule(
        "driver",
        "CC.MPS, CC.AMS and CC.CSS are changed only while CC.EN is 0",
        "Base 2.2, 3.1.4.5 (CC)",
        ("cc",),
    ),
    "registers.entry-size-changed": Rule(
        "driver",
        "CC.IOSQES and CC.IOCQES are not changed while there are I/O queues",
        "Base 2.2, 3.1.4.5 (CC.IOSQES, CC.IOCQES)",
        ("cc",),
    ),
    "registers.shn-reserved": Rule(
        "driver",
        "CC.SHN is not 11b, which is reserved",
        "Base 2.2, 3.1.4.5 (CC.SHN) and 1.4.1.6 (reserved)",
        ("cc",),
    ),
    "registers.access": Rule(
        "driver",
        "a register is read and written whole, or in aligned pieces of 4 bytes",
        "NVMe over PCIe Transport 1.2, 3.1.2 (register access)",
        ("write", "access_misaligned", "access_small"),
    ),
    "registers.read-only": Rule(
        "driver",
        "what is read-only or reserved is not written",
        "Base 2.2, 3.1.4 (properties)",
        ("csts_written", "no_register"),
        "note",
    ),
    "doorbell.reserved": Rule(
        "driver",
        "bits 31:16 of a doorbell are written as 0",
        "NVMe over PCIe Transport 1.2, 3.1.2.1 and 3.1.2.2; Base 2.2, 3.1.4 (reserved)",
        ("write",),
    ),
    "doorbell.aligned": Rule(
        "driver",
        "a doorbell is written as the 4 bytes that it is",
        "NVMe over PCIe Transport 1.2, 3.1.2 (doorbells)",
        ("write", "ub_db_wr_misaligned"),
    ),
}

_SHN, _IOSQES, _IOCQES = 3 << 14, 0xF << 16, 0xF << 20
_WIDE = frozenset((0x00, 0x28, 0x30, 0x48, 0x50))
"""Offsets of the registers that have 8 bytes: CAP, ASQ, ACQ, BPMBL, CMBMSC."""
_EN, _CSS, _MPS, _AMS = 1, 7 << 4, 0xF << 7, 7 << 11
_WEIGHTED, _OF_VENDOR = 1 << 11, 7 << 11
"""CC.AMS: what a controller may offer besides round robin, 0. The other values are reserved."""


class Registers:
    """Looks at the writes of registers."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._cc_at = 0
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "cc": self._cc,
            "offers": self._offers,
            "aqattr": self._admin_register,
            "asq": self._admin_register,
            "acq": self._admin_register,
            "write": self._write,
            "access_misaligned": self._misaligned,
            "access_small": self._small,
            "csts_written": self._csts_written,
            "no_register": self._no_register,
            "unsupported_css": self._unsupported_css,
            "admin_unaligned": self._admin_unaligned,
            "admin_empty": self._admin_empty,
            "page_size": self._page_size,
            "ub_db_wr_misaligned": self._doorbell_misaligned,
        }

    def _cc(self, at: int, values: Values) -> None:
        old, new = self._monitor.cc, values[0]
        if new & _SHN == _SHN:
            self._monitor.find("registers.shn-reserved", f"CC.SHN is 11b: {new:#x}", at)
        self._cc_at = at
        if new & _EN and not (old or 0) & _EN and new & _AMS not in (0, _WEIGHTED, _OF_VENDOR):
            self._arbitration(new)
        if old is None or not old & new & _EN:
            return
        for queues, field in ((self._monitor.sqs, _IOSQES), (self._monitor.cqs, _IOCQES)):
            if (old ^ new) & field and any(qid for qid in queues):
                text = f"CC is changed from {old:#x} to {new:#x}, and there are I/O queues"
                self._monitor.find("registers.entry-size-changed", text, at)
        for name, field in (("CSS", _CSS), ("MPS", _MPS), ("AMS", _AMS)):
            if (old ^ new) & field:
                text = f"CC.{name} is changed while the controller is enabled: {old:#x}, {new:#x}"
                self._monitor.find("registers.cc-enabled", text, self._monitor.enabled, at)

    def _offers(self, _at: int, _values: Values) -> None:
        # What our own controller offers is known: round robin. It says so once it is enabled.
        cc = self._monitor.cc or 0
        if cc & _AMS in (_WEIGHTED, _OF_VENDOR):
            self._arbitration(cc)

    def _arbitration(self, cc: int) -> None:
        text = f"enabled with CC.AMS {(cc & _AMS) >> 11:03b}b, which is not offered"
        self._monitor.find("registers.arbitration", text, self._cc_at)

    def _admin_register(self, at: int, _values: Values) -> None:
        if self._monitor.enabled:
            text = "a register of the admin queue is written while the controller is enabled"
            self._monitor.find("registers.admin-queue-enabled", text, self._monitor.enabled, at)

    def _write(self, at: int, values: Values) -> None:
        addr, data, size = values
        if addr < DOORBELLS:
            if size == 8 and addr not in _WIDE and not addr % 4:
                text = f"8 bytes are written at {addr:#x}, over two registers"
                self._monitor.find("registers.access", text, at)
            return
        if size == 4 and data > 0xFFFF and not addr % 4:
            text = f"{data:#x} is written to the doorbell at {addr:#x}"
            self._monitor.find("doorbell.reserved", text, at)
        if size != 4 and not addr % 4:
            text = f"the doorbell at {addr:#x} is written with {size} bytes"
            self._monitor.find("doorbell.aligned", text, at)

    def _misaligned(self, at: int, values: Values) -> None:
        if values[0] < PROPERTIES_SIZE:
            self._monitor.find("registers.access", f"an access to {values[0]:#x}", at)

    def _small(self, at: int, values: Values) -> None:
        if values[0] < PROPERTIES_SIZE:
            text = f"an access to {values[0]:#x} of fewer than 4 bytes"
            self._monitor.find("registers.access", text, at)

    def _csts_written(self, at: int, _values: Values) -> None:
        self._monitor.find("registers.read-only", "CSTS is written", at)

    def _no_register(self, at: int, values: Values) -> None:
        self._monitor.find("registers.read-only", f"{values[0]:#x} is written", at)

    def _unsupported_css(self, at: int, values: Values) -> None:
        self._monitor.find("registers.command-set", f"enabled with CC.CSS {values[0]}", at)

    def _admin_unaligned(self, at: int, values: Values) -> None:
        text = f"the admin queue's base is {values[0]:#x}"
        self._monitor.find("registers.admin-queue-base", text, at)

    def _admin_empty(self, at: int, _values: Values) -> None:
        text = "enabled with an admin queue of one entry"
        self._monitor.find("registers.admin-queue-size", text, at)

    def _page_size(self, at: int, values: Values) -> None:
        size, bound = values
        text = f"enabled with pages of 2^{size} bytes, and the bound is 2^{bound}"
        self._monitor.find("registers.page-size", text, at)

    def _doorbell_misaligned(self, at: int, values: Values) -> None:
        text = f"a write to {values[0]:#x}, within a doorbell"
        self._monitor.find("doorbell.aligned", text, at)
