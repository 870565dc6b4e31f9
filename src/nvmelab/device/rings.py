"""What the host says about its rings: new tails and heads, by doorbell or by shadow.

NVMe over PCIe Transport, 3.1.2 (doorbells); Base 2.2, 3.3.1.2 and 5.1.2.1 (values that cannot be).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvmelab.device.queues import CompletionQueue, SubmissionQueue
from nvmelab.memory import MemoryFault
from nvmelab.spec.events import ErrorEvent, EventType
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller


def doorbell_written(controller: Controller, offset: int, value: int) -> None:
    """The host has written `value` at `offset` behind the first doorbell."""
    controller.statistics.doorbells += 1
    trace = controller.trace
    qid = offset >> 3
    value &= 0xFFFF  # the rest is reserved
    if offset & 3:
        if trace:
            trace("ub_db_wr_misaligned", offset + DOORBELLS)
        _bad_doorbell(controller, ErrorEvent.INVALID_DOORBELL_REGISTER)
    elif offset & 4:
        cq = controller.cqs.get(qid)
        if cq is None:
            if trace:
                trace("ub_db_wr_invalid_cq", qid)
            _bad_doorbell(controller, ErrorEvent.INVALID_DOORBELL_REGISTER)
        elif cq.shadow and value < cq.size:
            if trace:
                trace("mmio_doorbell_cq", qid, value)
            cq.shadow.ring(value)
        elif new_head(controller, cq, value) and trace:
            trace("mmio_doorbell_cq", qid, value)
    else:
        sq = controller.sqs.get(qid)
        if sq is None:
            if trace:
                trace("ub_db_wr_invalid_sq", qid)
            _bad_doorbell(controller, ErrorEvent.INVALID_DOORBELL_REGISTER)
        elif sq.shadow and value < sq.size:
            if trace:
                trace("mmio_doorbell_sq", qid, value)
            sq.shadow.ring(value)
        elif new_tail(controller, sq, value) and trace:
            trace("mmio_doorbell_sq", qid, value)


def new_head(controller: Controller, cq: CompletionQueue, value: int) -> bool:
    """The host has released entries up to there. False if that cannot be: it is ignored."""
    if cq.may_become(value):
        if controller.bottom_halves:
            controller.bottom_halves.head_rung(controller, cq)
        cq.head = value
        return True
    if controller.trace:
        controller.trace("ub_db_wr_invalid_cqhead", cq.id, value)
    _bad_doorbell(controller, ErrorEvent.INVALID_DOORBELL_VALUE, cq.id)
    return False


def new_tail(controller: Controller, sq: SubmissionQueue, value: int) -> bool:
    """The host has written entries up to there. False if that cannot be: no more is consumed from
    such a queue until the host deletes and recreates it (Base 2.2, 3.3.1.2)."""
    if sq.may_become(value):
        sq.tail = value
        if controller.bottom_halves:
            controller.bottom_halves.tail_rung(sq)
        return True
    if controller.trace:
        controller.trace("ub_db_wr_invalid_sqtail", sq.id, value)
    sq.stopped = True
    _bad_doorbell(controller, ErrorEvent.INVALID_DOORBELL_VALUE, sq.id)
    return False


def _bad_doorbell(controller: Controller, info: ErrorEvent, qid: int = 0xFFFF) -> None:
    """The write is ignored and reported (Base 2.2, 5.1.2.1)."""
    if controller.sqs:  # enabled: queue 0 exists
        controller.events.report(EventType.ERROR, info, LogPage.ERROR_INFORMATION, sqid=qid)


def trace_stale_phase(controller: Controller, cq: CompletionQueue) -> None:
    """Tell of the first slot that the host has not cleared: a phase tag of 1 there would be taken
    for an entry."""
    assert controller.trace
    for slot in range(cq.size):
        try:
            word = controller.memory.load_u32(cq.base + slot * CQE_SIZE + 12)
        except MemoryFault:
            return
        if word >> 16 & 1:
            controller.trace("cq_not_cleared", cq.id, slot)
            return
