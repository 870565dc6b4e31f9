"""Rules about what has to wait for the completion of a Create or Delete command.

A controller may carry out submitted commands in any order (Base 2.2, 3.4). One that takes them in
the order of their queue, as ours and QEMU's do, hides a driver that does not wait, so it is judged
by what was posted when the driver rang.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Command, Values
from nvmelab.check.rule import Rule

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    "queues.order": Rule(
        "driver",
        "what builds on a Create or Delete command waits for its completion: a submission queue on "
        "its completion queue, entries on their queue, a completion queue's end on that of its SQs",
        "Base 2.2, 3.3.1.1 and 3.3.1.2 (order of creation and deletion), 3.4 (derived: commands "
        "are carried out in any order)",
        ("cqe",),
    ),
}


class Order:
    """Looks at when Create and Delete commands, and entries of new queues, were rung."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._made: dict[int, Command] = {}
        """By CQID, the command that created it."""
        self._ended: dict[int, list[Command]] = {}
        """By CQID, the commands that deleted its submission queues."""
        monitor.answered.append(self._answered)
        monitor.admin_posted.append(self._posted)
        self.handlers: dict[str, Callable[[int, Values], None]] = {"started": self._begin}

    def _begin(self, _at: int, _values: Values) -> None:
        self._made.clear()
        self._ended.clear()

    def _answered(self, at: int, command: Command, status: int) -> None:
        if command.asks is None or status or not command.sq.from_start:
            return
        name, values = command.asks
        if name == "create_cq":
            self._made[values[1]] = command
            self._ended.pop(values[1], None)
        elif name == "create_sq":
            sqid, cqid = values[1:3]
            self._waited(at, command, self._made.get(cqid), f"SQ {sqid} is created on CQ {cqid}")
        elif name == "del_sq":
            sq = self._monitor.sqs.get(values[0])
            if sq and sq.cq and sq.from_start:
                self._ended.setdefault(sq.cq.id, []).append(command)
        elif name == "del_cq":
            for ended in self._ended.pop(values[0], ()):
                self._waited(at, command, ended, f"CQ {values[0]} is deleted")

    def _waited(self, at: int, command: Command, first: Command | None, text: str) -> None:
        """`command` was rung when `first` had been posted, or `text` says what is wrong."""
        early = first and (not first.posted or command.rung < first.posted)
        # Without entries, what is posted is a guess; where no doorbell shows, so is who rang when.
        if first and early and self._monitor.exact and command.rung:
            text = f"{text} by a command that was rung before CID {first.cid:#x} had completed"
            self._monitor.find("queues.order", text, command.rung, first.posted, at)

    def _posted(self, at: int, command: Command, _dw0: int) -> None:
        """A Create command is completed: until now, its queue was not to be used."""
        if command.asks is None or command.asks[0] != "create_sq" or command.status & 0x7FF:
            return
        sqid = command.asks[1][1]
        sq = self._monitor.sqs.get(sqid)
        if sq and sq.most and not self._monitor.shadows:
            text = f"tail {sq.most} of SQ {sqid} was rung before its creation had completed"
            self._monitor.find("queues.order", text, command.fetched, at)
