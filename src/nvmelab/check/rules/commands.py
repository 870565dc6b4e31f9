"""Rules about commands: what stands in an entry, and how a command may end."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Command, Values
from nvmelab.check.rule import Rule
from nvmelab.spec.commands import ADMIN, COMMANDS, AdminOpcode
from nvmelab.spec.status import Status

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    "commands.cid-ffff": Rule(
        "driver",
        "FFFFh is no CID: the error log uses it for 'no command'",
        "Base 2.2, 4.1.1 (CID)",
        ("sqe", "command"),
        "note",
    ),
    "commands.fuse": Rule(
        "driver",
        "FUSE is 00b for a command that is not fused, and never 11b",
        "Base 2.2, 4.1.1 (FUSE)",
        ("sqe",),
    ),
    "commands.psdt": Rule(
        "driver",
        "SGLs (PSDT) are used only for I/O commands, and where SGLS offers them",
        "Base 2.2, 4.1.1 (PSDT)",
        ("sqe",),
    ),
    "commands.reserved": Rule(
        "driver",
        "reserved fields of a command are 0",
        "Base 2.2, 4.1.1",
        ("sqe",),
        "note",
    ),
    "commands.nsid-unused": Rule(
        "driver",
        "NSID is 0 in a command that does not use it",
        "Base 2.2, 4.1.1 (NSID) and 5 (Figure 142)",
        ("sqe",),
    ),
    "commands.lba-range": Rule(
        "driver",
        "the logical blocks of a command are blocks of the namespace",
        "NVM Command Set 1.2, 3.3 (LBA Out of Range)",
        ("command",),
    ),
    "commands.mdts": Rule(
        "driver",
        "a transfer is at most as large as MDTS says",
        "Base 2.2, 5.1.13.2.1 (MDTS)",
        ("map_prp", "too_much"),
        "note",
    ),
    "commands.events-limit": Rule(
        "driver",
        "at most AERL + 1 Asynchronous Event Requests are outstanding",
        "Base 2.2, 5.1.2 and 5.1.13.2.1 (AERL)",
        ("parked",),
        "note",
    ),
    "commands.event-told": Rule(
        "device",
        "an Asynchronous Event Request succeeds only when there is an event",
        "Base 2.2, 5.1.2",
        ("parked",),
    ),
    "commands.abort-answered": Rule(
        "device",
        "a command that an Abort says it has aborted ends with Command Abort Requested",
        "Base 2.2, 5.1.1 (Abort)",
        ("aborted",),
    ),
    "commands.status-type": Rule(
        "device",
        "the status code type of a completion is one that is defined",
        "Base 2.2, 4.2.3 (SCT)",
        ("finished",),
    ),
}

_FUSE, _PSDT = 3 << 8, 3 << 14
_UNUSUAL = 0xFF00
"""FUSE, PSDT and what is reserved between them: 0 in nearly every command."""
_ANY = (0x3C00, *[0] * 15)
"""Reserved in every command: bits 13:10 of CDW0."""
_RESERVED = {
    opcode: tuple(kind.reserved >> 32 * number & 0xFFFF_FFFF for number in range(16))
    for (queue, opcode), kind in COMMANDS.items()
    if queue == ADMIN and opcode not in (AdminOpcode.SET_FEATURES, AdminOpcode.GET_FEATURES)
}
"""By opcode of an admin command: the bits of its 16 dwords that have no meaning. Those of features
have one for each feature, and the NVM commands get new ones all the time."""
_NO_NSID = frozenset(
    (
        *(AdminOpcode.CREATE_IO_CQ, AdminOpcode.CREATE_IO_SQ, AdminOpcode.DELETE_IO_CQ),
        *(AdminOpcode.DELETE_IO_SQ, AdminOpcode.ABORT, AdminOpcode.ASYNC_EVENT_REQUEST),
        AdminOpcode.DOORBELL_BUFFER_CONFIG,
        # Firmware Commit and Image Download, Keep Alive, Virtualization Management, NVMe-MI Send
        # and Receive, Sanitize.
        *(0x10, 0x11, 0x18, 0x1C, 0x1D, 0x1E, 0x84),
    )
)
"""Admin commands that concern no namespace (Figure 142)."""


class Commands:
    """Looks at entries, and at how commands end."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._told = 0
        """Asynchronous events that were told of and whose request has not ended."""
        self._aborts: dict[int, Command] = {}
        """By CID of an Abort, the command that was in flight under the CID it names."""
        self._aborted: list[tuple[int, Command]] = []
        """Lines that say that a command was aborted, and the command, whose entry is awaited."""
        monitor.answered.append(self._answered)
        monitor.admin_posted.append(self._posted)
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "sqe": self._sqe,
            "command": self._command,
            "event_told": self._event_told,
            "lba_range": self._lba_range,
            "too_much": self._too_much,
            "started": self._begin,
        }

    def _begin(self, _at: int, _values: Values) -> None:
        self._told = 0
        self._aborts.clear()
        self._aborted.clear()
        self._monitor.awaiting = False

    def _command(self, at: int, values: Values) -> None:
        if values[0] == 0xFFFF:
            text = f"a command of SQ {values[1]} has the CID FFFFh"
            self._monitor.find("commands.cid-ffff", text, at)

    def _sqe(self, at: int, values: Values) -> None:
        if values[0] and not values[2] & _UNUSUAL:
            return
        sqid, words = values[0], values[2:]
        word, opcode = words[0], words[0] & 0xFF
        name = f"the command of CID {word >> 16:#x}, opcode {opcode:#x}, SQ {sqid}"
        find = self._monitor.find
        if word & _FUSE and (not sqid or word & _FUSE == _FUSE):
            find("commands.fuse", f"{name} has FUSE {word >> 8 & 3:#x}", at)
        if word & _PSDT and (not sqid or self._monitor.offer):
            # What our own controller offers is known: no SGLs.
            find("commands.psdt", f"{name} has PSDT {word >> 14:#x}", at)
        if not sqid and opcode in _NO_NSID and words[1]:
            find("commands.nsid-unused", f"{name} has NSID {words[1]:#x}", at)
        if not sqid and opcode == AdminOpcode.ABORT:
            self._abort(words)
        masks = _RESERVED.get(opcode, _ANY) if not sqid else _ANY
        if any(map(operator.and_, words, masks)):
            strays = (number for number in range(16) if words[number] & masks[number])
            text = ", ".join(f"CDW{number} {words[number]:#x}" for number in strays)
            find("commands.reserved", f"{name}: {text}", at)

    def _abort(self, words: Values) -> None:
        """What is meant is known where it is in flight, and no other command had its CID."""
        sq, cid = self._monitor.sqs.get(words[10] & 0xFFFF), words[10] >> 16
        self._aborts.pop(words[0] >> 16, None)
        if sq and sq.from_start and cid in sq.flight and cid not in sq.twice:
            self._aborts[words[0] >> 16] = sq.flight[cid]

    def _posted(self, at: int, command: Command, dw0: int) -> None:
        """An admin command is completed: bit 0 of an Abort's dword 0 says that nothing was aborted
        before that."""
        if command.opcode != AdminOpcode.ABORT:
            return
        meant = self._aborts.pop(command.cid, None)
        if meant and not command.status & 0x7FF and not dw0 & 1:
            self._monitor.seen.add("aborted")
            self._aborted.append((at, meant))
            self._await_aborted()

    def _await_aborted(self) -> None:
        """Only an entry says for certain which command it is of."""
        waiting = self._aborted
        self._aborted = []
        for at, command in waiting:
            status, sq = command.status & 0x7FF, command.sq
            if not command.posted:
                if self._monitor.sqs.get(sq.id) is sq:
                    self._aborted.append((at, command))
            elif status != Status.COMMAND_ABORT_REQUESTED and command.cid not in sq.twice:
                text = f"CID {command.cid:#x} of SQ {sq.id} was aborted, and ends with {status:#x}"
                self._monitor.find("commands.abort-answered", text, at, command.posted)
        self._monitor.awaiting = bool(self._aborted)

    def _lba_range(self, at: int, values: Values) -> None:
        start, count, limit = values
        if start + count > limit:
            text = f"blocks {start} to {start + count - 1} of {limit}"
            self._monitor.find("commands.lba-range", text, self._line(), at)

    def _too_much(self, at: int, values: Values) -> None:
        offer = self._monitor.offer
        if offer and offer.mdts and values[0] > offer.mdts:
            text = f"a transfer of {values[0]} bytes, and MDTS is {offer.mdts}"
            self._monitor.find("commands.mdts", text, self._line(), at)

    def _line(self) -> int:
        """Where the command was fetched that was last."""
        return self._monitor.last.fetched if self._monitor.last else 0

    def _event_told(self, _at: int, _values: Values) -> None:
        self._told += 1

    def _answered(self, at: int, command: Command, status: int) -> None:
        find = self._monitor.find
        lines = (command.fetched, at)
        if 4 <= status >> 8 <= 6:
            text = f"CID {command.cid:#x} of SQ {command.sq.id} ends with status {status:#x}"
            find("commands.status-type", text, *lines)
        if self._aborted:
            self._await_aborted()
        if command.sq.id or command.opcode != AdminOpcode.ASYNC_EVENT_REQUEST:
            return
        if command.parked and not status:
            if not self._told and command.sq.from_start:
                text = f"the Asynchronous Event Request CID {command.cid:#x} ends without an event"
                find("commands.event-told", text, *lines)
            self._told = max(self._told - 1, 0)
        offer = self._monitor.offer
        if status == Status.ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED and offer:
            waiting = sum(other.parked for other in command.sq.flight.values())
            if waiting >= offer.aerl:
                text = f"an Asynchronous Event Request beside {waiting}; AERL allows {offer.aerl}"
                find("commands.events-limit", text, *lines)
