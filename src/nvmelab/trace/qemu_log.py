"""QEMU's trace log, written: one line for each event, as `-trace 'pci_nvme_*'` prints it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import TextIO

from nvmelab.trace.events import EVENTS, QEMU_PREFIX


class PatternError(Exception):
    """A pattern that selects no event. The message is one line for the user."""


def select(patterns: Iterable[str]) -> set[str]:
    """Names of the events that the patterns select, taken in order as QEMU does: shell globs over
    `pci_nvme_...` names, a leading `-` takes events away. Raises PatternError."""
    chosen: set[str] = set()
    for pattern in patterns:
        glob = pattern.removeprefix("-")
        found = {name for name in EVENTS if fnmatch.fnmatchcase(QEMU_PREFIX + name, glob)}
        if not found:
            raise PatternError(
                f"--trace {pattern!r} matches no event; events are named like"
                f" {QEMU_PREFIX}mmio_doorbell_sq, and 'pci_nvme_*' selects all of them"
            )
        chosen = chosen - found if pattern.startswith("-") else chosen | found
    return chosen


def event_text(name: str, values: tuple[object, ...]) -> str:
    """One event as its line."""
    return f"{QEMU_PREFIX}{name} {EVENTS[name].template.format(*values)}".rstrip()


class QemuLogWriter:
    """Writes events to a text file, a line each. Subscribe it to a bus."""

    def __init__(self, file: TextIO) -> None:
        self._write = file.write
        self._templates = {
            name: f"{QEMU_PREFIX}{name} {event.template}\n" for name, event in EVENTS.items()
        }

    def __call__(self, name: str, values: tuple[object, ...]) -> None:
        self._write(self._templates[name].format(*values))
