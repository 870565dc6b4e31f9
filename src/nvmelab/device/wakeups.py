"""Bottom halves: a controller that looks at a queue only when something has scheduled it.

Ours derives what it could do from its state, and so cannot forget a queue. QEMU's device, and many
others, schedule a *bottom half* for a queue when a doorbell is written or a command has finished,
and look at no queue otherwise. Whether nobody is forgotten is then a matter of which events
schedule what: `WakeupRules` is that table, and `BottomHalves` carries it out for a `Controller`.

One run of a bottom half is one step: all that can be fetched from a submission queue, or all that
can be posted to a completion queue, with one interrupt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from nvmelab.device.queues import CompletionQueue, SubmissionQueue

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

Queue = SubmissionQueue | CompletionQueue


class WakeupRules(msgspec.Struct, frozen=True):
    """What schedules a bottom half, beside a tail doorbell (that of its submission queue) and a
    finished command (that of its completion queue), and in which order bottom halves run."""

    full_cq_head_wakes_sqs: bool = False
    """The head doorbell of a completion queue that was full: its submission queues."""
    full_cq_head_wakes_cq: bool = True
    """The head doorbell of a completion queue that was full: that queue itself."""
    post_into_empty_pool_wakes_sq: bool = False
    """A completion is posted, and its request was the last of the pool: the submission queue, if
    it is not empty."""
    extra_requests: int = 0
    """Requests in the pool of a submission queue beyond its entries."""
    order: Literal["free", "lifo", "fifo"] = "free"
    """`free`: any that is scheduled. `lifo`: those scheduled by one pass run as one step, the last
    first. `fifo`: the first, and scheduling once more moves to the end."""


class BottomHalves:
    """What is scheduled in one controller."""

    def __init__(self, rules: WakeupRules) -> None:
        self.rules = rules
        self.scheduled: list[Queue] = []
        """Each queue at most once, in the order of being scheduled."""

    def runnable(self, queue: Queue) -> bool:
        """Its bottom half may be the next one; not asked for with the order `lifo`."""
        if self.rules.order == "fifo":
            return bool(self.scheduled) and self.scheduled[0] is queue
        return queue in self.scheduled

    def tail_rung(self, sq: SubmissionQueue) -> None:
        self._schedule(sq)

    def head_rung(self, controller: Controller, cq: CompletionQueue) -> None:
        """Called before the new head is stored."""
        if not cq.full:
            return
        if self.rules.full_cq_head_wakes_sqs:
            for sq in controller.sqs.values():
                if sq.cq is cq:
                    self._schedule(sq)
        if self.rules.full_cq_head_wakes_cq:
            self._schedule(cq)

    def finished(self, cq: CompletionQueue) -> None:
        """A command waits for its completion to be posted."""
        self._schedule(cq)

    def posting(self, sq: SubmissionQueue) -> None:
        """Called before a request of the queue goes back to its pool."""
        dry = sq.outstanding == sq.limit
        if self.rules.post_into_empty_pool_wakes_sq and dry and sq.head != sq.tail:
            self._schedule(sq)

    def _schedule(self, queue: Queue) -> None:
        if queue in self.scheduled:
            if self.rules.order != "fifo":
                return
            self.scheduled.remove(queue)
        self.scheduled.append(queue)

    def forget(self, queue: Queue) -> None:
        """The queue is gone."""
        if queue in self.scheduled:
            self.scheduled.remove(queue)

    def run(self, controller: Controller, queue: Queue) -> None:
        """Run the bottom half of one queue."""
        self.scheduled.remove(queue)
        if isinstance(queue, SubmissionQueue):
            while queue.may_fetch and controller.life.live:
                controller.fetch_run(queue)
        else:
            # QEMU raises the interrupt whenever the host has not released all that was posted.
            queue.unsignalled = queue.tail != queue.head
            controller.post_run(queue)

    def run_pass(self, controller: Controller) -> None:
        """Run what is scheduled now; what that schedules is left for the next pass."""
        queues = list(self.scheduled)
        for queue in reversed(queues) if self.rules.order == "lifo" else queues:
            if queue in self.scheduled:  # it is not if its queue has gone meanwhile
                self.run(controller, queue)
