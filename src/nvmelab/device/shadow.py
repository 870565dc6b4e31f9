"""Shadow doorbells: the host stores its tails and heads in memory, and rings only when told to.

NVMe Base 2.2, 5.2.5 (Doorbell Buffer Config) and Annex B.5. Two pages are laid out like the
doorbells. The host stores to the shadow page, and writes the real doorbell only when its value
passes the EventIdx, which the controller keeps on the other page.

A queue that waits (a submission queue for entries, a full completion queue for room) comes to rest
in steps that are seen by the peer one by one:

    poll    look at the shadow; something new ends this
    arm     publish the value that is known as the EventIdx
    poll    look again; with nothing new the queue rests, and is not looked at any more

Whatever the host stores after the second look passes an EventIdx that it can see, so it writes the
real doorbell, and that begins with a look again. Whatever it stored before is seen by that look. An
EventIdx that is published earlier, or while there is work, would only cost doorbell writes.

One doorbell has one value, with two ways to it. Once the host has stored to a shadow, the shadow is
the value, and a write of the real doorbell is a reason to look and no more: over a socket it may
arrive after the host has gone on, and taking an old tail would execute old entries again. Until
then the real doorbell counts, as drivers of the field ring the admin queue in no other way, and the
shadow is kept equal to it.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from nvmelab.device.queues import CompletionQueue, Request, SubmissionQueue
from nvmelab.device.rings import new_head, new_tail
from nvmelab.memory import MemoryFault, fence
from nvmelab.spec.admin import DoorbellBufferConfig
from nvmelab.spec.status import NvmeError, Status

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

_STEPS_TO_REST = 3


class Watch(enum.Enum):
    """What comes next for a queue that waits."""

    LOOK = "look"
    ARM = "arm"
    LOOK_AGAIN = "look again"
    REST = "rest"


class Shadow:
    """The shadow of one doorbell, its EventIdx, and what the controller knows of them."""

    __slots__ = ("at", "event_at", "rung", "seen", "used", "watch")

    def __init__(self, at: int, event_at: int, value: int) -> None:
        self.at, self.event_at = at, event_at
        """Addresses of the shadow and of its EventIdx."""
        self.seen = value
        """What stood there at the last look."""
        self.used = False
        """The host has stored to it."""
        self.rung: int | None = None
        """What the real doorbell was last written with; None if that has been looked into."""
        self.watch = Watch.LOOK

    @property
    def rests(self) -> bool:
        """It is not looked at until the host writes the real doorbell."""
        return self.watch is Watch.REST

    def ring(self, value: int) -> None:
        """The host has written the real doorbell."""
        self.rung = value
        self.watch = Watch.LOOK

    def step(self, waits: bool) -> str:
        """`poll`, `arm` or nothing: what can be done now for a queue that waits, or does not."""
        if self.rung is not None:
            return "poll"
        if not waits or self.watch is Watch.REST:
            return ""
        return "arm" if self.watch is Watch.ARM else "poll"


class ShadowDoorbells:
    """The shadow doorbells of one controller; off until the host hands over the pages."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.pages: tuple[int, int] | None = None
        """Addresses of the shadow and the EventIdx page."""

    @property
    def offered(self) -> bool:
        """The controller has the command: not beside a mapped doorbell page, which makes it
        useless, and only if a page has room for all doorbells."""
        controller = self._controller
        fits = 8 * (controller.config.io_queues + 1) <= controller.life.page_size
        return controller.config.shadow_doorbells and controller.doorbells is None and fits

    def configure(self, shadow: int, event_index: int) -> None:
        """Use the two pages from now on, for the queues that exist as well. Raises NvmeError."""
        size = self._controller.life.page_size
        if shadow % size or event_index % size or shadow == event_index:
            raise NvmeError(
                Status.INVALID_FIELD_IN_COMMAND, f"{shadow:#x} and {event_index:#x} are not 2 pages"
            )
        try:
            for addr in (shadow, event_index):
                self._controller.memory.views(addr, size, write=True)
        except MemoryFault as fault:
            raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, str(fault)) from None
        self.pages = shadow, event_index
        for cq in self._controller.cqs.values():
            self.begin_cq(cq)
        for sq in self._controller.sqs.values():
            self.begin_sq(sq)

    def end(self) -> None:
        """The pages are the host's again, as after any reset (Base 2.2, 5.2.5)."""
        self.pages = None

    def begin_sq(self, sq: SubmissionQueue) -> None:
        """The queue is new, or the pages are."""
        sq.shadow = self._begin(2 * sq.id, sq.tail)

    def begin_cq(self, cq: CompletionQueue) -> None:
        """The queue is new, or the pages are."""
        cq.shadow = self._begin(2 * cq.id + 1, cq.head)

    def _begin(self, index: int, value: int) -> Shadow | None:
        """The shadow begins with the doorbell's value, whatever stands there: the host does not use
        it before the command has completed that leads here."""
        if self.pages is None:
            return None
        made = Shadow(self.pages[0] + 4 * index, self.pages[1] + 4 * index, value)
        self._store(made.at, value)
        return made

    # Steps.

    def step_sq(self, sq: SubmissionQueue) -> str:
        """`poll`, `arm` or nothing."""
        return sq.shadow.step(sq.waits) if sq.shadow and not sq.stopped else ""

    def step_cq(self, cq: CompletionQueue) -> str:
        """`poll`, `arm` or nothing."""
        return cq.shadow.step(cq.waits) if cq.shadow else ""

    @property
    def pending(self) -> bool:
        """A step can be taken for one of the queues."""
        controller = self._controller
        return any(map(self.step_sq, controller.sqs.values())) or any(
            map(self.step_cq, controller.cqs.values())
        )

    def take_sq(self, sq: SubmissionQueue) -> None:
        """Take the step that `step_sq` names."""
        shadow = sq.shadow
        assert shadow
        if self.step_sq(sq) == "arm":
            self._arm(shadow, sq.tail, "update_sq_eventidx", sq.id)
            return
        value = self._look(shadow, sq.tail, sq.waits, "update_sq_tail", sq.id)
        if value != sq.tail and new_tail(self._controller, sq, value):
            self._keep_equal(shadow, value)

    def take_cq(self, cq: CompletionQueue) -> None:
        """Take the step that `step_cq` names."""
        shadow = cq.shadow
        assert shadow
        if self.step_cq(cq) == "arm":
            self._arm(shadow, cq.head, "update_cq_eventidx", cq.id)
            return
        value = self._look(shadow, cq.head, cq.waits, "update_cq_head", cq.id)
        if value != cq.head and new_head(self._controller, cq, value):
            self._keep_equal(shadow, value)

    def find_entries(self, sq: SubmissionQueue) -> bool:
        """Take the steps of a queue until it rests or has something to fetch. True if it has. A
        host that stores without pause has to wait for the next turn."""
        live = True
        for _ in range(_STEPS_TO_REST):
            if not live or not self.step_sq(sq):
                break
            self.take_sq(sq)
            live = self._controller.life.live
        return live and sq.may_fetch

    def find_room(self, cq: CompletionQueue) -> bool:
        """Take the steps of a queue until it rests or has room. True if it has."""
        live = True
        for _ in range(_STEPS_TO_REST):
            if not live or not self.step_cq(cq):
                break
            self.take_cq(cq)
            live = self._controller.life.live
        return live and not cq.full

    def unseen_tail(self, sq: SubmissionQueue) -> int:
        """What the host has stored as its tail, without taking notice of it."""
        stored = self._stored(sq.shadow, sq.tail)
        return stored if sq.may_become(stored) else sq.tail

    def unseen_head(self, cq: CompletionQueue) -> int:
        """What the host has stored as its head, without taking notice of it."""
        stored = self._stored(cq.shadow, cq.head)
        return stored if cq.may_become(stored) else cq.head

    def _stored(self, shadow: Shadow | None, known: int) -> int:
        if shadow is None:
            return known
        try:
            stored = self._controller.memory.load_u32(shadow.at) & 0xFFFF
        except MemoryFault:
            return known
        return known if stored == shadow.seen else stored

    def _look(self, shadow: Shadow, known: int, waits: bool, event: str, qid: int) -> int:
        """What the doorbell says now; `known` is what it said before."""
        rung, shadow.rung = shadow.rung, None
        try:
            stored = self._controller.memory.load_u32(shadow.at) & 0xFFFF  # the rest is reserved
        except MemoryFault:
            self._gone("err_addr_read", shadow.at)
            return known
        value = known
        if stored != shadow.seen:
            shadow.seen, shadow.used = stored, True
            value = stored
        elif rung is not None and not shadow.used:
            value = rung
        if value != known or not waits:
            shadow.watch = Watch.LOOK
        elif shadow.watch is Watch.LOOK:
            shadow.watch = Watch.ARM
        else:
            shadow.watch = Watch.REST
        if self._controller.trace:
            self._controller.trace(event, qid, value)
        return value

    def _arm(self, shadow: Shadow, value: int, event: str, qid: int) -> None:
        shadow.watch = Watch.LOOK_AGAIN
        self._store(shadow.event_at, value)
        fence()  # the second look must not be done before the host can see this
        if self._controller.trace:
            self._controller.trace(event, qid, value)

    def _keep_equal(self, shadow: Shadow, value: int) -> None:
        """The real doorbell has brought a value: a host that never stores to the shadow may still
        read it. Nobody else stores to it, or the value would have come from there."""
        if not shadow.used:
            shadow.seen = value
            self._store(shadow.at, value)

    def _store(self, addr: int, value: int) -> None:
        try:
            self._controller.memory.store_u32(addr, value)
        except MemoryFault:
            self._gone("err_addr_write", addr)

    def _gone(self, event: str, addr: int) -> None:
        """The host has taken a page away. Real doorbells could not replace it: what the host has
        stored there and not rung would be lost without a word."""
        if self._controller.trace:
            self._controller.trace(event, addr)
        self._controller.life.fatal()


def doorbell_buffer_config(
    controller: Controller, request: Request, command: DoorbellBufferConfig
) -> int:
    if not controller.shadows.offered:
        if controller.trace:
            controller.trace("err_invalid_admin_opc", request.opcode)
        raise NvmeError(Status.INVALID_COMMAND_OPCODE, "shadow doorbells are switched off")
    if controller.trace:
        controller.trace("dbbuf_config", command.prp1, command.prp2)
    controller.shadows.configure(command.prp1, command.prp2)
    return 0
