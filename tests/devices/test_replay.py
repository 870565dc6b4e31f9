"""A hang that was explored, on real QEMUs: the affected one hangs in the same steps."""

from __future__ import annotations

import random

import msgspec
import pytest

from nvmelab.corpus.personas import PERSONAS, Persona
from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.remote import Outcome, replay_on
from nvmelab.explore.replay import Replay
from nvmelab.explore.setting import Setting, label_text
from nvmelab.explore.system import DEVICE_STEPS, Label
from tests.devices.conftest import Connect

pytestmark = pytest.mark.guest


def hang_of(entries: int, device: str = "qemu-5.2") -> Replay:
    replay = explore(Setting(entries, device), Plan()).replay
    assert replay and replay.result == "hang" and replay.shortest
    return replay


def taken(open_qemu: Connect, version: str, replay: Replay) -> Outcome:
    return replay_on(open_qemu(version), replay)


@pytest.mark.parametrize("entries", [3, 4, 5])
def test_the_affected_qemu_hangs_in_the_same_steps(open_qemu: Connect, entries: int) -> None:
    replay = hang_of(entries)
    outcome = taken(open_qemu, "5.2", replay)
    assert (outcome.forced, outcome.parted) == (len(replay.labels), "")
    assert outcome.hang and not outcome.error
    assert "1 outstanding" in outcome.rings


@pytest.mark.parametrize("entries", [3, 4])
@pytest.mark.parametrize("version", ["10.0", "11.1"])
def test_the_repaired_ones_do_not(open_qemu: Connect, version: str, entries: int) -> None:
    outcome = taken(open_qemu, version, hang_of(entries))
    assert not outcome.hang and not outcome.error
    assert outcome.followed >= 15 and "0 outstanding" in outcome.rings


def test_a_run_in_another_order_parts_from_the_device(open_qemu: Connect) -> None:
    replay = hang_of(4, "qemu-9.0+1")  # with a request that QEMU does not have
    outcome = taken(open_qemu, "5.2", replay)
    assert outcome.forced < len(replay.labels)
    assert outcome.parted.startswith(f"after step {outcome.forced + 1} (")


@pytest.mark.parametrize("entries", [3, 4])
def test_a_run_with_an_eager_device_needs_no_clock(open_qemu: Connect, entries: int) -> None:
    replay = explore(Setting(entries, "qemu-9.0-lifo", eager=True), Plan()).replay
    assert replay
    affected = taken(open_qemu, "5.2", replay)
    assert affected.hang and affected.forced == len(replay.labels)
    for version in ("7.2", "10.0", "11.1"):  # Debian's 7.2 has the fix, too
        repaired = taken(open_qemu, version, replay)
        assert not repaired.hang and not repaired.error
        # It fetches the very command that is forgotten by the others.
        assert "storage has" in repaired.parted


def walk(setting: Setting, seed: int, steps: int) -> Replay:
    """At least so many steps, as they come, to where the device rests; the rest of the record is
    that of a hang."""
    system, source = setting.system(), random.Random(seed)
    labels: list[Label] = []
    both = False
    while enabled := system.enabled():
        device = [label for label in enabled if label[0] in DEVICE_STEPS]
        if len(labels) >= steps and not device:
            break
        # The head doorbell of a full CQ starts two timers for one moment: they run together.
        label = source.choice(device if both and device else enabled)
        both = bool(both and device) or (label[0] == "reap" and system.cq.full)
        labels.append(label)
        system.take(label)
    found = [label_text(label) for label in labels]
    return msgspec.structs.replace(hang_of(3), setting=setting, labels=found)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    ("version", "persona"),
    [("5.2", "qemu-5.2"), ("5.2", "qemu-9.0-lifo"), ("10.0", "repaired"), ("11.1", "repaired")],
)
def test_the_personas_are_where_the_real_devices_are(
    open_qemu: Connect, version: str, persona: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = PERSONAS["qemu-9.1.2"].wakeups
    assert rules
    rules = msgspec.structs.replace(rules, order="lifo")
    monkeypatch.setitem(PERSONAS, "repaired", Persona("repaired", "", rules))
    setting = Setting(4, persona, eager=persona != "qemu-5.2")
    replay = walk(setting, seed, 150)
    outcome = taken(open_qemu, version, replay)
    assert (outcome.parted, outcome.forced) == ("", len(replay.labels))
    assert not outcome.error
