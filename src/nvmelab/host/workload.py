"""A small workload whose data can be checked: random writes, a flush, and every block read back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import msgspec

from nvmelab.host.buffers import Buffer
from nvmelab.host.driver import Controller
from nvmelab.host.errors import DeviceError
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Pending


class Report(msgspec.Struct):
    """What a workload did."""

    commands: int = 0
    written: int = 0
    """Bytes."""
    verified: int = 0
    """Bytes."""
    most_outstanding: int = 0


def _content(seed: int, chunk: int, version: int, size: int) -> bytes:
    """The bytes that belong in a chunk after its `version`th write."""
    return hashlib.shake_128(f"{seed}/{chunk}/{version}".encode()).digest(size)


class Workload:
    """Writes chunks of `chunk` bytes at random places of a namespace, `writes` times, spread over
    the queue pairs with as many commands outstanding as they take, then reads all of them back.

    Raises DeviceError if the device gets stuck, fails a command, or returns other data.
    """

    def __init__(
        self,
        controller: Controller,
        qpairs: list[Qpair],
        *,
        nsid: int = 1,
        chunk: int = 4096,
        writes: int = 2000,
        seed: int = 1,
    ) -> None:
        self._namespace = controller.namespace(nsid)
        block = self._namespace.block
        assert chunk % block == 0
        self._link = controller.link
        self._qpairs = qpairs
        self._nsid = nsid
        self._nlb = chunk // block
        self._chunk = chunk
        self._chunks = self._namespace.blocks // self._nlb
        self._writes = writes
        self._seed = seed
        self._random = random.Random(seed)
        self._version: dict[int, int] = {}
        self.report = Report()
        self._buffers = [
            controller.buffer(chunk)
            for qpair in qpairs
            for _ in range(2 * qpair.sq.entries)  # as many as may be outstanding, with any flow
        ]

    def run(self) -> Report:
        """Do it."""
        self._write_phase()
        for qpair in self._qpairs:
            qpair.flush(self._nsid).check()
            self.report.commands += 1
        self._read_phase()
        return self.report

    def _write_phase(self) -> None:
        def submit(qpair: Qpair, chunk: int, buffer: Buffer) -> Pending:
            version = self._version[chunk] = self._version.get(chunk, 0) + 1
            buffer.write(_content(self._seed, chunk, version, self._chunk))
            self.report.written += self._chunk
            return qpair.write(self._nsid, slba=chunk * self._nlb, nlb=self._nlb, buffer=buffer)

        # Two writes of one chunk must not be outstanding together: which one wins is undefined.
        self._each([self._random.randrange(self._chunks) for _ in range(self._writes)], submit)

    def _read_phase(self) -> None:
        def submit(qpair: Qpair, chunk: int, buffer: Buffer) -> Pending:
            buffer.fill()
            return qpair.read(self._nsid, slba=chunk * self._nlb, nlb=self._nlb, buffer=buffer)

        def check(chunk: int, buffer: Buffer) -> None:
            wanted = _content(self._seed, chunk, self._version[chunk], self._chunk)
            if buffer.read() != wanted:
                raise DeviceError(
                    f"LBA {chunk * self._nlb:#x}: other data than was written",
                    ref="NVM Command Set 1.2, 3.3.4 and 3.3.6",
                )
            self.report.verified += self._chunk

        self._each(sorted(self._version), submit, check)

    def _each(
        self,
        chunks: list[int],
        submit: Callable[[Qpair, int, Buffer], Pending],
        check: Callable[[int, Buffer], None] | None = None,
    ) -> None:
        """A command for each chunk, all queue pairs as full as they may be."""
        todo = chunks[::-1]
        flying: dict[int, Pending] = {}
        while todo or flying:
            for qpair in self._qpairs:
                while todo and qpair.sq.room and self._buffers and todo[-1] not in flying:
                    chunk = todo.pop()
                    flying[chunk] = submit(qpair, chunk, self._buffers.pop())
            self.report.most_outstanding = max(self.report.most_outstanding, len(flying))
            next(iter(flying.values())).wait()
            for qpair in self._qpairs:
                qpair.cq.service()
            for chunk in [chunk for chunk, pending in flying.items() if pending.done]:
                pending = flying.pop(chunk)
                pending.check()
                assert pending.buffer
                if check:
                    check(chunk, pending.buffer)
                self._buffers.append(pending.buffer)
                self.report.commands += 1
