"""I/O commands of the NVM Command Set. NVM Command Set 1.2, 3.3; Flush: Base 2.2, 7.2."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from nvmelab.device.namespaces import Namespace
from nvmelab.device.namespaces import flush as flush_namespaces
from nvmelab.device.queues import Request
from nvmelab.device.transfer import check_length, from_host, pieces
from nvmelab.spec.commands import BROADCAST_NSID, NvmOpcode
from nvmelab.spec.nvm import DatasetManagement, Flush, Range, Read, Write, WriteZeroes
from nvmelab.spec.status import NvmeError, Status
from nvmelab.trace.bus import Emit

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

TRACE_NAMES = {
    int(opcode): f"NVME_NVM_CMD_{name}"
    for opcode, name in (
        (NvmOpcode.FLUSH, "FLUSH"),
        (NvmOpcode.WRITE, "WRITE"),
        (NvmOpcode.READ, "READ"),
        (NvmOpcode.WRITE_ZEROES, "WRITE_ZEROES"),
        (NvmOpcode.DATASET_MANAGEMENT, "DSM"),
    )
}
"""Names of the opcodes in QEMU's log."""


def _namespace(controller: Controller, nsid: int) -> Namespace:
    """The namespace a command names. Base 2.2, 3.2.1: NSID 0 or above NN is invalid; one that is
    valid and not attached, or the broadcast value, is an invalid field."""
    namespace = controller.namespaces.get(nsid)
    if namespace is None:
        if nsid != BROADCAST_NSID and not 1 <= nsid <= max(controller.namespaces):
            raise NvmeError(Status.INVALID_NAMESPACE_OR_FORMAT, f"NSID {nsid:#x}")
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"NSID {nsid:#x} is not active")
    return namespace


def _check_range(controller: Controller, namespace: Namespace, slba: int, nlb: int) -> None:
    if slba + nlb > namespace.nsze:
        if controller.trace:
            controller.trace("err_invalid_lba_range", slba, nlb, namespace.nsze)
        raise NvmeError(Status.LBA_OUT_OF_RANGE, f"LBA {slba:#x} + {nlb}")


def _check_writable(namespace: Namespace) -> None:
    if namespace.backend.read_only:
        raise NvmeError(Status.NAMESPACE_IS_WRITE_PROTECTED, "the image is read-only")


def _moved(controller: Controller, request: Request, namespace: Namespace, nbytes: int) -> None:
    """The data is where it belongs."""
    request.nbytes = nbytes
    if controller.trace:
        trace_moved(controller.trace, request, namespace)


def trace_moved(trace: Emit, request: Request, namespace: Namespace) -> None:
    """The events of a read or write whose data is where it belongs."""
    trace("rw_cb", request.cid, namespace.label)
    trace("rw_complete_cb", request.cid, namespace.label)


def _hand_over(
    controller: Controller, request: Request, nbytes: int, transfer: Callable[[], None]
) -> None:
    """Let the worker say when the data moves."""

    def work() -> None:
        # After a reset the host may use its memory for something else.
        if not request.dropped:
            transfer()

    request.nbytes = nbytes
    controller.later(request, work)


def read(controller: Controller, request: Request, command: Read) -> int | None:
    namespace = _namespace(controller, command.nsid)
    nbytes = command.nlb << namespace.shift
    trace = controller.trace
    if trace:
        trace("read", request.cid, command.nsid, command.nlb, nbytes, command.slba)
    check_length(controller, nbytes)
    _check_range(controller, namespace, command.slba, command.nlb)
    views = pieces(controller, command, nbytes, write=True)
    offset = command.slba << namespace.shift
    if controller.data_deferred:
        transfer = partial(namespace.backend.read, offset, views)
        _hand_over(controller, request, nbytes, transfer)
        return None
    namespace.backend.read(offset, views)
    _moved(controller, request, namespace, nbytes)
    return 0


def write(controller: Controller, request: Request, command: Write) -> int | None:
    namespace = _namespace(controller, command.nsid)
    nbytes = command.nlb << namespace.shift
    trace = controller.trace
    if trace:
        trace(
            "write",
            request.cid,
            TRACE_NAMES[request.opcode],
            command.nsid,
            command.nlb,
            nbytes,
            command.slba,
        )
    check_length(controller, nbytes)
    _check_range(controller, namespace, command.slba, command.nlb)
    _check_writable(namespace)
    views = pieces(controller, command, nbytes, write=False)
    offset = command.slba << namespace.shift
    durable = _must_be_durable(namespace, command.fua)
    if controller.data_deferred:

        def transfer() -> None:
            namespace.backend.write(offset, views)
            if durable:
                namespace.backend.flush()

        _hand_over(controller, request, nbytes, transfer)
        return None
    namespace.backend.write(offset, views)
    _moved(controller, request, namespace, nbytes)
    if durable:
        return None if controller.later(request, namespace.backend.flush) else 0
    return 0


def _must_be_durable(namespace: Namespace, fua: int) -> bool:
    """What a command writes must outlive a power failure when it completes: FUA is set or the host
    has switched the write cache off."""
    return bool(fua or namespace.write_through) and namespace.backend.write_cache


def flush(controller: Controller, request: Request, command: Flush) -> int | None:
    if command.nsid == BROADCAST_NSID:
        namespaces = list(controller.namespaces.values())
    else:
        namespaces = [_namespace(controller, command.nsid)]
    if controller.trace:
        for namespace in namespaces:
            controller.trace("flush_ns", namespace.nsid)
    return None if controller.later(request, partial(flush_namespaces, namespaces)) else 0


def write_zeroes(controller: Controller, request: Request, command: WriteZeroes) -> int | None:
    namespace = _namespace(controller, command.nsid)
    nbytes = command.nlb << namespace.shift
    if controller.trace:
        controller.trace(
            "write",
            request.cid,
            TRACE_NAMES[request.opcode],
            command.nsid,
            command.nlb,
            nbytes,
            command.slba,
        )
    _check_range(controller, namespace, command.slba, command.nlb)
    _check_writable(namespace)
    offset = command.slba << namespace.shift
    durable = command.fua or namespace.write_through

    def work() -> None:
        namespace.backend.write_zeroes(offset, nbytes, may_unmap=bool(command.deac))
        if durable:
            namespace.backend.flush()

    return None if controller.later(request, work) else 0


def dataset_management(
    controller: Controller, request: Request, command: DatasetManagement
) -> int | None:
    namespace = _namespace(controller, command.nsid)
    if controller.trace:
        controller.trace("dsm", command.nr, command.attributes)
    if not command.attributes & 1 << 2:
        return 0  # the other attributes are hints, and we have no use for them
    _check_writable(namespace)
    data = from_host(controller, command, command.nr * Range.size)
    ranges = [Range.from_words(words) for words in struct.iter_unpack("<4I", data)]
    for item in ranges:
        if controller.trace:
            controller.trace("dsm_deallocate", item.slba, item.nlb)
        _check_range(controller, namespace, item.slba, item.nlb)

    def work() -> None:
        for item in ranges:
            if item.nlb:
                start, size = item.slba << namespace.shift, item.nlb << namespace.shift
                namespace.backend.discard(start, size)

    return None if controller.later(request, work) else 0
