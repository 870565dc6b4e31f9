"""Identify. NVMe Base 2.2, 5.1.13; NVM Command Set 1.2, 4.1.5."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from nvmelab.device.queues import Request
from nvmelab.device.transfer import to_host
from nvmelab.limits import ABORTS_MAX, ASYNC_EVENT_REQUESTS_MAX, ERROR_LOG_ENTRIES
from nvmelab.spec.admin import Identify
from nvmelab.spec.identify import (
    IDENTIFY_SIZE,
    OACS_DOORBELL_BUFFER_CONFIG,
    ONCS_DATASET_MANAGEMENT,
    ONCS_SELECT,
    ONCS_WRITE_ZEROES,
    Cns,
    DescriptorType,
    IdentifyController,
    IdentifyControllerNvm,
    IdentifyNamespace,
    IdentifyNamespaceIndependent,
    descriptor,
)
from nvmelab.spec.logpages import COMPOSITE_CRITICAL_K, COMPOSITE_WARNING_K
from nvmelab.spec.status import NvmeError, Status

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller
    from nvmelab.device.namespaces import Namespace

_ONCS = ONCS_DATASET_MANAGEMENT | ONCS_WRITE_ZEROES | ONCS_SELECT
_LPA = 1 << 1 | 1 << 2  # commands and effects log, offset and long length in Get Log Page
_CSI_NVM = 0


def _controller(controller: Controller, command: Identify) -> bytes:
    config = controller.config
    return IdentifyController(
        vid=config.pci_vendor,
        ssvid=config.pci_subsystem_vendor,
        sn=config.serial,
        mn=config.model,
        fr=config.firmware,
        rab=6,
        mdts=config.mdts,
        ver=controller.life.registers["vs"],
        cntrltype=1,  # I/O controller
        oacs=OACS_DOORBELL_BUFFER_CONFIG if controller.shadows.offered else 0,
        acl=ABORTS_MAX,
        aerl=ASYNC_EVENT_REQUESTS_MAX,
        frmw=1 << 1 | 1,  # one firmware slot, read-only
        lpa=_LPA,
        elpe=ERROR_LOG_ENTRIES,
        wctemp=COMPOSITE_WARNING_K,
        cctemp=COMPOSITE_CRITICAL_K,
        sqes=0x66,
        cqes=0x44,
        nn=max(controller.namespaces),
        oncs=_ONCS,
        vwc=0b111,  # there is a cache; Flush takes NSID FFFFFFFFh
        subnqn=controller.subnqn.encode().ljust(256, b"\0"),
        psd0_mp=2500,
        psd0_enlat=16,
        psd0_exlat=4,
    ).encode()


def _active_list(controller: Controller, command: Identify) -> bytes:
    after = command.nsid
    if after >= 0xFFFF_FFFE:
        raise NvmeError(Status.INVALID_NAMESPACE_OR_FORMAT, f"NSID {after:#x}")
    active = [nsid for nsid in sorted(controller.namespaces) if nsid > after][:1024]
    return struct.pack(f"<{len(active)}I", *active)


def _find(controller: Controller, nsid: int) -> Namespace | None:
    """The namespace; None for a valid identifier that is not active."""
    if not 1 <= nsid <= max(controller.namespaces):
        raise NvmeError(Status.INVALID_NAMESPACE_OR_FORMAT, f"NSID {nsid:#x}")
    return controller.namespaces.get(nsid)


def _descriptors(controller: Controller, command: Identify) -> bytes:
    namespace = _find(controller, command.nsid)
    if namespace is None:
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"NSID {command.nsid} is not active")
    return descriptor(DescriptorType.UUID, namespace.uuid.bytes) + descriptor(
        DescriptorType.CSI, bytes([_CSI_NVM])
    )


def _namespace(controller: Controller, command: Identify) -> bytes:
    namespace = _find(controller, command.nsid)
    if namespace is None:
        return b""
    per_physical = namespace.physical >> namespace.shift
    return IdentifyNamespace(
        nsze=namespace.nsze,
        ncap=namespace.nsze,
        nuse=namespace.nsze,
        nsfeat=1 << 4 if per_physical > 1 else 0,  # NPWG and its like mean something
        dlfeat=1 << 3 | 1,  # deallocated blocks read as zeroes; Write Zeroes may deallocate
        npwg=per_physical,
        npwa=per_physical,
        npdg=per_physical,
        npda=per_physical,
        nsattr=int(namespace.backend.read_only),
        lbaf0_lbads=namespace.shift,
    ).encode()


def _namespace_csi(controller: Controller, command: Identify) -> bytes:
    """Nothing of the NVM Command Set's own is supported, such as protection: all zero."""
    _find(controller, command.nsid)
    return b""


def _namespace_independent(controller: Controller, command: Identify) -> bytes:
    namespace = _find(controller, command.nsid)
    if namespace is None:
        return b""
    read_only = int(namespace.backend.read_only)
    return IdentifyNamespaceIndependent(nsattr=read_only, nstat=1).encode()


def _controller_csi(controller: Controller, command: Identify) -> bytes:
    return IdentifyControllerNvm().encode()


class _Structure(NamedTuple):
    build: Callable[[Controller, Identify], bytes]
    event: str
    """What the trace says of it, and which of the command's fields."""
    fields: tuple[str, ...]


_STRUCTURES = {
    Cns.NAMESPACE: _Structure(_namespace, "identify_ns", ("nsid",)),
    Cns.CONTROLLER: _Structure(_controller, "identify_ctrl", ()),
    Cns.ACTIVE_NAMESPACES: _Structure(_active_list, "identify_nslist", ("nsid",)),
    Cns.NAMESPACE_DESCRIPTORS: _Structure(_descriptors, "identify_ns_descr_list", ("nsid",)),
    Cns.NAMESPACE_CSI: _Structure(_namespace_csi, "identify_ns_csi", ("nsid", "csi")),
    Cns.CONTROLLER_CSI: _Structure(_controller_csi, "identify_ctrl_csi", ("csi",)),
    Cns.ACTIVE_NAMESPACES_CSI: _Structure(_active_list, "identify_nslist", ("nsid",)),
    Cns.NAMESPACE_INDEPENDENT: _Structure(_namespace_independent, "identify_ns", ("nsid",)),
}
_OF_A_COMMAND_SET = (Cns.NAMESPACE_CSI, Cns.CONTROLLER_CSI, Cns.ACTIVE_NAMESPACES_CSI)


def identify(controller: Controller, request: Request, command: Identify) -> int:
    trace = controller.trace
    if trace:
        trace("identify", request.cid, command.cns, command.cntid, command.csi)
    structure = _STRUCTURES.get(Cns(command.cns))
    if structure is None:
        if trace:
            trace("err_invalid_identify_cns", command.cns)
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"CNS {command.cns:#x}")
    if trace:
        trace(structure.event, *(getattr(command, field) for field in structure.fields))
    if command.cns in _OF_A_COMMAND_SET and command.csi != _CSI_NVM:
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"CSI {command.csi}")
    to_host(controller, command, structure.build(controller, command).ljust(IDENTIFY_SIZE, b"\0"))
    return 0
