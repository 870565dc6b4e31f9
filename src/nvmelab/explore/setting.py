"""What is explored, as plain data: the same setting builds the same system everywhere."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from nvmelab.corpus.faults import FAULTS, SOUND
from nvmelab.corpus.personas import PERSONAS
from nvmelab.explore.system import STEPS, Doorbells, Grain, Key, Label, System
from nvmelab.limits import SEARCH_ENTRIES_MAX

SCENARIOS = {
    "overcommit": "a driver that judges its SQ by SQHD, as OSv does, so that more commands are "
    "outstanding than its ring can hold",
}


class SettingError(ValueError):
    """No system can be built from this. One line for the user."""


class Setting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One system to explore."""

    entries: int
    """Of the submission queue and of the completion queue."""
    device: str = "nvmelab"
    """A persona."""
    commands: int | None = None
    """How many the driver submits; None is any number."""
    grain: Grain = "coarse"
    doorbells: Doorbells = "together"
    eager: bool = False
    """The device takes its steps before anybody else takes one, as one does that nobody holds."""
    fault: str = ""
    """A planted fault, or none."""
    rules: bool = True
    """Check the rules in each step, and tell states apart by all that they read. Without, states
    are told apart by what matters to hangs only: that may find, and never proves."""
    scenario: str = "overcommit"

    def system(self) -> System:
        """Build it. Raises SettingError."""
        if self.scenario not in SCENARIOS:
            raise SettingError(f"no scenario {self.scenario!r}; there is: {', '.join(SCENARIOS)}")
        if self.device not in PERSONAS:
            raise SettingError(f"no device {self.device!r}; give one of {', '.join(PERSONAS)}")
        if self.fault and self.fault not in FAULTS:
            raise SettingError(f"no fault {self.fault!r}; give one of {', '.join(FAULTS)}")
        if not 2 <= self.entries <= SEARCH_ENTRIES_MAX:
            raise SettingError(f"{self.entries} entries: give 2 to {SEARCH_ENTRIES_MAX}")
        if self.commands is not None and self.commands < 1:
            raise SettingError(f"{self.commands} commands: give at least 1, or any")
        fault = FAULTS.get(self.fault, SOUND)
        if self.fault and fault.grain == "fine" and self.grain != "fine":
            raise SettingError(f"the fault {self.fault} needs --grain fine")
        if self.fault and fault.party == "driver" and fault.grain != self.grain:
            raise SettingError(f"the fault {self.fault} needs --grain {fault.grain}")
        return System(
            PERSONAS[self.device],
            entries=self.entries,
            commands=self.commands,
            grain=self.grain,
            doorbells=self.doorbells,
            eager=self.eager,
            fault=fault,
            rules=self.rules,
        )

    def key(self, system: System) -> Callable[[], Key]:
        """What tells states of a system of this setting apart."""
        return system.sound_key if self.rules else system.relative_key

    @property
    def symmetric(self) -> bool:
        """That does not tell commands apart."""
        return not self.rules

    @property
    def scope(self) -> str:
        """What a claim about this setting is about, in words."""
        count = "any number of commands" if self.commands is None else f"{self.commands} commands"
        more = "" if self.doorbells == "together" else ", doorbell writes may be under way"
        more += ", the device always first" if self.eager else ""
        return (
            f"1 SQ and 1 CQ of {self.entries} entries, {count}, all reads of one block "
            f"(interchangeable), {self.grain} steps{more}"
        )


def label_text(label: Label) -> str:
    """A label as a schedule has it: `submit`, `fetch 1`, `complete 0`."""
    name, number = label
    return f"{name} {number}" if number or name == "complete" else name


def parse_label(text: str) -> Label:
    """The label that `label_text` wrote. Raises ValueError."""
    name, _, number = text.partition(" ")
    if name not in STEPS or (number and not number.isdecimal()):
        raise ValueError(f"{text!r} is no step")
    label = name, int(number or 0)
    if label_text(label) != text:
        raise ValueError(f"{text!r} is no step")
    return label
