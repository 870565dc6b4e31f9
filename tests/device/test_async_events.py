"""Asynchronous Event Request, and the error events of bad doorbells. Base 2.2, 5.1.2."""

from __future__ import annotations

import pytest

from nvmelab.limits import ASYNC_EVENTS_QUEUED_MAX
from nvmelab.spec.admin import AsyncEventRequest, GetLogPage
from nvmelab.spec.commands import AdminOpcode, Completion
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.registers import DOORBELLS
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import NO_RAM, PAGE, RAM, Bench

REGISTER, VALUE = 0x01_00_00, 0x01_01_00
"""Dword 0 of error events: log page 01h, information, type 0."""
NO_QUEUE = DOORBELLS + 8 * 9


def enabled() -> Bench:
    bench = Bench()
    bench.enable()
    return bench


def park(bench: Bench, *cids: int) -> None:
    bench.admin.submit(*(AsyncEventRequest(cid=cid) for cid in cids))
    bench.settle()


def reap(bench: Bench) -> list[Completion]:
    bench.settle()
    return bench.admin_cq.reap()


def answers(bench: Bench) -> list[tuple[int, int, int]]:
    return [(done.cid, done.status, done.dw0) for done in reap(bench)]


def read_log(bench: Bench, lid: int = LogPage.ERROR_INFORMATION, **fields: int) -> int:
    """The status; the log page's own completion is taken away."""
    bench.admin.submit(GetLogPage(cid=0x99, lid=lid, **{"prp1": RAM + (6 << 20), **fields}))
    bench.settle()
    (done,) = bench.admin_cq.reap(1)
    assert done.cid == 0x99
    return done.status


# Requests.


def test_request_without_an_event_stays_parked() -> None:
    bench = enabled()
    park(bench, 1, 2, 3, 4)
    assert reap(bench) == []


def test_request_above_the_limit_is_refused_at_once() -> None:
    bench = enabled()
    park(bench, 1, 2, 3, 4, 5)
    wanted = Status.ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED | DNR
    assert answers(bench) == [(5, wanted, 0)]


def test_request_is_taken_again_after_one_was_answered() -> None:
    bench = enabled()
    park(bench, 1, 2, 3, 4)
    bench.write(NO_QUEUE, 0)
    assert len(reap(bench)) == 1
    park(bench, 5)
    assert reap(bench) == []


def test_parked_requests_take_no_places_of_other_commands() -> None:
    bench = Bench()
    bench.enable(sq_entries=2)
    for cid in range(4):
        park(bench, cid)
    assert read_log(bench) == Status.SUCCESS


def test_answered_requests_give_their_places_back() -> None:
    bench = Bench()
    bench.enable(sq_entries=2)
    for cid in range(8):
        park(bench, cid)
        bench.write(NO_QUEUE, 0)
        assert [done.cid for done in reap(bench)] == [cid]
        assert read_log(bench) == Status.SUCCESS
    assert bench.controller.sqs[0].outstanding == 0


def test_reset_drops_parked_requests_without_a_completion() -> None:
    bench = enabled()
    park(bench, 1)
    old = bench.admin_cq
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    bench.write(NO_QUEUE, 0)
    bench.settle()
    assert (old.reap(release=False), bench.admin_cq.reap()) == ([], [])


def test_request_counts_when_it_completes_and_has_no_latency() -> None:
    bench = enabled()
    times = iter(range(0, 10**9, 1000))
    bench.controller.clock = lambda: next(times)
    park(bench, 1)
    for _ in range(50):
        read_log(bench)
    assert AdminOpcode.ASYNC_EVENT_REQUEST not in bench.controller.statistics.admin
    bench.write(NO_QUEUE, 0)
    bench.settle()
    counter = bench.controller.statistics.admin[AdminOpcode.ASYNC_EVENT_REQUEST]
    assert (counter.commands, counter.worst_ns) == (1, 1000)


# Events.


@pytest.mark.parametrize("offset", [NO_QUEUE, NO_QUEUE + 4, DOORBELLS + 8 * 64])
def test_doorbell_of_no_queue_is_an_invalid_register_event(offset: int) -> None:
    bench = enabled()
    park(bench, 7)
    bench.write(offset, 1)
    assert answers(bench) == [(7, 0, REGISTER)]


@pytest.mark.parametrize("value", [16, 17, 0xFFFF])
def test_tail_outside_its_queue_is_an_invalid_value_event(value: int) -> None:
    bench = enabled()
    bench.create_pair(1, entries=16)
    park(bench, 7)
    bench.write(DOORBELLS + 8, value)
    assert answers(bench) == [(7, 0, VALUE)]


@pytest.mark.parametrize("value", [1, 15, 16, 0xFFFF])
def test_head_that_releases_more_than_was_posted_is_an_invalid_value_event(value: int) -> None:
    bench = enabled()
    bench.create_pair(1, entries=16)
    park(bench, 7)
    bench.write(DOORBELLS + 12, value)
    assert answers(bench) == [(7, 0, VALUE)]


def test_event_before_a_request_waits_for_it() -> None:
    bench = enabled()
    bench.write(NO_QUEUE, 0)
    bench.settle()
    park(bench, 3)
    assert answers(bench) == [(3, 0, REGISTER)]


def test_equal_events_that_wait_are_told_once() -> None:
    bench = enabled()
    for _ in range(3):
        bench.write(NO_QUEUE, 0)
    park(bench, 1, 2)
    assert [done.cid for done in reap(bench)] == [1]
    assert read_log(bench) == Status.SUCCESS
    assert reap(bench) == []


def test_event_of_a_reported_type_is_masked_until_its_log_page_is_read() -> None:
    bench = enabled()
    park(bench, 1, 2)
    bench.write(NO_QUEUE, 0)
    bench.write(NO_QUEUE, 0)
    assert [done.cid for done in reap(bench)] == [1]
    read_log(bench)
    bench.write(NO_QUEUE, 0)
    assert [done.cid for done in reap(bench)] == [2]


def test_masked_events_are_told_by_the_log_page_that_unmasks_them() -> None:
    bench = enabled()
    bench.create_pair(1, entries=4)
    park(bench, 1, 2)
    bench.write(NO_QUEUE, 0)
    bench.write(DOORBELLS + 8, 99)
    assert [done.cid for done in reap(bench)] == [1]
    read_log(bench)
    assert reap(bench) == []


def test_log_page_read_before_a_request_arrives_clears_the_event() -> None:
    bench = enabled()
    bench.write(NO_QUEUE, 0)
    read_log(bench)
    park(bench, 1)
    assert reap(bench) == []


def test_event_after_such_a_read_is_told() -> None:
    bench = enabled()
    bench.write(NO_QUEUE, 0)
    read_log(bench)
    park(bench, 1)
    bench.write(NO_QUEUE, 0)
    assert answers(bench) == [(1, 0, REGISTER)]


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"rae": 1}, id="retain asynchronous event"),
        pytest.param({"prp1": NO_RAM}, id="data pointer outside memory"),
        pytest.param({"lpo": 4 * PAGE}, id="offset behind the page"),
        pytest.param({"nsid": 1}, id="of a namespace"),
        pytest.param({"lid": LogPage.SMART}, id="another page"),
        pytest.param({"lid": LogPage.CHANGED_NAMESPACES}, id="a page of another type"),
    ],
)
def test_read_that_clears_nothing_leaves_the_event_masked(fields: dict[str, int]) -> None:
    bench = enabled()
    park(bench, 1, 2)
    bench.write(NO_QUEUE, 0)
    bench.settle()
    assert bench.admin_cq.reap()
    read_log(bench, **fields)
    bench.write(NO_QUEUE, 0)
    assert reap(bench) == []


def test_reset_drops_events_that_wait() -> None:
    bench = enabled()
    bench.write(NO_QUEUE, 0)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    park(bench, 1)
    assert reap(bench) == []


def test_doorbells_before_the_controller_is_ready_are_no_events() -> None:
    bench = Bench()
    bench.write(NO_QUEUE, 0)
    bench.enable()
    park(bench, 1)
    assert reap(bench) == []


def test_events_that_wait_are_bounded() -> None:
    bench = enabled()
    for info in range(ASYNC_EVENTS_QUEUED_MAX + 10):
        bench.controller.events.report(7, info, 0xC0)
    assert len(bench.controller.events.waiting) == ASYNC_EVENTS_QUEUED_MAX
