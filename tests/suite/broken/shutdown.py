"""Faults of shutdown notifications, and data that does not outlive resets."""

from __future__ import annotations

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue, SubmissionQueue
from nvmelab.spec.commands import NvmOpcode
from nvmelab.spec.registers import OFFSET
from tests.suite.broken.reset import Resettable

CC, CSTS = OFFSET["cc"], OFFSET["csts"]
SHN = 3 << 14


class IgnoresShutdown(Controller):
    """CC.SHN is ignored (vfio-user-kvssd: B60)."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        super().mmio_write(offset, size, value & ~SHN if offset == CC else value)


class IgnoresAbruptShutdown(Controller):
    """CC.SHN 2 is ignored."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == CC and value & SHN == 2 << 14:
            value &= ~SHN
        super().mmio_write(offset, size, value)


class StaysShutDown(Controller):
    """CSTS.SHST stays 2 after a reset."""

    shut_down = False

    def mmio_read(self, offset: int, size: int) -> int:
        value = super().mmio_read(offset, size)
        if offset == CSTS:
            self.shut_down |= value >> 2 & 3 == 2
            value |= self.shut_down << 3
        return value


class StaysDead(Controller):
    """After a shutdown the controller is ready once more, and fetches nothing any more."""

    shut_down = False

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.shut_down |= offset == CC and value & SHN != 0
        super().mmio_write(offset, size, value)

    def add_sq(self, id: int, base: int, size: int, cq: CompletionQueue) -> None:
        super().add_sq(id, base, size, cq)
        self.sqs[id].stopped = id > 0 and self.shut_down


class NoShutdownWhileBusy(Controller):
    """CC.SHN is ignored while the storage has something to do."""

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        if offset == CC and self.storage_busy:
            value &= ~SHN
        super().mmio_write(offset, size, value)


class LosesUnflushed(Resettable):
    """A Controller Reset takes the last write back."""

    last: tuple[int, int] | None = None

    def _execute(self, sq: SubmissionQueue) -> None:
        request = sq.fetched[0]
        if sq.id and request.opcode == NvmOpcode.WRITE:
            self.last = (request.nsid, request.words[10] * 512)
        super()._execute(sq)

    def before_reset(self) -> None:
        if self.last:
            nsid, at = self.last
            self.namespaces[nsid].backend.write(at, [memoryview(bytearray(512))])


class LosesOnShutdown(LosesUnflushed):
    """An abrupt shutdown does that."""

    def before_reset(self) -> None:
        if self.life.cc.shn == 2:
            super().before_reset()


BROKEN: dict[str, list[type[Controller]]] = {
    "reset.shutdown-normal": [IgnoresShutdown, StaysShutDown, StaysDead],
    "reset.shutdown-abrupt": [IgnoresAbruptShutdown, StaysShutDown, StaysDead],
    "reset.shutdown-in-flight": [NoShutdownWhileBusy],
    "reset.data-kept": [LosesUnflushed, LosesOnShutdown],
}
