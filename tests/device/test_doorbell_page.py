"""A doorbell page that the host writes directly, and nobody is told."""

from __future__ import annotations

import struct

import pytest

from nvmelab.device.doorbells import DoorbellPage
from nvmelab.spec.admin import AsyncEventRequest, DeleteIoSq, GetFeatures
from nvmelab.spec.nvm import Flush
from tests.device.conftest import Bench, HostCq, HostSq


class Mapped:
    """A controller whose doorbells are a page, and a host that stores into it."""

    def __init__(self) -> None:
        self.page = memoryview(bytearray(4096))
        self.words = self.page.cast("I")
        self.doorbells = DoorbellPage(self.page)
        self.bench = Bench(doorbells=self.doorbells)
        self.bench.prepare()
        self.bench.write_cc(en=1)
        self.bench.settle()

    def ring(self, queue: HostSq | HostCq) -> None:
        """Store the tail or the head where the host would."""
        if isinstance(queue, HostSq):
            self.words[2 * queue.qid] = queue.tail
        else:
            self.words[2 * queue.qid + 1] = queue.head

    def pair(self, qid: int, entries: int = 4) -> HostSq:
        """The creation itself goes through trapped doorbells: it is not what is tested here. The
        page is made to agree."""
        sq = self.bench.create_pair(qid, entries=entries)
        self.ring(self.bench.admin)
        self.ring(self.bench.admin_cq)
        self.bench.settle()
        return sq


# The page.


def test_new_page_has_no_change() -> None:
    assert list(DoorbellPage(memoryview(bytearray(4096))).changed()) == []


def test_changed_doorbells_are_told_once_with_index_and_value() -> None:
    page = memoryview(bytearray(4096))
    doorbells = DoorbellPage(page)
    page.cast("I")[2], page.cast("I")[1023] = 7, 0xFFFF_FFFF
    assert list(doorbells.changed()) == [(2, 7), (1023, 0xFFFF_FFFF)]
    assert list(doorbells.changed()) == []


def test_two_stores_between_two_looks_are_seen_as_the_last() -> None:
    page = memoryview(bytearray(4096))
    doorbells = DoorbellPage(page)
    page.cast("I")[2] = 1
    page.cast("I")[2] = 2
    assert list(doorbells.changed()) == [(2, 2)]


def test_what_the_page_held_before_is_no_change() -> None:
    page = memoryview(bytearray(struct.pack("<I", 5).ljust(4096, b"\0")))
    assert list(DoorbellPage(page).changed()) == []


def test_zeroed_doorbell_is_zero_and_no_change() -> None:
    page = memoryview(bytearray(4096))
    doorbells = DoorbellPage(page)
    page.cast("I")[3] = 9
    doorbells.zero(3)
    assert (page.cast("I")[3], list(doorbells.changed())) == (0, [])


def test_zeroed_page_is_zero_and_has_no_change() -> None:
    page = memoryview(bytearray(4096))
    doorbells = DoorbellPage(page)
    page[:] = b"\x55" * 4096
    doorbells.zero_all()
    assert (bytes(page), list(doorbells.changed())) == (bytes(4096), [])


def test_rung_is_told_once() -> None:
    page = memoryview(bytearray(4096))
    doorbells = DoorbellPage(page)
    page.cast("I")[2] = 1
    list(doorbells.changed())
    assert [doorbells.take_rung(), doorbells.take_rung()] == [True, False]


def test_doorbells_of_queues_that_cannot_exist_are_not_looked_at() -> None:
    page = memoryview(bytearray(4096))
    doorbells = DoorbellPage(page, queues=3)
    page.cast("I")[5], page.cast("I")[6] = 1, 1
    assert list(doorbells.changed()) == [(5, 1)]


# The controller behind it.


def test_store_is_seen_by_the_next_turn() -> None:
    mapped = Mapped()
    mapped.bench.admin.put(GetFeatures(cid=5, fid=1))
    mapped.ring(mapped.bench.admin)
    mapped.bench.settle()
    assert [done.cid for done in mapped.bench.admin_cq.reap(release=False)] == [5]


def test_store_of_a_head_gives_room() -> None:
    mapped = Mapped()
    pair = mapped.pair(1, entries=2)
    found: list[int] = []
    for cid in range(5):
        pair.put(Flush(cid=cid, nsid=1))
        mapped.ring(pair)
        mapped.bench.settle()
        found += [done.cid for done in pair.cq.reap(release=False)]
        mapped.ring(pair.cq)
    assert found == list(range(5))


def test_many_wraps_by_stores_alone() -> None:
    mapped = Mapped()
    pair = mapped.pair(3, entries=4)
    found: list[int] = []
    for first in range(0, 60, 3):
        for cid in range(first, first + 3):
            pair.put(Flush(cid=cid, nsid=1))
        mapped.ring(pair)
        mapped.bench.settle()
        found += [done.cid for done in pair.cq.reap(release=False)]
        mapped.ring(pair.cq)
    assert found == list(range(60))


def test_store_outside_the_ring_is_an_invalid_value() -> None:
    mapped = Mapped()
    mapped.bench.traced()
    mapped.words[0] = 99
    mapped.bench.settle()
    assert ("enqueue_event", (0, 1, 1)) in mapped.bench.traced()


def test_doorbells_of_a_queue_are_zero_when_its_creation_completes() -> None:
    mapped = Mapped()
    mapped.words[2] = mapped.words[3] = 3  # left over from somebody
    mapped.bench.settle()
    mapped.pair(1)
    assert (mapped.words[2], mapped.words[3]) == (0, 0)


def test_recreated_queue_starts_from_a_zero_doorbell() -> None:
    mapped = Mapped()
    pair = mapped.pair(1)
    pair.put(Flush(cid=1, nsid=1))
    mapped.ring(pair)
    mapped.bench.settle()
    pair.cq.reap(release=False)
    mapped.ring(pair.cq)
    mapped.bench.settle()
    mapped.bench.execute(DeleteIoSq(qid=1))
    again = mapped.bench.create_sq(1, entries=4, cq=pair.cq)
    assert (mapped.words[2], mapped.words[3]) == (0, 1)
    again.put(Flush(cid=2, nsid=1))
    mapped.ring(again)
    mapped.bench.settle()
    assert [done.cid for done in pair.cq.reap(release=False)] == [2]


def test_page_is_zero_before_ready_falls() -> None:
    mapped = Mapped()
    pair = mapped.pair(1)
    mapped.ring(pair)
    mapped.words[2] = 1
    mapped.bench.settle()
    mapped.bench.write_cc(en=0)
    assert mapped.bench.csts.rdy == 1
    mapped.bench.settle()
    assert (mapped.bench.csts.rdy, bytes(mapped.page)) == (0, bytes(4096))


def test_page_is_zero_after_a_pci_reset() -> None:
    mapped = Mapped()
    mapped.words[2] = 1
    mapped.bench.function.reset()
    assert bytes(mapped.page) == bytes(4096)


def test_store_that_was_not_seen_before_a_reset_is_no_event_after_it() -> None:
    mapped = Mapped()
    mapped.pair(1)
    mapped.words[2] = 1
    mapped.bench.write_cc(en=0)
    mapped.bench.settle()
    mapped.bench.prepare()
    mapped.bench.write_cc(en=1)
    mapped.bench.settle()
    mapped.bench.admin.put(AsyncEventRequest(cid=1))
    mapped.ring(mapped.bench.admin)
    mapped.bench.settle()
    assert mapped.bench.admin_cq.reap(release=False) == []


@pytest.mark.parametrize("index", [2, 500])
def test_store_to_the_doorbell_of_no_queue_harms_nobody(index: int) -> None:
    mapped = Mapped()
    mapped.words[index] = 1
    mapped.bench.settle()
    mapped.bench.admin.put(GetFeatures(cid=5, fid=1))
    mapped.ring(mapped.bench.admin)
    mapped.bench.settle()
    assert [done.cid for done in mapped.bench.admin_cq.reap(release=False)] == [5]
