"""Breadth-first search over every order of steps, with visited states.

A state is *at rest* when no step is enabled but `submit`, which no driver is obliged to take. At
rest with a command outstanding is a hang: nothing that anybody must do would change it.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import msgspec

from nvmelab.explore.system import SUBMIT, Key, Label, Snapshot, System
from nvmelab.limits import SEARCH_STATES_MAX


class Found(msgspec.Struct):
    """What a search has seen."""

    states: int = 0
    transitions: int = 0
    hangs: int = 0
    """States at rest with a command outstanding."""
    shortest: list[Label] | None = None
    """The steps to the first of them; no other is reached by fewer."""
    complete: bool = False
    """Every reachable state was looked at."""


def search(
    system: System, key: Callable[[], Key], *, graph: bool = False, most: int = SEARCH_STATES_MAX
) -> Found:
    """Explore from the present state, until the first hang, or with `graph` everything; in either
    case no further than the level at which more than `most` states are known. With a number of
    commands, `graph` counts only hangs in which `submit` is not enabled either."""
    found = Found()
    start = system.save()
    first = key()
    parents: dict[Key, tuple[Key, Label] | None] = {first: None}
    level: list[tuple[Key, Snapshot]] = [(first, start)]
    collecting = gc.isenabled()
    gc.disable()  # states are many and hold no cycles
    try:
        while level:
            after: list[tuple[Key, Snapshot]] = []
            for here, snapshot in level:
                system.load(snapshot)
                labels = system.enabled()
                ends = not labels or (labels == [SUBMIT] and not (graph and system.commands))
                if ends and system.outstanding:
                    found.hangs += 1
                    found.shortest = found.shortest or _path(parents, here)
                    if not graph:
                        return found
                for number, label in enumerate(labels):
                    if number:
                        system.load(snapshot)
                    system.take(label)
                    found.transitions += 1
                    reached = key()
                    if reached not in parents:
                        parents[reached] = (here, label)
                        after.append((reached, system.save()))
            level = after
            if len(parents) > most:
                return found
        found.complete = True
        return found
    finally:
        found.states = len(parents)
        if collecting:
            gc.enable()
        system.load(start)


def _path(parents: dict[Key, tuple[Key, Label] | None], key: Key) -> list[Label]:
    labels = []
    while parent := parents[key]:
        key, label = parent
        labels.append(label)
    return labels[::-1]
