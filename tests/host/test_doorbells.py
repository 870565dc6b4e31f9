"""Doorbells, and shadow doorbells with EventIdx."""

from __future__ import annotations

import pytest

from nvmelab.host.doorbells import Doorbells
from nvmelab.spec.registers import DOORBELLS
from tests.host.conftest import DeadLink

SHADOW, EVENT_INDEX = 0x4000, 0x5000


@pytest.mark.parametrize(("dstrd", "stride"), [(0, 4), (1, 8), (4, 64)])
def test_place_of_a_doorbell_follows_the_stride(dstrd: int, stride: int) -> None:
    link = DeadLink()
    doorbells = Doorbells(link, dstrd)
    doorbells.ring_tail(3, 0, 7, 8)
    doorbells.ring_head(3, 0, 5, 8)
    assert link.written == [(DOORBELLS + 6 * stride, 7), (DOORBELLS + 7 * stride, 5)]
    assert doorbells.writes == 2


def shadowed(event_index: int, dstrd: int = 0) -> tuple[DeadLink, Doorbells]:
    """EventIdx of the tail of SQ 1 is `event_index`."""
    link = DeadLink()
    doorbells = Doorbells(link, dstrd)
    doorbells.use_shadow(SHADOW, EVENT_INDEX)
    link.memory.store_u32(EVENT_INDEX + (2 << 2 + dstrd), event_index)
    return link, doorbells


def test_shadow_has_the_value_whether_the_register_is_written_or_not() -> None:
    for event_index in (0, 5):
        link, doorbells = shadowed(event_index)
        doorbells.ring_tail(1, 0, 1, 8)
        assert link.memory.load_u32(SHADOW + 8) == 1


@pytest.mark.parametrize(
    ("old", "new", "event_index", "rings"),
    [
        (0, 1, 0, True),  # the device has seen 0 and wants to hear of anything after it
        (1, 2, 0, False),  # it was told already
        (0, 3, 1, True),  # passes 1
        (0, 3, 3, False),  # reaches 3, does not pass it
        (0, 3, 5, False),
        (6, 1, 7, True),  # passes 7, over the wrap
        (6, 1, 1, False),
        (7, 0, 7, True),
        (7, 0, 0, False),
    ],
)
def test_register_is_written_when_the_value_passes_event_idx(
    old: int, new: int, event_index: int, rings: bool
) -> None:
    link, doorbells = shadowed(event_index)
    doorbells.ring_tail(1, old, new, 8)
    assert link.written == ([(DOORBELLS + 8, new)] if rings else [])


def test_shadow_uses_the_stride_too() -> None:
    link, doorbells = shadowed(9, dstrd=2)
    doorbells.ring_tail(1, 0, 1, 16)
    assert link.memory.load_u32(SHADOW + 32) == 1
    assert link.written == []


def test_doorbell_of_the_admin_queue_is_always_written() -> None:
    link, doorbells = shadowed(0)
    link.memory.store_u32(EVENT_INDEX, 9)
    doorbells.ring_tail(0, 0, 1, 16)
    assert link.memory.load_u32(SHADOW) == 1
    assert link.written == [(DOORBELLS, 1)]


class LoadsFirst(Doorbells):
    """A driver that looks at EventIdx before it stores: Linux before 2018, SPDK before 2019."""

    def _ring(self, index: int, old: int, new: int, entries: int) -> None:
        event_index = self._link.memory.load_u32(EVENT_INDEX + 4 * index)
        self._link.memory.store_u32(SHADOW + 4 * index, new)
        if 0 < (new - event_index) % entries <= (new - old) % entries:
            self.write(index, new)


def told(driver: type[Doorbells], moment: int) -> bool:
    """A device with tail 1 goes to sleep while the driver moves the tail from 1 to 2: it publishes
    its EventIdx and looks at the shadow once more, before the driver's access number `moment` to
    the two words. Whether it hears of the new tail: by that look, or by the register."""
    link = DeadLink()
    doorbells = driver(link, 0)
    doorbells.use_shadow(SHADOW, EVENT_INDEX)
    load, store = link.memory.load_u32, link.memory.store_u32
    store(SHADOW + 8, 1)
    store(EVENT_INDEX + 8, 0)
    accesses = 0
    seen = 1

    def device() -> None:
        nonlocal accesses, seen
        if accesses == moment:
            store(EVENT_INDEX + 8, 1)
            seen = load(SHADOW + 8)
        accesses += 1

    class Memory:
        def load_u32(self, addr: int) -> int:
            device()
            return load(addr)

        def store_u32(self, addr: int, value: int) -> None:
            device()
            store(addr, value)

    link.memory = Memory()  # type: ignore[assignment]
    doorbells.ring_tail(1, 1, 2, 8)
    while accesses <= moment:
        device()
    return seen == 2 or link.written == [(DOORBELLS + 8, 2)]


def test_no_moment_at_which_a_device_goes_to_sleep_loses_a_command() -> None:
    assert all(told(Doorbells, moment) for moment in range(3))


def test_a_driver_that_loads_before_it_stores_would_lose_one() -> None:
    assert not all(told(LoadsFirst, moment) for moment in range(3))
