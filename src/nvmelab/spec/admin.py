"""Admin commands. NVMe Base 2.2, chapter 5."""

from __future__ import annotations

from typing import Annotated

from nvmelab.spec.commands import ADMIN, AdminOpcode, Command, command
from nvmelab.spec.layout import Bits


@command(ADMIN, AdminOpcode.CREATE_IO_CQ, ref="Base 2.2, 5.2.1")
class CreateIoCq(Command, frozen=True):
    qid: Annotated[int, Bits(10, 15, 0)] = 0
    qsize: Annotated[int, Bits(10, 31, 16, add=1)] = 2
    """Entries."""
    pc: Annotated[int, Bits(11, 0, 0)] = 1
    ien: Annotated[int, Bits(11, 1, 1)] = 0
    iv: Annotated[int, Bits(11, 31, 16)] = 0


@command(ADMIN, AdminOpcode.CREATE_IO_SQ, ref="Base 2.2, 5.2.2")
class CreateIoSq(Command, frozen=True):
    qid: Annotated[int, Bits(10, 15, 0)] = 0
    qsize: Annotated[int, Bits(10, 31, 16, add=1)] = 2
    """Entries."""
    pc: Annotated[int, Bits(11, 0, 0)] = 1
    qprio: Annotated[int, Bits(11, 2, 1)] = 0
    cqid: Annotated[int, Bits(11, 31, 16)] = 0
    nvmsetid: Annotated[int, Bits(12, 15, 0)] = 0


@command(ADMIN, AdminOpcode.DELETE_IO_CQ, ref="Base 2.2, 5.2.3")
class DeleteIoCq(Command, frozen=True):
    qid: Annotated[int, Bits(10, 15, 0)] = 0


@command(ADMIN, AdminOpcode.DELETE_IO_SQ, ref="Base 2.2, 5.2.4")
class DeleteIoSq(Command, frozen=True):
    qid: Annotated[int, Bits(10, 15, 0)] = 0


@command(ADMIN, AdminOpcode.IDENTIFY, ref="Base 2.2, 5.1.13")
class Identify(Command, frozen=True):
    cns: Annotated[int, Bits(10, 7, 0)] = 0
    cntid: Annotated[int, Bits(10, 31, 16)] = 0
    cnssid: Annotated[int, Bits(11, 15, 0)] = 0
    csi: Annotated[int, Bits(11, 31, 24)] = 0
    uidx: Annotated[int, Bits(14, 6, 0)] = 0


@command(ADMIN, AdminOpcode.GET_LOG_PAGE, ref="Base 2.2, 5.1.12")
class GetLogPage(Command, frozen=True):
    lid: Annotated[int, Bits(10, 7, 0)] = 0
    lsp: Annotated[int, Bits(10, 14, 8)] = 0
    rae: Annotated[int, Bits(10, 15, 15)] = 0
    numd: Annotated[int, Bits(10, 47, 16, add=1)] = 1
    """Dwords to return (NUMDL and NUMDU together)."""
    lsi: Annotated[int, Bits(11, 31, 16)] = 0
    lpo: Annotated[int, Bits(12, 63)] = 0
    """Offset into the page in bytes."""
    uidx: Annotated[int, Bits(14, 6, 0)] = 0
    ot: Annotated[int, Bits(14, 23, 23)] = 0
    csi: Annotated[int, Bits(14, 31, 24)] = 0


@command(ADMIN, AdminOpcode.ABORT, ref="Base 2.2, 5.1.1")
class Abort(Command, frozen=True):
    sqid: Annotated[int, Bits(10, 15, 0)] = 0
    aborted_cid: Annotated[int, Bits(10, 31, 16)] = 0


@command(ADMIN, AdminOpcode.SET_FEATURES, ref="Base 2.2, 5.1.25")
class SetFeatures(Command, frozen=True):
    fid: Annotated[int, Bits(10, 7, 0)] = 0
    sv: Annotated[int, Bits(10, 31, 31)] = 0
    value: Annotated[int, Bits(11)] = 0
    """CDW11: its meaning is the feature's."""
    cdw12: Annotated[int, Bits(12)] = 0
    uidx: Annotated[int, Bits(14, 6, 0)] = 0


@command(ADMIN, AdminOpcode.GET_FEATURES, ref="Base 2.2, 5.1.11")
class GetFeatures(Command, frozen=True):
    fid: Annotated[int, Bits(10, 7, 0)] = 0
    sel: Annotated[int, Bits(10, 10, 8)] = 0
    cdw11: Annotated[int, Bits(11)] = 0
    uidx: Annotated[int, Bits(14, 6, 0)] = 0


@command(ADMIN, AdminOpcode.ASYNC_EVENT_REQUEST, ref="Base 2.2, 5.1.2")
class AsyncEventRequest(Command, frozen=True):
    pass


@command(ADMIN, AdminOpcode.DOORBELL_BUFFER_CONFIG, ref="Base 2.2, 5.2.5")
class DoorbellBufferConfig(Command, frozen=True):
    """PRP1 is the shadow doorbell buffer, PRP2 the EventIdx buffer: a memory page each."""
