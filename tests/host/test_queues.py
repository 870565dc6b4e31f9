"""Rings by themselves: the device's side is written by hand."""

from __future__ import annotations

import struct
from collections.abc import Container

import pytest

from nvmelab.host.cids import CidPolicy, dense, drawn, sparse
from nvmelab.host.errors import DeviceError
from nvmelab.host.queues import CompletionQueue
from nvmelab.spec.admin import Identify
from nvmelab.spec.commands import Completion
from nvmelab.spec.nvm import Flush
from nvmelab.spec.registers import DOORBELLS
from tests.host.conftest import DeadLink, rings

SQ_1, CQ_1 = DOORBELLS + 8, DOORBELLS + 12


def post(
    link: DeadLink,
    cq: CompletionQueue,
    slot: int,
    cid: int,
    phase: int,
    sqhd: int = 0,
    sqid: int = 1,
) -> None:
    entry = Completion(cid=cid, phase=phase, sqhd=sqhd, sqid=sqid).encode()
    link.memory.write(cq.base + 16 * slot, entry)


# Submission.


@pytest.mark.parametrize("entries", [2, 3, 64])
def test_inflight_queue_is_full_with_one_command_less_than_its_entries(entries: int) -> None:
    sq = rings(DeadLink(), entries)
    for _ in range(entries - 1):
        assert sq.room
        sq.submit(Flush())
    assert not sq.room and len(sq.outstanding) == entries - 1


def test_inflight_queue_has_no_room_before_a_command_is_complete() -> None:
    link = DeadLink()
    sq = rings(link, 3)
    for cid in range(2):
        sq.submit(Flush(), cid=cid)
    post(link, sq.cq, 0, 1, 1, sqhd=2)
    sq.cq.reap()
    assert sq.room
    sq.submit(Flush(), cid=5)
    assert not sq.room, "CID 0 is outstanding, although its entry was fetched"


def test_sqhd_queue_has_room_as_soon_as_entries_were_fetched() -> None:
    link = DeadLink()
    sq = rings(link, 3, 8, flow="sqhd")
    for cid in range(2):
        sq.submit(Flush(), cid=cid)
    assert not sq.room
    post(link, sq.cq, 0, 0, 1, sqhd=2)
    sq.cq.reap()
    for cid in (2, 3):
        assert sq.room
        sq.submit(Flush(), cid=cid)
    assert not sq.room and len(sq.outstanding) == 3, "as many as the ring has entries"


def test_sqhd_queue_gets_no_room_from_a_completion_that_moves_no_head() -> None:
    link = DeadLink()
    sq = rings(link, 3, 8, flow="sqhd")
    for cid in range(2):
        sq.submit(Flush(), cid=cid)
    post(link, sq.cq, 0, 0, 1, sqhd=0)
    sq.cq.reap()
    assert not sq.room


def test_submission_rings_the_new_tail_after_the_entry_is_written() -> None:
    link = DeadLink()
    sq = rings(link, 3, qid=2)
    sq.submit(Flush(nsid=1), cid=5)
    assert link.written == [(DOORBELLS + 16, 1)]
    assert link.memory.read(sq.base, 8) == struct.pack("<II", 5 << 16, 1)


def test_queue_that_does_not_ring_for_each_rings_once_for_all() -> None:
    link = DeadLink()
    sq = rings(link, 8, ring_each=False)
    for _ in range(3):
        sq.submit(Flush())
    assert link.written == []
    sq.ring()
    sq.ring()
    assert link.written == [(SQ_1, 3)]


def test_tail_wraps_to_zero() -> None:
    link = DeadLink()
    sq = rings(link, 2, 4)
    for slot in range(2):
        sq.submit(Flush(), cid=slot)
        post(link, sq.cq, slot, slot, 1, sqhd=(slot + 1) % 2)
        sq.cq.reap()
    assert [value for offset, value in link.written if offset == SQ_1] == [1, 0]


def test_submission_to_a_full_queue_is_our_own_mistake() -> None:
    sq = rings(DeadLink(), 2)
    sq.submit(Flush())
    with pytest.raises(AssertionError):
        sq.submit(Flush())


def test_cid_that_is_in_use_is_our_own_mistake() -> None:
    sq = rings(DeadLink(), 4)
    sq.submit(Flush(), cid=1)
    with pytest.raises(AssertionError):
        sq.submit(Identify(), cid=1)


# Completion.


def test_entries_are_released_with_one_write_of_the_head() -> None:
    link = DeadLink()
    sq = rings(link, 8)
    for cid in range(3):
        sq.submit(Flush(), cid=cid)
        post(link, sq.cq, cid, cid, 1)
    link.written.clear()
    assert [done.cid for done in sq.cq.reap()] == [0, 1, 2]
    assert link.written == [(CQ_1, 3)]


def test_each_entry_is_released_before_the_next_is_looked_at() -> None:
    link = DeadLink()
    sq = rings(link, 8, release="entry")
    for cid in range(3):
        sq.submit(Flush(), cid=cid)
        post(link, sq.cq, cid, cid, 1)
    link.written.clear()
    sq.cq.reap()
    assert link.written == [(CQ_1, 1), (CQ_1, 2), (CQ_1, 3)]


def test_held_entries_are_released_by_ring_alone() -> None:
    link = DeadLink()
    sq = rings(link, 8, release="held")
    sq.submit(Flush(), cid=0)
    post(link, sq.cq, 0, 0, 1)
    link.written.clear()
    sq.cq.reap()
    assert link.written == []
    sq.cq.ring()
    assert link.written == [(CQ_1, 1)]


def test_no_more_is_reaped_than_asked_for() -> None:
    link = DeadLink()
    sq = rings(link, 8)
    for cid in range(3):
        sq.submit(Flush(), cid=cid)
        post(link, sq.cq, cid, cid, 1)
    assert [[done.cid for done in sq.cq.reap(2)] for _ in range(3)] == [[0, 1], [2], []]


def test_nothing_is_released_when_nothing_was_posted() -> None:
    link = DeadLink()
    assert (rings(link, 4).cq.reap(), link.written) == ([], [])


def test_phase_inverts_when_the_ring_wraps() -> None:
    link = DeadLink()
    sq = rings(link, 4, 2)
    for turn, phase in enumerate((1, 1, 0, 0, 1)):
        sq.submit(Flush(), cid=turn)
        assert sq.cq.reap() == [], "the entry there is of the round before"
        post(link, sq.cq, turn % 2, turn, phase, sqhd=(turn + 1) % 4)
        assert [done.cid for done in sq.cq.reap()] == [turn]


def test_queue_with_interrupts_is_served_only_after_its_vector_was_raised() -> None:
    link = DeadLink()
    sq = rings(link, 4, interrupts=True)
    sq.submit(Flush(), cid=0)
    post(link, sq.cq, 0, 0, 1)
    sq.cq.service()
    assert sq.outstanding
    link.raised.add(1)
    sq.cq.service()
    assert not sq.outstanding


# Completions that no device may post.


def test_completion_of_a_cid_that_is_not_in_use_is_the_devices_error() -> None:
    link = DeadLink()
    sq = rings(link, 4)
    sq.submit(Flush(), cid=1)
    post(link, sq.cq, 0, 2, 1)
    with pytest.raises(DeviceError, match=r"no outstanding command with the CID 0x2") as caught:
        sq.cq.reap()
    assert caught.value.ref == "Base 2.2, 4.2.1 (CID)"


def test_second_completion_of_a_command_is_the_devices_error() -> None:
    link = DeadLink()
    sq = rings(link, 4)
    sq.submit(Flush(), cid=1)
    post(link, sq.cq, 0, 1, 1)
    post(link, sq.cq, 1, 1, 1)
    with pytest.raises(DeviceError, match="CID 0x1"):
        sq.cq.reap()


def test_completion_for_another_submission_queue_is_the_devices_error() -> None:
    link = DeadLink()
    sq = rings(link, 4)
    sq.submit(Flush(), cid=1)
    post(link, sq.cq, 0, 1, 1, sqid=2)
    with pytest.raises(DeviceError, match="SQ 2, which is not bound to it"):
        sq.cq.reap()


@pytest.mark.parametrize(("sqhd", "why"), [(4, "has 4 entries"), (2, "past the 1 entries")])
def test_head_that_cannot_be_is_the_devices_error(sqhd: int, why: str) -> None:
    link = DeadLink()
    sq = rings(link, 4)
    sq.submit(Flush(), cid=1)
    post(link, sq.cq, 0, 1, 1, sqhd=sqhd)
    with pytest.raises(DeviceError, match=why):
        sq.cq.reap()


# Command identifiers.


@pytest.mark.parametrize("policy", [dense(), sparse(), drawn(1)])
def test_policy_never_gives_a_cid_that_is_in_use(policy: CidPolicy) -> None:
    used: set[int] = set()
    for _ in range(500):
        cid = policy(used)
        assert 0 <= cid <= 0xFFFF and cid not in used
        used.add(cid)


def test_dense_cids_are_the_smallest() -> None:
    policy = dense()
    in_use: Container[int] = {0, 1, 3}
    assert policy(in_use) == 2


def test_sparse_cids_use_the_high_bits_soon() -> None:
    policy = sparse()
    assert len({policy(set()) >> 12 for _ in range(16)}) == 16


def test_drawn_cids_depend_on_the_seed_alone() -> None:
    first, second = drawn(7), drawn(7)
    assert [first(set()) for _ in range(20)] == [second(set()) for _ in range(20)]
