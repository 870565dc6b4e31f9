"""The monitor: a model of the queues of one controller, fed by what was seen of it.

It is told of events with the number of the line (or of the event), and finds breaches of the rules
that its source can show. What it knows grows: a log may begin in the middle, so positions, sizes
and commands are known only once something has told of them, and a rule that would need more is
left alone. The state that it keeps is what `verdict` judges when the events end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from nvmelab.check.rules import RULES
from nvmelab.limits import FINDINGS_MAX

Values = tuple[int, ...]
_SLOTS_MAX = 0xFFFF
"""Largest queue identifier, CID and value of a doorbell."""


class Finding(msgspec.Struct, frozen=True):
    """A rule that was broken. `evidence` are numbers of lines or events."""

    rule: str
    text: str
    evidence: list[int]

    @property
    def party(self) -> str:
        return RULES[self.rule].party

    @property
    def ref(self) -> str:
        return RULES[self.rule].ref


class Command:
    """One command since its fetch."""

    __slots__ = ("cid", "effect", "fetched", "finished", "opcode", "parked", "sq")

    def __init__(self, sq: Sq, cid: int, opcode: int, fetched: int) -> None:
        self.sq = sq
        self.cid = cid
        self.opcode = opcode
        self.fetched = fetched
        """The line that tells of its fetch."""
        self.finished = 0
        """The line that tells that it is done; 0 if none does."""
        self.parked = False
        """An Asynchronous Event Request that waits for an event: nobody owes it anything."""
        self.effect: Callable[[], None] | None = None
        """What becomes of the queues when it succeeds."""


class Sq:
    """A submission queue, as far as it is known."""

    __slots__ = (
        *("cq", "dead", "dry", "entries", "flight", "freed", "from_start", "head", "id", "most"),
        *("pool_empty", "rung", "tail", "taken"),
    )

    def __init__(self, id: int, cq: Cq | None, entries: int | None, *, from_start: bool) -> None:
        self.id = id
        self.cq = cq
        self.entries = entries
        self.from_start = from_start
        """It was seen from its creation on."""
        self.tail = 0 if from_start else None
        self.head: int | None = 0 if from_start else None
        self.dead = 0
        """The line of a tail that cannot be: a device need not consume anything after it."""
        self.most = 0
        """The largest tail that was rung."""
        self.rung: deque[int] = deque()
        """For each entry that was rung and not fetched, the line of the doorbell that told of it,
        oldest first."""
        self.flight: dict[int, Command] = {}
        """Fetched and not finished, by CID."""
        self.taken = 0
        """Requests in use, as far as it is known: fetched, and not posted."""
        self.pool_empty: int | None = None
        """The line that says that no request was free, if the last one about it said so."""
        self.dry: tuple[int, int] | None = None
        """A doorbell whose entry waits because no request is free, and the line that says so."""
        self.freed: int | None = None
        """The line that freed a request after that."""


class Cq:
    """A completion queue, as far as it is known."""

    __slots__ = ("entries", "finished", "from_start", "head", "id", "most", "posted", "vector")

    def __init__(self, id: int, entries: int | None, *, from_start: bool) -> None:
        self.id = id
        self.entries = entries
        self.from_start = from_start
        """It was seen from its creation on."""
        self.head = 0 if from_start else None
        self.vector: int | None = None
        """Its interrupt vector, if its creation was seen."""
        self.most = 0
        """The largest head that was rung."""
        self.finished: deque[Command] = deque()
        """Finished and not surely posted, oldest first."""
        self.posted: deque[Command] = deque()
        """Posted, as far as it is known, and not released by the host, oldest first."""


class Monitor:
    """Feed it with `handlers`; look at `sqs`, `cqs` and `findings` then.

    `sq_entries` is the size of all I/O queues whose creation is not seen.
    """

    def __init__(self, sq_entries: int | None = None) -> None:
        self.sq_entries = sq_entries
        self.sqs: dict[int, Sq] = {}
        self.cqs: dict[int, Cq] = {}
        self.findings: list[Finding] = []
        self.counts: dict[str, int] = {}
        """Findings by rule, those that were not kept included."""
        self.failed = 0
        """The line of a fatal status."""
        self.enabled = 0
        """The line that enabled the controller; 0 if it is not, or not known to be."""
        self.shadows = 0
        """The line that switched shadow doorbells on; 0 if they are off."""
        self.unsure = 0
        """The first completion that may be of several queues, whose creation was not seen."""
        self.twice: tuple[int, int] | None = None
        """Two lines that enable a controller with no reset between them."""
        self._admin_entries: tuple[int, int] | None = None
        self._last_admin: Command | None = None
        self._last_rung: Sq | None = None
        self._last_finished: Sq | None = None
        self._head_next: int | None = None
        self._pool_next: tuple[int, int] | None = None
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            name: getattr(self, f"_{name}")
            for name in (
                *("mmio_doorbell_sq", "mmio_doorbell_cq", "update_sq_tail", "update_cq_head"),
                *("command", "finished", "interrupt", "msix", "parked", "create_sq", "create_cq"),
                *("del_sq", "del_cq", "aqattr", "started", "stopped", "reset", "err_cfs"),
                "dbbuf_config",
                *("ub_db_wr_misaligned", "ub_db_wr_invalid_sq", "ub_db_wr_invalid_cq"),
                *("ub_db_wr_invalid_sqtail", "ub_db_wr_invalid_cqhead"),
                *("admin_base", "mask_with_msix", "prp_offset"),
                *("admin_unaligned", "admin_empty", "page_size"),
                *("fetched_to", "fetching_ends", "pool_after_fetch", "pool_at_post"),
            )
        }

    def _find(self, rule: str, text: str, *evidence: int) -> None:
        count = self.counts[rule] = self.counts.get(rule, 0) + 1
        if count <= FINDINGS_MAX:
            self.findings.append(Finding(rule, text, [line for line in evidence if line]))

    def _sq(self, sqid: int) -> Sq:
        sq = self.sqs.get(sqid)
        if sq is None:
            entries = self.sq_entries if sqid else None
            # Without its creation, a queue is taken for one with a CQ of the same number, until a
            # completion says otherwise.
            sq = self.sqs[sqid] = Sq(sqid, self._cq(sqid), entries, from_start=False)
        return sq

    def _cq(self, cqid: int) -> Cq:
        cq = self.cqs.get(cqid)
        if cq is None:
            entries = self.sq_entries if cqid else None
            cq = self.cqs[cqid] = Cq(cqid, entries, from_start=False)
        return cq

    # Doorbells.

    def _mmio_doorbell_sq(self, at: int, values: Values) -> None:
        # With shadow doorbells a doorbell only says "look": its value may be older.
        if not (self.shadows and values[0]):
            self._update_sq_tail(at, values)

    def _update_sq_tail(self, at: int, values: Values) -> None:
        sqid, tail = values
        sq = self._last_rung = self._sq(sqid)
        steps = _steps(sq.tail if sq.tail is not None else sq.head, tail, sq.entries)
        if sq.from_start and sq.entries and len(sq.rung) + steps >= sq.entries:
            text = f"tail {tail} of SQ {sqid} is rung, over entries that were not fetched"
            self._find("sq.tail", text, sq.rung[0], at)
        if len(sq.rung) + steps > _SLOTS_MAX:
            sq.rung.clear()
        sq.rung.extend([at] * steps)
        sq.tail = tail
        if tail > sq.most:
            sq.most = tail
        if sq.entries is not None and sq.rung and sq.taken >= sq.entries and sq.dry is None:
            sq.dry = (at, at)

    def _mmio_doorbell_cq(self, at: int, values: Values) -> None:
        if not (self.shadows and values[0]):
            self._update_cq_head(at, values)

    def _update_cq_head(self, at: int, values: Values) -> None:
        cqid, head = values
        cq = self._cq(cqid)
        released = _steps(cq.head, head, cq.entries)
        cq.head = head
        if head > cq.most:
            cq.most = head
        for _ in range(released):
            # What was released was posted.
            if not cq.posted and cq.finished:
                self._post(cq, at)
            if cq.posted:
                cq.posted.popleft()
            elif cq.from_start and self._all_from_start():
                self._find("cq.head", f"head {head} of CQ {cqid}: nothing was posted there", at)
                break

    def _ub_db_wr_misaligned(self, at: int, values: Values) -> None:
        self._find("doorbell.aligned", f"a write to {values[0]:#x}, within a doorbell", at)

    def _ub_db_wr_invalid_sq(self, at: int, values: Values) -> None:
        self._find("doorbell.queue", f"the tail doorbell of SQ {values[0]}, which is none", at)

    def _ub_db_wr_invalid_cq(self, at: int, values: Values) -> None:
        self._find("doorbell.queue", f"the head doorbell of CQ {values[0]}, which is none", at)

    def _ub_db_wr_invalid_sqtail(self, at: int, values: Values) -> None:
        self._find("doorbell.value", f"tail {values[1]} for SQ {values[0]}, outside of it", at)
        self._sq(values[0]).dead = at

    def _ub_db_wr_invalid_cqhead(self, at: int, values: Values) -> None:
        self._find("doorbell.value", f"head {values[1]} for CQ {values[0]}, outside of it", at)

    # Commands.

    def _command(self, at: int, values: Values) -> None:
        cid, sqid, opcode = values
        sq = self._sq(sqid)
        if sq.rung:
            sq.rung.popleft()
        elif sq.from_start and self._shows_doorbells(sq):
            self._find(
                "sq.fetched-early", f"CID {cid:#x} is fetched from SQ {sqid}, which is empty", at
            )
        before = sq.flight.get(cid)
        if before and not before.parked:
            self._find(
                "sq.cid-in-use",
                f"CID {cid:#x} of SQ {sqid} is fetched again before it is finished",
                *(before.fetched, at),
            )
        command = sq.flight[cid] = Command(sq, cid, opcode, at)
        sq.taken += 1
        sq.dry = sq.freed = sq.pool_empty = None
        sq.dead = 0
        if self._head_next is not None:
            sq.head, self._head_next = self._head_next, None
            if sq.tail is None:
                sq.tail = sq.head
        elif sq.head is not None and sq.entries:
            sq.head = (sq.head + 1) % sq.entries
        if self._pool_next:
            line, empty = self._pool_next
            sq.pool_empty, self._pool_next = line if empty else None, None
        elif sq.entries is not None and sq.taken >= sq.entries:
            sq.pool_empty = at
        if sq.pool_empty and sq.rung:
            sq.dry = (sq.rung[0], sq.pool_empty)
        if sqid == 0:
            self._last_admin = command

    @staticmethod
    def _shows_doorbells(sq: Sq) -> bool:
        """With ioeventfd, QEMU logs no doorbells but those of queue 0."""
        return sq.tail != 0 or sq.id == 0

    def _parked(self, at: int, values: Values) -> None:
        command = self._sq(0).flight.get(values[0])
        if command:
            command.parked = True
            command.sq.taken -= 1

    def _finished(self, at: int, values: Values) -> None:
        cid, cqid, status = values
        cq = self._cq(cqid)
        sqs = [sq for sq in self.sqs.values() if sq.cq is cq and cid in sq.flight]
        if not sqs:
            sqs = [sq for sq in self.sqs.values() if not sq.from_start and cid in sq.flight]
            self.unsure = self.unsure or (at if len(sqs) > 1 else 0)
        if not sqs:
            known = [sq for sq in self.sqs.values() if sq.cq is cq]
            if known and self._all_from_start():
                self._find(
                    "cq.unknown-command",
                    f"CID {cid:#x} is finished for CQ {cqid}, and no such command was fetched",
                    at,
                )
            elif len(known) == 1:  # it was fetched before the log begins
                self._last_finished = known[0]
            return
        sq = min(sqs, key=lambda sq: sq.flight[cid].fetched)
        sq.cq = cq
        command = sq.flight.pop(cid)
        command.finished = at
        if command.parked:
            sq.taken += 1  # it waits for its completion as others do
        cq.finished.append(command)
        self._last_finished = sq
        if command.effect and not status & 0x7FF:
            command.effect()

    def _msix(self, at: int, values: Values) -> None:
        """A posting run has ended. Where several queues have that vector it may be of any: none of
        them is held to have posted nothing."""
        cqs = [cq for cq in self.cqs.values() if cq.vector == values[0]]
        if not cqs:
            self._interrupt(at, ())
        for cq in cqs:
            self._posted(cq, at)

    def _interrupt(self, at: int, _values: Values) -> None:
        """As `_msix`, without a vector: most likely of the queue that got a command last."""
        if self._last_finished and self._last_finished.cq:
            self._posted(self._last_finished.cq, at)

    def _posted(self, cq: Cq, at: int) -> None:
        """What had finished is posted, as far as there was room."""
        while cq.finished and not self._full(cq):
            self._post(cq, at)

    def _all_from_start(self) -> bool:
        """Every command that could be completed was seen."""
        return all(sq.from_start for sq in self.sqs.values())

    @staticmethod
    def _full(cq: Cq) -> bool:
        return cq.entries is not None and len(cq.posted) >= cq.entries - 1

    def _post(self, cq: Cq, at: int) -> None:
        command = cq.finished.popleft()
        cq.posted.append(command)
        if len(cq.posted) > _SLOTS_MAX:
            cq.posted.popleft()  # nothing tells of what the host releases
        sq = command.sq
        sq.taken -= 1
        if sq.dry and sq.freed is None:
            sq.freed = at

    # Registers, and what the device answered.

    def _admin_base(self, at: int, _values: Values) -> None:
        if self.enabled:
            text = "a register of the admin queue is written while the controller is enabled"
            self._find("registers.admin-queue-enabled", text, self.enabled, at)

    def _admin_unaligned(self, at: int, values: Values) -> None:
        self._find("registers.admin-queue-base", f"the admin queue's base is {values[0]:#x}", at)

    def _admin_empty(self, at: int, _values: Values) -> None:
        self._find("registers.admin-queue-size", "enabled with an admin queue of one entry", at)

    def _page_size(self, at: int, values: Values) -> None:
        size, bound = values
        text = f"enabled with pages of 2^{size} bytes, and the bound is 2^{bound}"
        self._find("registers.page-size", text, at)

    def _mask_with_msix(self, at: int, _values: Values) -> None:
        self._find("interrupts.mask-with-msix", "INTMS or INTMC is written under MSI-X", at)

    def _prp_offset(self, at: int, values: Values) -> None:
        self._find(
            "transfer.prp-offset", f"a PRP entry that is not the first is {values[0]:#x}", at
        )

    # Queues.

    def _aqattr(self, at: int, values: Values) -> None:
        self._admin_base(at, ())
        self._admin_entries = ((values[0] & 0xFFF) + 1, (values[0] >> 16 & 0xFFF) + 1)

    def _started(self, at: int, _values: Values) -> None:
        if self.enabled:
            self.twice = self.twice or (self.enabled, at)
        self._clear()
        self.enabled = at
        sq_entries, cq_entries = self._admin_entries or (None, None)
        cq = self.cqs[0] = Cq(0, cq_entries, from_start=True)
        cq.vector = 0  # always (Base 2.2, 3.1.4.10)
        self.sqs[0] = Sq(0, cq, sq_entries, from_start=True)

    def _stopped(self, _at: int, _values: Values) -> None:
        self._clear()
        self.enabled = 0

    _reset = _stopped

    def _dbbuf_config(self, at: int, _values: Values) -> None:
        def switch_on() -> None:
            self.shadows = at

        if self._last_admin:
            self._last_admin.effect = switch_on

    def _clear(self) -> None:
        self.sqs.clear()
        self.cqs.clear()
        self._last_admin = self._last_rung = self._last_finished = None
        self.failed = self.shadows = 0

    def _create_sq(self, _at: int, values: Values) -> None:
        sqid, cqid, qsize = values

        def create() -> None:
            self.sqs[sqid] = Sq(sqid, self._cq(cqid), qsize + 1, from_start=True)

        if self._last_admin:
            self._last_admin.effect = create

    def _create_cq(self, _at: int, values: Values) -> None:
        cqid, vector, qsize = values

        def create() -> None:
            cq = self.cqs[cqid] = Cq(cqid, qsize + 1, from_start=True)
            cq.vector = vector

        if self._last_admin:
            self._last_admin.effect = create

    def _del_sq(self, _at: int, values: Values) -> None:
        def delete() -> None:
            self.sqs.pop(values[0], None)

        if self._last_admin:
            self._last_admin.effect = delete

    def _del_cq(self, _at: int, values: Values) -> None:
        def delete() -> None:
            self.cqs.pop(values[0], None)

        if self._last_admin:
            self._last_admin.effect = delete

    def _err_cfs(self, at: int, _values: Values) -> None:
        self.failed = at

    # The reporter's lines: they name no queue, so that of the line beside them is meant.

    def _fetched_to(self, _at: int, values: Values) -> None:
        self._head_next = values[0]

    def _pool_after_fetch(self, at: int, values: Values) -> None:
        self._pool_next = (at, values[0])

    def _fetching_ends(self, at: int, values: Values) -> None:
        sq_empty, pool_empty = values
        sq = self._last_rung
        if sq and not sq_empty and pool_empty:
            sq.pool_empty = at
            if sq.rung and sq.dry is None:
                sq.dry = (sq.rung[-1], at)

    def _pool_at_post(self, at: int, values: Values) -> None:
        sq = self._last_finished
        if sq and not values[0]:
            sq.pool_empty = None
            if sq.dry and sq.freed is None:
                sq.freed = at


def _steps(before: int | None, after: int, entries: int | None) -> int:
    """How many slots a pointer has moved; 1 where that cannot be known."""
    if before is None:
        return 1
    if entries:
        return (after - before) % entries
    return after - before if after > before else int(after != before)
