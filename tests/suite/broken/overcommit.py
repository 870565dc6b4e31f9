"""Lost wake-ups of an over-committed queue."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue
from nvmelab.spec.registers import DOORBELLS


class ForgetsRungQueue(Controller):
    """A queue whose request pool ran dry is looked at again only at its tail doorbell, or when a
    head doorbell finds the completion queue full: QEMU before the fix."""

    def _post(self, cq: CompletionQueue) -> None:
        sq = cq.finished[0].sq
        dry = sq.outstanding == sq.limit
        super()._post(cq)
        if sq.id and dry and sq.head != sq.tail:
            sq.stopped = True

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        qid = (offset - DOORBELLS) >> 3
        if offset >= DOORBELLS and offset & 4 and qid in self.cqs and self.cqs[qid].full:
            for sq in self.sqs.values():
                if sq.cq is self.cqs[qid]:
                    sq.stopped = False
        elif offset >= DOORBELLS and not offset & 4 and qid in self.sqs:
            self.sqs[qid].stopped = False
        super().mmio_write(offset, size, value)


BROKEN: dict[str, list[type[Controller]]] = {
    "overcommit.silence": [ForgetsRungQueue],
    "overcommit.every-order": [ForgetsRungQueue],
}
