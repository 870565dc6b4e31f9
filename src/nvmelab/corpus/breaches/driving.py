"""What the breaches of drivers have in common: a driver, and ways to make it do wrong."""

from __future__ import annotations

from collections.abc import Callable

from nvmelab.corpus.breaches.breach import Breach
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.qpair import Qpair
from nvmelab.spec.commands import Command


def planted(rule: str, act: Callable[[Driver], None]) -> Breach:
    """The breach that is named as the function."""
    return Breach(act.__name__.replace("_", "-"), rule, "driver", act)


def started(nvme: Driver) -> Qpair:
    """A queue pair of 4 entries, after some I/O."""
    nvme.start(io_queues=4)
    queue = nvme.create_qpair(entries=4, interrupts=True)
    for number in range(5):
        queue.read(slba=number).check()
    return queue


def ring_tail(nvme: Driver, sqid: int, value: int) -> None:
    nvme.doorbells.write(2 * sqid, value)


def ring_head(nvme: Driver, cqid: int, value: int) -> None:
    nvme.doorbells.write(2 * cqid + 1, value)


def submit(nvme: Driver, command: Command | bytes) -> None:
    """An admin command, whatever comes of it."""
    nvme.admin.submit(command)
    nvme.link.settle()
    nvme.admin.cq.reap()


def memory(nvme: Driver, pages: int = 1) -> int:
    return nvme.link.allocate(pages * 4096)
