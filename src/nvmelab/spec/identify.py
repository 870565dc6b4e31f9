"""Identify data structures. NVMe Base 2.2, 5.1.13; NVM Command Set 1.2, 4.1.5.

Only the fields that this package gives a value or reads are declared; the rest is zero.
"""

from __future__ import annotations

from typing import Annotated

from nvmelab.spec.layout import Bytes, OpenEnum, Structure, structure

IDENTIFY_SIZE = 4096

OACS_NAMESPACE_MANAGEMENT = 1 << 3
OACS_DOORBELL_BUFFER_CONFIG = 1 << 8
"""Bits of `oacs`: admin commands that a controller may have (Base 2.2, 5.1.13.2.1)."""
ONCS_COMPARE = 1
ONCS_DATASET_MANAGEMENT = 1 << 2
ONCS_WRITE_ZEROES = 1 << 3
ONCS_SELECT = 1 << 4
"""Bits of `oncs`: I/O commands that it may have, and SEL of Get Features (5.1.13.2.1)."""


class Cns(OpenEnum):
    """Controller or Namespace Structure (Base 2.2, 5.1.13.1)."""

    NAMESPACE = 0x00
    CONTROLLER = 0x01
    ACTIVE_NAMESPACES = 0x02
    NAMESPACE_DESCRIPTORS = 0x03
    NAMESPACE_CSI = 0x05
    CONTROLLER_CSI = 0x06
    ACTIVE_NAMESPACES_CSI = 0x07
    NAMESPACE_INDEPENDENT = 0x08


@structure(IDENTIFY_SIZE, ref="Base 2.2, 5.1.13.2.1")
class IdentifyController(Structure, frozen=True):
    vid: Annotated[int, Bytes(0, 1)] = 0
    ssvid: Annotated[int, Bytes(2, 3)] = 0
    sn: Annotated[str, Bytes(4, 23)] = ""
    mn: Annotated[str, Bytes(24, 63)] = ""
    fr: Annotated[str, Bytes(64, 71)] = ""
    rab: Annotated[int, Bytes(72, 72)] = 0
    ieee: Annotated[int, Bytes(73, 75)] = 0
    cmic: Annotated[int, Bytes(76, 76)] = 0
    mdts: Annotated[int, Bytes(77, 77)] = 0
    """Largest transfer: 2 to the power of mdts pages of CAP.MPSMIN; 0 is no limit."""
    cntlid: Annotated[int, Bytes(78, 79)] = 0
    ver: Annotated[int, Bytes(80, 83)] = 0
    oaes: Annotated[int, Bytes(92, 95)] = 0
    ctratt: Annotated[int, Bytes(96, 99)] = 0
    cntrltype: Annotated[int, Bytes(111, 111)] = 0
    oacs: Annotated[int, Bytes(256, 257)] = 0
    acl: Annotated[int, Bytes(258, 258, add=1)] = 1
    """Abort commands that may be outstanding at a time."""
    aerl: Annotated[int, Bytes(259, 259, add=1)] = 1
    """Asynchronous Event Requests that may be outstanding at a time."""
    frmw: Annotated[int, Bytes(260, 260)] = 0
    lpa: Annotated[int, Bytes(261, 261)] = 0
    elpe: Annotated[int, Bytes(262, 262, add=1)] = 1
    """Entries of the error log."""
    npss: Annotated[int, Bytes(263, 263, add=1)] = 1
    """Power states."""
    wctemp: Annotated[int, Bytes(266, 267)] = 0
    cctemp: Annotated[int, Bytes(268, 269)] = 0
    sqes: Annotated[int, Bytes(512, 512)] = 0
    cqes: Annotated[int, Bytes(513, 513)] = 0
    maxcmd: Annotated[int, Bytes(514, 515)] = 0
    nn: Annotated[int, Bytes(516, 519)] = 0
    oncs: Annotated[int, Bytes(520, 521)] = 0
    fuses: Annotated[int, Bytes(522, 523)] = 0
    fna: Annotated[int, Bytes(524, 524)] = 0
    vwc: Annotated[int, Bytes(525, 525)] = 0
    awun: Annotated[int, Bytes(526, 527)] = 0
    awupf: Annotated[int, Bytes(528, 529)] = 0
    sgls: Annotated[int, Bytes(536, 539)] = 0
    subnqn: Annotated[bytes, Bytes(768, 1023)] = bytes(256)
    psd0_mp: Annotated[int, Bytes(2048, 2049)] = 0
    """Maximum power of power state 0, in centiwatts."""
    psd0_enlat: Annotated[int, Bytes(2052, 2055)] = 0
    psd0_exlat: Annotated[int, Bytes(2056, 2059)] = 0


@structure(IDENTIFY_SIZE, ref="NVM Command Set 1.2, 4.1.5.1")
class IdentifyNamespace(Structure, frozen=True):
    nsze: Annotated[int, Bytes(0, 7)] = 0
    ncap: Annotated[int, Bytes(8, 15)] = 0
    nuse: Annotated[int, Bytes(16, 23)] = 0
    nsfeat: Annotated[int, Bytes(24, 24)] = 0
    nlbaf: Annotated[int, Bytes(25, 25, add=1)] = 1
    """LBA formats."""
    flbas: Annotated[int, Bytes(26, 26)] = 0
    dlfeat: Annotated[int, Bytes(33, 33)] = 0
    """Bits 2:0: what deallocated blocks read as (1: zeroes); bit 3: Write Zeroes may deallocate."""
    npwg: Annotated[int, Bytes(64, 65, add=1)] = 1
    npwa: Annotated[int, Bytes(66, 67, add=1)] = 1
    npdg: Annotated[int, Bytes(68, 69, add=1)] = 1
    npda: Annotated[int, Bytes(70, 71, add=1)] = 1
    nows: Annotated[int, Bytes(72, 73, add=1)] = 1
    nsattr: Annotated[int, Bytes(99, 99)] = 0
    """Bit 0: write protected."""
    nguid: Annotated[bytes, Bytes(104, 119)] = bytes(16)
    eui64: Annotated[bytes, Bytes(120, 127)] = bytes(8)
    lbaf0_ms: Annotated[int, Bytes(128, 129)] = 0
    lbaf0_lbads: Annotated[int, Bytes(130, 130)] = 9
    """Size of a logical block: 2 to this power."""


@structure(IDENTIFY_SIZE, ref="NVM Command Set 1.2, 4.1.5.4")
class IdentifyControllerNvm(Structure, frozen=True):
    """I/O Command Set specific Identify Controller data for the NVM Command Set."""

    vsl: Annotated[int, Bytes(0, 0)] = 0
    wzsl: Annotated[int, Bytes(1, 1)] = 0
    """Largest Write Zeroes: 2 to this power pages of CAP.MPSMIN; 0 is no limit."""
    dmrl: Annotated[int, Bytes(3, 3)] = 0
    """Most ranges of one Dataset Management; 0 is no limit."""
    dmrsl: Annotated[int, Bytes(4, 7)] = 0
    dmsl: Annotated[int, Bytes(8, 15)] = 0


@structure(IDENTIFY_SIZE, ref="Base 2.2, 5.1.13.2.8")
class IdentifyNamespaceIndependent(Structure, frozen=True):
    nsfeat: Annotated[int, Bytes(0, 0)] = 0
    nmic: Annotated[int, Bytes(1, 1)] = 0
    nsattr: Annotated[int, Bytes(8, 8)] = 0
    nstat: Annotated[int, Bytes(14, 14)] = 0
    """Bit 0: the namespace is ready."""


class DescriptorType(OpenEnum):
    """Namespace Identification Descriptor types (Base 2.2, 5.1.13.2.3)."""

    EUI64 = 1
    NGUID = 2
    UUID = 3
    CSI = 4


def descriptor(kind: DescriptorType, value: bytes) -> bytes:
    """One Namespace Identification Descriptor: type, length, two reserved bytes, value."""
    return bytes([kind, len(value), 0, 0]) + value
