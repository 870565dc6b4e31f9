"""Random runs from a seed, for systems too large to search.

    pct     each task has a random priority, and the highest that is enabled goes on; at depth - 1
            random moments the running one falls behind all others. A task is the driver's
            submitting, its reaping, each queue of the device, and each command at the storage
            (Burckhardt et al., "A Randomized Scheduler with Probabilistic Guarantees", 2010)
    walk    each kind of step has a random weight, drawn once a run; then by weight

A run is a burst of commands and then whatever anybody owes, until nothing is left: one pause. Run
number i depends on the seed and i alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from typing import Literal

import msgspec

from nvmelab.explore.system import SUBMIT, Label, System
from nvmelab.explore.watch import Violation
from nvmelab.limits import SAMPLE_STEPS_MAX

Strategy = Literal["pct", "walk"]
_STEPS_OF_A_COMMAND = 5
"""About as many as a command takes, for where the priorities of `pct` change."""
_WEIGHT_MAX = 8
"""Weights are powers of two up to this one's."""


class Sampled(msgspec.Struct):
    """What came of some runs."""

    runs: int = 0
    steps: int = 0
    hits: int = 0
    labels: list[Label] | None = None
    """The steps of the first run that failed."""


def default_burst(entries: int) -> int:
    """Commands of a run, where the user says nothing: enough to over-commit a queue twice, also
    one whose pool is somewhat larger than the queue."""
    return 2 * entries + 8


def sample(
    system: System,
    *,
    strategy: Strategy,
    seed: int,
    runs: int,
    depth: int = 1,
    burst: int,
    all_runs: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Take `runs` runs of `burst` commands from the present state, ending at the first that fails
    unless `all_runs`."""
    start = system.save()
    sampled = Sampled()
    for number in range(runs):
        source = random.Random(f"{seed}/{strategy}/{depth}/{number}")
        run = _Pct(system, source, depth, burst) if strategy == "pct" else _Walk(system, source)
        labels, failed = _one(system, run, burst)
        system.load(start)
        sampled.runs += 1
        sampled.steps += len(labels)
        if failed:
            sampled.hits += 1
            sampled.labels = sampled.labels or labels
            if not all_runs:
                break
        if progress:
            progress(sampled.runs)
    return sampled


def _one(system: System, run: _Pct | _Walk, burst: int) -> tuple[list[Label], bool]:
    """One run: its steps, and whether it failed. A hang that only another command would cure is
    one, so each pause is looked at: also one before the burst is over."""
    taken: list[Label] = []
    submitted = 0
    while True:
        labels = system.enabled()
        may_submit = bool(labels) and labels[0] == SUBMIT
        if len(labels) == may_submit and system.outstanding:
            return taken, True
        if may_submit and submitted == burst:
            del labels[0]
        if not labels:
            return taken, False
        label = run.choose(labels)
        submitted += label == SUBMIT
        taken.append(label)
        assert len(taken) <= SAMPLE_STEPS_MAX, "a run does not come to an end"
        try:
            system.take(label)
        except Violation:
            return taken, True


class _Pct:
    def __init__(self, system: System, source: random.Random, depth: int, burst: int) -> None:
        self._system = system
        self._source = source
        self._priorities: dict[Hashable, float] = {}
        self._step = 0
        expected = max(_STEPS_OF_A_COMMAND * burst, depth)
        self._changes = set(source.sample(range(1, expected + 1), depth - 1))

    def choose(self, labels: list[Label]) -> Label:
        priorities, source = self._priorities, self._source
        flying = self._system.in_flight()
        best, top, task = labels[0], -float(SAMPLE_STEPS_MAX), None
        for label in labels:
            name = flying[label[1]] if label[0] == "complete" else label
            priority = priorities.get(name)
            if priority is None:
                priority = priorities[name] = source.random()
            if priority > top:
                best, top, task = label, priority, name
        self._step += 1
        if self._step in self._changes:
            priorities[task] = -float(self._step)
        return best


class _Walk:
    def __init__(self, system: System, source: random.Random) -> None:
        self._source = source
        self._weights: dict[str, float] = {}

    def choose(self, labels: list[Label]) -> Label:
        weights = []
        for name, _number in labels:
            weight = self._weights.get(name)
            if weight is None:
                weight = self._weights[name] = 2 ** self._source.uniform(0, _WEIGHT_MAX)
            weights.append(weight)
        return self._source.choices(labels, weights)[0]
