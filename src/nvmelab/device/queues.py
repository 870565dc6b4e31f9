"""Submission and completion queues, and the commands that are on their way between them.

NVMe Base 2.2, section 3.3 (queues) and 4.2 (completion queue entries). Sizes are in entries.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nvmelab.device.shadow import Shadow


class Request:
    """One command from its fetch to the posting of its completion."""

    __slots__ = (
        "cid",
        "dropped",
        "dw0",
        "nbytes",
        "nsid",
        "opcode",
        "sq",
        "started",
        "status",
        "words",
    )

    def __init__(self, sq: SubmissionQueue, words: tuple[int, ...], started: int) -> None:
        self.sq = sq
        self.words = words
        """The submission queue entry as 16 dwords: the one copy that was made of it."""
        self.opcode = words[0] & 0xFF
        self.cid = words[0] >> 16
        self.nsid = words[1]
        self.started = started
        """The clock at the fetch, in nanoseconds."""
        self.status = 0
        """Status field of the completion, without the phase bit."""
        self.dw0 = 0
        self.nbytes = 0
        """Bytes of user data moved."""
        self.dropped = False
        """The queue is gone (reset or deletion): no completion may be posted."""


class CompletionQueue:
    """A ring that the controller fills and the host empties."""

    __slots__ = (
        "base",
        "finished",
        "head",
        "id",
        "ien",
        "phase",
        "shadow",
        "size",
        "sqs",
        "tail",
        "unsignalled",
        "vector",
    )

    def __init__(self, id: int, base: int, size: int, vector: int, ien: bool) -> None:
        self.id = id
        self.base = base
        self.size = size
        self.vector = vector
        self.ien = ien
        self.head = 0
        """First entry the host has not released: what it last wrote to the head doorbell."""
        self.tail = 0
        """Next entry to be written."""
        self.phase = 1
        self.finished: deque[Request] = deque()
        """Finished, not posted: in the order in which they will be."""
        self.unsignalled = False
        """Entries were posted after the last interrupt."""
        self.sqs = 0
        """Submission queues bound to this queue."""
        self.shadow: Shadow | None = None
        """The shadow of the head doorbell, while shadow doorbells are on."""

    @property
    def full(self) -> bool:
        """One entry always stays free (Base 2.2, 3.3.1.5)."""
        tail = self.tail + 1
        return (0 if tail == self.size else tail) == self.head

    @property
    def waits(self) -> bool:
        """Only a new head can let it go on."""
        return bool(self.finished) and self.full

    def save(self) -> tuple[int, int, int, bool, tuple[Request, ...]]:
        """What a command changes, to be given to `load`."""
        return (self.head, self.tail, self.phase, self.unsignalled, tuple(self.finished))

    def load(self, saved: tuple[int, int, int, bool, tuple[Request, ...]]) -> None:
        """Be as at that `save`."""
        self.head, self.tail, self.phase, self.unsignalled, finished = saved
        if finished or self.finished:
            self.finished = deque(finished)

    def may_become(self, head: int) -> bool:
        """The host may release that far: up to what was posted, and never back."""
        size = self.size
        return head < size and (head - self.head) % size <= (self.tail - self.head) % size


class SubmissionQueue:
    """A ring that the host fills and the controller empties."""

    __slots__ = (
        "base",
        "cq",
        "deletion",
        "fetched",
        "head",
        "id",
        "laps",
        "limit",
        "outstanding",
        "parked",
        "shadow",
        "size",
        "stopped",
        "tail",
        "working",
    )

    def __init__(
        self, id: int, base: int, size: int, cq: CompletionQueue, limit: int | None
    ) -> None:
        self.id = id
        self.base = base
        self.size = size
        self.cq = cq
        self.limit = size if limit is None else limit
        """Most commands that are fetched and have no posted completion. Drivers that over-commit
        a queue rely on its size as the limit."""
        self.head = 0
        self.laps = 0
        """How often the head has come round: for statistics, and no part of the state."""
        self.tail = 0
        """What the host last wrote to the tail doorbell."""
        self.outstanding = 0
        """Commands fetched and not posted, parked Asynchronous Event Requests excepted."""
        self.fetched: deque[Request] = deque()
        """Fetched, not begun."""
        self.working: set[Request] = set()
        """Begun, and handed to a slow part of the storage."""
        self.parked = 0
        """Asynchronous Event Requests held back until there is an event."""
        self.stopped = False
        """Nothing more is consumed: the host wrote an impossible tail, or the queue ends."""
        self.deletion: Request | None = None
        """The Delete I/O Submission Queue command that waits for `working` to become empty."""
        self.shadow: Shadow | None = None
        """The shadow of the tail doorbell, while shadow doorbells are on."""

    @property
    def may_fetch(self) -> bool:
        """There is an entry, and room for one more command."""
        return self.head != self.tail and self.outstanding < self.limit and not self.stopped

    @property
    def waits(self) -> bool:
        """Only a new tail can let it go on."""
        return self.head == self.tail

    def save(self) -> tuple[int, int, int, bool, tuple[Request, ...], frozenset[Request]]:
        """What a command changes, to be given to `load`."""
        fetched, working = tuple(self.fetched), frozenset(self.working)
        return (self.head, self.tail, self.outstanding, self.stopped, fetched, working)

    def load(
        self, saved: tuple[int, int, int, bool, tuple[Request, ...], frozenset[Request]]
    ) -> None:
        """Be as at that `save`."""
        self.head, self.tail, self.outstanding, self.stopped, fetched, working = saved
        if fetched or self.fetched:
            self.fetched = deque(fetched)
        if working or self.working:
            self.working = set(working)

    def may_become(self, tail: int) -> bool:
        """The host may have written up to there: no more entries than are free, and never back."""
        size = self.size
        return tail < size and (tail - self.head) % size >= (self.tail - self.head) % size

    def end(self) -> None:
        """The queue is gone, and with it every command that has no completion queue entry yet.
        A turn that is under way must not go on with it."""
        self.stopped = True
        self.fetched.clear()
        for request in self.working:
            request.dropped = True
        self.cq.sqs -= 1
        kept = [request for request in self.cq.finished if request.sq is not self]
        self.cq.finished = deque(kept)
