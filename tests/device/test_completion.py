"""Completion queue entries and interrupts, and how many commands are under way."""

from __future__ import annotations

import pytest

from nvmelab.device.controller import Step
from nvmelab.spec.admin import AsyncEventRequest, GetFeatures, SetFeatures
from nvmelab.spec.commands import Completion
from nvmelab.spec.features import Feature
from nvmelab.spec.nvm import Flush, Read
from nvmelab.spec.status import DNR
from tests.device.conftest import PAGE, Bench, HostSq, ManualWorker


def pair_of(entries: int, cq_entries: int | None = None, **config: int | None) -> HostSq:
    """Queue pair 1 of an enabled controller; `slow` is for flushes that never finish."""
    bench = Bench(**config)  # type: ignore[arg-type]
    bench.enable()
    cq = bench.create_cq(1, entries=entries if cq_entries is None else cq_entries)
    return bench.create_sq(1, entries=entries, cq=cq)


def flushes(*cids: int) -> list[Flush]:
    return [Flush(cid=cid, nsid=1) for cid in cids]


def cids(found: list[Completion]) -> list[int]:
    return [done.cid for done in found]


# The entry.


@pytest.mark.parametrize("cid", [0, 1, 0x7FFF, 0xFFFF])
def test_entry_has_the_command_identifier_and_its_queue(cid: int) -> None:
    pair = pair_of(4)
    done = pair.bench.execute(Flush(cid=cid, nsid=1), pair)
    assert done == Completion(sqhd=1, sqid=1, cid=cid, phase=1, status=0)


def test_entry_is_16_bytes_with_unused_ones_zero() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair(3, entries=4)
    bench.memory.write(pair.cq.base, b"\xee" * 12 + bytes(4) + b"\xee" * 48)
    pair.submit(Flush(cid=0xBEEF, nsid=1))
    bench.settle()
    assert bench.memory.read(pair.cq.base, 32) == (
        bytes(8) + b"\1\0\3\0" + b"\xef\xbe\1\0" + b"\xee" * 16
    )


def test_entry_of_an_error_has_status_type_code_and_do_not_retry() -> None:
    pair = pair_of(4)
    done = pair.bench.execute(Read(nsid=1, slba=1 << 40, prp1=0x10_0000), pair)
    assert done.status == 0x080 | DNR


def test_entry_carries_the_result_in_dword_0() -> None:
    bench = Bench(io_queues=5)
    bench.enable()
    done = bench.execute(SetFeatures(fid=Feature.NUMBER_OF_QUEUES, value=0x0001_0001))
    assert (done.dw0, done.dw1) == (0x0004_0004, 0)


def test_completion_is_traced_before_it_is_posted() -> None:
    pair = pair_of(4)
    bench = pair.bench
    bench.traced()
    pair.submit(Read(cid=3, nsid=1, slba=1 << 40, prp1=0x10_0000))
    bench.step("fetch", 1)
    bench.step("execute", 1)
    assert pair.cq.reap() == []
    assert bench.traced("enqueue_req_completion", "err_req_status") == [
        ("enqueue_req_completion", (3, 1, 0, 0, 0x4080)),
        ("err_req_status", (3, 1, 0x4080, 0x02)),
    ]


def test_half_with_the_phase_tag_is_stored_last(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pair_of(4)
    stored: list[int] = []
    monkeypatch.setattr(pair.bench.memory, "store_u64", lambda addr, value: stored.append(addr))
    pair.submit(*flushes(1))
    pair.bench.settle()
    assert stored == [pair.cq.base, pair.cq.base + 8]


# The phase tag.


@pytest.mark.parametrize("entries", [2, 3, 4, 7])
def test_phase_inverts_at_each_wrap(entries: int) -> None:
    pair = pair_of(4, entries)
    phases = [pair.bench.execute(flush, pair).phase for flush in flushes(*range(5 * entries))]
    assert phases == ([1] * entries + [0] * entries) * 2 + [1] * entries


def test_slot_of_the_last_round_is_not_taken_for_a_new_entry() -> None:
    pair = pair_of(4, 3)
    for flush in flushes(1, 2, 3):
        pair.bench.execute(flush, pair)
    assert pair.cq.reap() == []


# SQHD.


def test_sqhd_is_the_head_when_the_entry_was_made_not_the_command_s_own_slot() -> None:
    pair = pair_of(8)
    bench = pair.bench
    pair.submit(*flushes(1, 2, 3))
    for step in [("fetch", 1), ("fetch", 1), ("execute", 1), ("post", 1), ("fetch", 1)]:
        bench.step(*step)
    bench.settle()
    assert [done.sqhd for done in pair.cq.reap()] == [2, 3, 3]


@pytest.mark.parametrize("entries", [2, 3, 5])
def test_sqhd_wraps_with_the_submission_queue(entries: int) -> None:
    pair = pair_of(entries)
    heads = [pair.bench.execute(flush, pair).sqhd for flush in flushes(*range(3 * entries))]
    assert heads == [(i + 1) % entries for i in range(3 * entries)]


def test_sqhd_is_that_of_the_queue_in_sqid() -> None:
    bench = Bench()
    bench.enable()
    cq = bench.create_cq(1, entries=16)
    first, second = (bench.create_sq(qid, entries=8, cq=cq) for qid in (1, 2))
    first.submit(*flushes(1, 2, 3))
    second.submit(*flushes(9))
    bench.settle()
    last = {done.sqid: done.sqhd for done in cq.reap()}
    assert last == {1: 3, 2: 1}


# A full completion queue.


@pytest.mark.parametrize("cq_entries", [2, 3, 4])
def test_full_completion_queue_holds_completions_back(cq_entries: int) -> None:
    pair = pair_of(8, cq_entries)
    pair.submit(*flushes(*range(6)))
    pair.bench.settle()
    assert cids(pair.cq.reap(release=False)) == list(range(cq_entries - 1))
    assert pair.bench.enabled() == []


@pytest.mark.parametrize("cq_entries", [2, 3, 4])
def test_held_back_completions_come_in_order_as_room_is_given(cq_entries: int) -> None:
    pair = pair_of(8, cq_entries)
    pair.submit(*flushes(*range(7)))
    found: list[int] = []
    for _ in range(7):
        pair.bench.settle()
        found += cids(pair.cq.reap(1))
    assert found == list(range(7))


def test_room_for_one_entry_brings_one_entry() -> None:
    pair = pair_of(8, 4)
    pair.submit(*flushes(*range(7)))
    pair.bench.settle()
    pair.cq.reap(3, release=False)
    pair.cq.ring(1)
    pair.bench.settle()
    assert cids(pair.cq.reap(release=False)) == [3]


def test_entry_that_was_not_released_is_never_overwritten() -> None:
    pair = pair_of(8, 3)
    pair.submit(*flushes(10, 11, 12, 13))
    pair.bench.settle()
    before = [pair.cq.entry(slot) for slot in range(3)]
    pair.bench.settle()
    assert [pair.cq.entry(slot) for slot in range(3)] == before
    assert before[2] == Completion()


def test_full_completion_queue_does_not_stop_other_queues() -> None:
    bench = Bench()
    bench.enable()
    stuck = bench.create_sq(1, entries=8, cq=bench.create_cq(1, entries=2))
    free = bench.create_pair(2)
    stuck.submit(*flushes(*range(5)))
    bench.settle()
    assert bench.execute(Flush(cid=7, nsid=1), free).cid == 7
    assert bench.execute(GetFeatures(cid=8, fid=1)).cid == 8


def test_full_completion_queue_holds_back_every_submission_queue_bound_to_it() -> None:
    bench = Bench()
    bench.enable()
    cq = bench.create_cq(1, entries=2)
    queues = [bench.create_sq(qid, entries=4, cq=cq) for qid in (1, 2, 3)]
    for queue in queues:
        queue.submit(*flushes(1, 2))
    found: list[tuple[int, int]] = []
    for _ in range(6):
        bench.settle()
        found += [(done.sqid, done.cid) for done in cq.reap()]
    assert sorted(found) == [(qid, cid) for qid in (1, 2, 3) for cid in (1, 2)]


def test_full_admin_completion_queue_holds_back_and_resumes() -> None:
    bench = Bench()
    bench.enable(8, 2)
    bench.admin.submit(*[GetFeatures(cid=cid, fid=1) for cid in range(5)])
    found: list[int] = []
    for _ in range(5):
        bench.settle()
        found += cids(bench.admin_cq.reap())
    assert found == list(range(5))


# How many commands are under way.


@pytest.mark.parametrize(
    ("entries", "outstanding_max", "limit"), [(4, None, 4), (2, None, 2), (8, 3, 3), (4, 10, 6)]
)
def test_commands_fetched_and_not_completed_are_bounded(
    entries: int, outstanding_max: int | None, limit: int
) -> None:
    worker = ManualWorker()
    bench = Bench(worker=worker, outstanding_max=outstanding_max)
    bench.enable()
    pair = bench.create_sq(1, entries=entries, cq=bench.create_cq(1, entries=16))
    for first in range(0, 6, entries - 1):  # the device's head moves on, so there is room
        pair.submit(*flushes(*range(first, min(first + entries - 1, 6))))
        bench.settle()
        if len(worker.waiting) == limit:
            break
    assert len(worker.waiting) == limit


@pytest.mark.parametrize("outstanding_max", [1, 2, 3])
def test_command_that_waited_for_the_bound_is_fetched_when_one_completes(
    outstanding_max: int,
) -> None:
    worker = ManualWorker()
    bench = Bench(worker=worker, outstanding_max=outstanding_max)
    bench.enable()
    pair = bench.create_pair(entries=8)
    pair.submit(*flushes(*range(7)))
    bench.settle()
    found: list[int] = []
    while worker.waiting:
        worker.release()
        bench.settle()
        found += cids(pair.cq.reap())
    assert found == list(range(7))


def test_finished_command_counts_until_it_is_posted() -> None:
    pair = pair_of(3, 2)
    bench = pair.bench
    bench.traced()
    pair.submit(*flushes(1, 2))
    bench.settle()  # one posted, one held back
    pair.submit(*flushes(3, 4))
    bench.settle()  # so only two more fit the three entries' bound
    pair.submit(*flushes(5))
    bench.settle()
    assert len(bench.traced("io_cmd")) == 4


def test_parked_event_requests_do_not_count() -> None:
    bench = Bench()
    bench.enable(2, 2)
    for cid in range(4):
        bench.admin.submit(AsyncEventRequest(cid=cid))
        bench.settle()
    assert bench.execute(GetFeatures(cid=9, fid=1)).cid == 9


def test_event_request_that_completes_counts_again_until_it_is_posted() -> None:
    bench = Bench(outstanding_max=1)
    bench.enable()
    bench.admin.submit(AsyncEventRequest(cid=1))
    bench.settle()
    bench.write(0x1010, 1)  # an event; its completion waits to be posted
    bench.admin.submit(GetFeatures(cid=2, fid=1))
    assert bench.enabled() == [Step("post", 0)]
    bench.settle()
    assert cids(bench.admin_cq.reap()) == [1, 2]


# Interrupts.


def test_one_interrupt_is_raised_for_one_run() -> None:
    pair = pair_of(8)
    pair.bench.interrupts.clear()
    pair.submit(*flushes(*range(7)))
    pair.bench.run()
    assert pair.bench.interrupts == [1]


def test_interrupt_comes_after_the_entry() -> None:
    pair = pair_of(4)
    bench = pair.bench
    seen: list[tuple[int, int]] = []
    bench.function.interrupt = lambda vector: seen.append((vector, pair.cq.entry(0).cid))
    pair.submit(*flushes(77))
    bench.settle()
    assert seen == [(1, 77)]


def test_no_interrupt_is_raised_without_a_new_entry() -> None:
    pair = pair_of(4)
    bench = pair.bench
    bench.execute(Flush(nsid=1), pair)
    bench.interrupts.clear()
    bench.settle()
    pair.ring()
    pair.cq.release()
    bench.settle()
    assert bench.interrupts == []


def test_entries_that_waited_for_room_raise_an_interrupt_of_their_own() -> None:
    pair = pair_of(4, 2)
    bench = pair.bench
    bench.interrupts.clear()
    pair.submit(*flushes(1, 2))
    bench.settle()
    pair.cq.reap()
    bench.settle()
    assert bench.interrupts == [1, 1]


def test_queue_without_interrupts_raises_none() -> None:
    bench = Bench()
    bench.enable()
    cq = bench.create_cq(1, entries=4, ien=0)
    bench.interrupts.clear()
    pair = bench.create_sq(1, entries=4, cq=cq)
    bench.interrupts.clear()
    assert bench.execute(Flush(cid=3, nsid=1), pair).cid == 3
    assert bench.interrupts == []
    assert bench.traced("irq_masked") == [("irq_masked", ())]


@pytest.mark.parametrize("vector", [0, 1, 7, 64])
def test_interrupt_has_the_vector_of_its_queue(vector: int) -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_sq(5, entries=4, cq=bench.create_cq(5, entries=4, iv=vector))
    bench.interrupts.clear()
    bench.execute(Flush(nsid=1), pair)
    assert bench.interrupts == [vector]


def test_queues_may_share_a_vector_and_each_raises_it() -> None:
    bench = Bench()
    bench.enable()
    pairs = [
        bench.create_sq(qid, entries=4, cq=bench.create_cq(qid, entries=4, iv=3)) for qid in (1, 2)
    ]
    bench.interrupts.clear()
    for pair in pairs:
        pair.submit(*flushes(1))
    bench.settle()
    assert bench.interrupts == [3, 3]


def test_admin_queue_raises_vector_0() -> None:
    bench = Bench()
    bench.enable()
    bench.execute(GetFeatures(fid=1))
    assert bench.interrupts == [0]
    assert bench.traced("irq_msix") == [("irq_msix", (0,))]


# Stepping.


def test_steps_of_a_command_are_enabled_one_after_the_other() -> None:
    pair = pair_of(4)
    bench = pair.bench
    pair.submit(*flushes(1))
    seen: list[Step] = []
    while steps := bench.enabled():
        assert len(steps) == 1
        seen += steps
        bench.step(*steps[0])
    assert seen == [Step("fetch", 1), Step("execute", 1), Step("post", 1), Step("interrupt", 1)]


def test_run_goes_on_where_single_steps_stopped() -> None:
    pair = pair_of(4)
    bench = pair.bench
    pair.submit(*flushes(1, 2))
    bench.step("fetch", 1)
    bench.step("fetch", 1)
    bench.settle()
    assert cids(pair.cq.reap()) == [1, 2]
    assert bench.enabled() == []


def test_entry_is_copied_once_when_it_is_fetched() -> None:
    pair = pair_of(4)
    bench = pair.bench
    pair.submit(*flushes(1))
    bench.step("fetch", 1)
    bench.memory.write(pair.base, b"\xff" * 64)
    bench.settle()
    assert [(done.cid, done.status) for done in pair.cq.reap()] == [(1, 0)]


def test_busy_queue_does_not_keep_another_one_waiting_for_more_than_a_turn() -> None:
    bench = Bench()
    bench.enable()
    busy, other = bench.create_pair(1, entries=512), bench.create_pair(2)
    busy.submit(*flushes(*range(511)))
    other.submit(*flushes(1))
    left = bench.run()
    assert (left, cids(other.cq.reap())) == (True, [1])


def test_read_data_is_there_when_the_entry_is() -> None:
    pair = pair_of(4)
    bench = pair.bench
    data = bench.allocate(PAGE)
    bench.memory.write(data, b"old!" * 128)
    assert bench.execute(Read(nsid=1, prp1=data), pair).status == 0
    assert bench.memory.read(data, 512) == bytes(512)
