"""A driver's side of a submission and completion queue pair. NVMe Base 2.2, 3.3 and 4.2.

Flow control is `inflight`, as Linux and SPDK do it: at most one command less than the submission
queue has entries is outstanding.
"""

from __future__ import annotations

from nvmelab.link.base import HostLink
from nvmelab.spec.commands import Command, Completion
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS, SQE_SIZE


class Qpair:
    """Both rings of a queue pair with the same identifier. Sizes are in entries."""

    def __init__(self, link: HostLink, qid: int, sq_entries: int, cq_entries: int) -> None:
        self.qid = qid
        self.sq_entries = sq_entries
        self.cq_entries = cq_entries
        self.sq_base = link.allocate(sq_entries * SQE_SIZE)
        self.cq_base = link.allocate(cq_entries * CQE_SIZE)
        self._link = link
        self._sq_doorbell = DOORBELLS + 8 * qid
        self._cq_doorbell = self._sq_doorbell + 4
        self._tail = 0
        self._head = 0
        self._phase = 1
        self._outstanding: dict[int, Command] = {}

    @property
    def outstanding(self) -> int:
        """Commands submitted and not reaped."""
        return len(self._outstanding)

    @property
    def full(self) -> bool:
        """No further command may be submitted before one is reaped."""
        return len(self._outstanding) >= self.sq_entries - 1

    def submit(self, command: Command) -> None:
        """Write one command, whose `cid` is not in use, and ring the doorbell. The queue must not
        be full."""
        assert not self.full and command.cid not in self._outstanding
        self._outstanding[command.cid] = command
        self._link.memory.write(self.sq_base + self._tail * SQE_SIZE, command.encode())
        self._tail = (self._tail + 1) % self.sq_entries
        self._link.write32(self._sq_doorbell, self._tail)

    def reap(self) -> list[Completion]:
        """All completions that are there, in order; their entries are given back with one write
        of the doorbell."""
        found: list[Completion] = []
        while True:
            addr = self.cq_base + self._head * CQE_SIZE
            if self._link.memory.load_u32(addr + 12) >> 16 & 1 != self._phase:
                break
            entry = Completion.decode(self._link.memory.read(addr, CQE_SIZE))
            self._head += 1
            if self._head == self.cq_entries:
                self._head, self._phase = 0, self._phase ^ 1
            if self._outstanding.pop(entry.cid, None) is None:
                raise DeviceError(f"queue {self.qid}: completion of CID {entry.cid}, not in use")
            found.append(entry)
        if found:
            self._link.write32(self._cq_doorbell, self._head)
        return found

    def state(self) -> str:
        """The rings as this side knows them, for an error message."""
        return (
            f"queue {self.qid}: SQ tail {self._tail} of {self.sq_entries}, "
            f"CQ head {self._head} of {self.cq_entries}, phase {self._phase}, "
            f"{self.outstanding} outstanding"
        )


class DeviceError(Exception):
    """The device did something it must not, or does not get on. One line for the user."""
