"""Completions as they are posted, where a source shows the entries: our own device does, QEMU's log
does not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Command, Cq, Values

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor


class Postings:
    """Moves the commands of a monitor from finished to posted, entry by entry."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self.handlers: dict[str, Callable[[int, Values], None]] = {"cqe": self._cqe}

    def _cqe(self, at: int, values: Values) -> None:
        """An entry is posted, which shows."""
        monitor = self._monitor
        monitor.exact = True
        cqid, slot, _dw0, _dw1, sqhd, sqid, cid, phase, _status = values
        cq = monitor.cq(cqid)
        if cq.from_start and cq.entries:
            self._posting(at, cq, slot, phase)
        if cq.ien:
            cq.unsignalled = cq.unsignalled or at
        command = cq.finished[0] if cq.finished else None
        if command and (command.cid != cid or command.sq.id != sqid):
            command = next((c for c in cq.finished if c.cid == cid and c.sq.id == sqid), None)
            command = command or self._taken_for_another(cq, sqid, cid)
        if command is None:
            own = monitor.sqs.get(sqid)
            twice = own and cid in own.twice
            if own is None and sqid in monitor.deleted:
                text = f"CID {cid:#x} of SQ {sqid} is posted, and that queue was deleted"
                monitor.find("cq.after-deletion", text, monitor.deleted[sqid], at)
            elif cq.from_start and monitor.all_from_start and not twice:
                text = f"SQID {sqid} CID {cid:#x} is posted to CQ {cqid}, and no such one is done"
                monitor.find("cq.unknown-command", text, at)
            return
        sq = command.sq
        if sq.from_start and sq.entries and command.sqhd is not None and sq.head is not None:
            moved = (sq.head - command.sqhd) % sq.entries
            if sqhd >= sq.entries or (sqhd - command.sqhd) % sq.entries > moved:
                text = (
                    f"SQHD {sqhd} of SQ {sqid}: its head was {command.sqhd} when CID {cid:#x} was "
                    f"done, and is {sq.head}"
                )
                monitor.find("cq.sqhd", text, command.finished, at)
        sq.told = sqhd
        monitor.post(cq, command, at)

    def _taken_for_another(self, cq: Cq, sqid: int, cid: int) -> Command | None:
        """A command that is being carried out, while one of the same CID and another queue of this
        CQ is done: what tells of the end names no submission queue, and this one was meant."""
        sq = self._monitor.sqs.get(sqid)
        meant = sq.flight.get(cid) if sq and sq.cq is cq else None
        other = next((command for command in cq.finished if command.cid == cid), None)
        if sq is None or meant is None or other is None:
            return None
        cq.exchange(other, meant)
        return meant

    def _posting(self, at: int, cq: Cq, slot: int, phase: int) -> None:
        assert cq.entries
        monitor = self._monitor
        if cq.full:
            monitor.find("cq.overrun", f"an entry is posted to CQ {cq.id}, which is full", at)
        if slot != cq.tail:
            monitor.find(
                "cq.slot", f"slot {slot} of CQ {cq.id} is posted to, and the next is {cq.tail}", at
            )
        elif phase != cq.phase:
            monitor.find(
                "cq.phase", f"slot {slot} of CQ {cq.id} gets the old phase tag {phase}", at
            )
        cq.tail = (slot + 1) % cq.entries
        cq.phase = phase ^ (cq.tail == 0)
