"""Planted faults: each is found, blamed on the side that has it, and by the rule that it breaks;
the sound pair breaks none."""

from __future__ import annotations

import pytest

from nvmelab.check.ball import holder
from nvmelab.check.rules import EXPLORED, PROGRESS, RULES
from nvmelab.corpus.faults import FAULTS, Fault
from nvmelab.corpus.personas import PERSONAS
from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.reached import SOMETIMES
from nvmelab.explore.replay import follow
from nvmelab.explore.search import NoProgress, search
from nvmelab.explore.setting import Setting
from nvmelab.explore.system import System
from nvmelab.explore.watch import Seen, Violation, Watch

FIXED = ("nvmelab", "qemu-9.1.2")


def setting_of(fault: Fault, device: str = "nvmelab") -> Setting:
    grain = "fine" if fault.grain == "fine" else "coarse"
    return Setting(entries=3, device=device, fault=fault.name, grain=grain)  # type: ignore[arg-type]


@pytest.mark.parametrize("device", FIXED)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_each_fault_is_found_and_blamed_on_the_side_that_has_it(fault: Fault, device: str) -> None:
    result = explore(setting_of(fault, device), Plan())
    assert result.replay
    assert result.replay.ball == fault.party
    assert result.replay.rule == (fault.rule or "progress")
    assert follow(setting_of(fault, device).system(), result.replay.steps()).failed


@pytest.mark.parametrize("doorbells", ["together", "apart"])
@pytest.mark.parametrize("grain", ["coarse", "fine"])
@pytest.mark.parametrize("device", FIXED)
def test_nothing_is_found_on_the_sound_pair(device: str, grain: str, doorbells: str) -> None:
    entries = 3 if (grain, doorbells) == ("coarse", "together") else 2
    setting = Setting(entries=entries, device=device, grain=grain, doorbells=doorbells)  # type: ignore[arg-type]
    result = explore(setting, Plan())
    assert result.result == "proved"
    assert result.missed == ([] if entries == 3 else ["over-committed", "pool-empty"])


@pytest.mark.parametrize("grain", ["coarse", "fine"])
def test_doorbells_on_their_way_do_not_cure_the_hang(grain: str) -> None:
    setting = Setting(entries=3, device="qemu-9.0", grain=grain, doorbells="apart")  # type: ignore[arg-type]
    result = explore(setting, Plan())
    assert result.result == "hang" and result.replay and result.replay.ball == "device"


def test_every_rule_has_a_reference_and_a_party() -> None:
    for rule in (*RULES.values(), *PROGRESS.values()):
        assert rule.party in ("driver", "device", "platform")
        assert rule.ref.startswith(("Base 2.2, ", "NVM Command Set 1.2, ", "NVMe over PCIe"))


def watch(**seen: object) -> Watch:
    """A watch of queues of 4 entries that has seen this."""
    made = Watch(1, 4, lambda cid: cid != 9, interrupts=True)
    made.seen = Seen(**seen)  # type: ignore[arg-type]
    return made


def entry(cid: int) -> bytes:
    return bytes([2, 0, cid & 0xFF, cid >> 8]) + bytes(60)


def high(sqhd: int, cid: int, phase: int, status: int = 0, sqid: int = 1) -> int:
    return sqhd | sqid << 16 | cid << 32 | (status << 1 | phase) << 48


FETCHED = {"written": 3, "rung": 3, "fetched": 3, "device": (7, 8, 9)}
TRIPS = [
    ("sq.slot-in-use", lambda: watch(written=1, slots=(7,)).entry_written(0, entry(8))),
    ("sq.slot-in-use", lambda: watch(written=3, slots=(7, 8, 9)).entry_written(3, entry(6))),
    ("sq.cid-in-use", lambda: watch(written=1, slots=(7,)).entry_written(1, entry(7))),
    ("sq.tail", lambda: watch(written=1, slots=(7,)).tail_rung(2)),
    ("sq.tail", lambda: watch(written=1, slots=(7,)).tail_rung(4)),
    ("cq.head", lambda: watch(posted=1).head_rung(2)),
    ("cq.head", lambda: watch(posted=1).head_rung(5)),
    ("cq.taken-early", lambda: watch(posted=1).outstanding({}, 2)),
    ("sq.fetched-early", lambda: watch(written=1, slots=(7,)).entry_fetched(0)),
    ("sq.fetched-early", lambda: watch(written=2, rung=2, slots=(7, 8)).entry_fetched(1)),
    ("cq.overrun", lambda: watch(**FETCHED, posted=3).entry_posted(3, high(3, 7, 1))),
    ("cq.slot", lambda: watch(**FETCHED).entry_posted(1, high(3, 7, 1))),
    ("cq.phase", lambda: watch(**FETCHED).entry_posted(0, high(3, 7, 0))),
    ("cq.unknown-command", lambda: watch(**FETCHED).entry_posted(0, high(3, 6, 1))),
    ("cq.unknown-command", lambda: watch(**FETCHED).entry_posted(0, high(3, 7, 1, sqid=2))),
    ("cq.sqhd", lambda: watch(**FETCHED).entry_posted(0, high(2, 7, 1))),
    ("cq.status", lambda: watch(**FETCHED).entry_posted(0, high(3, 7, 1, status=2))),
    ("data.late", lambda: watch(**FETCHED).entry_posted(0, high(3, 9, 1))),
]


@pytest.mark.parametrize(("rule", "act"), TRIPS, ids=lambda value: str(value)[:20])
def test_each_rule_trips(rule: str, act: object) -> None:
    with pytest.raises(Violation) as caught:
        act()  # type: ignore[operator]
    assert caught.value.rule == rule
    assert caught.value.party == RULES[rule].party


def test_every_rule_of_the_rings_is_tripped_here() -> None:
    assert {rule for rule, _act in TRIPS} | {"device.failed"} == EXPLORED


def test_a_fatal_status_is_the_devices() -> None:
    system = Setting(entries=3).system()
    start = system.save()
    system.controller.life.fatal()
    with pytest.raises(Violation) as caught:
        system.take(("submit", 0))
    assert caught.value.rule == "device.failed"
    system.load(start)
    assert system.enabled() == [("submit", 0)]
    assert follow(system, [("submit", 0)]).ball is None


def test_a_watch_lets_a_whole_round_pass() -> None:
    seen = watch()
    seen.entry_written(0, entry(7))
    seen.tail_rung(1)
    seen.entry_fetched(0)
    seen.entry_posted(0, high(1, 7, 1))
    seen.interrupt_raised()
    seen.outstanding({}, 1)
    seen.head_rung(1)
    assert seen.seen == Seen(
        written=1, rung=1, fetched=1, posted=1, consumed=1, released=1, signalled=1
    )


def test_what_must_be_reached_is_missed_where_it_cannot_be() -> None:
    result = explore(Setting(entries=3, commands=1), Plan())
    assert result.result == "exhausted"
    assert set(result.missed) == set(SOMETIMES)


class Spins(System):
    """Its measure of progress never rises."""

    def progress(self) -> int:
        return 0


def test_a_step_without_progress_ends_the_search() -> None:
    system = Spins(PERSONAS["nvmelab"], entries=2, rules=True)
    with pytest.raises(NoProgress):
        search(system, system.sound_key)


def test_a_sound_system_at_rest_has_nobody_to_blame() -> None:
    assert holder(Setting(entries=3).system().standing()) is None
