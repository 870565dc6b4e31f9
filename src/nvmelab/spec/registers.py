"""Controller properties, the registers at the start of BAR0, and the doorbells behind them.

NVMe Base 2.2, section 3.1.4 (properties) and NVMe over PCIe Transport, section 3.1.2 (doorbells).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple

from nvmelab.spec.layout import Bits, Structure, structure


class Register(NamedTuple):
    """One property. `writable` are the bits the host may change by writing them; bits outside of
    it are read-only, or have an effect of their own (INTMS, INTMC)."""

    name: str
    offset: int
    size: int
    writable: int
    ref: str


REGISTERS = (
    Register("cap", 0x00, 8, 0, "Base 2.2, 3.1.4.1"),
    Register("vs", 0x08, 4, 0, "Base 2.2, 3.1.4.2"),
    Register("intms", 0x0C, 4, 0, "Base 2.2, 3.1.4.3"),
    Register("intmc", 0x10, 4, 0, "Base 2.2, 3.1.4.4"),
    Register("cc", 0x14, 4, 0x00FF_FFF1, "Base 2.2, 3.1.4.5"),
    Register("csts", 0x1C, 4, 0, "Base 2.2, 3.1.4.6"),
    Register("aqa", 0x24, 4, 0x0FFF_0FFF, "Base 2.2, 3.1.4.8"),
    Register("asq", 0x28, 8, 0xFFFF_FFFF_FFFF_F000, "Base 2.2, 3.1.4.9"),
    Register("acq", 0x30, 8, 0xFFFF_FFFF_FFFF_F000, "Base 2.2, 3.1.4.10"),
)
"""The properties this package implements. What is not here is reserved: it reads as zero, and
writes to it have no effect (Base 2.2, 3.1.4)."""

OFFSET = {register.name: register.offset for register in REGISTERS}

PROPERTIES_SIZE = 0x1000
"""Bytes of BAR0 before the first doorbell (NVMe over PCIe Transport, 3.1.2)."""

DOORBELLS = 0x1000
"""Offset of the first doorbell: SQ y Tail at DOORBELLS + 8y, CQ y Head 4 bytes after it, for a
doorbell stride (CAP.DSTRD) of 0."""


@structure(8, ref="Base 2.2, 3.1.4.1")
class Cap(Structure, frozen=True):
    """Controller Capabilities."""

    mqes: Annotated[int, Bits(0, 15, 0, add=1)] = 2048
    """Largest I/O queue, in entries (the register holds one less)."""
    cqr: Annotated[int, Bits(0, 16, 16)] = 1
    ams: Annotated[int, Bits(0, 18, 17)] = 0
    to: Annotated[int, Bits(0, 31, 24)] = 0
    """Longest wait for CSTS.RDY to follow CC.EN, in units of 500 ms."""
    dstrd: Annotated[int, Bits(1, 3, 0)] = 0
    nssrs: Annotated[int, Bits(1, 4, 4)] = 0
    css: Annotated[int, Bits(1, 12, 5)] = 1
    bps: Annotated[int, Bits(1, 13, 13)] = 0
    cps: Annotated[int, Bits(1, 15, 14)] = 0
    mpsmin: Annotated[int, Bits(1, 19, 16)] = 0
    mpsmax: Annotated[int, Bits(1, 23, 20)] = 0
    pmrs: Annotated[int, Bits(1, 24, 24)] = 0
    cmbs: Annotated[int, Bits(1, 25, 25)] = 0
    nsss: Annotated[int, Bits(1, 26, 26)] = 0
    crms: Annotated[int, Bits(1, 28, 27)] = 0


@structure(4, ref="Base 2.2, 3.1.4.5")
class Cc(Structure, frozen=True):
    """Controller Configuration."""

    en: Annotated[int, Bits(0, 0, 0)] = 0
    css: Annotated[int, Bits(0, 6, 4)] = 0
    mps: Annotated[int, Bits(0, 10, 7)] = 0
    """The memory page is 2 to the power of (12 + mps) bytes."""
    ams: Annotated[int, Bits(0, 13, 11)] = 0
    shn: Annotated[int, Bits(0, 15, 14)] = 0
    iosqes: Annotated[int, Bits(0, 19, 16)] = 0
    iocqes: Annotated[int, Bits(0, 23, 20)] = 0


@structure(4, ref="Base 2.2, 3.1.4.6")
class Csts(Structure, frozen=True):
    """Controller Status."""

    rdy: Annotated[int, Bits(0, 0, 0)] = 0
    cfs: Annotated[int, Bits(0, 1, 1)] = 0
    shst: Annotated[int, Bits(0, 3, 2)] = 0
    """0 normal operation, 1 shutdown is going on, 2 shutdown is complete."""
    nssro: Annotated[int, Bits(0, 4, 4)] = 0
    pp: Annotated[int, Bits(0, 5, 5)] = 0


@structure(4, ref="Base 2.2, 3.1.4.8")
class Aqa(Structure, frozen=True):
    """Admin Queue Attributes: sizes in entries (the register holds one less)."""

    asqs: Annotated[int, Bits(0, 11, 0, add=1)] = 1
    acqs: Annotated[int, Bits(0, 27, 16, add=1)] = 1


REVISION_1_2, REVISION_1_3, REVISION_1_4 = 0x0001_0200, 0x0001_0300, 0x0001_0400
REVISION_2_0, REVISION_2_2 = 0x0002_0000, 0x0002_0200
"""Values of VS (Base 2.2, 3.1.4.2)."""

SQE_SIZE = 64
"""Bytes of a submission queue entry (Base 2.2, 4.1)."""
CQE_SIZE = 16
"""Bytes of a completion queue entry (Base 2.2, 4.2)."""
IOSQES = 6
"""CC.IOSQES for entries of SQE_SIZE bytes."""
IOCQES = 4
"""CC.IOCQES for entries of CQE_SIZE bytes."""
