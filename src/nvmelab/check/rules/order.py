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
    """Looks at when Create and Delete commands, and entries of new queues, were rung. It does so
    when their completions are posted: without entries, what is posted is a guess."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._made: dict[int, Command] = {}
        """By CQID, the command that created it."""
        self._used: dict[int, int] = {}
        """By SQID, its CQID."""
        self._ended: dict[int, Command] = {}
        """By CQID, the last command that deleted one of its submission queues."""
        monitor.admin_posted.append(self._posted)
        self.handlers: dict[str, Callable[[int, Values], None]] = {"started": self._begin}

    def _begin(self, _at: int, _values: Values) -> None:
        self._made.clear()
        self._used.clear()
        self._ended.clear()

    def _posted(self, at: int, command: Command, _dw0: int) -> None:
        if command.asks is None or command.status & 0x7FF or not command.sq.from_start:
            return
        name, values = command.asks
        if name == "create_cq":
            self._made[values[1]] = command
            self._ended.pop(values[1], None)
        elif name == "create_sq":
            sqid, cqid = values[1:3]
            self._used[sqid] = cqid
            self._waited(at, command, self._made.get(cqid), f"SQ {sqid} is created on CQ {cqid}")
            self._unused(at, command, sqid)
        elif name == "del_sq" and values[0] in self._used:
            self._ended[self._used.pop(values[0])] = command
        elif name == "del_cq":
            self._made.pop(values[0], None)
            self._waited(
                at, command, self._ended.pop(values[0], None), f"CQ {values[0]} is deleted"
            )

    def _waited(self, at: int, command: Command, first: Command | None, text: str) -> None:
        """`command` was rung when `first` had been posted, or `text` says what is wrong."""
        if first and command.rung and command.rung < first.posted:
            text = f"{text} by a command that was rung before CID {first.cid:#x} had completed"
            self._monitor.find("queues.order", text, command.rung, first.posted, at)

    def _unused(self, at: int, command: Command, sqid: int) -> None:
        """The queue's creation is completed now: until then it was not to be used."""
        sq = self._monitor.sqs.get(sqid)
        if sq and sq.most and not self._monitor.shadows:
            text = f"tail {sq.most} of SQ {sqid} was rung before its creation had completed"
            self._monitor.find("queues.order", text, command.fetched, at)
