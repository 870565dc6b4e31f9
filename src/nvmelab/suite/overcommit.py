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
        for _ in range(bursts):
            if not load.burst():
                return load.report(hang=True)
        return load.report(hang=False)
    finally:
        storage.hold = False
        while storage.held():
            storage.release()


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
        self._qpair: Qpair = controller.create_qpair(
            entries=entries, cq_entries=cq_entries, flow="sqhd", release="entry"
        )
        self._buffer = controller.buffer(512)
        self._commands = 0
        self._most = 0

    def burst(self) -> bool:
        """Submit some commands as fast as there is room, until all are done. False if they never
        are."""
        entries = self._qpair.sq.entries
        # The first burst is the plain one: enough commands to over-commit twice, oldest first.
        first = self._commands == 0
        order = ORDERS["oldest first" if first else self._source.choice(sorted(ORDERS))]
        spread = not first and self._source.random() < 0.5
        todo = self._source.randint(2 * entries, 3 * entries)
        eager = 1.0 if first else self._source.choice((1.0, 0.7))
        one_by_one = first or self._source.random() < 0.7
        pending: list[Pending] = []
        while todo or self._qpair.outstanding:
            while todo and self._qpair.sq.room and self._source.random() < eager:
                nsid = self._namespaces[len(pending) % len(self._namespaces)] if spread else 1
                pending.append(self._read(nsid))
                todo -= 1
            self._most = max(self._most, self._qpair.outstanding)
            self._link.settle()
            if self._storage.held():
                self._storage.release(order(self._source, self._storage.held()))
                self._link.settle()
                self._qpair.cq.reap(1 if one_by_one else None)
                continue
            idle = not self._qpair.cq.reap(1) and not (todo and self._qpair.sq.room)
            if idle and not self._at_last():
                return False
        for command in pending:
            command.check()
        return True

    def _read(self, nsid: int) -> Pending:
        self._commands += 1
        return self._qpair.read(nsid, slba=self._commands % 1024, buffer=self._buffer)

    def _at_last(self) -> bool:
        """Something comes after all: an operation of the storage, or a completion. Nothing is held
        back, and the driver has nothing left that it could submit."""
        storage, cq = self._storage, self._qpair.cq
        return self._link.wait(lambda: storage.held() > 0 or cq.peek() is not None)

    def report(self, *, hang: bool) -> Run:
        state = self._qpair.state() if hang else ""
        return Run(hang, self._commands, self._most, state)
