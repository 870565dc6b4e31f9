"""What is known of one controller's queues and commands: the state that a monitor keeps."""

from __future__ import annotations

from collections import deque

from nvmelab.check.ball import Standing
from nvmelab.spec.commands import AdminOpcode

Values = tuple[int, ...]
Asked = tuple[str, Values]
"""What an admin command asks for: the event that says so, and its values."""


class Command:
    """One command since its fetch."""

    __slots__ = (
        *("asks", "cid", "fetched", "finished", "opcode", "parked", "posted", "released", "rung"),
        *("sq", "sqhd", "status", "words"),
    )

    def __init__(
        self, sq: Sq, cid: int, opcode: int, rung: int, fetched: int, words: Values | None
    ) -> None:
        self.sq = sq
        self.rung = rung
        """The line of the doorbell that told of it; 0 if none did."""
        self.cid = cid
        self.opcode = opcode
        self.fetched = fetched
        """The line that tells of its fetch."""
        self.words = words
        """The submission queue entry as 16 dwords, if the source shows it."""
        self.finished = 0
        """The line that tells that it is done; 0 if none does."""
        self.posted = 0
        """The line of its completion, or of what says that there is one."""
        self.released = 0
        """The line of the head doorbell behind it."""
        self.status = 0
        self.sqhd: int | None = None
        """The head of its queue when it was done: its completion may have been made then."""
        self.parked = False
        """An Asynchronous Event Request that waits for an event: nobody owes it anything."""
        self.asks = asked(words) if words and sq.id == 0 else None

    def park(self) -> None:
        """It waits for an event, and holds no request meanwhile."""
        if not self.parked:
            self.parked = True
            self.sq.parked += 1
            self.sq.taken -= 1

    def unpark(self) -> None:
        """It is done, and waits for its completion as others do."""
        self.sq.parked -= 1
        self.sq.taken += 1


class Sq:
    """A submission queue, as far as it is known."""

    __slots__ = (
        *("base", "cq", "dead", "dry", "entries", "fetched", "finished", "flight", "freed"),
        "from_start",
        *("head", "id", "most", "parked", "posted", "rung", "silent", "tail", "taken", "told"),
        "twice",
    )

    def __init__(self, id: int, cq: Cq | None, entries: int | None, *, from_start: bool) -> None:
        self.id = id
        self.cq = cq
        self.entries = entries
        self.from_start = from_start
        """It was seen from its creation on."""
        self.base: int | None = None
        self.tail = 0 if from_start else None
        self.head: int | None = 0 if from_start else None
        self.told: int | None = None
        """The SQHD of the last completion, where entries show."""
        self.dead = 0
        """The line of a tail that cannot be: a device need not consume anything after it."""
        self.most = 0
        """The largest tail that was rung."""
        self.rung: deque[int] = deque()
        """For each entry that was rung and not fetched, the line of the doorbell that told of it,
        oldest first."""
        self.flight: dict[int, Command] = {}
        """Fetched and not finished, by CID."""
        self.parked = 0
        """How many of them are parked."""
        self.finished = 0
        """How many are finished and not surely posted; `posted`: posted and not released."""
        self.posted = 0
        self.silent = False
        """Entries of it were fetched that no line had told of: its doorbells do not show."""
        self.fetched = 0
        """The line of the last fetch."""
        self.twice: set[int] = set()
        """CIDs that two commands have had at once: which one ends is not known."""
        self.taken = 0
        """Requests in use, as far as it is known: fetched, and not posted."""
        self.dry: tuple[int, int] | None = None
        """A doorbell whose entry waits because no request is free, and the line that says so."""
        self.freed: int | None = None
        """The line that freed a request after that."""

    @property
    def outstanding(self) -> bool:
        """A command of it was rung, and is not completed and released."""
        return bool(self.rung or self.finished or self.posted or len(self.flight) > self.parked)

    def request_freed(self, at: int) -> None:
        """A request is free again, or was at last."""
        if self.dry and self.freed is None:
            self.freed = at

    def standing(self, *, shutdown: bool, doubtful: bool) -> Standing:
        """Where its commands are. A log shows neither what the host does in memory, nor whether
        interrupts reach it, nor what doorbells are on their way, nor how many requests a device
        has."""
        cq = self.cq
        return Standing(
            written=None,
            under_way=None,
            rung=len(self.rung),
            free=None,
            fetched=len(self.flight) - self.parked,
            doubtful=doubtful,
            finished=self.finished,
            room=False if cq and cq.full else None,
            posted=self.posted,
            signalled=not (cq and cq.unsignalled),
            delivered=None if cq is None or cq.ien else True,
            taken=None,
            dead="shutdown" if shutdown else "tail" if self.dead else None,
        )


class Cq:
    """A completion queue, as far as it is known."""

    __slots__ = (
        *("base", "entries", "finished", "from_start", "head", "id", "ien", "most", "phase"),
        *("posted", "strays", "tail", "unsignalled", "vector"),
    )

    def __init__(self, id: int, entries: int | None, *, from_start: bool) -> None:
        self.id = id
        self.entries = entries
        self.from_start = from_start
        """It was seen from its creation on."""
        self.base: int | None = None
        self.head = 0 if from_start else None
        self.tail = 0
        """The next slot that is posted to, and `phase` the tag that it gets: where entries show."""
        self.phase = 1
        self.vector: int | None = None
        """Its interrupt vector, if its creation was seen."""
        self.ien = True
        self.unsignalled = 0
        """The line of the first entry that was posted after the last interrupt: where entries
        show."""
        self.most = 0
        """The largest head that was rung."""
        self.finished: deque[Command] = deque()
        """Finished and not surely posted, oldest first."""
        self.posted: deque[Command] = deque()
        """Posted, as far as it is known, and not released by the host, oldest first."""
        self.strays = 0
        """Entries that were posted for no command, and that the host has not released."""

    def finish(self, command: Command) -> None:
        """A command of this queue is done."""
        self.finished.append(command)
        command.sq.finished += 1

    def withdraw(self, command: Command) -> None:
        """It is not posted here."""
        self.finished.remove(command)
        command.sq.finished -= 1

    def take_back(self, command: Command) -> None:
        """Another command was meant: this one is not done."""
        self.withdraw(command)
        command.finished, command.status, command.sqhd = 0, 0, None
        command.sq.flight.setdefault(command.cid, command)

    def post(self, command: Command) -> None:
        """One that is done is posted."""
        if command is self.finished[0]:
            self.finished.popleft()
        else:
            self.finished.remove(command)
        self.posted.append(command)
        sq = command.sq
        sq.finished -= 1
        sq.posted += 1

    def release(self) -> Command:
        """The oldest one that is posted is released."""
        command = self.posted.popleft()
        command.sq.posted -= 1
        return command

    def drop(self, sq: Sq) -> None:
        """What a deleted queue has finished is not posted any more."""
        kept = [command for command in self.finished if command.sq is not sq]
        self.finished.clear()
        self.finished.extend(kept)
        sq.finished = 0

    @property
    def full(self) -> bool:
        """Surely: no more can be posted."""
        return self.entries is not None and len(self.posted) >= self.entries - 1


class Offer:
    """What a controller offers, if it says so. Counts."""

    def __init__(self, values: Values) -> None:
        self.mqes, self.io_queues, self.vectors, self.mdts, self.aerl, self.acl = values


def asked(words: Values) -> Asked | None:
    """What an admin command asks for, as the event that QEMU's log has for it."""
    low, high = words[10] & 0xFFFF, words[10] >> 16
    base = words[6] | words[7] << 32
    match words[0] & 0xFF:
        case AdminOpcode.CREATE_IO_SQ:
            return "create_sq", (base, low, words[11] >> 16, high, words[11] & 0xFFFF)
        case AdminOpcode.CREATE_IO_CQ:
            flags = words[11] & 0xFFFF
            return "create_cq", (base, low, words[11] >> 16, high, flags, flags >> 1 & 1)
        case AdminOpcode.DELETE_IO_SQ:
            return "del_sq", (low,)
        case AdminOpcode.DELETE_IO_CQ:
            return "del_cq", (low,)
        case AdminOpcode.SET_FEATURES:
            return "set_feature", (words[10] & 0xFF, words[11])
        case AdminOpcode.DOORBELL_BUFFER_CONFIG:
            return "dbbuf_config", (base, words[8] | words[9] << 32)
    return None


def steps_between(before: int | None, after: int, entries: int | None) -> int:
    """How many slots a pointer has moved; 1 where that cannot be known."""
    if before is None:
        return 1
    if entries:
        return (after - before) % entries
    return after - before if after > before else int(after != before)
