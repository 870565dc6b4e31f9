"""Admin commands that make and end queues, and Abort. NVMe Base 2.2, 5.2.1 to 5.2.4 and 5.1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nvmelab.device.queues import CompletionQueue, Request
from nvmelab.spec.admin import Abort, CreateIoCq, CreateIoSq, DeleteIoCq, DeleteIoSq
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.registers import IOCQES, IOSQES
from nvmelab.spec.status import NvmeError, Status

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
    )
}
"""Names of the opcodes in QEMU's log."""


def _refuse(
    controller: Controller, event: str, values: tuple[int, ...], status: Status, cause: str
) -> NvmeError:
    if controller.trace:
        controller.trace(event, *values)
    return NvmeError(status, cause)


def create_io_cq(controller: Controller, request: Request, command: CreateIoCq) -> int:
    qid, entries = command.qid, command.qsize
    if controller.trace:
        controller.trace("create_cq", command.prp1, qid, command.iv, entries - 1,
                         command.pc | command.ien << 1, command.ien)  # fmt: skip
    if not 1 <= qid <= controller.config.io_queues or qid in controller.cqs:
        raise _refuse(controller, "err_invalid_create_cq_cqid", (qid,),
                      Status.INVALID_QUEUE_IDENTIFIER, f"CQID {qid} is out of range or used")  # fmt: skip
    if not 2 <= entries <= controller.config.queue_entries:
        raise _refuse(controller, "err_invalid_create_cq_size", (entries - 1,),
                      Status.INVALID_QUEUE_SIZE, f"{entries} entries")  # fmt: skip
    cc = controller.cc
    if cc.iocqes != IOCQES:
        raise _refuse(controller, "err_invalid_create_cq_entry_size", (cc.iosqes, cc.iocqes),
                      Status.INVALID_QUEUE_SIZE, f"CC.IOCQES is {cc.iocqes}")  # fmt: skip
    if not command.pc:
        raise _refuse(controller, "err_invalid_create_cq_qflags", (command.ien << 1,),
                      Status.INVALID_FIELD_IN_COMMAND, "PC is 0 and CAP.CQR is 1")  # fmt: skip
    if command.prp1 % controller.page_size:
        raise _refuse(controller, "err_invalid_create_cq_addr", (command.prp1,),
                      Status.PRP_OFFSET_INVALID, f"PRP1 {command.prp1:#x}")  # fmt: skip
    # Without MSI-X there is only vector 0 (NVMe over PCIe Transport, 3.2).
    vectors = controller.config.vectors if controller.msix_enabled else 1
    if command.ien and command.iv >= vectors:
        raise _refuse(controller, "err_invalid_create_cq_vector", (command.iv,),
                      Status.INVALID_INTERRUPT_VECTOR, f"vector {command.iv}")  # fmt: skip
    controller.add_cq(CompletionQueue(qid, command.prp1, entries, command.iv, bool(command.ien)))
    return 0


def create_io_sq(controller: Controller, request: Request, command: CreateIoSq) -> int:
    qid, cqid, entries = command.qid, command.cqid, command.qsize
    if controller.trace:
        controller.trace("create_sq", command.prp1, qid, cqid, entries - 1,
                         command.pc | command.qprio << 1)  # fmt: skip
    # A CQID that can never exist is a bad identifier; one that does not exist is another error.
    if not 1 <= cqid <= controller.config.io_queues:
        raise _refuse(controller, "err_invalid_create_sq_cqid", (cqid,),
                      Status.INVALID_QUEUE_IDENTIFIER, f"CQID {cqid} is out of range")  # fmt: skip
    if cqid not in controller.cqs:
        raise _refuse(controller, "err_invalid_create_sq_cqid", (cqid,),
                      Status.COMPLETION_QUEUE_INVALID, f"CQ {cqid} does not exist")  # fmt: skip
    if not 1 <= qid <= controller.config.io_queues or qid in controller.sqs:
        raise _refuse(controller, "err_invalid_create_sq_sqid", (qid,),
                      Status.INVALID_QUEUE_IDENTIFIER, f"SQID {qid} is out of range or used")  # fmt: skip
    if not 2 <= entries <= controller.config.queue_entries or controller.cc.iosqes != IOSQES:
        raise _refuse(controller, "err_invalid_create_sq_size", (entries - 1,),
                      Status.INVALID_QUEUE_SIZE,
                      f"{entries} entries, CC.IOSQES {controller.cc.iosqes}")  # fmt: skip
    if not command.pc:
        raise _refuse(controller, "err_invalid_create_sq_qflags", (command.qprio << 1,),
                      Status.INVALID_FIELD_IN_COMMAND, "PC is 0 and CAP.CQR is 1")  # fmt: skip
    if command.prp1 % controller.page_size:
        raise _refuse(controller, "err_invalid_create_sq_addr", (command.prp1,),
                      Status.PRP_OFFSET_INVALID, f"PRP1 {command.prp1:#x}")  # fmt: skip
    controller.add_sq(qid, command.prp1, entries, controller.cqs[cqid])
    return 0


def delete_io_cq(controller: Controller, request: Request, command: DeleteIoCq) -> int:
    cq = controller.cqs.get(command.qid)
    if cq is None or command.qid == 0:
        raise _refuse(controller, "err_invalid_del_cq_cqid", (command.qid,),
                      Status.INVALID_QUEUE_IDENTIFIER, f"no I/O CQ {command.qid}")  # fmt: skip
    if cq.sqs:
        raise _refuse(controller, "err_invalid_del_cq_notempty", (command.qid,),
                      Status.INVALID_QUEUE_DELETION, f"{cq.sqs} SQs are bound to it")  # fmt: skip
    if controller.trace:
        controller.trace("del_cq", command.qid)
    del controller.cqs[command.qid]
    return 0


def delete_io_sq(controller: Controller, request: Request, command: DeleteIoSq) -> int | None:
    sq = controller.sqs.get(command.qid)
    if sq is None or command.qid == 0 or sq.deletion:
        raise _refuse(controller, "err_invalid_del_sq", (command.qid,),
                      Status.INVALID_QUEUE_IDENTIFIER, f"no I/O SQ {command.qid}")  # fmt: skip
    if controller.trace:
        controller.trace("del_sq", command.qid)
    if sq.working:
        sq.deletion = request  # the storage may still change blocks: the queue ends after that
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
