"""Where the commands of a controller stand, as the controller itself sees it: what the judge's ball
is fed with, and what is said of a guest that has left commands behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from nvmelab.check.ball import STAGES, Stage, Standing, owed

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller
    from nvmelab.device.queues import CompletionQueue, SubmissionQueue
    from nvmelab.device.shadow import ShadowDoorbells


def standing_of(
    sq: SubmissionQueue, finished: int, shadows: ShadowDoorbells | None = None
) -> Standing:
    """A submission queue and its completion queue. `finished` of its commands wait to be posted.
    With `shadows`, what the host has stored there counts as well: as rung where the device looks
    by itself, as written where a doorbell must come first."""
    unseen = (shadows.unseen_tail(sq) - sq.tail) % sq.size if shadows else 0
    rests = sq.shadow is not None and sq.shadow.rests
    return msgspec.structs.replace(
        posted_to(sq.cq, shadows),
        written=unseen if rests else 0,
        rung=(sq.tail - sq.head) % sq.size + (0 if rests else unseen),
        free=max(sq.limit - sq.outstanding, 0),
        fetched=max(sq.outstanding - finished, 0),
        finished=finished,
        dead="deletion" if sq.deletion else "tail" if sq.stopped else None,
    )


def posted_to(cq: CompletionQueue, shadows: ShadowDoorbells | None = None) -> Standing:
    """The entries of a completion queue, of whatever submission queue, and nothing else. What only
    the driver knows, and what is on its way, does not show."""
    head = head_of(cq, shadows)
    return Standing(
        written=0,
        under_way=None,
        rung=0,
        free=0,
        fetched=0,
        finished=0,
        room=(cq.tail + 1) % cq.size != head if shadows else not cq.full,
        posted=(cq.tail - head) % cq.size,
        signalled=not cq.unsignalled,
        delivered=None if cq.ien else True,
        taken=None,
    )


def head_of(cq: CompletionQueue, shadows: ShadowDoorbells | None) -> int:
    """How far the host has released a completion queue. A device looks at the shadow only when it
    needs room; when it has looked and waits for the doorbell, what is stored there is no release.
    """
    waits = cq.waits and cq.shadow is not None and cq.shadow.rests
    return shadows.unseen_head(cq) if shadows and not waits else cq.head


def outstanding_of(controller: Controller) -> list[str]:
    """The queues with commands that have no posted completion, each in words."""
    found: list[str] = []
    for sq in controller.sqs.values():
        s = _standing(sq)
        if s.rung or sq.outstanding:
            counts: dict[Stage, int] = {
                "rung": s.rung,
                "fetched": s.fetched,
                "finished": s.finished,
            }
            said = "; ".join(f"{count} {STAGES[stage]}" for stage, count in counts.items())
            found.append(
                f"{_place(sq)}: {said} (CQ {sq.cq.id} is {'not full' if s.room else 'full'})"
            )
    return found


def forgotten_by(controller: Controller) -> list[str]:
    """The submission queues that `is_forgotten`, each in words."""
    found: list[str] = []
    for sq in controller.sqs.values():
        if is_forgotten(controller, sq):
            said = "; ".join(row.said for row in owed(_standing(sq)) if row.stage == "rung")
            found.append(
                f"{_place(sq)}: {said}; nothing is scheduled: the device has the ball, and looks "
                "at this queue only when its tail is rung once more"
            )
    return found


def is_forgotten(controller: Controller, sq: SubmissionQueue) -> bool:
    """The queue waits for the device, which will not look at it: an entry is rung and a request is
    free, everything else of the queue pair is done, and nothing is scheduled. Our own rules leave
    none (`device.wakeups`)."""
    halves = controller.bottom_halves
    if halves is None or halves.scheduled or controller.storage_busy:
        return False
    cq = sq.cq
    return sq.may_fetch and not cq.finished and cq.tail == cq.head


def _place(sq: SubmissionQueue) -> str:
    return f"SQ {sq.id} (tail {sq.tail}, head {sq.head} of {sq.size})"


def _standing(sq: SubmissionQueue) -> Standing:
    return standing_of(sq, sum(request.sq is sq for request in sq.cq.finished))
