"""Logs of our own device whose steps were taken in an order that was drawn from a seed, without the
lines of its entries: admin commands are fetched together, and nothing says which of them an event
is of."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import Verdict, judge
from nvmelab.corpus.breaches.device import FetchesTwice
from nvmelab.device.controller import Controller as Device
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.queues import Pending
from nvmelab.pair import Pair, workload
from nvmelab.schedule import Schedule
from nvmelab.spec.admin import DeleteIoCq, DeleteIoSq, GetFeatures
from nvmelab.spec.features import Feature
from nvmelab.trace.events import OURS
from nvmelab.trace.qemu_log import QemuLogWriter
from nvmelab.trace.qemu_reader import read_log


def drawn(seed: int) -> type[Device]:
    """A controller that takes its steps as that seed says."""

    class Drawn(Device):
        schedule = Schedule(seed, "", {})

        def run(self) -> bool:
            return self.schedule.turn(self)

    return Drawn


def together(nvme: Driver) -> None:
    """Queues are deleted as Linux does it, all of a kind at once, with other commands beside."""
    nvme.start(io_queues=4)
    for _ in range(2):
        queues = [nvme.create_qpair(entries=4) for _ in range(3)]
        for queue in queues:
            queue.read(slba=0).check()
        for kind, qids in (
            (DeleteIoSq, [queue.qid for queue in queues]),
            (DeleteIoCq, [queue.cq.qid for queue in queues]),
        ):
            pending: list[Pending] = []
            for qid in qids:
                pending.append(nvme.admin.submit(kind(qid=qid)))
                pending.append(nvme.admin.submit(GetFeatures(fid=Feature.ARBITRATION)))
            for one in pending:
                one.check()
        nvme.sqs.clear()
        nvme.cqs.clear()


def read_back(log: str) -> tuple[Verdict, Verdict]:
    """At its end, and declared hung there."""
    monitor = Monitor()
    read_log([log.encode()], monitor.handlers)
    return judge(monitor, rest=False), judge(monitor, rest=True, time_of=lambda _line: 0.0)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("act", [workload, together])
def test_nobody_is_accused_of_what_a_log_without_entries_does_not_show(
    act: Callable[[Driver], None], seed: int
) -> None:
    pair = Pair(drawn(seed))
    file = io.StringIO()
    write = QemuLogWriter(file)
    live = pair.live.emit

    def emit(name: str, *values: object) -> None:
        live(name, *values)
        if name not in OURS:
            write(name, values)

    pair.device.trace = emit
    act(pair.driver)
    pair.driver.link.settle()
    for said in (pair.verdict(rest=True), *read_back(file.getvalue())):
        assert (said.verdict, said.findings) == ("clean", [])


@pytest.mark.parametrize("seed", range(8))
def test_a_driver_is_not_accused_of_an_entry_that_the_device_fetches_twice(seed: int) -> None:
    class Drawn(FetchesTwice):
        schedule = Schedule(seed, "", {})

        def run(self) -> bool:
            return self.schedule.turn(self)

    pair = Pair(Drawn)
    pair.run(workload)
    findings = pair.verdict(rest=False).findings
    assert {finding.party for finding in findings} == {"device"}
