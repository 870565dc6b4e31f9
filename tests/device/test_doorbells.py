"""Doorbell writes, valid and not."""

from __future__ import annotations

import struct

import pytest

from nvmelab.limits import ASYNC_EVENT_REQUESTS_MAX
from nvmelab.spec.admin import AsyncEventRequest, DeleteIoSq, GetFeatures, GetLogPage
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.nvm import Flush
from tests.device.conftest import PAGE, Bench, HostSq

NO_SUCH_REGISTER = 0x01_00_00  # log page 1, information 0, type 0: error
BAD_VALUE = 0x01_01_00
SQ1, CQ1 = 0x1008, 0x100C


def watched(entries: int = 4, requests: int = 1) -> tuple[Bench, HostSq]:
    """A controller with queue pair 1 and parked Asynchronous Event Requests with CID 100, ..."""
    bench = Bench(io_queues=4)
    bench.enable()
    pair = bench.create_pair(1, entries=entries)
    bench.admin.submit(*[AsyncEventRequest(cid=100 + i) for i in range(requests)])
    bench.settle()
    bench.traced()
    return bench, pair


def told(bench: Bench) -> list[tuple[int, int, int]]:
    """(CID, status, DW0) of what comes to the admin completion queue."""
    bench.settle()
    return [(done.cid, done.status, done.dw0) for done in bench.admin_cq.reap()]


# Valid.


@pytest.mark.parametrize("high", [0x0001_0000, 0xFFFF_0000])
def test_reserved_bits_of_a_doorbell_are_ignored(high: int) -> None:
    bench, pair = watched()
    pair.put(Flush(cid=1, nsid=1))
    pair.ring(high | 1)
    bench.settle()
    assert [done.cid for done in pair.cq.reap(release=False)] == [1]
    pair.cq.ring(high | 1)
    assert told(bench) == []


def test_one_ring_may_announce_every_free_entry() -> None:
    bench, pair = watched(entries=5)
    pair.submit(*[Flush(cid=cid, nsid=1) for cid in range(4)])
    bench.settle()
    assert [done.cid for done in pair.cq.reap()] == [0, 1, 2, 3]


def test_rings_that_come_before_any_fetch_add_up() -> None:
    bench, pair = watched(entries=5)
    pair.submit(Flush(cid=1, nsid=1))
    pair.submit(Flush(cid=2, nsid=1), Flush(cid=3, nsid=1))
    bench.settle()
    assert [done.cid for done in pair.cq.reap()] == [1, 2, 3]


def test_ring_may_wrap() -> None:
    bench, pair = watched(entries=3)
    bench.execute(Flush(cid=1, nsid=1), pair)
    pair.submit(Flush(cid=2, nsid=1), Flush(cid=3, nsid=1))
    bench.settle()
    assert ([done.cid for done in pair.cq.reap()], pair.tail) == ([2, 3], 0)


def test_entry_written_and_not_rung_is_not_taken() -> None:
    bench, pair = watched()
    pair.put(Flush(cid=1, nsid=1))
    bench.settle()
    assert (pair.cq.reap(), bench.enabled()) == ([], [])


def test_repeated_value_of_a_tail_is_no_event_and_no_command() -> None:
    bench, pair = watched()
    bench.execute(Flush(nsid=1), pair)
    pair.ring()
    assert (told(bench), pair.cq.reap()) == ([], [])


def test_repeated_value_of_a_head_is_no_event() -> None:
    bench, pair = watched()
    bench.execute(Flush(nsid=1), pair)
    pair.cq.release()
    assert told(bench) == []


def test_valid_doorbells_are_traced() -> None:
    bench, pair = watched()
    bench.execute(Flush(nsid=1), pair)
    assert bench.traced("mmio_doorbell_sq", "mmio_doorbell_cq", "mmio_write") == [
        ("mmio_write", (SQ1, 1, 4)),
        ("mmio_doorbell_sq", (1, 1)),
        ("mmio_write", (CQ1, 1, 4)),
        ("mmio_doorbell_cq", (1, 1)),
    ]


# Invalid registers.


@pytest.mark.parametrize("offset", [0x1010, 0x1014, 0x1018, 0x1020, 0x1024])
def test_doorbell_of_no_queue_is_an_event(offset: int) -> None:
    bench, _ = watched()
    bench.write(offset, 0)
    assert told(bench) == [(100, 0, NO_SUCH_REGISTER)]


def test_tail_doorbell_of_a_completion_queue_without_submission_queue_is_an_event() -> None:
    bench, _ = watched()
    bench.create_cq(2, entries=4)
    bench.write(0x1010, 1)
    assert told(bench) == [(100, 0, NO_SUCH_REGISTER)]


def test_doorbell_of_a_deleted_queue_is_an_event() -> None:
    bench, pair = watched()
    bench.execute(DeleteIoSq(qid=1))
    pair.ring(1)
    assert told(bench) == [(100, 0, NO_SUCH_REGISTER)]


@pytest.mark.parametrize("offset", [0x1001, 0x1009, 0x100A, 0x100E])
def test_misaligned_doorbell_is_an_event_and_changes_no_queue(offset: int) -> None:
    bench, pair = watched()
    bench.write(offset, 1, 1)
    assert told(bench) == [(100, 0, NO_SUCH_REGISTER)]
    assert bench.execute(Flush(cid=9, nsid=1), pair).cid == 9


@pytest.mark.parametrize(
    ("offset", "value", "event"),
    [
        (0x1010, 1, ("ub_db_wr_invalid_sq", (2,))),
        (0x1014, 1, ("ub_db_wr_invalid_cq", (2,))),
        (SQ1, 4, ("ub_db_wr_invalid_sqtail", (1, 4))),
        (CQ1, 4, ("ub_db_wr_invalid_cqhead", (1, 4))),
        (CQ1, 1, ("ub_db_wr_invalid_cqhead", (1, 1))),
    ],
)
def test_invalid_doorbell_is_traced(
    offset: int, value: int, event: tuple[str, tuple[int, ...]]
) -> None:
    bench, _ = watched()
    bench.write(offset, value)
    events = bench.traced()
    assert events[1] == event
    assert not any(name.startswith("mmio_doorbell") for name, _ in events)


# Invalid values of a tail.


@pytest.mark.parametrize("value", [4, 5, 0x7FFF, 0xFFFF])
def test_tail_outside_the_ring_is_an_event(value: int) -> None:
    bench, pair = watched(entries=4)
    pair.ring(value)
    assert told(bench) == [(100, 0, BAD_VALUE)]


@pytest.mark.parametrize(("head", "tail", "value"), [(0, 2, 1), (0, 2, 0), (0, 3, 2), (2, 0, 3)])
def test_tail_that_moves_back_or_beyond_the_free_entries_is_an_event(
    head: int, tail: int, value: int
) -> None:
    bench, pair = watched(entries=4)
    for cid in range(head):
        bench.execute(Flush(cid=cid, nsid=1), pair)
    pair.ring(tail)
    pair.ring(value)
    assert told(bench)[-1] == (100, 0, BAD_VALUE)


def test_nothing_more_is_taken_from_a_queue_with_an_invalid_tail() -> None:
    bench, pair = watched(entries=4)
    pair.submit(Flush(cid=1, nsid=1))
    pair.ring(9)
    pair.submit(Flush(cid=2, nsid=1))
    bench.settle()
    assert pair.cq.reap() == []


def test_command_fetched_before_an_invalid_tail_is_completed() -> None:
    bench, pair = watched(entries=4)
    pair.submit(Flush(cid=1, nsid=1))
    bench.step("fetch", 1)
    pair.ring(9)
    bench.settle()
    assert [done.cid for done in pair.cq.reap()] == [1]


def test_other_queues_go_on_after_an_invalid_tail() -> None:
    bench, pair = watched(entries=4)
    other = bench.create_sq(2, entries=4, cq=pair.cq)
    pair.ring(9)
    bench.settle()
    assert bench.execute(Flush(cid=5, nsid=1), other).cid == 5
    assert bench.csts.cfs == 0


def test_queue_with_an_invalid_tail_works_again_once_recreated() -> None:
    bench, pair = watched(entries=4)
    pair.ring(9)
    told(bench)
    assert bench.execute(DeleteIoSq(qid=1)).status == 0
    again = bench.create_sq(1, entries=4, cq=pair.cq)
    assert bench.execute(Flush(cid=3, nsid=1), again).cid == 3


def test_invalid_tail_of_the_admin_queue_is_told_to_a_parked_request() -> None:
    bench, _ = watched()
    bench.admin.ring(32)
    assert told(bench) == [(100, 0, BAD_VALUE)]


# Invalid values of a head.


@pytest.mark.parametrize("value", [4, 0xFFFF])
def test_head_outside_the_ring_is_an_event(value: int) -> None:
    bench, pair = watched(entries=4)
    pair.cq.ring(value)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_head_of_an_empty_queue_that_moves_is_an_event() -> None:
    bench, pair = watched(entries=4)
    pair.cq.ring(1)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_head_beyond_the_posted_entries_is_an_event() -> None:
    bench, pair = watched(entries=4)
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    pair.cq.ring(2)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_head_that_moves_back_is_an_event() -> None:
    bench, pair = watched(entries=4)
    for cid in range(2):
        bench.execute(Flush(cid=cid, nsid=1), pair)
    pair.cq.ring(1)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_invalid_head_gives_no_room() -> None:
    bench, pair = watched(entries=2)
    for cid in range(2):
        pair.submit(Flush(cid=cid, nsid=1))
        bench.settle()
    pair.cq.ring(5)
    bench.settle()
    assert [done.cid for done in pair.cq.reap(release=False)] == [0]


# The events.


def test_event_waits_for_a_request() -> None:
    bench, pair = watched(requests=0)
    pair.ring(9)
    bench.settle()
    bench.admin.submit(AsyncEventRequest(cid=7))
    assert told(bench) == [(7, 0, BAD_VALUE)]


def test_mistake_while_bus_mastering_is_off_is_told_when_it_is_on_again() -> None:
    bench, pair = watched()
    bench.bus_master(False)
    pair.ring(9)
    bench.settle()
    bench.bus_master(True)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_one_event_completes_one_request() -> None:
    bench, pair = watched(requests=3)
    pair.ring(9)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_same_mistake_again_is_told_once_until_the_log_page_is_read() -> None:
    bench, pair = watched(requests=2)
    pair.ring(9)
    pair.ring(9)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_error_event_is_told_again_after_the_log_page_was_read() -> None:
    bench, pair = watched(requests=2)
    pair.ring(9)
    told(bench)
    page = bench.allocate(PAGE)
    bench.execute(GetLogPage(cid=1, lid=LogPage.ERROR_INFORMATION, numd=16, prp1=page))
    pair.ring(9)
    assert told(bench) == [(101, 0, BAD_VALUE)]


def test_log_page_read_with_retain_leaves_the_event_masked() -> None:
    bench, pair = watched(requests=2)
    pair.ring(9)
    told(bench)
    page = bench.allocate(PAGE)
    bench.execute(GetLogPage(cid=1, lid=LogPage.ERROR_INFORMATION, numd=16, rae=1, prp1=page))
    pair.ring(9)
    assert told(bench) == []


def test_event_whose_log_page_was_read_before_a_request_came_is_not_told() -> None:
    bench, pair = watched(requests=0)
    pair.ring(9)
    page = bench.allocate(PAGE)
    bench.execute(GetLogPage(cid=1, lid=LogPage.ERROR_INFORMATION, numd=16, prp1=page))
    bench.admin.submit(AsyncEventRequest(cid=7))
    assert told(bench) == []


def test_error_log_counts_the_mistakes_newest_first() -> None:
    bench, pair = watched(requests=0)
    pair.ring(9)
    bench.write(0x1018, 1)
    page = bench.allocate(PAGE)
    bench.execute(GetLogPage(cid=1, lid=LogPage.ERROR_INFORMATION, numd=48, prp1=page))
    entries = struct.iter_unpack("<QH54x", bench.memory.read(page, 192))
    assert list(entries) == [(2, 0xFFFF), (1, 1), (0, 0)]


def test_request_above_the_limit_is_refused_and_the_others_stay() -> None:
    bench, pair = watched(requests=ASYNC_EVENT_REQUESTS_MAX + 1)
    assert told(bench) == [(100 + ASYNC_EVENT_REQUESTS_MAX, 0x105 | 1 << 14, 0)]
    pair.ring(9)
    assert told(bench) == [(100, 0, BAD_VALUE)]


def test_flood_of_mistakes_does_not_stop_the_controller() -> None:
    bench, pair = watched(requests=0)
    for value in range(4, 1000):
        pair.ring(value)
        bench.write(0x1010 + 8 * (value % 2), value)
    bench.settle()
    assert bench.execute(GetFeatures(fid=1)).status == 0
