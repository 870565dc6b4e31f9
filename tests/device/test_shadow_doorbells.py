"""Shadow doorbells: the command, the way to rest, one value for each doorbell, and their end.

Nothing here wakes the device but a doorbell that is really written: that no other wake-up is needed
is what EventIdx is for. Orders of everything with everything are in test_liveness.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest

from nvmelab.device.controller import Step
from nvmelab.device.doorbells import DoorbellPage
from nvmelab.spec.admin import (
    AsyncEventRequest,
    DeleteIoSq,
    DoorbellBufferConfig,
    GetFeatures,
    GetLogPage,
    Identify,
)
from nvmelab.spec.commands import AdminOpcode
from nvmelab.spec.identify import Cns, IdentifyController
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.nvm import Flush, Read
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import NO_RAM, PAGE, RAM, Bench, HostSq, ManualWorker

CONFIG = AdminOpcode.DOORBELL_BUFFER_CONFIG
INVALID_VALUE = ("enqueue_event", (0, 1, 1))


class Rig:
    """A controller with shadow doorbells on and one I/O queue pair, at rest."""

    def __init__(
        self,
        *,
        entries: int = 4,
        cq_entries: int | None = None,
        worker: ManualWorker | None = None,
        admin: bool = False,
    ) -> None:
        self.bench = Bench(worker=worker)
        self.bench.enable()
        self.bench.use_shadow(admin=admin)
        cq = self.bench.create_cq(1, entries=cq_entries or entries)
        self.sq: HostSq = self.bench.create_sq(1, entries=entries, cq=cq)
        self.cid = 0
        self.bench.settle()
        self.bench.traced()
        self.bench.rings = 0

    def put(self, count: int = 1) -> None:
        """Write entries; tell nobody."""
        for _ in range(count):
            self.sq.put(Flush(cid=self.cid, nsid=1))
            self.cid += 1

    def store(self, index: int, value: int) -> None:
        """Store to a shadow and do nothing else."""
        assert self.bench.shadow is not None
        self.bench.memory.store_u32(self.bench.shadow + 4 * index, value)

    def shadow(self, index: int) -> int:
        assert self.bench.shadow is not None
        return self.bench.memory.load_u32(self.bench.shadow + 4 * index)

    def reaped(self, *, release: bool = True) -> list[int]:
        return [done.cid for done in self.sq.cq.reap(release=release)]

    def steps(self) -> list[Step]:
        """Take the first step that is enabled until none is; which they were."""
        taken: list[Step] = []
        while enabled := self.bench.enabled():
            taken.append(enabled[0])
            self.bench.step(*enabled[0])
        return taken


def configure(bench: Bench, prp1: int, prp2: int) -> int:
    return bench.execute(DoorbellBufferConfig(prp1=prp1, prp2=prp2)).status


def announced(bench: Bench) -> tuple[int, int]:
    """OACS, and what the effects log says of the command."""
    buffer = bench.allocate(PAGE)
    bench.execute(Identify(cns=Cns.CONTROLLER, prp1=buffer))
    oacs = IdentifyController.decode(bench.memory.read(buffer, PAGE)).oacs
    bench.execute(GetLogPage(lid=LogPage.COMMANDS_AND_EFFECTS, numd=1024, prp1=buffer))
    return oacs, bench.memory.load_u32(buffer + 4 * CONFIG)


# The command.


def test_command_is_announced() -> None:
    bench = Bench()
    bench.enable()
    assert announced(bench) == (1 << 8, 1)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: Bench(shadow_doorbells=False), id="switched off"),
        pytest.param(lambda: Bench(io_queues=512), id="more doorbells than fit on a page"),
        pytest.param(
            lambda: Bench(doorbells=DoorbellPage(memoryview(bytearray(PAGE)))),
            id="mapped doorbells",
        ),
    ],
)
def test_command_that_is_not_offered_is_neither_announced_nor_carried_out(
    make: Callable[[], Bench],
) -> None:
    bench = make()
    bench.enable()
    assert announced(bench) == (0, 0)
    pages = bench.allocate(2 * PAGE)
    assert configure(bench, pages, pages + PAGE) == Status.INVALID_COMMAND_OPCODE | DNR


@pytest.mark.parametrize(
    ("prp1", "prp2"), [(4, PAGE), (0, PAGE + 8), (0, 0), (NO_RAM, 0), (0, NO_RAM)]
)
def test_addresses_that_are_not_two_pages_of_memory_are_an_invalid_field(
    prp1: int, prp2: int
) -> None:
    bench = Bench()
    bench.enable()
    pages = bench.allocate(2 * PAGE)
    first, second = ((pages + at if at < NO_RAM else at) for at in (prp1, prp2))
    assert configure(bench, first, second) == Status.INVALID_FIELD_IN_COMMAND | DNR


def test_pages_that_cannot_be_written_are_an_invalid_field() -> None:
    bench = Bench()
    bench.enable()
    bench.memory.map(NO_RAM, bytearray(2 * PAGE), writable=False)
    assert configure(bench, NO_RAM, NO_RAM + PAGE) == Status.INVALID_FIELD_IN_COMMAND | DNR


def test_pages_have_the_alignment_of_the_memory_page_size() -> None:
    bench = Bench()
    bench.prepare(align=2 * PAGE)
    bench.write_cc(en=1, mps=1)
    bench.settle()
    pages = bench.allocate(4 * PAGE, align=2 * PAGE)
    assert configure(bench, pages, pages + PAGE) == Status.INVALID_FIELD_IN_COMMAND | DNR
    assert configure(bench, pages, pages + 2 * PAGE) == Status.SUCCESS


def test_refused_command_leaves_the_pages_in_use() -> None:
    rig = Rig()
    configure(rig.bench, NO_RAM, NO_RAM)
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    assert rig.reaped() == [0]


def test_second_command_moves_the_pages() -> None:
    rig = Rig()
    before = rig.bench.shadow
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    rig.reaped()
    rig.bench.use_shadow()
    assert (rig.shadow(2), rig.bench.event_index(2)) == (1, 1)
    assert before is not None
    rig.bench.memory.write(before, b"\x55" * 2 * PAGE)
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    assert rig.reaped() == [1]
    assert rig.bench.memory.read(before, 2 * PAGE) == b"\x55" * 2 * PAGE


def test_command_is_traced() -> None:
    bench = Bench()
    bench.enable()
    bench.use_shadow()
    assert bench.shadow is not None
    assert bench.traced("dbbuf_config") == [("dbbuf_config", (bench.shadow, bench.shadow + PAGE))]


def test_queues_that_exist_go_on_where_their_doorbells_were() -> None:
    bench = Bench()
    bench.enable()
    sq = bench.create_pair(1, entries=4)
    found: list[int] = []
    for cid in range(20):
        if cid == 6:
            bench.use_shadow()
        sq.submit(Flush(cid=cid, nsid=1))
        bench.settle()
        found += [done.cid for done in sq.cq.reap()]
    assert found == list(range(20))


def test_what_stood_on_the_pages_is_no_doorbell() -> None:
    bench = Bench()
    bench.enable()
    sq = bench.create_pair(1, entries=4)
    sq.submit(Flush(cid=1, nsid=1))
    bench.settle()
    sq.cq.reap()
    pages = bench.allocate(2 * PAGE)
    bench.memory.write(pages, b"\x03\0\0\0" * (2 * PAGE // 4))
    bench.traced()
    assert configure(bench, pages, pages + PAGE) == Status.SUCCESS
    bench.settle()
    assert [bench.memory.load_u32(pages + 4 * index) for index in (2, 3)] == [1, 1]
    assert bench.memory.load_u32(pages + PAGE + 8) == 1
    assert bench.traced("io_cmd", "enqueue_event") == []


def test_command_among_commands_under_way_strands_none_of_them() -> None:
    worker = ManualWorker()
    bench = Bench(worker=worker)
    bench.enable()
    pairs = [bench.create_pair(qid, entries=4) for qid in (1, 2, 3)]
    for sq in pairs:
        sq.submit(*(Flush(cid=cid, nsid=1) for cid in range(3)))
    bench.admin.submit(DoorbellBufferConfig(prp1=bench.allocate(PAGE), prp2=bench.allocate(PAGE)))
    bench.settle()
    worker.release_all()
    bench.settle()
    assert [done.status for done in bench.admin_cq.reap()] == [Status.SUCCESS]
    assert [[done.cid for done in sq.cq.reap()] for sq in pairs] == [[0, 1, 2]] * 3


# A submission queue on its way to rest.


def test_store_that_the_event_index_asks_to_ring_for_is_carried_out() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    assert (rig.bench.rings, rig.reaped()) == (1, [0])


def test_event_index_of_a_queue_at_rest_is_its_tail() -> None:
    rig = Rig()
    for tail in (1, 2, 3, 0, 1):
        rig.put()
        rig.sq.ring()
        rig.bench.settle()
        rig.reaped()
        assert rig.bench.event_index(2) == tail


def test_each_queue_has_an_event_index_of_its_own() -> None:
    rig = Rig()
    others = [rig.bench.create_pair(qid, entries=8) for qid in (2, 3)]
    for count, sq in enumerate(others, 2):
        sq.submit(*(Flush(cid=cid, nsid=1) for cid in range(count)))
        rig.bench.settle()
    assert [rig.bench.event_index(2 * qid) for qid in (1, 2, 3)] == [0, 2, 3]


def test_queue_comes_to_rest_by_a_look_a_publication_and_a_look() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    assert rig.steps() == [
        Step("poll_sq", 1),
        Step("fetch", 1),
        Step("poll_sq", 1),
        Step("arm_sq", 1),
        Step("poll_sq", 1),
        Step("execute", 1),
        Step("post", 1),
        Step("interrupt", 1),
    ]


def test_steps_of_a_look_and_of_a_publication_are_traced() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    names = ("mmio_doorbell_sq", "update_sq_tail", "update_sq_eventidx")
    assert rig.bench.traced(*names) == [
        ("mmio_doorbell_sq", (1, 1)),
        ("update_sq_tail", (1, 1)),
        ("update_sq_tail", (1, 1)),
        ("update_sq_eventidx", (1, 1)),
        ("update_sq_tail", (1, 1)),
    ]


def test_store_before_the_publication_needs_no_ring() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    rig.bench.step("poll_sq", 1)
    rig.bench.step("fetch", 1)
    rig.put()
    rig.sq.ring()
    assert rig.bench.rings == 1, "the EventIdx is still the old tail"
    rig.bench.settle()
    assert rig.reaped() == [0, 1]


def test_store_between_the_publication_and_the_look_after_it_is_seen() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    for name in ("poll_sq", "fetch", "poll_sq", "arm_sq"):
        rig.bench.step(name, 1)
    rig.put()
    rig.store(2, rig.sq.tail)
    rig.bench.settle()
    assert rig.reaped() == [0, 1]


def interleavings(*sides: str) -> Iterator[str]:
    """Every order of the letters in which each side's own stay in order."""
    for order in set(itertools.permutations("".join(sides))):
        if all([c for c in order if c in side] == list(side) for side in sides):
            yield "".join(order)


@pytest.mark.parametrize("order", sorted(interleavings("PA2", "SR")))
def test_store_and_rest_cross_in_any_order_and_the_store_is_seen_or_rung(order: str) -> None:
    # P, A, 2: the device's first look, publication, second look. S, R: the host's store, and its
    # look at the EventIdx.
    rig = Rig()
    rig.put()
    rig.sq.ring()
    rig.bench.step("poll_sq", 1)
    rig.bench.step("fetch", 1)
    rig.put()
    event_index = 0
    for letter in order:
        if letter == "S":
            rig.store(2, 2)
        elif letter == "R":
            event_index = rig.bench.event_index(2)
        elif (name := "arm_sq" if letter == "A" else "poll_sq", 1) in rig.bench.enabled():
            rig.bench.step(name, 1)
    if (2 - event_index - 1) & 0xFFFF < 1:
        rig.bench.ring(2, 2)
    rig.bench.settle()
    assert rig.reaped() == [0, 1]


def test_doorbell_between_the_first_look_and_the_publication_does_not_prevent_it() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    for name in ("poll_sq", "fetch", "poll_sq"):
        rig.bench.step(name, 1)
    rig.bench.ring(2, 1)
    rig.bench.settle()
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    assert rig.reaped() == [0, 1]


def test_doorbell_for_a_busy_queue_brings_no_publication_forward() -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    rig.bench.step("poll_sq", 1)
    rig.bench.ring(2, 1)
    rig.bench.step("poll_sq", 1)
    rig.bench.step("fetch", 1)
    assert Step("poll_sq", 1) in rig.bench.enabled()


def test_event_index_is_not_published_while_there_is_work() -> None:
    worker = ManualWorker()
    rig = Rig(entries=16, worker=worker)
    rig.put(4)
    rig.sq.ring()
    rig.bench.step("poll_sq", 1)
    for _ in range(3):
        rig.bench.step("fetch", 1)
        rig.put()
        rig.sq.ring()
    assert (rig.bench.event_index(2), rig.bench.rings) == (0, 1)


def test_queue_whose_commands_are_all_under_way_is_not_looked_at() -> None:
    worker = ManualWorker()
    rig = Rig(entries=2, worker=worker)
    for _ in range(3):
        rig.put()
        rig.sq.ring()
        rig.bench.settle()
    assert rig.bench.enabled() == [], "two are under way, as many as the queue has entries"
    assert rig.bench.event_index(2) == 0
    worker.release_all()
    rig.bench.settle()
    assert (rig.bench.event_index(2), rig.bench.rings) == (1, 3)


def test_queue_at_rest_is_not_looked_at() -> None:
    rig = Rig()
    rig.put()
    rig.store(2, rig.sq.tail)
    assert (rig.bench.enabled(), rig.bench.run(), rig.reaped()) == ([], False, [])


@pytest.mark.parametrize("entries", [2, 3, 5, 8])
def test_event_index_suits_a_host_that_compares_modulo_the_size_of_the_queue(entries: int) -> None:
    rig = Rig(entries=entries)
    found: list[int] = []
    for _ in range(5 * entries):
        old = rig.sq.tail
        rig.put()
        rig.store(2, rig.sq.tail)
        passed = (rig.sq.tail - rig.bench.event_index(2)) % entries
        if passed <= (rig.sq.tail - old) % entries:
            rig.bench.ring(2, rig.sq.tail)
        rig.bench.settle()
        found += rig.reaped()
    assert found == list(range(5 * entries))


# A completion queue.


def test_head_doorbell_is_not_asked_for_while_there_is_room() -> None:
    rig = Rig(entries=64)
    for _ in range(60):
        rig.put()
        rig.sq.ring()
        rig.bench.settle()
        rig.reaped()
    heads = rig.bench.traced("mmio_doorbell_cq")
    assert heads == [("mmio_doorbell_cq", (1, 1))], (
        "the one that passes the EventIdx of a new queue"
    )


def test_event_index_of_a_full_queue_is_its_head_and_not_its_tail() -> None:
    rig = Rig(entries=8, cq_entries=4)
    rig.put(5)
    rig.sq.ring()
    rig.bench.settle()
    assert rig.bench.event_index(3) == 0
    assert ("update_cq_eventidx", (1, 0)) in rig.bench.traced()


def test_full_queue_for_which_nothing_is_finished_waits_for_nobody() -> None:
    rig = Rig(entries=8, cq_entries=4)
    rig.put(3)
    rig.sq.ring()
    rig.bench.settle()
    assert rig.bench.traced("update_cq_head", "update_cq_eventidx") == []


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_draining_a_full_queue_lets_the_last_commands_through(at_once: int) -> None:
    # Nothing more is submitted: only the head doorbell can wake the device.
    rig = Rig(entries=8, cq_entries=4)
    rig.put(7)
    rig.sq.ring()
    rig.bench.settle()
    found: list[int] = []
    while done := rig.sq.cq.reap(at_once):
        found += [entry.cid for entry in done]
        rig.bench.settle()
    assert found == list(range(7))


def test_event_index_is_published_anew_each_time_the_queue_is_full() -> None:
    rig = Rig(entries=16, cq_entries=3)
    rig.put(9)
    rig.sq.ring()
    rig.bench.settle()
    seen: list[int] = []
    for _ in range(4):
        seen.append(rig.bench.event_index(3))
        rig.reaped()
        rig.bench.settle()
    assert seen == [0, 2, 1, 0]


def test_full_queue_comes_to_rest_by_a_look_a_publication_and_a_look() -> None:
    rig = Rig(entries=8, cq_entries=2)
    rig.put(2)
    rig.sq.ring()
    taken = [step for step in rig.steps() if step.name in ("poll_cq", "arm_cq", "post")]
    assert taken == [Step("post", 1), Step("poll_cq", 1), Step("arm_cq", 1), Step("poll_cq", 1)]


def test_room_that_was_made_without_a_ring_is_found_before_the_queue_rests() -> None:
    rig = Rig(entries=8, cq_entries=2)
    rig.put(2)
    rig.sq.ring()
    while Step("poll_cq", 1) not in rig.bench.enabled():
        rig.bench.step(*rig.bench.enabled()[0])
    assert rig.reaped(release=False) == [0]
    rig.store(3, 1)
    rig.bench.settle()
    assert rig.reaped() == [1]


def test_room_that_is_made_between_the_publication_and_the_look_after_it_is_found() -> None:
    rig = Rig(entries=8, cq_entries=2)
    rig.put(2)
    rig.sq.ring()
    while Step("arm_cq", 1) not in rig.bench.enabled():
        rig.bench.step(*rig.bench.enabled()[0])
    rig.bench.step("arm_cq", 1)
    assert rig.reaped(release=False) == [0]
    rig.store(3, 1)
    rig.bench.settle()
    assert rig.reaped() == [1]


# Fewer doorbells.


def test_busy_queues_are_rung_far_less_than_once_for_each_command() -> None:
    def rings(*, shadow: bool) -> int:
        worker = ManualWorker()
        bench = Bench(worker=worker)
        bench.enable()
        if shadow:
            bench.use_shadow()
        sq = bench.create_pair(1, entries=32)
        bench.rings = 0
        for cid in range(200):
            sq.submit(Read(cid=cid, nsid=1, prp1=RAM))
            if cid % 4 == 3:
                bench.settle()
                sq.cq.reap()
        return bench.rings

    assert (rings(shadow=False), rings(shadow=True)) == (250, 57)


# One value for each doorbell.


def test_admin_queue_of_a_host_that_never_stores_to_its_shadow_works() -> None:
    rig = Rig()
    for cid in range(100):
        assert rig.bench.execute(GetFeatures(cid=cid, fid=1)).cid == cid


def test_shadow_of_the_admin_queue_is_kept_equal_to_its_doorbell() -> None:
    rig = Rig()
    for _ in range(3):
        rig.bench.execute(GetFeatures(fid=1))
        rig.bench.settle()
        assert (rig.shadow(0), rig.shadow(1)) == (rig.bench.admin.tail, rig.bench.admin_cq.head)


def test_admin_queue_of_a_host_that_uses_its_shadow_works() -> None:
    rig = Rig(admin=True)
    for cid in range(100):
        assert rig.bench.execute(GetFeatures(cid=cid, fid=1)).cid == cid
    assert rig.bench.rings < 110, "the heads were not rung for"


def test_admin_queue_of_a_host_that_stores_and_rings_each_time_works() -> None:
    rig = Rig()
    for cid in range(100):
        rig.bench.admin.put(GetFeatures(cid=cid, fid=1))
        rig.store(0, rig.bench.admin.tail)
        rig.bench.ring(0, rig.bench.admin.tail)
        rig.bench.settle()
        assert [done.cid for done in rig.bench.admin_cq.reap(release=False)] == [cid]
        rig.store(1, rig.bench.admin_cq.head)
        rig.bench.ring(1, rig.bench.admin_cq.head)


def test_host_that_only_rings_at_first_and_uses_the_shadow_later_loses_nothing() -> None:
    rig = Rig(entries=4)
    found: list[int] = []
    for number in range(20):
        rig.put()
        if number < 7:
            rig.bench.ring(2, rig.sq.tail)
        else:
            rig.store(2, rig.sq.tail)
            if (rig.sq.tail - rig.bench.event_index(2)) % 4 == 1:
                rig.bench.ring(2, rig.sq.tail)
        rig.bench.settle()
        found += rig.reaped(release=False)
        rig.bench.ring(3, rig.sq.cq.head)
    assert found == list(range(20))


def test_doorbell_that_arrives_after_the_host_has_gone_on_takes_nothing_back() -> None:
    # Over a socket, the write may come after what was stored after it has been carried out.
    rig = Rig(entries=4)
    rig.put()
    rig.sq.ring()
    rig.bench.step("poll_sq", 1)
    rig.put()
    rig.store(2, 2)
    rig.bench.settle()
    rig.bench.ring(2, 1)
    rig.bench.settle()
    assert rig.reaped() == [0, 1]
    assert rig.bench.traced("enqueue_event") == []


def test_first_doorbell_that_is_late_does_not_overwrite_what_the_host_has_stored_since() -> None:
    rig = Rig(entries=4)
    rig.put(2)
    rig.store(2, 1)
    rig.store(2, 2)
    rig.bench.ring(2, 1)
    rig.bench.settle()
    assert (rig.shadow(2), rig.reaped()) == (2, [0, 1])


def test_shadow_that_the_host_uses_is_never_written() -> None:
    rig = Rig(entries=4)
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    assert rig.bench.shadow is not None
    shadow = rig.bench.shadow + 8
    stored: list[int] = []
    store = rig.bench.memory.store_u32

    def noted(addr: int, value: int) -> None:
        stored.append(addr)
        store(addr, value)

    rig.bench.memory.store_u32 = noted  # type: ignore[method-assign]
    rig.put()
    store(shadow, rig.sq.tail)
    rig.bench.ring(2, rig.sq.tail)
    rig.bench.settle()
    assert rig.reaped(release=False) == [0, 1]
    assert stored == [shadow + PAGE], "the EventIdx alone"


def test_late_head_doorbell_takes_no_room_back() -> None:
    rig = Rig(entries=8, cq_entries=3)
    rig.put(6)
    rig.sq.ring()
    rig.bench.settle()
    assert rig.reaped(release=False) == [0, 1]
    rig.store(3, 2)
    rig.bench.ring(3, 1)
    rig.bench.settle()
    assert rig.reaped(release=False) == [2, 3]
    assert rig.bench.traced("enqueue_event") == []


def test_value_that_the_host_stores_again_is_no_news() -> None:
    rig = Rig()
    rig.store(2, 0)
    rig.bench.ring(2, 0)
    rig.bench.settle()
    assert rig.bench.traced("io_cmd", "enqueue_event") == []


# Values that cannot be.


@pytest.mark.parametrize("value", [4, 0xFFFF])
def test_tail_outside_the_ring_is_an_event_and_stops_the_queue(value: int) -> None:
    rig = Rig(entries=4)
    rig.store(2, value)
    rig.bench.ring(2, 1)
    rig.bench.settle()
    assert INVALID_VALUE in rig.bench.traced()
    rig.store(2, 1)
    rig.bench.ring(2, 1)
    rig.bench.settle()
    assert rig.bench.traced("update_sq_tail", "io_cmd") == []


def test_tail_that_goes_back_over_entries_that_were_not_fetched_is_an_event() -> None:
    rig = Rig(entries=8, worker=ManualWorker())
    rig.put(3)
    rig.sq.ring()
    rig.bench.step("poll_sq", 1)
    rig.store(2, 2)
    rig.bench.ring(2, 2)
    rig.bench.step("poll_sq", 1)
    assert INVALID_VALUE in rig.bench.traced()


@pytest.mark.parametrize("head", [1, 3, 9])
def test_head_behind_what_was_posted_is_one_event_and_ignored(head: int) -> None:
    rig = Rig(entries=8, cq_entries=4)
    rig.bench.execute(GetFeatures(fid=1))
    rig.bench.traced()
    rig.store(3, head)
    rig.bench.ring(3, 0)
    rig.bench.settle()
    assert rig.bench.traced("enqueue_event") == [INVALID_VALUE]
    rig.put(3)
    rig.sq.ring()
    rig.bench.settle()
    assert rig.reaped() == [0, 1, 2]


@pytest.mark.parametrize("index", [2, 3])
def test_doorbell_outside_the_ring_is_an_event_at_once(index: int) -> None:
    rig = Rig(entries=4)
    rig.bench.ring(index, 4)
    assert rig.bench.traced("enqueue_event") == [INVALID_VALUE]


def test_upper_half_of_a_shadow_is_reserved() -> None:
    rig = Rig()
    rig.put()
    rig.store(2, 0xABCD_0001)
    rig.bench.ring(2, 1)
    rig.bench.settle()
    assert rig.reaped() == [0]


# The end.


@pytest.fixture(params=["controller reset", "function level reset", "reset after a fatal error"])
def ended(request: pytest.FixtureRequest) -> Rig:
    """A controller that was reset while shadow doorbells were on, and is enabled again. The two
    pages are full of a pattern."""
    rig = Rig()
    rig.put()
    rig.sq.ring()
    rig.bench.settle()
    if request.param == "reset after a fatal error":
        rig.bench.controller.life.fatal()
    if request.param == "function level reset":
        rig.bench.function.reset()
        rig.bench.bus_master(True)
        rig.bench.msix(True)
    else:
        rig.bench.write_cc(en=0)
        rig.bench.settle()
    assert rig.bench.shadow is not None
    rig.bench.memory.write(rig.bench.shadow, b"\x55" * 2 * PAGE)
    return rig


def test_pages_are_left_alone_after_a_reset(ended: Rig) -> None:
    pages, ended.bench.shadow = ended.bench.shadow, None
    assert pages is not None
    ended.bench.enable()
    sq = ended.bench.create_pair(1, entries=2)
    for cid in range(5):
        assert ended.bench.execute(Flush(cid=cid, nsid=1), sq).cid == cid
    assert ended.bench.memory.read(pages, 2 * PAGE) == b"\x55" * 2 * PAGE


def test_shadow_doorbells_can_be_switched_on_again_after_a_reset(ended: Rig) -> None:
    ended.bench.shadow = None
    ended.bench.enable()
    ended.bench.use_shadow()
    sq = ended.bench.create_pair(1, entries=2)
    for cid in range(5):
        assert ended.bench.execute(Flush(cid=cid, nsid=1), sq).cid == cid


def test_recreated_queue_starts_from_a_zero_shadow() -> None:
    rig = Rig()
    rig.put(2)
    rig.sq.ring()
    rig.bench.settle()
    rig.reaped()
    rig.bench.execute(DeleteIoSq(qid=1))
    again = rig.bench.create_sq(1, entries=4, cq=rig.sq.cq)
    assert (rig.shadow(2), rig.bench.event_index(2)) == (0, 0)
    again.submit(Flush(cid=9, nsid=1))
    rig.bench.settle()
    assert rig.reaped() == [9]


def test_shadow_of_a_deleted_queue_is_not_looked_at() -> None:
    rig = Rig()
    rig.bench.execute(DeleteIoSq(qid=1))
    rig.store(2, 99)
    rig.bench.settle()
    assert (rig.bench.enabled(), rig.bench.traced("enqueue_event")) == ([], [])


# A host that takes its memory away, or does not behave.


def take_away(rig: Rig, number: int) -> None:
    """Unmap the shadow page (0) or the EventIdx page (1): the rest of memory stays."""
    assert rig.bench.shadow is not None
    start, memory, ram = (
        rig.bench.shadow + number * PAGE,
        rig.bench.memory,
        memoryview(rig.bench.ram),
    )
    (region,) = memory.regions
    memory.unmap(region.start, region.end - region.start)
    memory.map(region.start, ram[: start - region.start])
    memory.map(start + PAGE, ram[start + PAGE - region.start :])


@pytest.mark.parametrize(("page", "event"), [(0, "err_addr_read"), (1, "err_addr_write")])
def test_page_that_is_gone_when_it_is_needed_is_a_fatal_error(page: int, event: str) -> None:
    rig = Rig()
    rig.put()
    rig.sq.ring()
    take_away(rig, page)
    rig.bench.settle()
    assert rig.bench.csts.cfs == 1
    assert [name for name, _ in rig.bench.traced(event)] == [event]


def test_page_that_is_gone_when_room_is_needed_is_a_fatal_error() -> None:
    rig = Rig(entries=8, cq_entries=2)
    rig.put(2)
    rig.sq.ring()
    rig.bench.settle()
    rig.reaped()
    take_away(rig, 0)
    rig.bench.settle()
    assert rig.bench.csts.cfs == 1
    assert len(rig.bench.traced("err_addr_read")) == 1


def test_nothing_is_fetched_after_a_page_that_cannot_be_written_any_more() -> None:
    rig = Rig()
    rig.put()
    take_away(rig, 0)
    assert rig.bench.shadow is not None
    rig.bench.memory.map(rig.bench.shadow, bytearray(PAGE), writable=False)
    rig.bench.ring(2, 1)
    rig.bench.settle()
    assert rig.bench.csts.cfs == 1
    assert rig.bench.traced("io_cmd") == []


def test_page_that_is_gone_while_all_queues_rest_harms_nobody() -> None:
    rig = Rig()
    take_away(rig, 0)
    rig.bench.settle()
    assert (rig.bench.csts.cfs, rig.bench.enabled()) == (0, [])


def test_turn_ends_though_the_host_stores_other_nonsense_before_each_look() -> None:
    rig = Rig(entries=8, cq_entries=3)
    rig.put(4)
    rig.sq.ring()
    rig.bench.settle()
    nonsense = itertools.cycle([7, 8])
    load = rig.bench.memory.load_u32

    def hostile(addr: int) -> int:
        rig.store(3, next(nonsense))
        return load(addr)

    rig.bench.memory.load_u32 = hostile  # type: ignore[method-assign]
    rig.bench.ring(3, 0)
    assert rig.bench.run(), "a step is left for the next turn"


def test_pages_are_not_touched_without_bus_mastering() -> None:
    rig = Rig()
    rig.put()
    rig.bench.bus_master(False)
    rig.sq.ring()
    rig.bench.settle()
    assert rig.bench.traced("update_sq_tail", "update_sq_eventidx") == []
    rig.bench.bus_master(True)
    rig.bench.settle()
    assert rig.reaped() == [0]


def test_event_request_tells_of_an_invalid_shadow_as_of_an_invalid_doorbell() -> None:
    rig = Rig()
    rig.bench.admin.submit(AsyncEventRequest(cid=7))
    rig.bench.settle()
    rig.store(2, 99)
    rig.bench.ring(2, 0)
    rig.bench.settle()
    assert [(done.cid, done.dw0) for done in rig.bench.admin_cq.reap()] == [(7, 0x01_01_00)]
