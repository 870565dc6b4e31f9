"""A submission queue with the commands one puts into it, and the completion queue it uses."""

from __future__ import annotations

from nvmelab.host.buffers import Buffer, Pool
from nvmelab.host.queues import CompletionQueue, Pending, SubmissionQueue
from nvmelab.spec.commands import Command
from nvmelab.spec.nvm import Flush, Read, Write, WriteZeroes

BLOCK = 512
"""Bytes of a logical block unless a call says otherwise."""


class Qpair:
    """`sq` and its `cq`. Commands wait for room if there is none, and are not waited for."""

    def __init__(self, pool: Pool, sq: SubmissionQueue) -> None:
        self.sq = sq
        self.cq: CompletionQueue = sq.cq
        self._pool = pool

    @property
    def qid(self) -> int:
        return self.sq.qid

    @property
    def outstanding(self) -> int:
        """Commands submitted and not reaped."""
        return len(self.sq.outstanding)

    def submit(
        self, command: Command | bytes, *, cid: int | None = None, buffer: Buffer | None = None
    ) -> Pending:
        """Any command, or any 64 bytes; see `SubmissionQueue.submit`. Raises Stuck if there is no
        room and none comes."""
        self.sq.wait_for_room()
        return self.sq.submit(command, cid=cid, buffer=buffer)

    def read(
        self,
        nsid: int = 1,
        *,
        slba: int,
        nlb: int = 1,
        buffer: Buffer | None = None,
        block: int = BLOCK,
    ) -> Pending:
        """Read `nlb` blocks of `block` bytes, into a buffer of its own unless one is given."""
        if buffer is None:
            buffer = self._pool.buffer(nlb * block)
        prp1, prp2 = buffer.prps()
        return self.submit(Read(nsid=nsid, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2), buffer=buffer)

    def write(
        self,
        nsid: int = 1,
        *,
        slba: int,
        nlb: int | None = None,
        data: bytes = b"",
        buffer: Buffer | None = None,
        block: int = BLOCK,
        fua: bool = False,
    ) -> Pending:
        """Write `data` (a multiple of `block` bytes), or what is in `buffer`."""
        if buffer is None:
            buffer = self._pool.buffer(len(data))
            buffer.write(data)
        if nlb is None and (not buffer.size or buffer.size % block):
            raise ValueError(f"{buffer.size} bytes of data are not a multiple of {block}")
        prp1, prp2 = buffer.prps()
        nlb = nlb or buffer.size // block
        command = Write(nsid=nsid, slba=slba, nlb=nlb, prp1=prp1, prp2=prp2, fua=int(fua))
        return self.submit(command, buffer=buffer)

    def write_zeroes(self, nsid: int = 1, *, slba: int, nlb: int = 1) -> Pending:
        return self.submit(WriteZeroes(nsid=nsid, slba=slba, nlb=nlb))

    def flush(self, nsid: int = 1) -> Pending:
        return self.submit(Flush(nsid=nsid))

    def ring(self) -> None:
        """Write the tail doorbell, if the queue does not ring for each command."""
        self.sq.ring()

    def wait_all(self) -> None:
        """Until nothing is outstanding. Raises Stuck."""
        self.sq.wait_all()

    def state(self) -> str:
        return self.cq.state()
