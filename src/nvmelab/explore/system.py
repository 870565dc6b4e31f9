"""Driver, device, storage and memory as one stepped system.

The controller and the driver are those that serve guests and drive devices. The grain is coarse: a
polling driver; an entry is written and rung in one step, a fetch run and a posting run are one
step each, and so are looking at an entry, releasing it and believing its SQ Head Pointer. The
steps, by label:

    submit       driver: writes one command and rings
    fetch 1      device: fetches all it can from SQ 1 and hands it to the storage
    complete K   storage: the K-th oldest of the commands it has is done, from 0
    post 1       device: posts all it can to CQ 1
    pass         device: all its scheduled bottom halves, where they run in passes
    reap         driver: takes one completion
"""

from __future__ import annotations

from typing import Any

from nvmelab.corpus.personas import Persona
from nvmelab.device.controller import Controller, ControllerConfig, Step
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as HostController
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.spec.nvm import Read
from nvmelab.spec.registers import CQE_SIZE, SQE_SIZE
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

Label = tuple[str, int]
Snapshot = tuple[Any, ...]
Key = tuple[Any, ...]

SUBMIT: Label = ("submit", 0)
REAP: Label = ("reap", 0)
_MEMORY = 1 << 20
_FINISH = Step("finish")


class System:
    """One queue pair of `entries` each, and a driver that trusts SQHD and so over-commits it.

    `commands` is how many the driver submits; None is any number. Each reads one block into the
    one buffer. `controller` is the class of the device, for one with a planted fault.
    """

    def __init__(
        self,
        persona: Persona,
        *,
        entries: int,
        commands: int | None = None,
        controller: type[Controller] = Controller,
    ) -> None:
        config = ControllerConfig(shadow_doorbells=not persona.wakeups, wakeups=persona.wakeups)
        self.commands = commands
        self._worker = HeldWorker()
        backend = RamBackend(1 << 16)
        self.controller = controller(
            config, [Namespace(1, backend, "explore")], GuestMemory(), worker=self._worker
        )
        link = InprocLink(NvmeFunction(self.controller), size=_MEMORY, storage=self._worker)
        driver = HostController(link)
        driver.start(io_queues=1)
        qpair = driver.create_qpair(entries=entries, flow="sqhd", release="entry")
        self._host_sq, self._host_cq = qpair.sq, qpair.cq
        self._sq, self._cq = self.controller.sqs[1], self.controller.cqs[1]
        self._keep = driver.buffer(512)
        self._command = Read(nsid=1, slba=0, nlb=1, prp1=self._keep.addr).encode()
        self._worker.hold = True
        (self._sq_ring,) = link.memory.views(qpair.sq.base, entries * SQE_SIZE, write=True)
        (self._cq_ring,) = link.memory.views(qpair.cq.base, entries * CQE_SIZE, write=True)
        self._sqhds = self._cq_ring.cast("H")[4::8]

    # Steps.

    @property
    def outstanding(self) -> int:
        """Commands submitted and not reaped."""
        return len(self._host_sq.outstanding)

    def enabled(self) -> list[Label]:
        """The labels of the steps that could be taken now, in a fixed order for equal states."""
        labels: list[Label] = []
        if self._host_sq.room and (self.commands is None or self._submitted < self.commands):
            labels.append(SUBMIT)
        device = [step for step in self.controller.enabled() if step.id or step.name == "pass"]
        labels += [(step.name, step.id) for step in device if step.name != "post"]
        labels += [("complete", k) for k in range(len(self._worker.waiting))]
        labels += [(step.name, step.id) for step in device if step.name == "post"]
        if self._host_cq.ready:
            labels.append(REAP)
        return labels

    def take(self, label: Label) -> None:
        """Take one step that `enabled` lists."""
        name, number = label
        if name == "submit":
            self._host_sq.submit(self._command)
        elif name == "reap":
            self._host_cq.reap(1)
        elif name == "complete":
            self._worker.release(number)
            self.controller.take(_FINISH)
        elif self.controller.bottom_halves:
            self.controller.take(Step(name, number))
        elif name == "fetch":
            self.controller.fetch_run(self._sq)
        else:
            self.controller.post_run(self._cq)

    @property
    def _submitted(self) -> int:
        return self._host_cq.reaped + len(self._host_sq.outstanding)

    # States.

    def save(self) -> Snapshot:
        """What the steps of a device that stays alive change, as values. The life cycle, the error
        log and the statistics are left out: a path on which the controller fails, or is rung with a
        value that cannot be, is not undone in full."""
        halves = self.controller.bottom_halves
        return (
            self._host_sq.save(),
            self._host_cq.save(),
            self._sq.save(),
            self._cq.save(),
            tuple(self._worker.waiting),
            tuple(halves.scheduled) if halves else (),
            self.controller.in_worker,
            self._sq_ring.tobytes(),
            self._cq_ring.tobytes(),
        )

    def load(self, snapshot: Snapshot) -> None:
        """Be as at the `save` that gave this."""
        host_sq, host_cq, sq, cq, waiting, scheduled, in_worker, sq_ring, cq_ring = snapshot
        self._host_sq.load(host_sq)
        self._host_cq.load(host_cq)
        self._sq.load(sq)
        self._cq.load(cq)
        self._worker.waiting[:] = waiting
        halves = self.controller.bottom_halves
        if halves:
            halves.scheduled[:] = scheduled
        self.controller.in_worker = in_worker
        self._sq_ring[:] = sq_ring
        self._cq_ring[:] = cq_ring

    def relative_key(self) -> Key:
        """What tells states apart whose future differs on a device that keeps to its rings: equal
        for states that differ by a rotation of the rings. It may find; it may never prove, because
        it has no phase tags and no ring positions."""
        sq, cq, host_sq, host_cq = self._sq, self._cq, self._host_sq, self._host_cq
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
        return (
            (sq.tail - head) % size,
            (head - host_sq.head) % size,
            len(self._worker.waiting),
            len(cq.finished),
            scheduled,
            tuple(lags),
            -1 if self.commands is None else self._submitted,
        )

    def sound_key(self) -> Key:
        """As `relative_key`, with what it leaves out: ring positions, the phase both sides are at,
        and the phase tag of every entry. Commands are interchangeable: which CID is where counts
        only if one is in no place or in two, which the queues refuse. It leaves out the contents of
        submission queue entries, which matter to a device that fetches one twice."""
        tags = self._cq_ring.cast("H")[7::8].tolist()
        return (
            self.relative_key(),
            self._sq.head,
            self._host_sq.tail,
            self._cq.tail,
            self._cq.head,
            self._cq.phase,
            self._host_cq.phase,
            tuple(tag & 1 for tag in tags),
        )
