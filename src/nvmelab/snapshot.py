"""How a controller stands at one moment: the answer of its control socket.

An `Observer` takes snapshots of a controller between two of its turns. It changes nothing, and
costs nothing while nobody asks. What it remembers from one snapshot to the next is since when each
queue has stood still.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from nvmelab.check.ball import Ball, Dead, Stage, Standing, ball_of, owed
from nvmelab.check.rule import errors_of
from nvmelab.limits import (
    CHECK_REST_S,
    SNAPSHOT_COMMANDS_MAX,
    SNAPSHOT_QUEUES_MAX,
    SNAPSHOT_TEXT_MAX,
)
from nvmelab.memory import MemoryFault
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.registers import SQE_SIZE
from nvmelab.standing import head_of, is_forgotten, posted_to, standing_of

if TYPE_CHECKING:
    from nvmelab.check.verdict import Verdict
    from nvmelab.device.controller import Controller
    from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
    from nvmelab.device.shadow import ShadowDoorbells

_REST_NS = int(CHECK_REST_S * 1e9)


class Oldest(msgspec.Struct, frozen=True):
    """The command of a submission queue that has waited for longest."""

    cid: int
    command: str
    state: Stage
    age_ns: int | None
    """Since its fetch; None for one that is not fetched."""


class Sq(msgspec.Struct, frozen=True):
    """A submission queue."""

    id: int
    cq: int
    entries: int
    head: int
    tail: int
    limit: int
    """Most commands that are fetched and not posted."""
    outstanding: int
    """Fetched, not posted; parked Asynchronous Event Requests excepted."""
    written: int
    """Told to the shadow of the tail alone, though the doorbell must be rung."""
    rung: int
    """Rung, not fetched."""
    fetched: int
    """Fetched, not finished."""
    finished: int
    """Finished, not posted."""
    total: int
    """Commands fetched since the queue was created."""
    oldest: Oldest | None
    ball: Ball | None
    """Who must act; None if no command waits, or if nobody can tell."""
    still_ns: int
    """No command has moved for at least so long: since an earlier snapshot."""
    stuck: bool
    """Commands wait, and have not moved for 2 seconds, or will not."""


class Cq(msgspec.Struct, frozen=True):
    """A completion queue."""

    id: int
    entries: int
    head: int
    tail: int
    phase: int
    posted: int
    """Posted, and not released by the host."""
    finished: int
    """Finished commands that are not posted."""
    full: bool
    vector: int | None
    """None if it has no interrupts."""
    ball: Ball | None
    """Who must act on what is posted."""
    still_ns: int
    stuck: bool


class ControllerState(msgspec.Struct, frozen=True):
    """What CC and CSTS say."""

    enabled: bool
    ready: bool
    shutdown: Literal["none", "going on", "complete"]
    failed: bool
    """CSTS.CFS."""
    bus_master: bool


class Total(msgspec.Struct, frozen=True):
    """What was counted of one kind of command."""

    command: str
    count: int
    bytes: int
    errors: int


class Totals(msgspec.Struct, frozen=True):
    """What was counted since the controller was made."""

    commands: int
    bytes: int
    errors: int
    """Completions whose status is not 0."""
    doorbells: int
    interrupts: int
    error_events: int
    by_command: list[Total]


class Check(msgspec.Struct, frozen=True):
    """The verdict so far."""

    verdict: str
    events: int
    findings: int
    told: str
    """The first finding, or what stands still; empty if there is none."""


class Snapshot(msgspec.Struct, frozen=True, tag_field="format", tag="nvmelab-state"):
    """A controller at `time_ns` of a clock of its own."""

    version: int
    time_ns: int
    image: str
    serial: str
    device: str
    guest: bool
    """A guest is connected."""
    controller: ControllerState
    sqs: list[Sq]
    cqs: list[Cq]
    sqs_left_out: int
    totals: Totals
    check: Check | None
    stopped: bool = False
    """`--check=stop` has stopped the guest."""


class Observer:
    """Looks at one controller."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._since: dict[object, tuple[Hashable, int]] = {}
        """Of each queue, how it stood and since when."""

    def queues(self, *, stopped: bool = False) -> tuple[list[Sq], list[Cq], int]:
        """The queues, and how many submission queues are left out. Those on which something waits
        come first where not all are told of. While the guest is `stopped`, nothing is stuck that
        may wait for its driver."""
        controller, now = self._controller, self._controller.clock()
        shadows = controller.shadows
        before, self._since = self._since, {}
        held = _by_queue(request for cq in controller.cqs.values() for request in cq.finished)
        deletions = _by_queue(sq.deletion for sq in controller.sqs.values() if sq.deletion)
        moved: defaultdict[CompletionQueue, int] = defaultdict(int)
        sqs = sorted(controller.sqs.values(), key=lambda sq: (_idle(sq, shadows), sq.id))
        for sq in sqs:
            moved[sq.cq] += sq.laps * sq.size + sq.head - sq.outstanding
        told = []
        for sq in sorted(sqs[:SNAPSHOT_QUEUES_MAX], key=lambda sq: sq.id):
            finished = held[sq]
            tail = shadows.unseen_tail(sq)
            stood = (sq.laps, sq.head, tail, sq.outstanding, len(finished))
            still = self._still(before, sq, stood, now)
            told.append(_freed(self._sq(sq, finished, deletions[sq], still, now), stopped))
        cqs: list[Cq] = []
        for cq in sorted(controller.cqs.values(), key=lambda cq: (cq.tail == cq.head, cq.id)):
            if len(cqs) == SNAPSHOT_QUEUES_MAX:
                break
            position = (head_of(cq, shadows), cq.tail, len(cq.finished), moved[cq])
            cqs.append(_freed(self._cq(cq, self._still(before, cq, position, now)), stopped))
        return told, sorted(cqs, key=lambda cq: cq.id), len(sqs) - len(told)

    def _still(
        self,
        before: dict[object, tuple[Hashable, int]],
        queue: SubmissionQueue | CompletionQueue,
        stood: Hashable,
        now: int,
    ) -> int:
        """For how long it has stood like that."""
        then, since = before.get(queue, (None, now))
        if then != stood:
            since = now
        self._since[queue] = stood, since
        return now - since

    def _sq(
        self,
        sq: SubmissionQueue,
        finished: list[Request],
        deletions: list[Request],
        still_ns: int,
        now: int,
    ) -> Sq:
        s = standing_of(sq, len(finished), self._controller.shadows)
        forgotten = is_forgotten(self._controller, sq)
        waits = bool(s.written or s.rung or sq.outstanding)
        return Sq(
            id=sq.id,
            cq=sq.cq.id,
            entries=sq.size,
            head=sq.head,
            tail=sq.tail,
            limit=sq.limit,
            outstanding=sq.outstanding,
            written=s.written or 0,
            rung=s.rung,
            fetched=s.fetched,
            finished=s.finished,
            total=sq.laps * sq.size + sq.head,
            oldest=self._oldest(sq, finished, deletions, now) if waits else None,
            ball=self._ball(s, forgotten) if waits else None,
            still_ns=still_ns,
            stuck=waits and (forgotten or still_ns >= _REST_NS),
        )

    def _oldest(
        self, sq: SubmissionQueue, finished: list[Request], deletions: list[Request], now: int
    ) -> Oldest | None:
        requests = [*list(sq.fetched)[:1], *sq.working, *deletions, *finished]
        state: Stage
        if requests:
            first = min(requests, key=lambda request: request.started)
            state = "finished" if first in finished else "fetched"
            return Oldest(first.cid, _name(sq, first.opcode), state, now - first.started)
        try:
            word = self._controller.memory.load_u32(sq.base + sq.head * SQE_SIZE)
        except MemoryFault:
            return None
        state = "written" if sq.head == sq.tail else "rung"
        return Oldest(word >> 16, _name(sq, word & 0xFF), state, None)

    def _ball(self, s: Standing, forgotten: bool) -> Ball | None:
        if self._controller.life.csts.cfs:
            return None
        # What is posted may be of other queues: the completion queue's own ball tells of it.
        dead = self._dead() or s.dead
        ball = ball_of(owed(msgspec.structs.replace(s, posted=0, dead=dead)))
        if ball and forgotten:
            wakes = "; it looks at this queue only when its tail is rung once more"
            return Ball(ball.parties, ball.text + wakes)
        return ball

    def _cq(self, cq: CompletionQueue, still_ns: int) -> Cq:
        s = posted_to(cq, self._controller.shadows)
        ends = self._controller.life.csts.cfs or self._dead()
        ball = None if ends else ball_of(owed(s))
        return Cq(
            id=cq.id,
            entries=cq.size,
            head=head_of(cq, self._controller.shadows),
            tail=cq.tail,
            phase=cq.phase,
            posted=s.posted,
            finished=len(cq.finished),
            full=not s.room,
            vector=cq.vector if cq.ien else None,
            ball=ball,
            still_ns=still_ns,
            stuck=ball is not None and still_ns >= _REST_NS,
        )

    def _dead(self) -> Dead | None:
        """Why no queue goes on."""
        life = self._controller.life
        if not life.bus_master:
            return "bus master"
        return "shutdown" if life.csts.shst else None

    def controller(self) -> ControllerState:
        """What CC and CSTS say."""
        life = self._controller.life
        csts = life.csts
        return ControllerState(
            enabled=bool(life.cc.en),
            ready=bool(csts.rdy),
            shutdown=("none", "going on", "complete", "complete")[csts.shst],
            failed=bool(csts.cfs),
            bus_master=life.bus_master,
        )

    def totals(self) -> Totals:
        """What was counted."""
        statistics = self._controller.statistics
        rows = [
            Total(name, counter.commands, counter.nbytes, sum(counter.errors.values()))
            for name, counter in statistics.rows()
        ]
        return Totals(
            commands=sum(row.count for row in rows),
            bytes=sum(row.bytes for row in rows),
            errors=sum(row.errors for row in rows),
            doorbells=statistics.doorbells,
            interrupts=statistics.interrupts,
            error_events=statistics.error_events,
            by_command=sorted(rows, key=lambda row: -row.count)[:SNAPSHOT_COMMANDS_MAX],
        )


def check_of(verdict: Verdict, events: int) -> Check:
    """The verdict on that many events, in short."""
    errors = errors_of(verdict.findings)
    return Check(verdict.verdict, events, len(errors), cut(verdict.told))


def cut(text: str) -> str:
    """The end of a text that is too long, such as a path, and what JSON can hold of it."""
    text = text.encode(errors="replace").decode()
    return text if len(text) <= SNAPSHOT_TEXT_MAX else f"...{text[3 - SNAPSHOT_TEXT_MAX :]}"


_Queue = TypeVar("_Queue", Sq, Cq)


def _freed(queue: _Queue, stopped: bool) -> _Queue:
    """The same queue, not stuck if the guest is stopped and it may wait for that."""
    waits = stopped and queue.stuck and queue.ball and "driver" in queue.ball.parties
    return msgspec.structs.replace(queue, stuck=False) if waits else queue


def _idle(sq: SubmissionQueue, shadows: ShadowDoorbells) -> bool:
    nothing_rung = sq.head == sq.tail == shadows.unseen_tail(sq)
    return nothing_rung and not sq.outstanding and sq.cq.tail == head_of(sq.cq, shadows)


def _by_queue(requests: Iterable[Request]) -> defaultdict[SubmissionQueue, list[Request]]:
    found: defaultdict[SubmissionQueue, list[Request]] = defaultdict(list)
    for request in requests:
        found[request.sq].append(request)
    return found


def _name(sq: SubmissionQueue, opcode: int) -> str:
    return NvmOpcode(opcode).label if sq.id else AdminOpcode(opcode).label
