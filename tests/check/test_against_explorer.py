"""The judge against the explorer: it sees the log of runs whose culprit is known, at every state at
rest of small systems, and never blames the other side."""

from __future__ import annotations

from collections import Counter

import pytest

from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import Verdict, judge
from nvmelab.corpus.faults import FAULTS, Fault
from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.setting import Setting
from nvmelab.explore.system import SUBMIT, Label, System
from nvmelab.explore.watch import Violation
from nvmelab.trace.bus import Bus
from nvmelab.trace.events import EVENTS
from nvmelab.trace.qemu_reader import read_log
from tests.check.test_monitor import START


class Judged:
    """A system, and a monitor of the events of its controller."""

    def __init__(self, setting: Setting) -> None:
        self.system: System = setting.system()
        self.live = LiveMonitor()
        start = START.replace("qsize=3", f"qsize={setting.entries - 1}")
        start = start.replace("vector=0", "vector=1")  # as the system's driver has it
        read_log([start.encode()], self.live.monitor.handlers)
        bus = Bus()
        bus.subscribe(self.live, EVENTS)
        self.system.controller.trace = bus.emitter

    def take(self, labels: list[Label]) -> None:
        for label in labels:
            self.system.take(label)

    def verdict(self, *, rest: bool) -> Verdict:
        return judge(self.live.monitor, rest=rest)


def setting_of(fault: Fault) -> Setting:
    grain = "fine" if fault.grain == "fine" else "coarse"
    return Setting(entries=3, fault=fault.name, grain=grain)  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=lambda fault: fault.name)
def test_the_culprit_of_a_found_run_is_named_or_nobody_is(fault: Fault) -> None:
    found = explore(setting_of(fault), Plan()).replay
    assert found
    judged = Judged(setting_of(fault))
    try:
        judged.take(found.steps())
    except Violation:
        assert judged.verdict(rest=False).verdict in (fault.party, "clean", "undecided")
    else:
        assert judged.verdict(rest=True).verdict in (fault.party, "undecided")


@pytest.mark.parametrize("device", ["qemu-9.0", "qemu-9.0+1", "qemu-fix-v1", "qemu-5.2"])
@pytest.mark.parametrize("entries", [3, 4])
def test_the_hang_of_a_device_is_the_devices(device: str, entries: int) -> None:
    setting = Setting(entries, device)
    found = explore(setting, Plan()).replay
    assert found
    judged = Judged(setting)
    judged.take(found.steps())
    verdict = judged.verdict(rest=True)
    assert verdict.verdict == "device" and verdict.stuck[0].state in ("rung", "finished")
    if device in ("qemu-9.0", "qemu-5.2"):  # whose pool is as large as the queue
        assert verdict.pattern


def rests(setting: Setting, most: int) -> list[list[Label]]:
    """The runs to the first states at rest, and to breaches of a rule, breadth first."""
    system = setting.system()
    start = system.save()
    known = {system.sound_key()}
    level: list[tuple[object, list[Label]]] = [(start, [])]
    found: list[list[Label]] = []
    while level and len(found) < most:
        after: list[tuple[object, list[Label]]] = []
        for snapshot, labels in level:
            system.load(snapshot)  # type: ignore[arg-type]
            enabled = system.enabled()
            if all(label == SUBMIT for label in enabled):
                found.append(labels)
            for label in enabled:
                system.load(snapshot)  # type: ignore[arg-type]
                try:
                    system.take(label)
                except Violation:
                    found.append([*labels, label])
                    continue
                key = system.sound_key()
                if key not in known:
                    known.add(key)
                    after.append((system.save(), [*labels, label]))
        level = after
    return found[:most]


DEVICES = [
    (Setting(3, device), "device") for device in ("qemu-9.0", "qemu-fix-v1", "qemu-9.0-lifo")
]
SOUND = [(Setting(3, device), "") for device in ("nvmelab", "qemu-9.1.2")]
PLANTED = [(setting_of(fault), fault.party) for fault in FAULTS.values()]


@pytest.mark.parametrize(
    ("setting", "party"),
    DEVICES + SOUND + PLANTED,
    ids=lambda value: value if isinstance(value, str) else f"{value.device}-{value.fault}",
)
def test_at_every_rest_the_innocent_side_is_not_named(setting: Setting, party: str) -> None:
    words: Counter[str] = Counter()
    for labels in rests(setting, 150):
        judged = Judged(setting)
        try:
            judged.take(labels)
        except Violation:
            verdict = judged.verdict(rest=False)
        else:
            verdict = judged.verdict(rest=True)
            if not judged.system.outstanding:
                assert verdict.verdict == "clean", labels
            elif not party:
                pytest.fail(f"a sound pair is stuck: {labels}")
        assert verdict.verdict in (party, "undecided", "clean"), (labels, verdict)
        words[verdict.verdict] += 1
    assert words["clean"] or party
