"""Admin commands that make and end queues, and Abort. NVMe Base 2.2, 5.2.1 to 5.2.4 and 5.1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvmelab.device.queues import CompletionQueue, Request
from nvmelab.spec.admin import Abort, CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.registers import IOCQES, IOSQES
from nvmelab.spec.status import NvmeError, Status
from nvmelab.trace.events import EVENTS

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

TRACE_NAMES = {
    int(opcode): f"NVME_ADM_CMD_{name}"
    for opcode, name in (
        (AdminOpcode.DELETE_IO_SQ, "DELETE_SQ"),
        (AdminOpcode.CREATE_IO_SQ, "CREATE_SQ"),
        (AdminOpcode.GET_LOG_PAGE, "GET_LOG_PAGE"),
        (AdminOpcode.DELETE_IO_CQ, "DELETE_CQ"),
        (AdminOpcode.CREATE_IO_CQ, "CREATE_CQ"),
        (AdminOpcode.IDENTIFY, "IDENTIFY"),
        (AdminOpcode.ABORT, "ABORT"),
        (AdminOpcode.SET_FEATURES, "SET_FEATURES"),
        (AdminOpcode.GET_FEATURES, "GET_FEATURES"),
        (AdminOpcode.ASYNC_EVENT_REQUEST, "ASYNC_EV_REQ"),
        (AdminOpcode.DOORBELL_BUFFER_CONFIG, "DBBUF_CONFIG"),
    )
}
"""Names of the opcodes in QEMU's log."""


def _require(controller: Controller, met: bool, status: Status, event: str, *values: int) -> None:
    """Refuse the command with `status`, and trace `event`, unless the condition is met."""
    if met:
        return
    if controller.trace:
        controller.trace(event, *values)
    raise NvmeError(status, EVENTS[event].template.format(*values))


def create_io_cq(controller: Controller, request: Request, command: CreateIoCq) -> int:
    config, cc, trace = controller.config, controller.life.cc, controller.trace
    qid, base, vector, qsize = command.qid, command.prp1, command.iv, command.qsize - 1
    flags = command.pc | command.ien << 1
    if trace:
        trace("create_cq", base, qid, vector, qsize, flags, command.ien)
    free = 1 <= qid <= config.io_queues and qid not in controller.cqs
    _require(controller, free, Status.INVALID_QUEUE_IDENTIFIER, "err_invalid_create_cq_cqid", qid)
    fits = 2 <= command.qsize <= config.queue_entries
    _require(controller, fits, Status.INVALID_QUEUE_SIZE, "err_invalid_create_cq_size", qsize)
    event = "err_invalid_create_cq_entry_size"
    set_up = cc.iocqes == IOCQES
    _require(controller, set_up, Status.INVALID_QUEUE_SIZE, event, cc.iosqes, cc.iocqes)
    event = "err_invalid_create_cq_qflags"  # CAP.CQR: queues are physically contiguous
    _require(controller, bool(command.pc), Status.INVALID_FIELD_IN_COMMAND, event, flags)
    aligned = base % controller.life.page_size == 0
    _require(controller, aligned, Status.PRP_OFFSET_INVALID, "err_invalid_create_cq_addr", base)
    # Without MSI-X there is only vector 0 (NVMe over PCIe Transport, 3.2).
    exists = not command.ien or vector < (config.vectors if controller.msix_enabled else 1)
    event = "err_invalid_create_cq_vector"
    _require(controller, exists, Status.INVALID_INTERRUPT_VECTOR, event, vector)
    controller.add_cq(CompletionQueue(qid, base, command.qsize, vector, bool(command.ien)))
    return 0


def create_io_sq(controller: Controller, request: Request, command: CreateIoSq) -> int:
    config, cc, trace = controller.config, controller.life.cc, controller.trace
    qid, cqid, base, qsize = command.qid, command.cqid, command.prp1, command.qsize - 1
    flags = command.pc | command.qprio << 1
    if trace:
        trace("create_sq", base, qid, cqid, qsize, flags)
    # A CQID that can never exist is a bad identifier; one that does not exist is another error.
    event = "err_invalid_create_sq_cqid"
    possible = 1 <= cqid <= config.io_queues
    _require(controller, possible, Status.INVALID_QUEUE_IDENTIFIER, event, cqid)
    _require(controller, cqid in controller.cqs, Status.COMPLETION_QUEUE_INVALID, event, cqid)
    free = 1 <= qid <= config.io_queues and qid not in controller.sqs
    _require(controller, free, Status.INVALID_QUEUE_IDENTIFIER, "err_invalid_create_sq_sqid", qid)
    fits = 2 <= command.qsize <= config.queue_entries and cc.iosqes == IOSQES
    _require(controller, fits, Status.INVALID_QUEUE_SIZE, "err_invalid_create_sq_size", qsize)
    event = "err_invalid_create_sq_qflags"  # CAP.CQR: queues are physically contiguous
    _require(controller, bool(command.pc), Status.INVALID_FIELD_IN_COMMAND, event, flags)
    aligned = base % controller.life.page_size == 0
    _require(controller, aligned, Status.PRP_OFFSET_INVALID, "err_invalid_create_sq_addr", base)
    controller.add_sq(qid, base, command.qsize, controller.cqs[cqid])
    return 0


def delete_io_cq(controller: Controller, request: Request, command: DeleteIoCq) -> int:
    qid = command.qid
    exists = qid != 0 and qid in controller.cqs
    _require(controller, exists, Status.INVALID_QUEUE_IDENTIFIER, "err_invalid_del_cq_cqid", qid)
    unused = controller.cqs[qid].sqs == 0
    _require(controller, unused, Status.INVALID_QUEUE_DELETION, "err_invalid_del_cq_notempty", qid)
    if controller.trace:
        controller.trace("del_cq", qid)
    controller.remove_cq(controller.cqs[qid])
    return 0


def delete_io_sq(controller: Controller, request: Request, command: DeleteIoSq) -> int | None:
    qid = command.qid
    exists = qid != 0 and qid in controller.sqs and not controller.sqs[qid].deletion
    _require(controller, exists, Status.INVALID_QUEUE_IDENTIFIER, "err_invalid_del_sq", qid)
    sq = controller.sqs[qid]
    if controller.trace:
        controller.trace("del_sq", qid)
    if sq.working:
        # The storage may still change blocks: the queue ends after that.
        sq.deletion = request
        sq.stopped = True
        return None
    controller.remove_sq(sq)
    return 0


def abort(controller: Controller, request: Request, command: Abort) -> int:
    """Dword 0 of the completion: 0 if the command was aborted, 1 if not."""
    sq = controller.sqs.get(command.sqid)
    if sq is None:
        return 1
    if sq.id == 0 and controller.events.abort(command.aborted_cid):
        return 0
    for victim in sq.fetched:
        if victim.cid == command.aborted_cid:
            sq.fetched.remove(victim)
            controller.finish(victim, Status.COMMAND_ABORT_REQUESTED)
            return 0
    return 1
