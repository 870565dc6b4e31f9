"""Identify. NVMe Base 2.2, 5.1.13; NVM Command Set 1.2, 4.1.5."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from nvmelab.device.queues import Request
from nvmelab.device.transfer import to_host
from nvmelab.limits import ABORTS_MAX, ASYNC_EVENT_REQUESTS_MAX, ERROR_LOG_ENTRIES
from nvmelab.spec.admin import Identify
from nvmelab.spec.identify import (
    IDENTIFY_SIZE,
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

_ONCS = 1 << 2 | 1 << 3 | 1 << 4  # Dataset Management, Write Zeroes, Select in Get Features
_LPA = 1 << 1 | 1 << 2  # commands and effects log, offset and long length in Get Log Page
_CSI_NVM = 0


def _controller(controller: Controller) -> bytes:
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


def _namespace(namespace: Namespace) -> bytes:
    return IdentifyNamespace(
        nsze=namespace.nsze,
        ncap=namespace.nsze,
        nuse=namespace.nsze,
        nsfeat=1 << 4 if namespace.physical > 1 << namespace.shift else 0,
        dlfeat=1 << 3,  # Write Zeroes may deallocate
        npwg=namespace.physical >> namespace.shift,
        npwa=namespace.physical >> namespace.shift,
        npdg=namespace.physical >> namespace.shift,
        npda=namespace.physical >> namespace.shift,
        nsattr=int(namespace.backend.read_only),
        lbaf0_lbads=namespace.shift,
    ).encode()


def _active_list(controller: Controller, after: int) -> bytes:
    if after >= 0xFFFF_FFFE:
        raise NvmeError(Status.INVALID_NAMESPACE_OR_FORMAT, f"NSID {after:#x}")
    active = [nsid for nsid in sorted(controller.namespaces) if nsid > after][:1024]
    return struct.pack(f"<{len(active)}I", *active)


def _of_namespace(controller: Controller, command: Identify) -> bytes:
    """The structures about one namespace: zero filled if it is inactive."""
    nsid = command.nsid
    if not 1 <= nsid <= max(controller.namespaces):
        raise NvmeError(Status.INVALID_NAMESPACE_OR_FORMAT, f"NSID {nsid:#x}")
    namespace = controller.namespaces.get(nsid)
    if command.cns == Cns.NAMESPACE_DESCRIPTORS:
        if namespace is None:
            raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"NSID {nsid} is not active")
        return descriptor(DescriptorType.UUID, namespace.uuid.bytes) + descriptor(
            DescriptorType.CSI, bytes([_CSI_NVM])
        )
    if namespace is None or command.cns == Cns.NAMESPACE_CSI:
        return b""  # nothing of the NVM Command Set's own is supported, such as protection
    if command.cns == Cns.NAMESPACE_INDEPENDENT:
        return IdentifyNamespaceIndependent(
            nsattr=int(namespace.backend.read_only), nstat=1
        ).encode()
    return _namespace(namespace)


def identify(controller: Controller, request: Request, command: Identify) -> int:
    if controller.trace:
        controller.trace("identify", request.cid, command.cns, command.cntid, command.csi)
    cns = command.cns
    if (
        cns in (Cns.NAMESPACE_CSI, Cns.CONTROLLER_CSI, Cns.ACTIVE_NAMESPACES_CSI)
        and command.csi != _CSI_NVM
    ):
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"CSI {command.csi}")
    if cns == Cns.CONTROLLER:
        data = _controller(controller)
    elif cns in (Cns.ACTIVE_NAMESPACES, Cns.ACTIVE_NAMESPACES_CSI):
        data = _active_list(controller, command.nsid)
    elif cns == Cns.CONTROLLER_CSI:
        data = IdentifyControllerNvm().encode()
    elif cns in (
        Cns.NAMESPACE,
        Cns.NAMESPACE_DESCRIPTORS,
        Cns.NAMESPACE_CSI,
        Cns.NAMESPACE_INDEPENDENT,
    ):
        data = _of_namespace(controller, command)
    else:
        if controller.trace:
            controller.trace("err_invalid_identify_cns", cns)
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"CNS {cns:#x}")
    to_host(controller, command, data.ljust(IDENTIFY_SIZE, b"\0"))
    return 0
