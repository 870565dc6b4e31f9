"""Breadth-first search over every order of steps, with visited states.

A state is *at rest* when no step is enabled but `submit`, which no driver is obliged to take. At
rest with a command outstanding is a hang: nothing that anybody must do would change it. It is
looked for in every state, so at every pause of the driver.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import msgspec

from nvmelab.explore.reached import SOMETIMES
from nvmelab.explore.system import SUBMIT, Key, Label, Snapshot, System
from nvmelab.explore.watch import Violation
from nvmelab.limits import SEARCH_STATES_MAX

Progress = Callable[[int, int], None]
"""Called now and then with the states known and the steps to the furthest of them."""


class Found(msgspec.Struct):
    """What a search has seen."""

    states: int = 0
    transitions: int = 0
    hangs: int = 0
    """States at rest with a command outstanding."""
    violations: int = 0
    """Steps that broke a rule. Nothing behind them is looked at."""
    shortest: list[Label] | None = None
    """The steps to the first hang or violation; no other is reached by fewer."""
    violation: Violation | None = None
    """If that is a violation: which."""
    complete: bool = False
    """Every reachable state was looked at."""
    missed: list[str] = []
    """What of `SOMETIMES` was never the case; empty without rules."""


class NoProgress(AssertionError):
    """A step that lowers the measure of progress: the explored system could spin for ever, and that
    nothing is enabled would say nothing about hangs."""


def search(
    system: System,
    key: Callable[[], Key],
    *,
    symmetric: bool = False,
    graph: bool = False,
    most: int = SEARCH_STATES_MAX,
    progress: Progress | None = None,
) -> Found:
    """Explore from the present state, until the first hang or violation, or with `graph`
    everything; in either case no further than the level at which more than `most` states are known.
    With a number of commands, `graph` counts only hangs in which `submit` is not enabled either.
    `symmetric` is for a key that does not tell commands apart: see `System.enabled`.
    """
    return _Search(system, key, symmetric, graph, most, progress).run()


_State = tuple[Key, Snapshot, list[Label], int]
"""The key, the state, what is enabled in it, and its progress (0 without rules)."""


class _Search:
    def __init__(
        self,
        system: System,
        key: Callable[[], Key],
        symmetric: bool,
        graph: bool,
        most: int,
        progress: Progress | None,
    ) -> None:
        self._system, self._key, self._symmetric = system, key, symmetric
        self._graph, self._most, self._progress = graph, most, progress
        self._idle_hangs = not (graph and system.commands)
        self._parents: dict[Key, tuple[Key, Label] | None] = {}
        self._found = Found(missed=list(SOMETIMES) if system.watch else [])

    def run(self) -> Found:
        system, found = self._system, self._found
        start = system.save()
        collecting = gc.isenabled()
        gc.disable()  # states are many and hold no cycles
        try:
            found.complete = self._levels()
        finally:
            found.states = len(self._parents)
            if collecting:
                gc.enable()
            system.load(start)
        return found

    def _levels(self) -> bool:
        """Level by level; whether everything was looked at."""
        system, key, found, parents = self._system, self._key, self._found, self._parents
        watched = system.watch is not None
        first = key()
        parents[first] = None
        level: list[_State] = []
        self._arrived(first, level)
        depth = 0
        while level and len(parents) <= self._most:
            after: list[_State] = []
            for here, snapshot, labels, done in level:
                for label in labels:
                    system.load(snapshot)
                    found.transitions += 1
                    if watched:
                        if not self._watched_step(here, label, done):
                            if not self._graph:
                                return False
                            continue
                    else:
                        system.take(label)
                    reached = key()
                    if reached not in parents:
                        parents[reached] = (here, label)
                        if self._arrived(reached, after) and not self._graph:
                            return False
            level = after
            depth += 1
            if self._progress:
                self._progress(len(parents), depth)
        return not level

    def _arrived(self, key: Key, level: list[_State]) -> bool:
        """The system is in a state that was not known. Whether it hangs there."""
        system = self._system
        labels = system.enabled(symmetric=self._symmetric)
        if labels:
            done = system.progress() if system.watch else 0
            level.append((key, system.save(), labels, done))
        missed = self._found.missed
        if missed:
            self._found.missed = [name for name in missed if not SOMETIMES[name][1](system)]
        if not system.outstanding:
            return False
        if labels and not (self._idle_hangs and labels == [SUBMIT]):
            return False
        self._found.hangs += 1
        if self._found.shortest is None:
            self._found.shortest = self._path(key)
        return True

    def _watched_step(self, here: Key, label: Label, before: int) -> bool:
        """Take a step; False if it breaks a rule. Raises NoProgress."""
        system, found = self._system, self._found
        try:
            system.take(label)
        except Violation as violation:
            found.violations += 1
            if found.shortest is None:
                found.shortest = [*self._path(here), label]
                found.violation = violation
            return False
        if system.progress() <= before:
            raise NoProgress(f"step {label} makes no progress, after {self._path(here)}")
        return True

    def _path(self, key: Key) -> list[Label]:
        labels = []
        while parent := self._parents[key]:
            key, label = parent
            labels.append(label)
        return labels[::-1]
