"""The monitor: a model of the queues of one controller, fed by what was seen of it.

It is told of events with the number of the line (or of the event), and finds breaches of the rules
that its source can show. What it knows grows: a log may begin in the middle, so positions, sizes
and commands are known only once something has told of them, and a rule that would need more is
left alone. The state that it keeps is what `verdict` judges when the events end.

The monitor moves the queues, and finds what breaks while they move. The groups of `rules` look at
each event before that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nvmelab.check.accusations import Accusations
from nvmelab.check.asking import Asking
from nvmelab.check.ball import Standing
from nvmelab.check.chain import Handler, chain
from nvmelab.check.life import Life
from nvmelab.check.model import Command, Cq, Offer, Sq, Values, steps_between
from nvmelab.check.pairing import Pairing
from nvmelab.check.postings import Postings
from nvmelab.check.reporter import Reporter
from nvmelab.check.rules import GROUPS, RULES
from nvmelab.check.rules.reset import Due
from nvmelab.check.waiting import TakenBack, lost_wakeup, waiting_of
from nvmelab.limits import TAKEN_BACK_MAX
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.registers import CQE_SIZE, SQE_SIZE
from nvmelab.trace.taken import SLOTS_MAX


class Monitor(Accusations):
    """Feed it with `handlers`; look at `sqs`, `cqs` and `findings` then.

    `sq_entries` is the size of all I/O queues whose creation is not seen. Rules that are `waived`
    are not tried. A source that is not `complete` may have been filtered, or cut: what contradicts
    itself there accuses nobody.
    """

    def __init__(
        self,
        sq_entries: int | None = None,
        waived: Iterable[str] = (),
        *,
        complete: bool = False,
    ) -> None:
        super().__init__(waived, complete=complete)
        self.sq_entries = sq_entries
        self.sqs: dict[int, Sq] = {}
        self.cqs: dict[int, Cq] = {}
        self.deleted: dict[int, int] = {}  # SQs by identifier, and the line that says so
        self.failed = 0
        """The line of a fatal status."""
        self.enabled = 0
        """The line that enabled the controller; 0 if it is not, or not known to be."""
        self.lives: list[int] = []
        """The lines that enabled it: firmware does, then an operating system."""
        self.down = 0
        """The line of the reset that it was not enabled after; 0 if it is, or may be."""
        self.shadows = 0
        """The line that switched shadow doorbells on; 0 if they are off."""
        self.shadows_ended = 0
        """The line of the reset that switched them off; 0 once they are configured again."""
        self.unsure = 0
        """The first completion that may be of several queues, whose creation was not seen."""
        self.twice: tuple[int, int] | None = None
        """Two lines that enable a controller with no reset between them."""
        self.cc: int | None = None
        """CC, if it was seen, and its MPS in bytes."""
        self.page_size: int | None = None
        self.due: dict[str, Due] = {}
        """What the controller owes itself: `ready` and `shutdown`."""
        self.offer: Offer | None = None
        self.finishing_shows = True
        """The source shows when a command is finished, and not only its completion."""
        self.exact = False
        """The source shows the entries that are posted."""
        self.on_released: Callable[[Command], None] | None = None
        """Called with each command whose completion the host has released, or, with its `released`
        still 0, that is forgotten because nothing tells of that."""
        self.last: Command | None = None
        """The last command that was fetched."""
        self.answered: list[Callable[[int, Command, int], None]] = []
        """Called for each command that is finished, before it takes effect: with the line, the
        command, and its status without DNR, More and CRD. I/O commands that succeed are left
        out unless somebody is `awaiting` one."""
        self.awaiting = False
        self.admin_posted: list[Callable[[int, Command, int], None]] = []
        """Called for each admin command whose entry is posted, where that shows: with the line, the
        command, and its dword 0."""
        self.last_rung: Sq | None = None
        self.last_finished: Sq | None = None
        self.head_next: int | None = None
        """What the head becomes with the next fetch, where a line says so."""
        self.pool_next: tuple[int, int] | None = None
        """A line that says whether a request is free after the next fetch, and what it says."""
        self._entry: tuple[int, Values] | None = None
        self._memory: list[tuple[str, int, int]] | None = None
        self._aborted = self._early = False  # the latter: what is fetched next should not be
        self.shutdown = 0
        """The line that asked for a shutdown; 0 if none is going on."""
        self.taken_back: list[TakenBack] = []
        """What the host ended before it was done: the first ones, and the last."""
        self.seen: set[str] = set()
        """The handlers that were called."""
        self.handlers: dict[str, Handler] = {}
        self._connect()

    def _connect(self) -> None:
        moves: dict[str, Handler] = {
            "mmio_doorbell_sq": self._mmio_doorbell_sq,
            "mmio_doorbell_cq": self._mmio_doorbell_cq,
            "update_sq_tail": self._update_sq_tail,
            "update_cq_head": self._update_cq_head,
            "ub_db_wr_invalid_sqtail": self._invalid_tail,
            "sqe": self._sqe,
            "command": self._command,
            "parked": self._parked,
            "finished": self._finished,
            "msix": self._msix,
            "interrupt": self._interrupt,
            **Life(self).handlers,
        }
        lookers: dict[str, list[Handler]] = {}
        lacking = () if self.complete else (Pairing,)
        for group in (*GROUPS, Asking, Postings, Reporter, *lacking):
            for name, handler in group(self).handlers.items():
                lookers.setdefault(name, []).append(handler)
        for name in {*moves, *lookers}:
            steps = [*lookers.get(name, ()), *([moves[name]] if name in moves else ())]
            self.handlers[name] = self._first(name, chain(steps))

    def _first(self, name: str, handler: Handler) -> Handler:
        """`handler`, which notes at its first call that there are such events."""

        def noted(at: int, values: Values) -> None:
            self.seen.add(name)
            if self.handlers[name] is noted:
                self.handlers[name] = handler
            handler(at, values)

        return noted

    @property
    def exercised(self) -> list[str]:
        """The rules that something in this run has tried."""
        return [name for name, rule in RULES.items() if self.seen.intersection(rule.needs)]

    def sq(self, sqid: int) -> Sq:
        """That queue, known or not."""
        sq = self.sqs.get(sqid)
        if sq is None:
            entries = self.sq_entries if sqid else None
            # Without its creation, a queue is taken for one with a CQ of the same number, until a
            # completion says otherwise.
            sq = self.sqs[sqid] = Sq(sqid, self.cq(sqid), entries, from_start=False)
        return sq

    def cq(self, cqid: int) -> Cq:
        """That queue, known or not."""
        cq = self.cqs.get(cqid)
        if cq is None:
            entries = self.sq_entries if cqid else None
            cq = self.cqs[cqid] = Cq(cqid, entries, from_start=False)
        return cq

    def standing(self, sq: Sq) -> Standing:
        """Where the commands of a queue are, as far as it is known."""
        # A completion may have been taken for that of another queue, or wait for room unseen.
        unseen = not self.finishing_shows and sq.cq is not None and sq.cq.full
        doubtful = unseen or (self.unsure > 0 and not sq.from_start)
        return sq.standing(shutdown=self.shutdown > 0, doubtful=doubtful)

    @property
    def all_from_start(self) -> bool:
        """Every command that could be completed was seen."""
        return all(sq.from_start for sq in self.sqs.values())

    # Doorbells.

    def _mmio_doorbell_sq(self, at: int, values: Values) -> None:
        # With shadow doorbells a doorbell only says "look": its value may be older.
        if not (self.shadows and values[0]):
            self._tail(at, values)

    def _update_sq_tail(self, at: int, values: Values) -> None:
        """A look at a shadow. The first one in a log may show what was fetched before it."""
        sq = self.sq(values[0])
        if self.shadows_ended:
            text = f"the shadow of SQ {values[0]}'s tail is looked at, and was not configured again"
            self.find("reset.shadows-kept", text, self.shadows_ended, at)
        if sq.tail is None and sq.head is None:
            sq.tail = values[1]
        else:
            self._tail(at, values)

    def _tail(self, at: int, values: Values) -> None:
        sqid, tail = values
        sq = self.last_rung = self.sq(sqid)
        if sq.silent:
            self.lacks(at, f"SQ {sqid} is rung, and what was fetched before was not")
        steps = steps_between(sq.tail if sq.tail is not None else sq.head, tail, sq.entries)
        if sq.from_start and sq.entries and len(sq.rung) + steps >= sq.entries:
            text = f"tail {tail} of SQ {sqid} is rung, over entries that were not fetched"
            self.contradicts("sq.tail", text, sq.rung[0], at)
        if len(sq.rung) + steps > SLOTS_MAX:
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
        cq = self.cq(cqid)
        released = steps_between(cq.head, head, cq.entries)
        if cq.head is None or (cq.entries is None and head < cq.head):
            released = max(len(cq.posted), 1)  # from who knows where: perhaps all
        cq.head = head
        if head > cq.most:
            cq.most = head
        for _ in range(released):
            # What was released was posted.
            if not cq.posted and cq.finished and not self.exact:
                self.post(cq, cq.finished[0], at)
            if cq.posted:
                command = cq.release()
                command.released = at
                if self.on_released:
                    self.on_released(command)
            elif cq.strays:
                cq.strays -= 1
            elif cq.from_start and self.all_from_start:
                text = f"head {head} of CQ {cqid}: nothing was posted there"
                self.contradicts("cq.head", text, at)
                break

    def _invalid_tail(self, at: int, values: Values) -> None:
        self.sq(values[0]).dead = at

    # Commands.

    def _sqe(self, at: int, values: Values) -> None:
        """The entry of the command that is told of next."""
        sqid, slot = values[:2]
        sq = self.sq(sqid)
        # Where its size is not known, nobody has counted.
        if sq.from_start and sq.entries and sq.head is not None and slot != sq.head:
            text = f"the entry in slot {slot} of SQ {sqid} is fetched, and the head is {sq.head}"
            self.contradicts("sq.fetched-early", text, at)
            sq.head = slot
            self._early = True
        self._entry = sqid, values[2:]

    def _command(self, at: int, values: Values) -> None:
        cid, sqid, opcode = values
        sq = self.sq(sqid)
        rung = sq.rung.popleft() if sq.rung else 0
        sq.silent |= not rung and not self._shows_doorbells(sq)
        if not rung and sq.from_start and not sq.silent and not self._early:
            text = f"CID {cid:#x} is fetched from SQ {sqid}, which is empty"
            self.contradicts("sq.fetched-early", text, at)
            self._early = True
        before = sq.flight.get(cid)
        if before and before.parked:
            sq.parked -= 1
        elif before:
            # Else it may be an old entry that is fetched, or was.
            ends_show = self.complete or "finished" in self.seen
            if ends_show and not (self._early or self._aborted or cid in sq.twice):
                text = f"CID {cid:#x} of SQ {sqid} is fetched again before it is finished"
                self.contradicts("sq.cid-in-use", text, before.fetched, at)
            sq.twice.add(cid)
        if self._early:
            sq.twice.add(cid)
            self._early = False
        entry, self._entry = self._entry, None
        words = entry[1] if entry and entry[0] == sqid else None
        command = self.last = sq.flight[cid] = Command(sq, cid, opcode, rung, at, words)
        sq.taken += 1
        sq.fetched = at
        sq.dry = sq.freed = None
        sq.dead = 0
        if self.head_next is not None:
            sq.head, self.head_next = self.head_next, None
            if sq.tail is None:
                sq.tail = sq.head
        elif sq.head is not None and sq.entries:
            sq.head = (sq.head + 1) % sq.entries
        empty_at = 0
        if self.pool_next:
            line, empty = self.pool_next
            empty_at, self.pool_next = line if empty else 0, None
        elif sq.entries is not None and sq.taken >= sq.entries:
            empty_at = at
        if empty_at and sq.rung:
            sq.dry = (sq.rung[0], empty_at)
        if sqid == 0:
            self._fetched_admin(command)

    def _fetched_admin(self, command: Command) -> None:
        if command.asks:
            self.seen.add(command.asks[0])
        if command.opcode == AdminOpcode.ASYNC_EVENT_REQUEST and not self.complete:
            command.park()  # the line that says so may be missing

    @staticmethod
    def _shows_doorbells(sq: Sq) -> bool:
        """With ioeventfd, QEMU logs no doorbells but those of queue 0."""
        return sq.tail != 0 or sq.id == 0

    def _parked(self, _at: int, values: Values) -> None:
        command = self.sq(0).flight.get(values[0])
        if command:
            command.park()

    def _finished(self, at: int, values: Values) -> None:
        cid, cqid, status = values
        cq = self.cq(cqid)
        sqs = [sq for sq in self.sqs.values() if sq.cq is cq and cid in sq.flight]
        if not sqs:
            sqs = [sq for sq in self.sqs.values() if not sq.from_start and cid in sq.flight]
            self.unsure = self.unsure or (at if len(sqs) > 1 else 0)
        if not sqs:
            known = [sq for sq in self.sqs.values() if sq.cq is cq]
            twice = any(cid in sq.twice for sq in known)
            if known and self.all_from_start and not twice:
                text = f"CID {cid:#x} is finished for CQ {cqid}, and no such command was fetched"
                self.contradicts("cq.unknown-command", text, at)
            elif len(known) == 1:  # it was fetched before the log begins
                self.last_finished = known[0]
            return
        sq = sqs[0] if len(sqs) == 1 else min(sqs, key=lambda sq: sq.flight[cid].fetched)
        sq.cq = cq
        command = sq.flight.pop(cid)
        command.finished, command.status, command.sqhd = at, status, sq.head
        if command.parked:
            command.unpark()
        cq.finish(command)
        self.last_finished = sq
        if status or not sq.id or self.awaiting:
            self._judge_answer(at, command, status & 0x7FF)

    def _judge_answer(self, at: int, command: Command, status: int) -> None:
        for look in self.answered:
            look(at, command, status)
        # An aborted command's CID is free, though its completion may come later (Base 2.2, 5.1.1).
        self._aborted |= command.sq.id == 0 and command.opcode == AdminOpcode.ABORT
        if command.asks and not status:
            self._carry_out(at, *command.asks)

    def _carry_out(self, at: int, asked: str, values: Values) -> None:
        """An admin command has succeeded that changes queues."""
        self._memory = None
        if asked == "create_sq":
            base, sqid, cqid, qsize = values[:4]
            sq = self.sqs[sqid] = Sq(sqid, self.cq(cqid), qsize + 1, from_start=True)
            self.deleted.pop(sqid, None)
            sq.base = base
        elif asked == "create_cq":
            base, cqid, vector, qsize, _flags, ien = values
            cq = self.cqs[cqid] = Cq(cqid, qsize + 1, from_start=True)
            cq.base, cq.vector, cq.ien = base, vector, bool(ien)
        elif asked == "del_sq":
            gone = self.sqs.pop(values[0], None)
            if gone:
                self.take_back(at, f"has deleted SQ {gone.id}", [gone])
            self.deleted[values[0]] = at
            if gone and gone.cq and self.exact:
                gone.cq.drop(gone)
        elif asked == "del_cq":
            self.cqs.pop(values[0], None)
        elif asked == "dbbuf_config":
            self.shadows, self.shadows_ended = at, 0

    # Completion queues.

    def _msix(self, at: int, values: Values) -> None:
        """A posting run has ended. Where several queues have that vector it may be of any: none of
        them is held to have posted nothing."""
        cqs = [cq for cq in self.cqs.values() if cq.vector == values[0]]
        for cq in cqs:
            self._posted(cq, at)
        if not cqs:
            self._interrupt(at, ())

    def _interrupt(self, at: int, _values: Values) -> None:
        """As `_msix`, without a vector: most likely of the queue that got a command last. Where
        entries show, they say more."""
        if not self.exact and self.last_finished and self.last_finished.cq:
            self._posted(self.last_finished.cq, at)

    def _posted(self, cq: Cq, at: int) -> None:
        """What had finished is posted, as far as there was room."""
        cq.unsignalled = 0
        while not self.exact and cq.finished and not cq.full:
            self.post(cq, cq.finished[0], at)

    def post(self, cq: Cq, command: Command, at: int) -> None:
        """A command that has finished is posted."""
        cq.post(command)
        command.posted = at
        if len(cq.posted) > SLOTS_MAX:
            forgotten = cq.release()  # nothing tells of what the host releases
            if self.on_released:
                self.on_released(forgotten)
        sq = command.sq
        sq.taken -= 1
        if sq.dry:
            sq.request_freed(at)

    # The controller.

    def forget_queues(self) -> None:
        """Go on with the I/O queues as in a log that begins here."""
        for queues in (self.sqs, self.cqs):
            for qid in [qid for qid in queues if qid]:
                del queues[qid]
        self.sq(0).from_start = False
        self.deleted.clear()
        self._memory = None

    def memory_of_queues(self) -> list[tuple[str, int, int]]:
        """Name, first address and the address behind the last one of each queue, where known."""
        if self._memory is not None:
            return self._memory
        found = []
        for kind, queues, size in (("SQ", self.sqs, SQE_SIZE), ("CQ", self.cqs, CQE_SIZE)):
            for queue in queues.values():
                if queue.base is not None and queue.entries is not None:
                    end = queue.base + queue.entries * size
                    found.append((f"{kind} {queue.id}", queue.base, end))
        self._memory = found
        return found

    def take_back(self, at: int, how: str, sqs: Iterable[Sq], *, by_function: bool = False) -> None:
        """The host ends the work of these queues. What they had outstanding is kept as it stands:
        that it did not end may be why."""
        sqs = [sq for sq in sqs if sq.outstanding]
        stuck = waiting_of(sqs, self.standing) if sqs else []
        if stuck:
            pattern = lost_wakeup(sqs)
            taken = TakenBack(at, how, by_function, stuck, pattern, self.failed, self.gap)
            del self.taken_back[TAKEN_BACK_MAX - 1 :]
            self.taken_back.append(taken)

    def clear(self) -> None:
        """All queues and commands are gone."""
        self.deleted.clear()
        self._memory = None
        self.sqs.clear()
        self.cqs.clear()
        self.last = self.last_rung = self.last_finished = self._entry = None
        self.failed = self.shadows = self.shutdown = 0
        self.go_on()
