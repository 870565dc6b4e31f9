from __future__ import annotations

import pytest

from nvmelab.trace.bus import Bus

Seen = list[tuple[str, tuple[object, ...]]]


class Recorder:
    def __init__(self) -> None:
        self.seen: Seen = []

    def __call__(self, name: str, values: tuple[object, ...]) -> None:
        self.seen.append((name, values))


def test_listener_gets_name_and_values_in_order() -> None:
    bus, recorder = Bus(), Recorder()
    bus.subscribe(recorder, ["mmio_read", "err_cfs"])
    bus.emit("mmio_read", 0x14, 4)
    bus.emit("err_cfs")
    assert recorder.seen == [("mmio_read", (0x14, 4)), ("err_cfs", ())]


def test_listener_gets_only_what_it_asked_for() -> None:
    bus, recorder = Bus(), Recorder()
    bus.subscribe(recorder, ["mmio_read"])
    bus.emit("mmio_write", 0x14, 1, 4)
    assert recorder.seen == []


def test_several_listeners_of_one_event_all_get_it() -> None:
    bus, first, second = Bus(), Recorder(), Recorder()
    bus.subscribe(first, ["del_sq"])
    bus.subscribe(second, ["del_cq", "del_sq"])
    bus.emit("del_sq", 3)
    assert first.seen == second.seen == [("del_sq", (3,))]


def test_second_subscription_adds_to_the_first() -> None:
    bus, recorder = Bus(), Recorder()
    bus.subscribe(recorder, ["del_sq"])
    bus.subscribe(recorder, ["del_cq"])
    bus.emit("del_sq", 1)
    bus.emit("del_cq", 1)
    assert recorder.seen == [("del_sq", (1,)), ("del_cq", (1,))]


def test_unknown_event_cannot_be_subscribed_to() -> None:
    with pytest.raises((AssertionError, KeyError), match="no_such_event"):
        Bus().subscribe(Recorder(), ["no_such_event"])


def test_emitter_of_a_bus_without_listeners_is_none() -> None:
    assert Bus().emitter is None


def test_emitter_of_a_bus_whose_listener_wants_nothing_is_none() -> None:
    bus = Bus()
    bus.subscribe(Recorder(), [])
    assert bus.emitter is None


def test_emitter_of_a_bus_with_a_listener_reaches_it() -> None:
    bus, recorder = Bus(), Recorder()
    bus.subscribe(recorder, ["irq_msix"])
    emit = bus.emitter
    assert emit is not None
    emit("irq_msix", 5)
    assert recorder.seen == [("irq_msix", (5,))]
