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
        cqid, slot, dw0, _dw1, sqhd, sqid, cid, phase, _status = values
        cq = monitor.cq(cqid)
        if cq.from_start and cq.entries:
            self._posting(at, cq, slot, phase)
        if cq.ien:
            cq.unsignalled = cq.unsignalled or at
        command = cq.finished[0] if cq.finished else None
        if command and (command.cid != cid or command.sq.id != sqid):
            command = next((c for c in cq.finished if c.cid == cid and c.sq.id == sqid), None)
        if command is None:
            command = self._mistaken(cq, sqid, cid) or self._elsewhere(at, cq, sqid, cid)
            if command is None:
                self._stray(at, cq, sqid, cid)
                return
        sq = command.sq
        if sq.from_start and sq.entries and command.sqhd is not None and sq.head is not None:
            moved = (sq.head - command.sqhd) % sq.entries
            if sqhd >= sq.entries or (sqhd - command.sqhd) % sq.entries > moved:
                text = (
                    f"SQHD {sqhd} of SQ {sqid}: its head was {command.sqhd} when CID {cid:#x} was "
                    f"done, and is {sq.head}"
                )
                monitor.contradicts("cq.sqhd", text, command.finished, at)
        sq.told = sqhd
        monitor.post(cq, command, at)
        if not sqid:
            for look in monitor.admin_posted:
                look(at, command, dw0)

    def _mistaken(self, cq: Cq, sqid: int, cid: int) -> Command | None:
        """The command, if another one was taken for it when it was finished: that is told with the
        CID and the CQ, and a CID is only its queue's own."""
        sq = self._monitor.sqs.get(sqid)
        told = next((one for one in cq.finished if one.cid == cid), None)
        if told is None or sq is None or sq.cq is not cq or cid not in sq.flight:
            return None
        command = sq.flight.pop(cid)
        command.finished, command.status = told.finished, told.status
        cq.take_back(told)
        cq.finish(command)
        return command

    def _elsewhere(self, at: int, cq: Cq, sqid: int, cid: int) -> Command | None:
        """The command, if it is done and was to be posted to another completion queue."""
        sq = self._monitor.sqs.get(sqid)
        home = sq.cq if sq and sq.from_start else None
        if home is None or home is cq:
            return None
        done = (one for one in home.finished if one.cid == cid and one.sq is sq)
        command = next(done, None)
        if command:
            text = f"SQID {sqid} CID {cid:#x} is posted to CQ {cq.id}; SQ {sqid} has CQ {home.id}"
            self._monitor.contradicts("cq.wrong-queue", text, command.finished, at)
            home.withdraw(command)
            cq.finish(command)
        return command

    def _stray(self, at: int, cq: Cq, sqid: int, cid: int) -> None:
        """An entry is posted for nothing that is done."""
        monitor = self._monitor
        cq.strays += 1
        own = monitor.sqs.get(sqid)
        if own is None and sqid in monitor.deleted:
            text = f"CID {cid:#x} of SQ {sqid} is posted, and that queue was deleted"
            monitor.contradicts("cq.after-deletion", text, monitor.deleted[sqid], at)
        elif cq.from_start and monitor.all_from_start and not (own and cid in own.twice):
            text = f"SQID {sqid} CID {cid:#x} is posted to CQ {cq.id}, and no such one is done"
            monitor.contradicts("cq.unknown-command", text, at)

    def _posting(self, at: int, cq: Cq, slot: int, phase: int) -> None:
        assert cq.entries
        monitor = self._monitor
        if cq.full:
            monitor.contradicts(
                "cq.overrun", f"an entry is posted to CQ {cq.id}, which is full", at
            )
        if slot != cq.tail:
            monitor.contradicts(
                "cq.slot", f"slot {slot} of CQ {cq.id} is posted to, and the next is {cq.tail}", at
            )
        elif phase != cq.phase:
            monitor.contradicts(
                "cq.phase", f"slot {slot} of CQ {cq.id} gets the old phase tag {phase}", at
            )
        cq.tail = (slot + 1) % cq.entries
        cq.phase = phase ^ (cq.tail == 0)
