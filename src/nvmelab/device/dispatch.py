"""From a fetched command to its handler, and from the handler's answer to a completion.

A handler is called with the controller, the request and the decoded command. It returns dword 0 of
the completion, raises NvmeError, or returns None when the command finishes later.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from nvmelab.device import admin, events, features, identify, io, logpages, shadow
from nvmelab.device.queues import Request
from nvmelab.memory import MemoryFault
from nvmelab.spec.admin import (
    Abort,
    AsyncEventRequest,
    CreateIoCq,
    CreateIoSq,
    DeleteIoCq,
    DeleteIoSq,
    DoorbellBufferConfig,
    GetFeatures,
    GetLogPage,
    Identify,
    SetFeatures,
)
from nvmelab.spec.commands import TO_HOST, Command, NvmOpcode
from nvmelab.spec.nvm import DatasetManagement, Flush, Read, Write, WriteZeroes
from nvmelab.spec.status import NvmeError, Status
from nvmelab.trace.bus import Emit

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

Handler = Callable[["Controller", Request, Any], int | None]


class Entry(NamedTuple):
    command: type[Command]
    handler: Handler


def _table(*entries: tuple[type[Command], Handler]) -> dict[int, Entry]:
    return {command.opcode: Entry(command, handler) for command, handler in entries}


ADMIN_COMMANDS = _table(
    (DeleteIoSq, admin.delete_io_sq),
    (CreateIoSq, admin.create_io_sq),
    (GetLogPage, logpages.get_log_page),
    (DeleteIoCq, admin.delete_io_cq),
    (CreateIoCq, admin.create_io_cq),
    (Identify, identify.identify),
    (Abort, admin.abort),
    (SetFeatures, features.set_features),
    (GetFeatures, features.get_features),
    (AsyncEventRequest, events.async_event_request),
    (DoorbellBufferConfig, shadow.doorbell_buffer_config),
)
IO_COMMANDS = _table(
    (Flush, io.flush),
    (Write, io.write),
    (Read, io.read),
    (WriteZeroes, io.write_zeroes),
    (DatasetManagement, io.dataset_management),
)
logpages.EFFECTS_OF = (ADMIN_COMMANDS, IO_COMMANDS)

_FUSE_AND_PSDT = 0xC300
"""CDW0 bits 15:14 and 9:8: fused commands and SGLs, of which we have neither."""


def execute(controller: Controller, request: Request) -> None:
    """Carry out one fetched command. Everything the host did wrong becomes its status."""
    table = IO_COMMANDS if request.sq.id else ADMIN_COMMANDS
    try:
        entry = table.get(request.opcode)
        if entry is None:
            if controller.trace:
                name = "err_invalid_opc" if request.sq.id else "err_invalid_admin_opc"
                controller.trace(name, request.opcode)
            raise NvmeError(Status.INVALID_COMMAND_OPCODE, f"opcode {request.opcode:#x}")
        if request.words[0] & _FUSE_AND_PSDT:
            raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, "fused or SGL command")
        dw0 = entry.handler(controller, request, entry.command.from_words(request.words))
    except NvmeError as error:
        controller.finish(request, error.field)
    except MemoryFault as fault:
        if controller.trace:
            name = "err_addr_write" if request.opcode & 3 == TO_HOST else "err_addr_read"
            controller.trace(name, fault.addr)
        controller.finish(request, Status.DATA_TRANSFER_ERROR)
    except OSError as error:
        host_error(controller, request, error)
    else:
        if dw0 is not None:
            request.dw0 = dw0
            controller.finish(request)


_HOST_ERRORS = {
    NvmOpcode.READ: Status.UNRECOVERED_READ_ERROR,
    NvmOpcode.WRITE: Status.WRITE_FAULT,
    NvmOpcode.FLUSH: Status.WRITE_FAULT,
    NvmOpcode.WRITE_ZEROES: Status.WRITE_FAULT,
}


def host_error(controller: Controller, request: Request, error: OSError) -> None:
    """The storage failed: complete with the status that says so. The host may retry."""
    if not request.sq.id:
        status = Status.INTERNAL_ERROR
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        status = Status.CAPACITY_EXCEEDED
    else:
        status = _HOST_ERRORS.get(NvmOpcode(request.opcode), Status.INTERNAL_ERROR)
    if controller.trace:
        controller.trace("err_aio", request.cid, os.strerror(error.errno or 0), int(status))
    request.nbytes = 0
    controller.finish(request, status)


def trace_fetch(trace: Emit, request: Request, slot: int) -> None:
    """The events of a fetch, with the command's name as QEMU spells it."""
    trace("sqe", request.sq.id, slot, *request.words)
    if request.sq.id:
        known = io.TRACE_NAMES.get(request.opcode, "NVME_NVM_CMD_UNKNOWN")
        trace("io_cmd", request.cid, request.nsid, request.sq.id, request.opcode, known)
    else:
        known = admin.TRACE_NAMES.get(request.opcode, "NVME_ADM_CMD_UNKNOWN")
        trace("admin_cmd", request.cid, request.sq.id, request.opcode, known)


def trace_post(trace: Emit, request: Request) -> None:
    """The event of a completion queue entry that was just written."""
    sq, cq = request.sq, request.sq.cq
    entry = (sq.head, sq.id, request.cid, cq.phase, request.status)
    trace("cqe", cq.id, cq.tail, request.dw0, 0, *entry)
