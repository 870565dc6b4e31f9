"""Commands of the NVM Command Set. NVM Command Set 1.2, section 3.3; Flush: Base 2.2, 7.2."""

from __future__ import annotations

from typing import Annotated

from nvmelab.spec.commands import NVM, Command, NvmOpcode, command
from nvmelab.spec.layout import Bits, Structure, structure


@command(NVM, NvmOpcode.FLUSH, ref="Base 2.2, 7.2")
class Flush(Command, frozen=True):
    pass


@command(NVM, NvmOpcode.WRITE, ref="NVM Command Set 1.2, 3.3.6")
class Write(Command, frozen=True):
    slba: Annotated[int, Bits(10, 63)] = 0
    nlb: Annotated[int, Bits(12, 15, 0, add=1)] = 1
    """Logical blocks."""
    prinfo: Annotated[int, Bits(12, 29, 26)] = 0
    fua: Annotated[int, Bits(12, 30, 30)] = 0
    lr: Annotated[int, Bits(12, 31, 31)] = 0
    dtype: Annotated[int, Bits(12, 23, 20)] = 0
    dsm: Annotated[int, Bits(13, 7, 0)] = 0


@command(NVM, NvmOpcode.READ, ref="NVM Command Set 1.2, 3.3.4")
class Read(Command, frozen=True):
    slba: Annotated[int, Bits(10, 63)] = 0
    nlb: Annotated[int, Bits(12, 15, 0, add=1)] = 1
    """Logical blocks."""
    prinfo: Annotated[int, Bits(12, 29, 26)] = 0
    fua: Annotated[int, Bits(12, 30, 30)] = 0
    lr: Annotated[int, Bits(12, 31, 31)] = 0
    dsm: Annotated[int, Bits(13, 7, 0)] = 0


@command(NVM, NvmOpcode.WRITE_ZEROES, ref="NVM Command Set 1.2, 3.3.8")
class WriteZeroes(Command, frozen=True):
    slba: Annotated[int, Bits(10, 63)] = 0
    nlb: Annotated[int, Bits(12, 15, 0, add=1)] = 1
    """Logical blocks."""
    deac: Annotated[int, Bits(12, 25, 25)] = 0
    """The blocks may be deallocated."""
    prinfo: Annotated[int, Bits(12, 29, 26)] = 0
    fua: Annotated[int, Bits(12, 30, 30)] = 0
    lr: Annotated[int, Bits(12, 31, 31)] = 0


@command(NVM, NvmOpcode.DATASET_MANAGEMENT, ref="NVM Command Set 1.2, 3.3.3")
class DatasetManagement(Command, frozen=True):
    nr: Annotated[int, Bits(10, 7, 0, add=1)] = 1
    """Ranges."""
    attributes: Annotated[int, Bits(11, 2, 0)] = 0
    """Bit 2 deallocate, bit 1 integral for write, bit 0 integral for read."""


@structure(16, ref="NVM Command Set 1.2, 3.3.3")
class Range(Structure, frozen=True):
    """One range of Dataset Management."""

    cattr: Annotated[int, Bits(0)] = 0
    nlb: Annotated[int, Bits(1)] = 0
    """Logical blocks; not 0's based."""
    slba: Annotated[int, Bits(2, 63)] = 0
