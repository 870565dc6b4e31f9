"""Faults of the properties."""

from __future__ import annotations

import msgspec

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue
from nvmelab.spec.registers import OFFSET, Cap

CAP, VS, CC, CSTS, AQA = (OFFSET[name] for name in ("cap", "vs", "cc", "csts", "aqa"))


class CapWithoutCommandSet(Controller):
    """CAP.CSS is 0."""

    def mmio_read(self, offset: int, size: int) -> int:
        value = super().mmio_read(offset, size)
        if (offset, size) != (CAP, 8):
            return value
        cap = Cap.decode(value.to_bytes(8, "little"))
        return int.from_bytes(msgspec.structs.replace(cap, css=0).encode(), "little")


class CapChanges(Controller):
    """CAP.MQES is larger while the controller is disabled."""

    def mmio_read(self, offset: int, size: int) -> int:
        value = super().mmio_read(offset, size)
        return value + (offset == CAP and not self.life.cc.en)


class NoUpperHalf(Controller):
    """A read of 4 bytes at the middle of CAP gets its lower half."""

    def mmio_read(self, offset: int, size: int) -> int:
        return super().mmio_read(CAP if offset == CAP + 4 else offset, size)


class UpperHalfClearsLower(Controller):
    """The upper half of ASQ, written alone, clears the lower one."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == OFFSET["asq"] + 4:
            offset, size, value = OFFSET["asq"], 8, value << 32
        super().mmio_write(offset, size, value)


class WholeWriteIsHalf(Controller):
    """Of 8 bytes that are written at once, 4 arrive."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        super().mmio_write(offset, min(size, 4), value & 0xFFFF_FFFF)


class VersionOfTheFuturePast(Controller):
    """VS is 1.5, which was never published."""

    def mmio_read(self, offset: int, size: int) -> int:
        value = super().mmio_read(offset, size)
        return value if offset != VS else 0x0001_0500


class CapWritable(Controller):
    """CAP takes what is written to it."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == CAP:
            self.life.registers["cap"] = value
        super().mmio_write(offset, size, value)


class RdyWritable(Controller):
    """A write clears CSTS.RDY."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == CSTS and not value & 1:
            self.life.registers["csts"] &= ~1
        super().mmio_write(offset, size, value)


class AqaTooNarrow(Controller):
    """AQA holds 8 bits of each size."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        super().mmio_write(offset, size, value & 0x00FF_00FF if offset == AQA else value)


class AcqBelow4G(Controller):
    """ACQ holds an address of 32 bits."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        super().mmio_write(offset, size, value & 0xFFFF_FFFF if offset == OFFSET["acq"] else value)


class FieldsOnlyWithEnable(Controller):
    """What is written to CC without EN is dropped (FEMU, NVMeVirt: B59)."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == CC and not value & 1 and not self.life.cc.en:
            value = 0
        super().mmio_write(offset, size, value)


class FieldsOnlyBeforeEnable(Controller):
    """The write that sets EN loses the sizes of the entries, and so do reads after it."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == CC and value & 1 and not self.life.cc.en:
            value &= 0xFFFF
        super().mmio_write(offset, size, value)


class SmallestAdminNeverWraps(Controller):
    """The tail of an admin completion queue of two entries wraps, the phase tag does not."""

    def _post(self, cq: CompletionQueue) -> None:
        super()._post(cq)
        if cq.id == 0 and cq.size == 2:
            cq.phase = 1


class OneAdminSize(Controller):
    """The admin completion queue is taken to be as large as the submission queue."""

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        if id == 0:
            cq.size = size
        super().add_sq(id, base, size, cq)


class OneAdminSizeBackwards(Controller):
    """The admin submission queue is taken to be as large as the completion queue."""

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, cq.size if id == 0 else size, cq)


class AdminQueueOf4095(Controller):
    """An admin completion queue of 4096 entries wraps one entry early."""

    def add_cq(self, cq: CompletionQueue) -> None:
        if cq.id == 0 and cq.size == 4096:
            cq.size -= 1
        super().add_cq(cq)


BROKEN: dict[str, list[type[Controller]]] = {
    "registers.cap": [CapWithoutCommandSet, CapChanges],
    "registers.halves": [NoUpperHalf, UpperHalfClearsLower, WholeWriteIsHalf],
    "registers.version": [VersionOfTheFuturePast],
    "registers.read-only": [CapWritable, RdyWritable],
    "registers.admin-queue": [AqaTooNarrow, AcqBelow4G],
    "registers.cc-two-steps": [FieldsOnlyWithEnable, FieldsOnlyBeforeEnable],
    "registers.admin-smallest": [SmallestAdminNeverWraps],
    "registers.admin-sizes": [OneAdminSize, OneAdminSizeBackwards],
    "registers.admin-largest": [AdminQueueOf4095],
}
