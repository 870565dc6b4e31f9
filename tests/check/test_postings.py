"""Completions whose entries show, of a device of ours."""

from __future__ import annotations

from nvmelab.host.cids import dense
from nvmelab.pair import Pair


def test_equal_cids_of_two_queues_may_end_in_any_order() -> None:
    """What tells that a command is done names no submission queue; its entry does."""
    pair = Pair()
    nvme = pair.driver
    nvme.start(io_queues=4)
    first = nvme.create_qpair(entries=4)
    second = nvme.create_sq(entries=4, cq=first.cq, cids=dense())
    storage = nvme.link.storage
    assert storage
    storage.hold = True
    early, late = first.read(slba=0, nlb=8), second.read(slba=0, nlb=8)
    assert early.cid == late.cid
    nvme.link.settle()
    storage.release(1)
    late.check()
    between = pair.verdict(rest=True)
    assert (between.verdict, [part.sqid for part in between.stuck]) == ("device", [1])
    storage.release(0)
    early.check()
    verdict = pair.verdict(rest=True)
    assert (verdict.verdict, verdict.findings, verdict.stuck) == ("clean", [], [])
