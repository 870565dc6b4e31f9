"""Commands: the 64-byte submission queue entry and the 16-byte completion queue entry, and the
table of every declared command.

NVMe Base 2.2, sections 4.1 and 4.2. The commands themselves are in `admin` and `nvm`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, ClassVar, TypeVar

from nvmelab.spec.layout import Bits, OpenEnum, Structure, structure
from nvmelab.spec.registers import SQE_SIZE

ADMIN = "admin"
NVM = "nvm"


class AdminOpcode(OpenEnum):
    """Base 2.2, 3.1.3.4 and 5."""

    DELETE_IO_SQ = 0x00
    CREATE_IO_SQ = 0x01
    GET_LOG_PAGE = 0x02
    DELETE_IO_CQ = 0x04
    CREATE_IO_CQ = 0x05
    IDENTIFY = 0x06
    ABORT = 0x08
    SET_FEATURES = 0x09
    GET_FEATURES = 0x0A
    ASYNC_EVENT_REQUEST = 0x0C
    DOORBELL_BUFFER_CONFIG = 0x7C


class NvmOpcode(OpenEnum):
    """NVM Command Set 1.2, 3.3; Flush: Base 2.2, 7.2."""

    FLUSH = 0x00
    WRITE = 0x01
    READ = 0x02
    WRITE_ZEROES = 0x08
    DATASET_MANAGEMENT = 0x09


TO_HOST = 2
"""Bits 1:0 of an opcode whose data goes to the host (Base 2.2, 4.1.1: DTD)."""


class Command(Structure, frozen=True):
    """What every command has. `opcode` and `queue` are filled in by `@command`."""

    opcode: ClassVar[int]
    queue: ClassVar[str]

    cid: Annotated[int, Bits(0, 31, 16)] = 0
    nsid: Annotated[int, Bits(1)] = 0
    prp1: Annotated[int, Bits(6, 63)] = 0
    prp2: Annotated[int, Bits(8, 63)] = 0


BROADCAST_NSID = 0xFFFF_FFFF
"""NSID for all namespaces, where a command has a use for that (Base 2.2, 3.2.1.2)."""

COMMANDS: dict[tuple[str, int], type[Command]] = {}
"""Every declared command, by queue kind and opcode."""

C = TypeVar("C", bound=type[Command])

_COMMON = 0xFFFF | ((1 << 64) - 1) << 128
"""Opcode, FUSE and PSDT (dword 0, bits 15:0) and MPTR (dwords 5:4): meant for every command."""


def command(queue: str, opcode: int, *, ref: str) -> Callable[[C], C]:
    """Class decorator that declares one command of `queue` (ADMIN or NVM)."""

    def declare(cls: C) -> C:
        assert (queue, opcode) not in COMMANDS
        structure(SQE_SIZE, ref=ref, fixed=int(opcode), also_taken=_COMMON)(cls)
        cls.queue, cls.opcode = queue, int(opcode)
        COMMANDS[queue, int(opcode)] = cls
        return cls

    return declare


@structure(16, ref="Base 2.2, 4.2")
class Completion(Structure, frozen=True):
    """A completion queue entry."""

    dw0: Annotated[int, Bits(0)] = 0
    """Command specific result."""
    dw1: Annotated[int, Bits(1)] = 0
    sqhd: Annotated[int, Bits(2, 15, 0)] = 0
    """Submission queue head at the time the entry was made."""
    sqid: Annotated[int, Bits(2, 31, 16)] = 0
    cid: Annotated[int, Bits(3, 15, 0)] = 0
    phase: Annotated[int, Bits(3, 16, 16)] = 0
    status: Annotated[int, Bits(3, 31, 17)] = 0
    """SC in bits 7:0, SCT in 10:8, CRD in 12:11, More in 13, Do Not Retry in 14."""
