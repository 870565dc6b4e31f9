"""Entries that are posted, of a real driver and a real controller: which command each is of."""

from __future__ import annotations

from nvmelab.corpus.faults import CompletesTwice
from nvmelab.host.driver import Controller as Driver
from nvmelab.pair import Pair


def ignores_what_it_does_not_know(nvme: Driver) -> None:
    """As Linux does: an entry that is of no command is released like others."""
    nvme.start(io_queues=4)
    queue = nvme.create_qpair(entries=4)
    for number in range(2):
        queue.read(slba=number)
    nvme.link.settle()
    while queue.cq.take():
        pass
    queue.cq.ring()
    nvme.link.settle()


def test_who_releases_an_entry_that_should_not_be_is_not_accused_of_it() -> None:
    pair = Pair(CompletesTwice)
    ignores_what_it_does_not_know(pair.driver)
    verdict = pair.verdict(rest=False)
    assert {finding.rule for finding in verdict.findings} == {"cq.unknown-command"}
    assert verdict.verdict == "device"


def test_two_queues_of_one_completion_queue_may_use_the_same_cid() -> None:
    pair = Pair()
    nvme = pair.driver
    nvme.start(io_queues=4)
    first = nvme.create_qpair(entries=4)
    second = nvme.create_sq(entries=4, cq=first.cq)
    storage = nvme.link.storage
    assert storage
    storage.hold = True
    pending = [queue.read(slba=0) for queue in (first, second)]
    nvme.link.settle()
    for number in (1, 0):  # the later one ends first
        storage.release(number)
        nvme.link.settle()
    assert [one.check().cid for one in pending] == [0, 0]
    assert [one.check().sqid for one in pending] == [first.qid, second.qid]
    nvme.link.settle()
    verdict = pair.verdict(rest=True)
    assert (verdict.verdict, verdict.findings, verdict.in_flight) == ("clean", [], 0)
