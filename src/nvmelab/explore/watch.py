"""What must never happen, whichever step is next: the rules that hold after every step.

A `Watch` sees what both sides do where they meet: entries written and fetched, doorbells, entries
posted, data. It knows neither side's own variables, and judges whoever acts. It stops at the first
breach. That a command is left behind is not seen here: that is a matter of states at rest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Container

import msgspec

from nvmelab.check.rules import RULES
from nvmelab.memory import GuestMemory
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS, SQE_SIZE


class Violation(Exception):
    """A rule was broken by the step under way."""

    def __init__(self, rule: str, seen: str) -> None:
        super().__init__(f"{RULES[rule].text}: {seen}")
        self.rule = rule
        self.seen = seen

    @property
    def party(self) -> str:
        return RULES[self.rule].party


class Seen(msgspec.Struct):
    """What has happened so far on one queue pair: counts since its creation. Flat, so that a
    shallow copy keeps it."""

    written: int = 0
    rung: int = 0
    fetched: int = 0
    posted: int = 0
    consumed: int = 0
    """Entries of the submission queue below the SQ Head Pointer of the last completion."""
    released: int = 0
    """Entries of the completion queue below its head doorbell."""
    slots: tuple[int, ...] = ()
    """CIDs of the entries that were written and not fetched, oldest first."""
    device: tuple[int, ...] = ()
    """CIDs of the commands that were fetched and not completed."""
    waiting: tuple[int, ...] = ()
    """CIDs of the completions that were posted and not made use of."""
    signalled: int = 0
    """Completions that were posted when the last interrupt was raised, or all if none is due."""


class Watch:
    """Watches one pair of queues, both of `entries`, that were just created.

    `data_ready(cid)` says whether the data of that command is where it belongs.
    """

    def __init__(
        self, qid: int, entries: int, data_ready: Callable[[int], bool], *, interrupts: bool
    ) -> None:
        self._qid = qid
        self._entries = entries
        self._interrupts = interrupts
        self._data_ready = data_ready
        self.seen = Seen()

    # The driver.

    def entry_written(self, slot: int, data: bytes | bytearray | memoryview) -> None:
        seen, size = self.seen, self._entries
        cid = data[2] | data[3] << 8
        if slot != seen.written % size:
            raise Violation(
                "sq.slot-in-use", f"an entry is written to slot {slot}, not {seen.written % size}"
            )
        if seen.written - seen.consumed >= size - 1:
            raise Violation(
                "sq.slot-in-use",
                f"slot {slot} is written while the queue is full: no completion has said that the "
                f"entry in slot {seen.consumed % size} is consumed",
            )
        if cid in seen.slots or cid in seen.device or cid in seen.waiting:
            raise Violation("sq.cid-in-use", f"CID {cid:#x} is given to a second command")
        seen.written += 1
        seen.slots = (*seen.slots, cid)

    def tail_rung(self, value: int) -> None:
        seen, size = self.seen, self._entries
        count = (value - seen.rung) % size
        if value >= size or count > seen.written - seen.rung:
            raise Violation(
                "sq.tail",
                f"tail {value} is rung; {seen.written - seen.rung} entries were written behind "
                f"tail {seen.rung % size} of {size} slots",
            )
        seen.rung += count

    def head_rung(self, value: int) -> None:
        seen, size = self.seen, self._entries
        count = (value - seen.released) % size
        if value >= size or count > seen.posted - seen.released:
            raise Violation(
                "cq.head",
                f"head {value} is rung; {seen.posted - seen.released} entries were posted behind "
                f"head {seen.released % size} of {size} slots",
            )
        seen.released += count

    def outstanding(self, cids: Container[int], taken: int) -> None:
        """After a step of the driver: the CIDs that it waits for, and how many entries it took."""
        seen = self.seen
        if taken > seen.posted:
            raise Violation("cq.taken-early", f"{taken} entries are taken, {seen.posted} posted")
        if seen.waiting and any(cid not in cids for cid in seen.waiting):
            seen.waiting = tuple(cid for cid in seen.waiting if cid in cids)

    # The device.

    def entry_fetched(self, slot: int) -> None:
        seen, size = self.seen, self._entries
        if slot != seen.fetched % size or seen.fetched == seen.rung:
            raise Violation(
                "sq.fetched-early",
                f"slot {slot} is fetched; {seen.rung - seen.fetched} entries are rung from slot "
                f"{seen.fetched % size} on",
            )
        seen.fetched += 1
        seen.device = (*seen.device, seen.slots[0])
        seen.slots = seen.slots[1:]

    def entry_posted(self, slot: int, high: int) -> None:
        """`high` is the quadword of the entry with SQHD, SQID, CID, phase and status."""
        seen, size = self.seen, self._entries
        sqhd, sqid, cid, status = (high >> shift & 0xFFFF for shift in (0, 16, 32, 48))
        if seen.posted - seen.released >= size - 1:
            raise Violation("cq.overrun", f"CID {cid:#x} is posted to a full queue")
        if slot != seen.posted % size:
            raise Violation("cq.slot", f"slot {slot} is written, not {seen.posted % size}")
        if status & 1 == seen.posted // size & 1:
            raise Violation("cq.phase", f"the entry in slot {slot} has the old phase {status & 1}")
        if sqid != self._qid or cid not in seen.device:
            raise Violation(
                "cq.unknown-command",
                f"SQID {sqid} CID {cid:#x} is completed, and is not, or no longer, at the device",
            )
        if sqhd != seen.fetched % size:
            raise Violation("cq.sqhd", f"SQHD {sqhd}, and the head is {seen.fetched % size}")
        if status >> 1:
            raise Violation("cq.status", f"CID {cid:#x} is completed with status {status >> 1:#x}")
        if not self._data_ready(cid):
            raise Violation("data.late", f"CID {cid:#x} is completed, and its data is not there")
        seen.posted += 1
        if not self._interrupts:
            seen.signalled = seen.posted
        seen.consumed = seen.fetched
        seen.device = tuple(other for other in seen.device if other != cid)
        seen.waiting = (*seen.waiting, cid)

    def interrupt_raised(self) -> None:
        self.seen.signalled = self.seen.posted

    def key(self) -> tuple[int, ...]:
        """What of this a rule may read, for states with the same futures: the differences of the
        counts, and their places in the rings."""
        seen, size = self.seen, self._entries
        return (
            seen.written - seen.rung,
            seen.rung - seen.fetched,
            seen.fetched - seen.consumed,
            len(seen.device),
            len(seen.waiting),
            seen.posted - seen.released,
            seen.signalled < seen.posted,
            seen.written % size,
            seen.posted % (2 * size),
        )


class WatchedMemory(GuestMemory):
    """Host memory of a system that is explored: tells a watch what is done to one pair of rings."""

    def __init__(self) -> None:
        super().__init__()
        self.watch: Watch | None = None
        self._sq = self._cq = range(0)

    def begin(self, watch: Watch, sq: int, cq: int, entries: int) -> None:
        """Watch the rings at these addresses."""
        self.watch = watch
        self._sq = range(sq, sq + entries * SQE_SIZE)
        self._cq = range(cq, cq + entries * CQE_SIZE)

    def write(self, addr: int, data: bytes | bytearray | memoryview) -> None:
        if self.watch and len(data) == SQE_SIZE:  # only a driver writes entries
            self.watch.entry_written((addr - self._sq.start) // SQE_SIZE, data)
        super().write(addr, data)

    def unpack(self, layout: struct.Struct, addr: int) -> tuple[int, ...]:
        if self.watch and layout.size == SQE_SIZE:
            self.watch.entry_fetched((addr - self._sq.start) // SQE_SIZE)
        return super().unpack(layout, addr)

    def store_u64(self, addr: int, value: int) -> None:
        if self.watch and addr in self._cq and addr % CQE_SIZE == 8:
            self.watch.entry_posted((addr - self._cq.start) // CQE_SIZE, value)
        super().store_u64(addr, value)


def watch_doorbell(watch: Watch, offset: int, value: int) -> None:
    """The driver writes a doorbell at this offset of BAR0, with a stride of 4 bytes."""
    if offset - DOORBELLS & 4:
        watch.head_rung(value)
    else:
        watch.tail_rung(value)
