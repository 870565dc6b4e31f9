"""A driver's side of submission and completion queues. NVMe Base 2.2, 3.3 and 4.2.

Everything here is a step that takes no time: write an entry, ring, look for a completion, release
entries. Waiting is `Pending.wait`, `SubmissionQueue.wait_for_room` and `CompletionQueue.wait`.

Flow control of a submission queue is a policy:

    inflight   at most one command less than the queue has entries is outstanding, as Linux and
               SPDK do it
    sqhd       the queue is full when the next tail meets the SQ Head Pointer of the last
               completion, as OSv does it. That pointer says what was fetched, so more commands
               than the queue has entries may be outstanding (Base 2.2, 3.3.1.2 and 4.2.1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from nvmelab.host.buffers import Buffer
from nvmelab.host.cids import CIDS, CidPolicy, dense
from nvmelab.host.doorbells import Doorbells
from nvmelab.host.errors import CommandFailed, DeviceError, Stuck
from nvmelab.link.base import HostLink
from nvmelab.spec.commands import Command, Completion
from nvmelab.spec.registers import CQE_SIZE, SQE_SIZE
from nvmelab.spec.status import Status

Flow = Literal["inflight", "sqhd"]
Release = Literal["entry", "batch", "held"]
Done = Callable[[], bool]


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise ValueError for a misspelt policy, which would silently be another one."""
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: give one of {', '.join(map(repr, allowed))}")


PROGRESS = "Base 2.2, 3.3.1.2 (derived: a command that was rung is consumed and completed)"


class Pending:
    """A command that was submitted, and later its completion."""

    __slots__ = ("buffer", "cid", "command", "completion", "number", "sq")

    def __init__(
        self, sq: SubmissionQueue, cid: int, command: Command | bytes, buffer: Buffer | None
    ) -> None:
        self.sq = sq
        self.cid = cid
        self.command = command
        """As it was submitted; its own CID counts for nothing."""
        self.buffer = buffer
        """Where its data is; kept as long as this is."""
        self.completion: Completion | None = None
        self.number = 0
        """The how many-th completion of its queue it was, from 1."""

    def __repr__(self) -> str:
        state = self.status.label if self.completion else "outstanding"
        return f"<{self.label} on SQ {self.sq.qid}: {state}>"

    @property
    def label(self) -> str:
        """What it is, in a few words."""
        command = self.command
        what = f"opcode {command[0]:#x}" if isinstance(command, bytes) else type(command).__name__
        return f"{what} CID {self.cid:#x}"

    def _in_full(self) -> str:
        """The command with the fields that are not as they are by default, addresses in hex."""
        command = self.command
        if isinstance(command, bytes):
            return self.label
        plain = type(command)()
        fields = [
            f"{name}={value:#x}" if name.startswith("prp") else f"{name}={value}"
            for name in command.__struct_fields__
            if (value := getattr(command, name)) != getattr(plain, name)
        ]
        return f"{type(command).__name__}({', '.join(fields)})"

    @property
    def done(self) -> bool:
        """Its completion was reaped."""
        return self.completion is not None

    @property
    def status(self) -> Status:
        """Its status; only when it is done."""
        assert self.completion, "not done yet"
        return Status(self.completion.status & 0x7FF)

    @property
    def ok(self) -> bool:
        """Completed with success."""
        return self.completion is not None and self.completion.status & 0x7FF == 0

    def wait(self) -> Pending:
        """Until it is done, whatever its status. Raises Stuck."""
        if self.completion is None:
            self.sq.cq.wait(lambda: self.completion is not None, self.label)
        return self

    def check(self) -> Completion:
        """Wait; the completion of a success. Raises CommandFailed and Stuck."""
        self.wait()
        assert self.completion
        if not self.ok:
            raise CommandFailed(self._in_full(), self.completion)
        return self.completion

    def data(self) -> bytes:
        """Wait for success, and a copy of its buffer."""
        self.check()
        assert self.buffer, "the command has no buffer"
        return self.buffer.read()


class CompletionQueue:
    """A ring that the device fills. `entries` is its size; `vector` None means no interrupts.

    `release` says when the head doorbell is written: after each entry, after all that were reaped
    together, or only by `ring`. With `interrupts`, entries are looked for only after the vector was
    raised; without, at any time.
    """

    def __init__(
        self,
        link: HostLink,
        doorbells: Doorbells,
        qid: int,
        base: int,
        entries: int,
        *,
        vector: int | None = None,
        interrupts: bool = False,
        release: Release = "batch",
    ) -> None:
        self.qid = qid
        self.base = base
        self.entries = entries
        _one_of("release", release, get_args(Release))
        self.vector = vector
        self.interrupts = interrupts
        self.release: Release = release
        self.head = 0
        """The next entry to look at."""
        self.phase = 1
        self.rung = 0
        """What the head doorbell was last told."""
        self.reaped = 0
        """Entries reaped so far."""
        self.sqs: dict[int, SubmissionQueue] = {}
        self._link = link
        self._doorbells = doorbells

    @property
    def ready(self) -> bool:
        """The next entry is there, by its phase tag."""
        addr = self.base + self.head * CQE_SIZE + 12
        return self._link.memory.load_u32(addr) >> 16 & 1 == self.phase

    def peek(self) -> Completion | None:
        """The next entry, if it is there. The dword with the phase tag is read first."""
        if not self.ready:
            return None
        return Completion.decode(self._link.memory.read(self.base + self.head * CQE_SIZE, CQE_SIZE))

    def reap(self, limit: int | None = None) -> list[Completion]:
        """New entries in order, at most `limit`. Each finishes its command. Raises DeviceError if
        an entry belongs to none."""
        found: list[Completion] = []
        while limit is None or len(found) < limit:
            entry = self.take()
            if entry is None:
                break
            if self.release == "entry":
                self.ring()  # before SQHD is believed, as OSv does it
            found.append(entry)
            self.believe(entry)
        if found and self.release == "batch":
            self.ring()
        return found

    def take(self) -> Completion | None:
        """The first part of reaping one: the next entry, if it is there; the one behind it is next
        then. The slot is not released, and what the entry says is not made use of."""
        entry = self.peek()
        if entry is not None:
            self.head += 1
            if self.head == self.entries:
                self.head, self.phase = 0, self.phase ^ 1
            self.reaped += 1
        return entry

    def believe(self, entry: Completion) -> None:
        """The last part: its command is done, and its SQ Head Pointer is known. Raises
        DeviceError."""
        sq = self.sqs.get(entry.sqid)
        if sq is None:
            raise DeviceError(
                f"CQ {self.qid} has a completion for SQ {entry.sqid}, which is not bound to it: "
                f"{entry}",
                ref="Base 2.2, 4.2.1 (SQID)",
            )
        sq.complete(entry, self.reaped)

    def save(self) -> tuple[int, int, int, int]:
        """What a step changes, to be given to `load`."""
        return (self.head, self.phase, self.rung, self.reaped)

    def load(self, saved: tuple[int, int, int, int]) -> None:
        """Be as at that `save`."""
        self.head, self.phase, self.rung, self.reaped = saved

    def ring(self, count: int | None = None) -> None:
        """Release what was reaped, or only that many of it: write the head doorbell."""
        head = self.head if count is None else (self.rung + count) % self.entries
        if self.rung != head:
            self._doorbells.ring_head(self.qid, self.rung, head, self.entries)
            self.rung = head

    def service(self) -> None:
        """What an interrupt handler, or a poller, does."""
        if not self.interrupts or self.acknowledge():
            self.reap()

    def acknowledge(self) -> int:
        """Take what its interrupt vector has raised: how often, as far as the link can count."""
        assert self.vector is not None
        return self._link.take_interrupts(self.vector)

    def wait(self, done: Done, what: str, *, serve: bool = True) -> None:
        """Until `done()`, serving this queue meanwhile unless told not to. Raises Stuck."""

        def look() -> bool:
            if serve:
                self.service()
            return done()

        if not self._link.wait(look):
            raise Stuck(f"{what} never came: {self._why()}", ref=PROGRESS)

    def _why(self) -> str:
        """What stands where, and what is there that nobody was told of."""
        why = f"{self._link.name} is at rest; {self.state()}"
        if self.interrupts and self.peek():
            why += f"; an entry is there and vector {self.vector} was not raised"
        storage = self._link.storage
        if storage and storage.held():
            why += f"; its storage still holds {storage.held()} of its operations back"
        return why

    def state(self) -> str:
        """This ring and those of its submission queues, as this side knows them."""
        waiting = self.peek() is not None
        text = (
            f"CQ {self.qid} ({self.entries} entries): head {self.head}, phase {self.phase}, "
            f"head doorbell {self.rung}, {'an' if waiting else 'no'} entry to reap"
        )
        return "; ".join([text, *(sq.state() for sq in self.sqs.values())])


class SubmissionQueue:
    """A ring that the driver fills; its completions go to `cq`. `entries` is its size.

    `ring_each` writes the tail doorbell after each command; without, `ring` does for all.
    """

    def __init__(
        self,
        link: HostLink,
        doorbells: Doorbells,
        qid: int,
        base: int,
        entries: int,
        cq: CompletionQueue,
        *,
        flow: Flow = "inflight",
        cids: CidPolicy | None = None,
        ring_each: bool = True,
    ) -> None:
        self.qid = qid
        self.base = base
        self.entries = entries
        _one_of("flow", flow, get_args(Flow))
        self.cq = cq
        self.flow: Flow = flow
        self.cids = cids or dense()
        self.ring_each = ring_each
        self.tail = 0
        """Where the next entry goes."""
        self.rung = 0
        """What the tail doorbell was last told."""
        self.head = 0
        """The SQ Head Pointer of the last completion."""
        self.outstanding: dict[int, Pending] = {}
        """Submitted and not reaped, by CID."""
        self._fetched = 0
        self._written = 0
        self._link = link
        self._doorbells = doorbells
        cq.sqs[qid] = self

    @property
    def room(self) -> bool:
        """Another command may be written, by the queue's flow control."""
        if self.flow == "inflight":
            return len(self.outstanding) < self.entries - 1
        return self._written - self._fetched < self.entries - 1 and len(self.outstanding) < CIDS

    def submit(
        self,
        command: Command | bytes,
        *,
        cid: int | None = None,
        buffer: Buffer | None = None,
    ) -> Pending:
        """Write one command, which needs room, and ring if the queue rings for each.

        `command` is a declared one, or any 64 bytes; its CID is replaced by `cid`, or by what the
        queue's policy chooses. `buffer` is kept until the command is done.
        """
        assert self.room, f"no room: {self.state()}"
        if cid is None:
            cid = self.cids(self.outstanding)
        assert cid not in self.outstanding, f"CID {cid:#x} is in use"
        entry = bytearray(command if isinstance(command, bytes) else command.encode())
        assert len(entry) == SQE_SIZE
        entry[2:4] = cid.to_bytes(2, "little")
        pending = self.outstanding[cid] = Pending(self, cid, command, buffer)
        self._link.memory.write(self.base + self.tail * SQE_SIZE, bytes(entry))
        self.tail = (self.tail + 1) % self.entries
        self._written += 1
        if self.ring_each:
            self.ring()
        return pending

    def ring(self) -> None:
        """Tell the device of everything that was written: the tail doorbell."""
        if self.rung != self.tail:
            self._doorbells.ring_tail(self.qid, self.rung, self.tail, self.entries)
            self.rung = self.tail

    def complete(self, entry: Completion, number: int) -> None:
        """A completion of this queue was reaped. Raises DeviceError."""
        if entry.sqhd >= self.entries:
            raise DeviceError(
                f"SQHD {entry.sqhd} of SQ {self.qid}, which has {self.entries} entries: {entry}",
                ref="Base 2.2, 4.2.1 (SQHD)",
            )
        moved = (entry.sqhd - self.head) % self.entries
        if moved > self._written - self._fetched:
            raise DeviceError(
                f"SQHD of SQ {self.qid} went from {self.head} to {entry.sqhd}, past the "
                f"{self._written - self._fetched} entries that were written: {entry}",
                ref="Base 2.2, 4.2.1 (SQHD)",
            )
        self._fetched += moved
        self.head = entry.sqhd
        pending = self.outstanding.pop(entry.cid, None)
        if pending is None:
            raise DeviceError(
                f"SQ {self.qid} has no outstanding command with the CID {entry.cid:#x} of this "
                f"completion: {entry}",
                ref="Base 2.2, 4.2.1 (CID)",
            )
        pending.completion = entry
        pending.number = number

    def save(self) -> tuple[int, int, int, int, int, dict[int, Pending]]:
        """What a step changes, to be given to `load`. A command that was reaped after this keeps
        its completion."""
        outstanding = self.outstanding.copy()
        return (self.tail, self.rung, self.head, self._fetched, self._written, outstanding)

    def load(self, saved: tuple[int, int, int, int, int, dict[int, Pending]]) -> None:
        """Be as at that `save`."""
        self.tail, self.rung, self.head, self._fetched, self._written, outstanding = saved
        self.outstanding = outstanding.copy()

    def wait_for_room(self) -> None:
        """Until another command may be written. Raises Stuck."""
        if not self.room:
            self.ring()
            self.cq.wait(lambda: self.room, f"room in SQ {self.qid}")

    def wait_all(self) -> None:
        """Until nothing is outstanding. Raises Stuck."""
        self.ring()
        if self.outstanding:
            self.cq.wait(
                lambda: not self.outstanding, f"the last of {len(self.outstanding)} completions"
            )

    def state(self) -> str:
        """The ring as this side knows it."""
        cids = ", ".join(f"{cid:#x}" for cid in list(self.outstanding)[:8])
        more = ", ..." if len(self.outstanding) > 8 else ""
        return (
            f"SQ {self.qid} ({self.entries} entries): tail {self.tail}, tail doorbell {self.rung}, "
            f"last SQHD {self.head}, {len(self.outstanding)} outstanding"
            + (f" (CID {cids}{more})" if cids else "")
        )
