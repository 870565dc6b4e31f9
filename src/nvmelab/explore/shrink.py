"""The shortest run that fails like a given one, found by leaving steps out (ddmin).

A. Zeller and R. Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002. What is left
out may make later steps impossible: those are skipped, and what is owed at the end is done then.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from nvmelab.explore.replay import Played, follow
from nvmelab.explore.system import Label, Snapshot, System


class Shrunk(msgspec.Struct, frozen=True):
    """What is left of a run: no single step of it can be left out."""

    played: Played
    replays: int
    """Runs that this took."""


def shrink(system: System, labels: Sequence[Label]) -> Shrunk:
    """Shrink a run that fails from the present state, which the system is left in. The result
    breaks the same rule."""
    return _Shrink(system, labels).run()


class _Shrink:
    def __init__(self, system: System, labels: Sequence[Label]) -> None:
        self._system = system
        self._start = system.save()
        self._best = follow(system, labels)
        assert self._best.failed, "this run does not fail"
        self._before: list[Snapshot] = []
        """The state before each step of the best run: what two runs have in common at their
        beginning is taken once."""
        self._replays = 1

    def run(self) -> Shrunk:
        try:
            self._remember(0)
            size = max(len(self._best.labels) // 2, 1)
            while True:
                shorter = self._pass(size)
                if size == 1 and not shorter:
                    return Shrunk(self._best, self._replays)
                size = max(size // 2, 1)
        finally:
            self._system.load(self._start)

    def _pass(self, size: int) -> bool:
        """Leave out each `size` steps in turn, the last ones first. Whether any could be."""
        shorter = False
        at = len(self._best.labels) - size
        while at > -size:
            first = max(at, 0)
            # A run that was cut has a new end, and may have become shorter than where we are.
            if first < len(self._best.labels) and self._without(first, at + size):
                shorter = True
            at -= size
        return shorter

    def _without(self, first: int, end: int) -> bool:
        """Leave these steps out if the run fails without them, and is shorter."""
        best = self._best
        self._system.load(self._before[first])
        self._replays += 1
        played = follow(self._system, best.labels[end:])
        length = first + len(played.labels)
        if played.rule != best.rule or played.party != best.party or length >= len(best.labels):
            return False
        self._best = msgspec.structs.replace(played, labels=best.labels[:first] + played.labels)
        self._remember(first)
        return True

    def _remember(self, first: int) -> None:
        """The states before the steps from `first` on."""
        del self._before[first + 1 :]
        if not self._before:
            self._before.append(self._start)
        self._system.load(self._before[first])
        for label in self._best.labels[first:-1]:
            self._system.take(label)
            self._before.append(self._system.save())
