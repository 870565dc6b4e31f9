"""Every order of events on the real driver and the real controller, against the counts that the
independent model and Spin give."""

from __future__ import annotations

from typing import Literal

import msgspec
import pytest

from nvmelab.corpus.faults import FAULTS, SOUND, Fault
from nvmelab.corpus.personas import PERSONAS, Persona
from nvmelab.device.wakeups import WakeupRules
from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.search import search
from nvmelab.explore.setting import Setting
from nvmelab.explore.system import Key, Label, Snapshot, System
from nvmelab.explore.watch import Violation
from nvmelab.report.explore import result_text
from tests.explore.constants import BOUNDED, FEWEST, ORDERED, UNBOUNDED
from tests.explore.oracle import Counts, Grain, Model, Order

RULES = [
    PERSONAS["qemu-9.0"].wakeups,
    PERSONAS["qemu-fix-v1"].wakeups,
    PERSONAS["qemu-9.1.2"].wakeups,
    WakeupRules(),
]
"""By the variant of the model."""
ORDERS = {Order.FREE: "free", Order.PASS: "lifo", Order.TIMERS: "fifo"}
SMALL = [
    (model, counts)
    for table in (BOUNDED, UNBOUNDED, ORDERED)
    for model, counts in table.items()
    if counts.states < 15_000 and model.grain is Grain.M1
]


def persona_of(model: Model) -> Persona:
    rules = RULES[model.variant]
    assert rules
    rules = msgspec.structs.replace(
        rules,
        extra_requests=model.slots - model.entries,
        order=ORDERS[model.order],
    )
    return Persona("model", "", rules)


@pytest.mark.parametrize(("model", "counts"), SMALL, ids=str)
def test_counts_are_those_of_the_model(model: Model, counts: Counts) -> None:
    system = System(persona_of(model), entries=model.entries, commands=model.commands)
    found = search(system, system.relative_key, symmetric=True, graph=True)
    shortest = len(found.shortest) if found.shortest else None
    assert Counts(found.states, found.transitions, found.hangs, shortest) == counts
    assert found.complete


@pytest.mark.parametrize(("entries", "transitions"), [(3, 1_737), (4, 5_392)])
def test_each_command_at_the_storage_is_a_choice(entries: int, transitions: int) -> None:
    system = System(PERSONAS["qemu-9.0"], entries=entries, commands=6)
    assert search(system, system.relative_key, graph=True).transitions == transitions


@pytest.mark.parametrize("extra", [0, 1, 2])
@pytest.mark.parametrize("entries", [2, 3, 4])
def test_no_larger_pool_cures_it(entries: int, extra: int) -> None:
    fewest = FEWEST[entries, entries + extra]
    persona = PERSONAS["qemu-9.0" + (f"+{extra}" if extra else "")]
    system = System(persona, entries=entries)
    found = search(system, system.relative_key)
    if fewest is None:
        assert found.shortest is None and found.complete
    else:
        assert found.shortest and len(found.shortest) == fewest[1]
        assert found.shortest.count(("submit", 0)) == fewest[0]


@pytest.mark.parametrize(
    ("name", "entries", "states"),
    [
        ("qemu-9.1.2", 2, 32),
        ("qemu-9.1.2", 3, 1_242),
        ("qemu-9.1.2", 4, 9_840),
        ("qemu-9.1.2", 5, 65_750),
        ("nvmelab", 2, 20),
        ("nvmelab", 3, 846),
        ("nvmelab", 4, 6_776),
        ("nvmelab", 5, 45_660),
    ],
)
def test_the_fix_and_ours_are_proved_for_any_number_of_commands(
    name: str, entries: int, states: int
) -> None:
    result = explore(Setting(entries, name), Plan())
    assert (result.result, result.states) == ("proved", states)
    assert not result.missed or entries == 2


@pytest.mark.parametrize("name", PERSONAS)
def test_the_shortest_hang_hangs_when_taken_again(name: str) -> None:
    system = System(PERSONAS[name], entries=3)
    found = search(system, system.sound_key)
    assert (found.shortest is None) == (name in ("nvmelab", "qemu-9.1.2"))
    for label in found.shortest or []:
        assert label in system.enabled()
        system.take(label)
    if found.shortest:
        assert system.enabled() in ([], [("submit", 0)]) and system.outstanding


def test_a_search_that_is_cut_short_does_not_call_itself_complete() -> None:
    system = System(PERSONAS["nvmelab"], entries=4)
    found = search(system, system.sound_key, most=100)
    assert not found.complete and 100 < found.states < 6_776


def test_a_phase_that_never_flips_is_a_hang_by_the_sound_key_only() -> None:
    system = System(PERSONAS["qemu-9.1.2"], entries=3, fault=FAULTS["phase-stays"])
    assert search(system, system.sound_key).shortest
    assert search(system, system.relative_key).shortest is None  # so it must not prove


Future = list[tuple[Label, Key | str]]


def future_of(system: System, snapshot: Snapshot) -> tuple[Future, list[Snapshot]]:
    """What each enabled step leads to: a sound key, or the rule that it breaks, or `told apart`;
    and the states."""
    system.load(snapshot)
    future: Future = []
    reached: list[Snapshot] = []
    for label in system.enabled():
        system.load(snapshot)
        system.interchangeable = True
        try:
            system.take(label)
            key = system.sound_key()
        except Violation as violation:
            future.append((label, violation.rule))
            continue
        if system.interchangeable:
            future.append((label, key))
            reached.append(system.save())
        else:
            future.append((label, "told apart"))
    return future, reached


PAIRS = [
    (fault, name, grain)
    for fault in (SOUND, *FAULTS.values())
    for name in ("qemu-9.0", "qemu-fix-v1", "qemu-9.1.2", "nvmelab")
    for grain in ("coarse", "fine")
    if not (fault.party == "driver" and fault.grain != grain)
]


@pytest.mark.parametrize(
    ("fault", "name", "grain"), PAIRS, ids=lambda value: getattr(value, "name", value)
)
def test_states_with_equal_sound_keys_have_equal_futures(
    name: str, grain: Literal["coarse", "fine"], fault: Fault
) -> None:
    entries = 2 if grain == "fine" else 4 if fault.party == "driver" else 3
    system = System(PERSONAS[name], entries=entries, grain=grain, fault=fault, rules=True)
    futures: dict[Key, Future] = {}
    todo = [system.save()]
    again = 0
    while todo:
        system.load(snapshot := todo.pop())
        key = system.sound_key()
        future, reached = future_of(system, snapshot)
        if key in futures:
            again += 1
            assert futures[key] == future
        else:
            futures[key] = future
            todo += reached
    assert again or any(to == "told apart" for future in futures.values() for _label, to in future)


def test_a_command_that_the_device_has_twice_is_told_apart() -> None:
    system = System(PERSONAS["nvmelab"], entries=3, rules=True)
    for label in [("submit", 0), ("fetch", 1), ("complete", 0)]:
        system.take(label)
    system.sound_key()
    assert system.interchangeable
    system.cq.finished.append(system.cq.finished[0])
    system.sound_key()
    assert not system.interchangeable


def test_nothing_is_proved_of_a_device_that_may_tell_commands_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting(2)
    system = setting.system()
    system.interchangeable = False
    monkeypatch.setattr(Setting, "system", lambda _setting: system)
    result = explore(setting, Plan())
    assert (result.result, result.replay) == ("exhausted", None)
    assert "no proof the device had a command twice" in result_text(result, None)


def test_load_undoes_what_steps_did() -> None:
    system = System(PERSONAS["qemu-9.0"], entries=4, commands=6)
    start, key = system.save(), system.sound_key()
    for _ in range(12):
        system.take(system.enabled()[-1])
    assert system.sound_key() != key
    system.load(start)
    assert system.save() == start and system.sound_key() == key
