"""A small workload whose data can be checked: random writes, a flush, and every block read back."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable

import msgspec

from nvmelab.host.driver import CommandFailed, Driver
from nvmelab.host.queues import DeviceError, Qpair
from nvmelab.spec.commands import Command
from nvmelab.spec.nvm import Flush, Read, Write


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
        driver: Driver,
        qpairs: list[Qpair],
        *,
        nsid: int,
        block: int,
        blocks: int,
        chunk: int = 4096,
        writes: int = 2000,
        seed: int = 1,
    ) -> None:
        assert chunk <= 4096 and chunk % block == 0, "a chunk is one PRP"
        self._driver = driver
        self._qpairs = qpairs
        self._nsid = nsid
        self._nlb = chunk // block
        self._chunk = chunk
        self._chunks = blocks // self._nlb
        self._writes = writes
        self._seed = seed
        self._random = random.Random(seed)
        self._version: dict[int, int] = {}
        self.report = Report()
        slots = max(qpair.sq_entries for qpair in qpairs) - 1
        self._buffers = {
            (qpair.qid, cid): driver.link.allocate(chunk)
            for qpair in qpairs
            for cid in range(slots)
        }

    def run(self) -> Report:
        """Do it."""
        self._write_phase()
        for qpair in self._qpairs:
            self._driver.run(qpair, Flush(nsid=self._nsid))
            self.report.commands += 1
        self._read_phase()
        return self.report

    def _write_phase(self) -> None:
        memory = self._driver.link.memory

        def command(chunk: int, cid: int, buffer: int) -> Command:
            version = self._version.get(chunk, 0) + 1
            self._version[chunk] = version
            memory.write(buffer, _content(self._seed, chunk, version, self._chunk))
            self.report.written += self._chunk
            slba = chunk * self._nlb
            return Write(cid=cid, nsid=self._nsid, prp1=buffer, slba=slba, nlb=self._nlb)

        # Two writes of one chunk must not be outstanding together: which one wins is undefined.
        self._each([self._random.randrange(self._chunks) for _ in range(self._writes)], command)

    def _read_phase(self) -> None:
        memory = self._driver.link.memory

        def command(chunk: int, cid: int, buffer: int) -> Command:
            memory.write(buffer, bytes(self._chunk))
            slba = chunk * self._nlb
            return Read(cid=cid, nsid=self._nsid, prp1=buffer, slba=slba, nlb=self._nlb)

        def check(chunk: int, buffer: int) -> None:
            wanted = _content(self._seed, chunk, self._version[chunk], self._chunk)
            if memory.read(buffer, self._chunk) != wanted:
                raise DeviceError(f"LBA {chunk * self._nlb:#x}: other data than was written")
            self.report.verified += self._chunk

        self._each(sorted(self._version), command, check)

    def _each(
        self,
        chunks: list[int],
        command: Callable[[int, int, int], Command],
        check: Callable[[int, int], None] | None = None,
    ) -> None:
        """A command for each chunk, all queue pairs as full as they may be."""
        todo = chunks[::-1]
        free = {qpair.qid: list(range(qpair.sq_entries - 1)) for qpair in self._qpairs}
        flying: dict[tuple[int, int], tuple[int, Command]] = {}
        busy: set[int] = set()
        while todo or flying:
            for qpair in self._qpairs:
                while todo and not qpair.full and todo[-1] not in busy:
                    chunk = todo.pop()
                    cid = free[qpair.qid].pop()
                    buffer = self._buffers[qpair.qid, cid]
                    busy.add(chunk)
                    flying[qpair.qid, cid] = chunk, command(chunk, cid, buffer)
                    qpair.submit(flying[qpair.qid, cid][1])
            self.report.most_outstanding = max(self.report.most_outstanding, len(flying))
            waited = False
            for qpair in self._qpairs:
                if not qpair.outstanding:
                    continue
                done = qpair.reap() if waited else self._driver.wait(qpair)
                waited = True
                for completion in done:
                    chunk, sent = flying.pop((qpair.qid, completion.cid))
                    if completion.status:
                        raise CommandFailed(sent, completion)
                    if check:
                        check(chunk, self._buffers[qpair.qid, completion.cid])
                    busy.discard(chunk)
                    free[qpair.qid].append(completion.cid)
                    self.report.commands += 1
