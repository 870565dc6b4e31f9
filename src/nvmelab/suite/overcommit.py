"""The load that made QEMU's device forget a rung submission queue for 11 years (QEMU issue 2388).

A driver whose submission queue is full only by the SQ Head Pointer it was told last fills it again
as soon as the device has fetched, so more commands are outstanding than the queue has entries. That
is legal (Base 2.2, 3.3.1.2 and 4.2.1). Completions are held back and released in an order drawn
from a seed; every burst ends in silence: the driver has nothing more to submit. Whatever was rung
must be completed then, because nobody will ring again.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from nvmelab.host.driver import Controller
from nvmelab.host.qpair import Qpair
from nvmelab.host.queues import Pending
from nvmelab.link.base import Storage
from nvmelab.suite.base import Bench, check

Order = Callable[[random.Random, int], int]
"""Which of that many held operations, counted from the oldest, is released next."""

ORDERS: dict[str, Order] = {
    "oldest first": lambda _source, _held: 0,
    "newest first": lambda _source, held: held - 1,
    "any": lambda source, held: source.randrange(held),
}
BURSTS = 6


class Run(msgspec.Struct, frozen=True):
    """What became of one run."""

    hang: bool
    commands: int
    """Submitted."""
    most_outstanding: int
    state: str
    """Of every ring, where it hung."""


def overcommit(
    controller: Controller, *, entries: int, cq_entries: int, seed: int, bursts: int = BURSTS
) -> Run:
    """Run the load on a new queue pair of a started controller whose link has a hand on the
    storage. Raises DeviceError if a command fails or the device breaks another rule."""
    storage = controller.link.storage
    assert storage, "the link has no hand on the storage"
    source = random.Random(f"{seed}/{entries}/{cq_entries}")
    load = _Load(controller, storage, source, entries, cq_entries)
    storage.hold = True
    try:
        if not all(load.burst() for _ in range(bursts)):
            return load.report(hang=True)
        controller.delete_qpair(load.qpair)
        return load.report(hang=False)
    finally:
        storage.let_go()


class _Load:
    """One queue pair under that load."""

    def __init__(
        self,
        controller: Controller,
        storage: Storage,
        source: random.Random,
        entries: int,
        cq_entries: int,
    ) -> None:
        self._link = controller.link
        self._storage = storage
        self._source = source
        self._namespaces = controller.active_namespaces()
        self.qpair: Qpair = controller.create_qpair(
            entries=entries, cq_entries=cq_entries, flow="sqhd", release="entry"
        )
        self._buffer = controller.buffer(512)
        self._commands = 0
        self._most = 0

    def burst(self) -> bool:
        """Submit some commands as fast as there is room, until all are done. False if they never
        are."""
        entries = self.qpair.sq.entries
        # The first burst is the plain one: enough commands to over-commit twice, oldest first.
        first = self._commands == 0
        order = ORDERS["oldest first" if first else self._source.choice(sorted(ORDERS))]
        spread = not first and self._source.random() < 0.5
        todo = self._source.randint(2 * entries, 3 * entries)
        eager = 1.0 if first else self._source.choice((1.0, 0.7))
        one_by_one = first or self._source.random() < 0.7
        pending: list[Pending] = []
        while todo or self.qpair.outstanding:
            while todo and self.qpair.sq.room and self._source.random() < eager:
                nsid = self._namespaces[len(pending) % len(self._namespaces)] if spread else 1
                pending.append(self._read(nsid))
                todo -= 1
            self._most = max(self._most, self.qpair.outstanding)
            self._link.settle()
            if self._storage.held():
                self._storage.release(order(self._source, self._storage.held()))
                self._link.settle()
                self.qpair.cq.reap(1 if one_by_one else None)
                continue
            idle = not self.qpair.cq.reap(1) and not (todo and self.qpair.sq.room)
            if idle and not self._at_last():
                return False
        for command in pending:
            command.check()
        return True

    def _read(self, nsid: int) -> Pending:
        self._commands += 1
        return self.qpair.read(nsid, slba=self._commands % 1024, buffer=self._buffer)

    def _at_last(self) -> bool:
        """Something comes after all: an operation of the storage, or a completion. Nothing is held
        back, and the driver has nothing left that it could submit."""
        storage, cq = self._storage, self.qpair.cq
        return self._link.wait(lambda: storage.held() > 0 or cq.peek() is not None)

    def report(self, *, hang: bool) -> Run:
        state = self.qpair.state() if hang else ""
        return Run(hang, self._commands, self._most, state)


REF = "Base 2.2, 3.3.1.2 (derived: entries below the tail that was rung are consumed)"


@check(
    "overcommit.silence",
    ref=REF,
    expected="every command completes although the driver rings no more: queues of 3 to 8 and 16, "
    "completion queues of the same size and of 16",
)
def silence(bench: Bench) -> None:
    """More commands outstanding than the queue has entries, then no further doorbell."""
    bench.storage()
    for entries in (3, 4, 5, 6, 7, 8, 16):
        for cq_entries in sorted({entries, 16}):
            if max(entries, cq_entries) > bench.nvme.cap.mqes:
                continue
            run = overcommit(
                bench.nvme, entries=entries, cq_entries=cq_entries, seed=bench.seed, bursts=2
            )
            bench.expect(
                not run.hang,
                f"after {run.commands} commands, at most {run.most_outstanding} outstanding, a "
                f"command that was rung is left behind: {run.state}",
            )


@check(
    "overcommit.every-order",
    ref=REF,
    expected="six commands in a queue of 3 entries complete, in whatever order their data comes",
)
def every_order(bench: Bench) -> None:
    """Every order in which the storage can finish the commands of an over-committed queue."""
    storage = bench.storage()
    for cq_entries in (3, 8):
        if max(3, cq_entries) > bench.nvme.cap.mqes:
            continue
        orders = _Orders()
        qpair = bench.nvme.create_qpair(entries=3, cq_entries=cq_entries, flow="sqhd")
        storage.hold = True
        try:
            while orders.begin():
                stuck = _one_order(bench, storage, qpair, orders)
                bench.expect(
                    not stuck,
                    f"with {cq_entries} CQ entries and completions released in the order "
                    f"{orders.words()} (1/3: the oldest of three), a command is left behind: "
                    f"{stuck}",
                )
        finally:
            storage.let_go()
        bench.nvme.delete_qpair(qpair)


class _Orders:
    """All sequences of choices, one after the other, each as a run that asks `choose`."""

    def __init__(self) -> None:
        self._choices: list[tuple[int, int]] = []
        """(chosen, of how many) of the run before, then of this one."""
        self._at = 0
        self._begun = False

    def begin(self) -> bool:
        """The next run; False if there is none left."""
        if self._begun:
            while self._choices and self._choices[-1][0] + 1 == self._choices[-1][1]:
                self._choices.pop()
            if not self._choices:
                return False
            chosen, options = self._choices.pop()
            self._choices.append((chosen + 1, options))
        self._begun, self._at = True, 0
        return True

    def choose(self, options: int) -> int:
        if self._at == len(self._choices):
            self._choices.append((0, options))
        self._at += 1
        return min(self._choices[self._at - 1][0], options - 1)

    def words(self) -> str:
        """Which of those that were held was released, each time: 1/3 is the oldest of three."""
        return " ".join(f"{chosen + 1}/{options}" for chosen, options in self._choices)


def _one_order(bench: Bench, storage: Storage, qpair: Qpair, orders: _Orders) -> str:
    """Six reads, the fewest that can hang, spread over the namespaces; where it hung, or nothing.

    To different namespaces, because QEMU's NBD client keeps the order of one connection.
    """
    namespaces = bench.nvme.active_namespaces()
    buffer = bench.nvme.buffer(4096)
    submitted = 0
    pending: list[Pending] = []
    while len(pending) < 6 or qpair.outstanding:
        while len(pending) < 6 and qpair.sq.room:
            nsid = namespaces[submitted % len(namespaces)]
            pending.append(qpair.read(nsid, slba=submitted, buffer=buffer))
            submitted += 1
        bench.link.settle()
        if storage.held():
            storage.release(orders.choose(storage.held()))
            bench.link.settle()
            qpair.cq.reap()
        elif not qpair.cq.reap() and not bench.link.wait(
            lambda: storage.held() > 0 or qpair.cq.peek() is not None
        ):
            return qpair.state()
    for command in pending:
        command.check()
    return ""
