"""The monitor between a driver of ours and somebody's device: what a bus analyser would see.

The device's own events do not show here. A witness sees the registers, the entries that the driver
rings for, and the completions, and works out the rest: an entry was fetched when SQHD has passed it
or its command is completed (Base 2.2, 4.2.1), in the order of the ring, and was finished when its
completion is seen. So nothing is known to be fetched before that, and who is accused is accused of
what shows on the bus.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

from nvmelab.check.live import LiveMonitor
from nvmelab.check.model import Command, Cq, Sq, Values
from nvmelab.check.rule import Finding, errors_of
from nvmelab.check.verdict import Verdict, judge
from nvmelab.spec.commands import TO_HOST, AdminOpcode
from nvmelab.spec.features import Feature
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS, OFFSET, SQE_SIZE, Aqa, Cap, Cc, Csts

NOT_SHOWN = frozenset(("commands.event-told", "interrupts.unasked"))
"""Rules that would need the device's own word: whether there was an event, and in which order it
posts and interrupts."""


class Memory(Protocol):
    """What is read of the memory that driver and device share."""

    def read(self, addr: int, length: int) -> bytes: ...

    def load_u32(self, addr: int) -> int: ...


class Entry(NamedTuple):
    """A submission queue entry that was rung, and is not known to be fetched."""

    slot: int
    words: Values

    @property
    def cid(self) -> int:
        return self.words[0] >> 16


class Witness:
    """Told of what crosses a link (it is a `link.watched.Watcher`); see `verdict`. The controller
    that it begins with may be in any state: it is judged from the next reset on."""

    def __init__(self, memory: Memory, waived: Iterable[str] = ()) -> None:
        self.live = LiveMonitor(NOT_SHOWN.union(waived))
        self._monitor = self.live.monitor
        self._monitor.cc = None
        self._monitor.finishing_shows = False
        self._memory = memory
        self._shift = 2
        self._registers = bytearray(DOORBELLS)
        self._cap: Cap | None = None
        self._csts: int | None = None
        """As it was last read; None if it was not since CC was written."""
        self._starting = False
        """CC.EN was set, and CSTS.RDY was not seen set since."""
        self._rung: dict[int, deque[Entry]] = {}
        self._slots: dict[tuple[int, int], int] = {}
        """Where the entry of each command that is under way stood, by SQ and CID."""
        self._blind = False
        """What happens between now and the next reset does not show here: shadow doorbells are on,
        or the function was reconfigured."""

    # What crosses the link.

    def writes(self, offset: int, size: int, value: int) -> None:
        """See `Watcher`."""
        if offset >= DOORBELLS:
            self._doorbell(offset - DOORBELLS, size, value)
            return
        self.live.emit("mmio_write", offset, value, size)
        before = self._register("cc", 4)
        inside = value.to_bytes(size, "little")[: max(len(self._registers) - offset, 0)]
        touched = range(offset, offset + size)
        admin = any(OFFSET[name] in touched for name in ("aqa", "asq", "acq"))
        if not (before & 1 and admin):  # a device need not take these while it is enabled
            self._registers[offset : offset + len(inside)] = inside
        if OFFSET["cc"] in touched:
            self._cc(before, self._register("cc", 4))
        if OFFSET["aqa"] in touched:
            self.live.emit("mmio_aqattr", self._register("aqa", 4))
        for name in ("asq", "acq"):
            if OFFSET[name] in touched or OFFSET[name] + 4 in touched:
                self.live.emit(f"mmio_{name}addr", self._register(name, 8))

    def has_read(self, offset: int, size: int, value: int) -> None:
        """See `Watcher`."""
        if offset == OFFSET["cap"] and size == 8:
            self._cap = Cap.decode(value.to_bytes(8, "little"))
            self._shift = 2 + self._cap.dstrd
        elif offset == OFFSET["cc"] and self._monitor.cc is None:
            self._registers[offset : offset + size] = value.to_bytes(size, "little")
            self._monitor.cc = value & 0xFFFF_FFFF
        elif offset == OFFSET["csts"] and value & 0xFFFF_FFFF != 0xFFFF_FFFF:
            self._read_csts(value & 0xFFFF_FFFF)

    def configures(self) -> None:
        """See `Watcher`."""
        self._blind = True

    def looks(self, memory: Memory, raised: Callable[[int], bool]) -> None:
        """See `Watcher`."""
        monitor = self._monitor
        admin = monitor.cqs.get(0)
        if self._blind or not monitor.enabled or admin is None:  # a device may have deleted it
            return
        # Before the entries: what is posted after this counts as told of, which accuses nobody.
        vectors = sorted({cq.vector for cq in monitor.cqs.values() if cq.vector is not None})
        told = [vector for vector in vectors if raised(vector)]
        while True:
            # What an admin command ends is looked at once more before its completion is.
            ends = self._is_there(admin)
            for cq in [cq for cqid, cq in sorted(monitor.cqs.items()) if cqid]:
                while self._take(cq):
                    pass
            if not ends or not self._take(admin):
                break
        for vector in told:
            self.live.emit("irq_msix", vector)

    # Registers.

    def _register(self, name: str, size: int) -> int:
        at = OFFSET[name]
        return int.from_bytes(self._registers[at : at + size], "little")

    def _cc(self, old: int, new: int) -> None:
        before, after = Cc.from_words((old,)), Cc.from_words((new,))
        emit = self.live.emit
        emit("mmio_cfg", new)
        self._csts = None
        if before.en and not after.en:
            emit("mmio_stopped")
            self._forget()
        self._starting = bool(after.en and (self._starting or not before.en))
        if after.en and not before.en:
            self._check_start(after)
        if after.shn and not before.shn:
            emit("mmio_shutdown_set")
        elif before.shn and not after.shn:
            emit("mmio_shutdown_cleared")

    def _check_start(self, cc: Cc) -> None:
        """The monitor is told what makes a start impossible."""
        aqa, page = Aqa.from_words((self._register("aqa", 4),)), 1 << 12 + cc.mps
        flaws: list[tuple[str, *tuple[int, ...]]] = []
        for name, entries in (("asq", aqa.asqs), ("acq", aqa.acqs)):
            if entries < 2:
                flaws.append((f"err_startfail_{name}ent_sz_zero",))
            if (base := self._register(name, 8)) % page:
                flaws.append((f"err_startfail_{name}_misaligned", base))
        cap = self._cap
        if cap and cc.mps > cap.mpsmax:
            flaws.append(("err_startfail_page_too_large", 12 + cc.mps, 12 + cap.mpsmax))
        if cap and cc.mps < cap.mpsmin:
            flaws.append(("err_startfail_page_too_small", 12 + cc.mps, 12 + cap.mpsmin))
        if cap and cc.css < 6 and not cap.css >> cc.css & 1:
            flaws.append(("err_startfail_css", cc.css))
        for flaw in flaws:
            self.live.emit(*flaw)
        if flaws:
            self.live.emit("err_startfail")

    def _forget(self) -> None:
        self._blind = False
        self._rung.clear()
        self._slots.clear()

    def _read_csts(self, value: int) -> None:
        if value == self._csts:
            return
        csts = Csts.from_words((value,))
        if csts.cfs and not self._monitor.failed:
            self.live.emit("err_cfs")
        if csts.rdy and self._starting:
            self._starting = False
            self.live.emit("mmio_start_success")
        self._csts = value
        self.live.emit("csts", value)

    # Doorbells.

    def _doorbell(self, offset: int, size: int, value: int) -> None:
        index = offset >> self._shift
        self.live.emit("mmio_write", DOORBELLS + 4 * index, value, size)
        if self._blind or not self._monitor.enabled or offset != index << self._shift:
            return
        qid, value = index >> 1, value & 0xFFFF
        if index & 1:
            self._head(qid, value)
        else:
            self._tail(qid, value)

    def _head(self, qid: int, value: int) -> None:
        cq = self._monitor.cqs.get(qid)
        if cq is None:
            self.live.emit("ub_db_wr_invalid_cq", qid)
        elif cq.entries and value >= cq.entries:
            self.live.emit("ub_db_wr_invalid_cqhead", qid, value)
        else:
            self.live.emit("mmio_doorbell_cq", qid, value)

    def _tail(self, qid: int, value: int) -> None:
        sq = self._monitor.sqs.get(qid)
        if sq is None:
            self.live.emit("ub_db_wr_invalid_sq", qid)
            return
        if not sq.from_start or not sq.entries or sq.base is None or sq.tail is None:
            return
        if value >= sq.entries:
            self.live.emit("ub_db_wr_invalid_sqtail", qid, value)
            return
        rung = self._rung.setdefault(qid, deque())
        slot = (sq.tail + len(rung) - len(sq.rung)) % sq.entries
        while slot != value:
            data = self._memory.read(sq.base + slot * SQE_SIZE, SQE_SIZE)
            words = tuple(memoryview(data).cast("I"))
            rung.append(Entry(slot, words))
            self._blind |= words[0] & 3 == TO_HOST and self._in_a_queue(words)
            slot = (slot + 1) % sq.entries
        self._tell_of(sq, rung, value)

    def _tell_of(self, sq: Sq, rung: deque[Entry], tail: int) -> None:
        """The monitor is told of a doorbell. Not of Asynchronous Event Requests that nothing
        follows: whether those are fetched never shows, and nobody owes them anything."""
        told = len(rung)
        while sq.id == 0 and told and rung[told - 1].words[0] & 0xFF == _EVENT_REQUEST:
            told -= 1
        last = rung[told].slot if told < len(rung) else tail
        if told > len(sq.rung) or not rung:
            self.live.emit("mmio_doorbell_sq", sq.id, last)

    # Completions.

    def _is_there(self, cq: Cq) -> bool:
        """The next entry of a completion queue is, by its phase tag."""
        if self._blind or cq.base is None:
            return False
        return self._memory.load_u32(cq.base + cq.tail * CQE_SIZE + 12) >> 16 & 1 == cq.phase

    def _take(self, cq: Cq) -> bool:
        """The next entry of a completion queue, if it is there. The dword with the phase tag is
        read first."""
        if not self._is_there(cq):
            return False
        assert cq.base is not None
        addr = cq.base + cq.tail * CQE_SIZE
        dw0, dw1, where, state = memoryview(self._memory.read(addr, CQE_SIZE)).cast("I")
        sqhd, sqid, cid, status = where & 0xFFFF, where >> 16, state & 0xFFFF, state >> 17
        self._fetched(sqid, cid, sqhd)
        slot = self._slots.pop((sqid, cid), None)
        sq = self._monitor.sqs.get(sqid)
        command = sq.flight.get(cid) if slot is not None and sq else None
        if command:
            self._granted(command, dw0, status)
            self.live.emit("enqueue_req_completion", cid, cq.id, dw0, dw1, status)
            if slot is not None and sq and sq.entries:
                command.sqhd = (slot + 1) % sq.entries  # when it was finished does not show
        self.live.emit("cqe", cq.id, cq.tail, dw0, dw1, sqhd, sqid, cid, cq.phase, status)
        self._blind |= command is None  # that was no entry of ours: what follows may be none either
        if command and command.asks and not status & _STATUS:
            self._carried_out(*command.asks)
        return True

    def _granted(self, command: Command, dw0: int, status: int) -> None:
        """The monitor is told how many queues there may be, when that was asked."""
        words = command.words
        name, values = command.asks or ("", ())
        if name == "set_feature" and values[0] == Feature.NUMBER_OF_QUEUES and words and not status:
            asked = ((words[11] >> 16) + 1, (words[11] & 0xFFFF) + 1)
            self.live.emit("setfeat_numq", *asked, (dw0 >> 16) + 1, (dw0 & 0xFFFF) + 1)

    def _carried_out(self, asked: str, values: Values) -> None:
        """A command has succeeded that changes queues."""
        self._blind |= asked == "dbbuf_config"
        if asked in ("create_sq", "del_sq"):
            sqid = values[1] if asked == "create_sq" else values[0]
            self._rung.pop(sqid, None)
            self._slots = {key: slot for key, slot in self._slots.items() if key[0] != sqid}
        if asked != "create_cq":
            return
        cq = self._monitor.cqs[values[1]]
        for slot in range(cq.entries or 0):
            if self._memory.load_u32(values[0] + slot * CQE_SIZE + 12) >> 16 & 1:
                self.live.emit("cq_not_cleared", cq.id, slot)
                self._blind = True  # what is an entry, and what was there before, does not show
                return

    def _fetched(self, sqid: int, cid: int, sqhd: int) -> None:
        """What a completion tells of the submission queue's entries."""
        sq, rung = self._monitor.sqs.get(sqid), self._rung.get(sqid)
        if not rung or sq is None or not sq.entries or sq.head is None:
            return
        slots = [entry.slot for entry in rung]
        last = next((number for number, entry in enumerate(rung) if entry.cid == cid), -1)
        before = (sqhd - 1) % sq.entries
        if before in slots:
            last = max(last, slots.index(before))
        for _ in range(last + 1):
            self._fetch(sq, rung)

    def _fetch(self, sq: Sq, rung: deque[Entry]) -> None:
        if not sq.rung:  # an Asynchronous Event Request that the monitor was not told of
            assert sq.entries
            self.live.emit("mmio_doorbell_sq", sq.id, (rung[0].slot + 1) % sq.entries)
        slot, words = rung.popleft()
        cid, opcode = words[0] >> 16, words[0] & 0xFF
        self._slots[sq.id, cid] = slot
        self.live.emit("sqe", sq.id, slot, *words)
        if sq.id:
            self.live.emit("io_cmd", cid, words[1], sq.id, opcode, "")
            return
        self.live.emit("admin_cmd", cid, sq.id, opcode, "")
        if opcode == _EVENT_REQUEST:
            self.live.emit("aer", cid)

    def _in_a_queue(self, words: Values) -> bool:
        """The data of a command may overwrite the memory of a queue. Of a PRP list only the place
        is looked at."""
        pages = {(words[at] | words[at + 1] << 32) // _PAGE for at in (6, 8)} - {0}
        return any(
            start // _PAGE <= page <= (end - 1) // _PAGE
            for page in pages
            for _name, start, end in self._monitor.memory_of_queues()
        )

    # What is to be said.

    def breaches(self) -> list[Finding]:
        """What the device did wrong while the driver did everything right: what a device does after
        a breach of its driver is left alone."""
        errors = errors_of(self._monitor.findings)
        return list(itertools.takewhile(lambda finding: finding.party != "driver", errors))

    def verdict(self) -> Verdict | None:
        """On a driver that waits, and a device that is at rest. None if something has happened that
        does not show, or the driver broke a rule itself: what is owed to it then, its own test
        knows."""
        monitor = self._monitor
        errors = errors_of(monitor.findings)
        if self._blind or any(finding.party == "driver" for finding in errors):
            return None
        due = monitor.due
        if self._csts is None:  # nobody has looked whether the device has done it
            monitor.due = {}
        verdict = judge(monitor, rest=True, time_of=lambda _event: 0.0)  # it ends things itself
        monitor.due = due
        return verdict


_EVENT_REQUEST = int(AdminOpcode.ASYNC_EVENT_REQUEST)
_STATUS = 0x7FF
"""SCT and SC of a status field."""
_PAGE = 4096
