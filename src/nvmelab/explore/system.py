"""Driver, device, storage, platform and memory as one stepped system.

The controller and the driver are those that serve guests and drive devices. A step is a label:

    submit       driver: writes one command and, in the coarse grain, the tail doorbell
    fetch 1      device: fetches from SQ 1
    complete K   storage: the K-th oldest of the commands it has is done, from 0
    post 1       device: posts to CQ 1
    pass         device: all its scheduled bottom halves, where they run in passes

The grain says how much one step is.

    coarse       a polling driver. One `fetch` is all that can be fetched, one `post` all that can
                 be posted. `reap`: the driver takes, releases and believes one completion
    fine         an interrupt-driven driver with the steps of `host.stepped.InterruptDriven`. A
                 device that does not work in bottom halves takes the steps of `device.controller`
                 one by one: `fetch 1`, `execute 1`, `post 1`, `interrupt 1`

With doorbells `apart`, `arrive` is a step too: the oldest doorbell write reaches the device.
"""

from __future__ import annotations

from collections.abc import Hashable
from copy import copy
from typing import Any, Literal

import msgspec

from nvmelab.check.ball import Owed, Standing, holder
from nvmelab.corpus.faults import SOUND, Fault
from nvmelab.corpus.personas import Persona
from nvmelab.device.controller import ControllerConfig, Step
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.device.queues import Request
from nvmelab.explore.watch import Seen, Violation, Watch, WatchedMemory, watch_doorbell
from nvmelab.host.driver import Controller as HostController
from nvmelab.host.errors import DeviceError
from nvmelab.host.queues import SubmissionQueue
from nvmelab.host.stepped import SteppedDriver
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.spec.nvm import Read
from nvmelab.spec.registers import CQE_SIZE, DOORBELLS, SQE_SIZE
from nvmelab.standing import standing_of
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

Label = tuple[str, int]
Snapshot = tuple[Any, ...]
Key = tuple[Any, ...]
Grain = Literal["coarse", "fine"]
Doorbells = Literal["together", "apart"]

SUBMIT: Label = ("submit", 0)
"""The one step that nobody ever owes."""
ARRIVE: Label = ("arrive", 0)
DRIVER_STEPS = frozenset(("submit", "reap", "ring", "look", "release", "believe", "return", "wait"))
DEVICE_STEPS = frozenset(("fetch", "execute", "post", "interrupt", "pass"))
STEPS = DRIVER_STEPS | DEVICE_STEPS | {"complete", "arrive", "deliver"}

_MEMORY = 1 << 20
_MEMORY_OF_AN_ENTRY = 2048
_BLOCK = 512
_FINISH = Step("finish")
_POISON = b"\xa5" * _BLOCK


class _Link(InprocLink):
    """An in-process link whose doorbell writes are watched, and may be under way for a while."""

    watch: Watch | None = None
    under_way: list[tuple[int, int]] | None = None
    """Offset and value of doorbell writes, oldest first; None while they arrive at once."""

    def write(self, offset: int, size: int, value: int) -> None:
        if self.watch:
            watch_doorbell(self.watch, offset, value)
        if self.under_way is None or offset < DOORBELLS:
            super().write(offset, size, value)
        else:
            self.under_way.append((offset, value))

    def _raise(self, vector: int) -> None:
        super()._raise(vector)
        if self.watch:
            self.watch.interrupt_raised()

    def arrive(self) -> None:
        """The oldest write reaches the device."""
        assert self.under_way
        offset, value = self.under_way.pop(0)
        super().write(offset, 4, value)

    @property
    def raised(self) -> list[int]:
        """How often each vector was raised and not taken."""
        return self._raised


class System:
    """One queue pair, and a driver that trusts SQHD and so over-commits it. Each command reads a
    block of its own into a buffer of its own."""

    def __init__(
        self,
        persona: Persona,
        *,
        entries: int,
        commands: int | None = None,
        grain: Grain = "coarse",
        doorbells: Doorbells = "together",
        eager: bool = False,
        fault: Fault = SOUND,
        rules: bool = False,
    ) -> None:
        """`entries` is the size of both queues. `commands` is how many the driver submits; None is
        any number. With doorbells `together`, a doorbell write has reached the device when the
        driver goes on. An `eager` device takes its steps before anybody else takes one. `rules`
        checks those of `watch` in each step."""
        self.persona = persona
        self.entries = entries
        self.commands = commands
        self._coarse = grain == "coarse"
        self._eager = eager
        self._build(persona, fault, rules)
        if doorbells == "apart":
            self._link.under_way = []
        self._commands: dict[int, bytes] = {}
        self._completes = [("complete", k) for k in range(len(self._blocks))]
        # What the last save or load left, part by part; None where a step has been since.
        self._parts: list[Any] = [None] * 5
        self._images: dict[bytes, bytes] = {}
        self._broken = False
        self.interchangeable = True
        """No sound key was asked for in a state in which commands may not be interchangeable: where
        one was, a search has not seen every future, because it took such states for one before."""
        self.watch: Watch | None = None
        if rules:
            self._begin_watch()

    def _build(self, persona: Persona, fault: Fault, rules: bool) -> None:
        entries, fine = self.entries, not self._coarse
        self._worker = HeldWorker()
        # No more are outstanding: each fetch lets the driver fill the ring once more (`sqhd`).
        blocks = 2 * entries + (persona.wakeups.extra_requests if persona.wakeups else 0)
        self._blocks = [(cid + 1).to_bytes(8, "little") * (_BLOCK // 8) for cid in range(blocks)]
        backend = RamBackend(_BLOCK * blocks)
        backend.write(0, [memoryview(b"".join(self._blocks))])
        config = ControllerConfig(shadow_doorbells=not persona.wakeups, wakeups=persona.wakeups)
        self.controller = fault.controller(
            config,
            [Namespace(1, backend, "explore")],
            WatchedMemory() if rules else GuestMemory(),
            worker=self._worker,
        )
        link = self._link = _Link(
            NvmeFunction(self.controller),
            size=_MEMORY + entries * _MEMORY_OF_AN_ENTRY // 4096 * 4096,
            storage=self._worker,
        )
        driver = HostController(link)
        driver.start(io_queues=1)
        qpair = driver.create_qpair(
            entries=entries, flow="sqhd", release="entry", ring_each=False, interrupts=fine
        )
        self.sq, self.cq = self.controller.sqs[1], self.controller.cqs[1]
        self.host_sq, self.host_cq = qpair.sq, qpair.cq
        vector = self.host_cq.vector
        self._vector = -1 if vector is None else vector
        self.driver: SteppedDriver
        if fine:
            raised = link.raised
            self.driver = fault.interrupt_driven(
                qpair.sq, self._prepare, lambda: raised[self._vector] > 0
            )
        else:
            self.driver = fault.polling(qpair.sq, self._prepare)
        self._buffers = driver.buffer(_BLOCK * blocks)
        self._worker.hold = True
        (self._sq_ring,) = link.memory.views(qpair.sq.base, entries * SQE_SIZE, write=True)
        (self.cq_ring,) = link.memory.views(qpair.cq.base, entries * CQE_SIZE, write=True)
        words = self.cq_ring.cast("H")
        self._sqhds, self._tags = words[4::8], words[7::8]
        self._data = link.memory.views(self._buffers.addr, self._buffers.size, write=True)[0]

    def _begin_watch(self) -> None:
        memory = self.controller.memory
        assert isinstance(memory, WatchedMemory)
        watch = Watch(1, self.entries, self._data_ready, interrupts=not self._coarse)
        memory.begin(watch, self.host_sq.base, self.host_cq.base, self.entries)
        self.watch = self._link.watch = watch

    def _prepare(self, sq: SubmissionQueue) -> tuple[int, bytes]:
        """The next command: the smallest CID that is free, and a read into its own buffer."""
        cid = sq.cids(sq.outstanding)
        command = self._commands.get(cid)
        if command is None:
            addr = self._buffers.addr + cid * _BLOCK
            command = self._commands[cid] = Read(nsid=1, slba=cid, nlb=1, prp1=addr).encode()
        if self.watch:
            self._data[cid * _BLOCK : (cid + 1) * _BLOCK] = _POISON
        return cid, command

    def _data_ready(self, cid: int) -> bool:
        # Not as views, which would be compared item by item.
        return self._data[cid * _BLOCK : (cid + 1) * _BLOCK].tobytes() == self._blocks[cid]

    # Steps.

    @property
    def outstanding(self) -> int:
        """Commands submitted and not reaped."""
        return len(self.host_sq.outstanding)

    @property
    def submitted(self) -> int:
        """Commands submitted since the start."""
        return self.host_cq.reaped + len(self.host_sq.outstanding)

    def in_flight(self) -> list[Hashable]:
        """The commands that the storage has, oldest first: `complete K` is about the K-th."""
        return [token for token, _work in self._worker.waiting]

    def enabled(self, *, symmetric: bool = False) -> list[Label]:
        """The labels of the steps that could be taken now, in a fixed order for equal states.
        `symmetric` leaves out all but the oldest of the commands that the storage could finish: the
        others lead to states that `relative_key` does not tell from it."""
        device: list[Label] = []
        for step in self.controller.enabled():  # a Step is a label
            # In large steps, to carry out and to interrupt are parts of the runs.
            if not self._coarse or step[0] in ("fetch", "post", "pass"):
                device.append(step)
        if device and self._eager:
            return device
        labels: list[Label] = []
        for name in self.driver.enabled():
            if name != "submit":
                labels.append((name, 0))
            elif self.commands is None or self.submitted < self.commands:
                labels.append(SUBMIT)
        labels += device
        waiting = len(self._worker.waiting)
        labels += self._completes[: 1 if waiting and symmetric else waiting]
        if self._link.under_way:
            labels.append(ARRIVE)
        return labels

    def take(self, label: Label) -> None:
        """Take one step that `enabled` lists. Raises Violation; only `load` is allowed then."""
        name, number = label
        parts = self._parts
        try:
            if name == "complete":
                parts[1] = parts[2] = parts[4] = None
                self._worker.release(number)
                self.controller.take(_FINISH)
            elif name == "arrive":
                parts[1] = parts[3] = parts[4] = None
                self._link.arrive()
            elif number or name == "pass":
                parts[1] = parts[2] = parts[3] = parts[4] = None
                self._take_device(name, number)
            else:
                parts[0] = parts[1] = parts[3] = parts[4] = None
                self.driver.take(name)
                if self.watch:
                    self.watch.outstanding(self.host_sq.outstanding, self.host_cq.reaped)
        except DeviceError as error:
            raise Violation("cq.unknown-command", str(error)) from None
        if self.watch and not self.controller.life.live:
            self._broken = True
            raise Violation("device.failed", "the controller reports a fatal status")

    def _take_device(self, name: str, number: int) -> None:
        if self.controller.bottom_halves or not self._coarse:
            self.controller.take(Step(name, number))
        elif name == "fetch":
            self.controller.fetch_run(self.sq)
        else:
            self.controller.post_run(self.cq)

    def standing(self) -> Standing:
        """How many commands are where."""
        sq, cq, host_sq, host_cq = self.sq, self.cq, self.host_sq, self.host_cq
        raised = 0 if self._coarse else self._link.raised[self._vector]
        at_rest = self.driver.save()[0] in ("", "idle")
        unseen = self.watch and self.watch.seen.signalled < self.watch.seen.posted
        return msgspec.structs.replace(
            standing_of(sq, len(cq.finished)),
            written=(host_sq.tail - host_sq.rung) % sq.size,
            under_way=(host_sq.rung - sq.tail) % sq.size,
            fetched=len(sq.fetched) + len(self._worker.waiting),
            posted=(cq.tail - host_cq.head) % cq.size,
            signalled=self._coarse or not (unseen or cq.unsignalled),
            delivered=not (at_rest and raised),
            taken=(host_cq.head - cq.head) % cq.size,
        )

    @property
    def interrupt_raised(self) -> bool:
        """The interrupt of the completion queue is raised and not delivered."""
        return not self._coarse and self._link.raised[self._vector] > 0

    def ball(self) -> Owed | None:
        """Who must act, if nothing is enabled but `submit` and a command is outstanding: then
        nobody will."""
        if not self.outstanding or any(label != SUBMIT for label in self.enabled()):
            return None
        return holder(self.standing())

    def progress(self) -> int:
        """A measure that every step raises, so that a run without further commands ends. The
        counts never fall; a step that raises none of them takes a flag down, and may set only
        flags that weigh less. Only where a watch counts."""
        assert self.watch
        seen, sq, cq = self.watch.seen, self.sq, self.cq
        handler, entry = self.driver.save()
        under_way, halves = self._link.under_way or (), self.controller.bottom_halves
        executed = seen.fetched - len(sq.fetched)
        counts = (
            (seen.written + seen.fetched + seen.posted)
            + 2 * (seen.rung + seen.released)  # one of them when it is written, one when it arrives
            + (executed + executed - len(self._worker.waiting))
            + (seen.posted + len(cq.finished))
            + (2 * self.host_cq.reaped - (entry is not None))
            - len(under_way)
        )
        flags = 8 * cq.unsignalled + 2 * (handler == "running") + (handler == "leaving")
        if halves:
            flags += (sq in halves.scheduled) + 8 * (cq in halves.scheduled)
        if not self._coarse:
            flags += 4 * (self._link.raised[self._vector] > 0)
        return 32 * counts - flags

    # States.

    def save(self) -> Snapshot:
        """Everything that steps change, as values. The error log and the statistics of the device
        are left out: no step reads them."""
        parts = self._parts
        if parts[0] is None:
            parts[0] = (
                self.host_sq.save(),
                self.host_cq.save(),
                self.driver.save(),
                self._sq_ring.tobytes(),
            )
        if parts[1] is None:
            halves = self.controller.bottom_halves
            scheduled = tuple(halves.scheduled) if halves else ()
            parts[1] = (self.sq.save(), self.cq.save(), scheduled)
        if parts[2] is None:
            parts[2] = (
                tuple(self._worker.waiting),
                self.controller.in_worker,
                self.cq_ring.tobytes(),
            )
        if parts[3] is None:
            raised = self._link.raised[self._vector] if not self._coarse else 0
            parts[3] = (raised, tuple(self._link.under_way or ()))
        if parts[4] is None:
            parts[4] = self._save_watch() if self.watch else ()
        return tuple(parts)

    def _save_watch(self) -> tuple[Any, ...]:
        assert self.watch
        image = self._data.tobytes()
        return (copy(self.watch.seen), self._images.setdefault(image, image))

    def load(self, snapshot: Snapshot) -> None:
        """Be as at the `save` that gave this."""
        parts = self._parts
        host, device, storage, link, watched = snapshot
        if parts[0] is not host:
            host_sq, host_cq, driver, self._sq_ring[:] = host
            self.host_sq.load(host_sq)
            self.host_cq.load(host_cq)
            self.driver.load(driver)
        if parts[1] is not device:
            sq, cq, scheduled = device
            self.sq.load(sq)
            self.cq.load(cq)
            halves = self.controller.bottom_halves
            if halves:
                halves.scheduled[:] = scheduled
        if parts[2] is not storage:
            self._worker.waiting[:], self.controller.in_worker, self.cq_ring[:] = storage
        if parts[3] is not link and (not self._coarse or self._link.under_way is not None):
            raised, under_way = link
            self._link.raised[self._vector] = raised
            if self._link.under_way is not None:
                self._link.under_way[:] = under_way
        if parts[4] is not watched and self.watch:
            seen, self._data[:] = watched
            self.watch.seen = copy(seen)
        self._parts = list(snapshot)
        if self._broken:
            self._worker.finished.clear()
            self.controller.life.revive()
            self._broken = False

    def relative_key(self) -> Key:
        """What tells states apart whose future differs on a device that keeps to its rings: equal
        for states that differ by a rotation of the rings. It may find; it may never prove, because
        it has no phase tags and no ring positions. Commands are interchangeable."""
        sq, cq, host_sq, host_cq = self.sq, self.cq, self.host_sq, self.host_cq
        size = sq.size
        head, at = sq.head, host_cq.head
        lags = []
        while at != cq.tail:
            lags.append((head - self._sqhds[at]) % size)
            at = at + 1 if at + 1 < cq.size else 0
        halves = self.controller.bottom_halves
        if halves is None:
            scheduled: tuple[object, ...] = ()
        elif halves.rules.order == "free":
            scheduled = (sq in halves.scheduled, cq in halves.scheduled)
        else:
            scheduled = tuple(queue is sq for queue in halves.scheduled)
        key = (
            (sq.tail - head) % size,
            (head - host_sq.head) % size,
            len(self._worker.waiting),
            len(cq.finished),
            scheduled,
            tuple(lags),
            -1 if self.commands is None else self.submitted,
        )
        return key if self._coarse else (*key, *self._fine_key())

    def _fine_key(self) -> Key:
        """What the fine grain, or doorbells on their way, add to the relative key."""
        sq, cq, host_sq, host_cq = self.sq, self.cq, self.host_sq, self.host_cq
        handler, entry = self.driver.save()
        under_way = self._link.under_way or ()
        return (
            (host_sq.tail - host_sq.rung) % sq.size,
            (host_sq.rung - sq.tail) % sq.size,
            (host_cq.head - host_cq.rung) % cq.size,
            (host_cq.rung - cq.head) % cq.size,
            handler,
            (sq.head - entry.sqhd) % sq.size if entry else -1,
            self.interrupt_raised,
            len(sq.fetched),
            cq.unsignalled,
            tuple(offset & 4 for offset, _value in under_way),
        )

    def sound_key(self) -> Key:
        """As `relative_key`, with what it leaves out: ring positions, the phase both sides are at,
        the phase tag of every entry, and what the rules read. Which command is where counts only
        as far as their numbers: they are interchangeable to a device that does not look at a CID.
        """
        key = (
            self.relative_key(),
            self.sq.head,
            self.host_sq.tail,
            self.cq.tail,
            self.cq.head,
            self.cq.phase,
            self.host_cq.phase,
            tuple(self._tags),
        )
        if not self.watch:
            return key
        return (*key, *self.watch.key(), *self._commands_key(self.watch.seen))

    def _commands_key(self, seen: Seen) -> Key:
        """Which of the commands at the storage, and of the finished ones, have their data: a bit
        for each, the oldest highest. A device that has others than those it has fetched, or one of
        them twice, may make a difference between them."""
        waiting = finished = 0
        cids = [request.cid for request in self.sq.fetched]
        for token, _work in self._worker.waiting:
            assert isinstance(token, Request)
            cids.append(token.cid)
            waiting = 2 * waiting + self._data_ready(token.cid)
        for request in self.cq.finished:
            cids.append(request.cid)
            finished = 2 * finished + self._data_ready(request.cid)
        if len(cids) == len(seen.device) and set(cids) == set(seen.device):
            return waiting, finished
        self.interchangeable = False
        outstanding = tuple(self.host_sq.outstanding)
        return waiting, finished, tuple(cids), outstanding, seen.slots, seen.device, seen.waiting
