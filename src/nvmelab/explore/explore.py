"""One exploration from beginning to end: search or sample, shrink, record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from nvmelab.explore.replay import Replay, record
from nvmelab.explore.sample import Strategy as SampleStrategy
from nvmelab.explore.sample import default_burst, sample
from nvmelab.explore.search import Found, search
from nvmelab.explore.setting import Setting
from nvmelab.explore.shrink import shrink
from nvmelab.explore.system import System
from nvmelab.limits import CERTIFY_ENTRIES_MAX, SEARCH_STATES_MAX

Strategy = Literal["bfs", "pct", "walk"]
Verdict = Literal["hang", "violation", "proved", "exhausted", "budget"]

Progress = Callable[[str], None]
"""Called now and then with what was done so far, in words."""


class Plan(msgspec.Struct, frozen=True):
    """How to explore a setting."""

    strategy: Strategy = "bfs"
    seed: int = 1
    runs: int = 1000
    """Most runs of `pct` and `walk`."""
    depth: int = 1
    """Of `pct`: how many tasks must come in a certain order for the bug to show, less one."""
    graph: bool = False
    """With `bfs`: everything, also behind the first finding."""
    states: int = SEARCH_STATES_MAX
    """With `bfs`: most states."""


class Result(msgspec.Struct, frozen=True):
    """What an exploration found. `result` is

    hang, violation   `replay` has the run
    proved            every state that any number of commands can reach was looked at
    exhausted         the same with a number of commands, or with a key that may not prove: without
                      rules, or if the device was found to tell commands apart
    budget            nothing was found in so many states or runs: it proves nothing
    """

    setting: Setting
    plan: Plan
    result: Verdict
    replay: Replay | None
    states: int
    transitions: int
    runs: int
    replays: int
    """Runs that shrinking took."""
    hangs: int
    violations: int
    missed: list[str]
    """What of `reached.SOMETIMES` was never the case although everything was looked at."""


def explore(setting: Setting, plan: Plan, progress: Progress | None = None) -> Result:
    """Explore. Raises SettingError."""
    system = setting.system()
    if plan.strategy == "bfs":
        return _search(setting, plan, system, progress)
    return _sample(setting, plan, plan.strategy, system, progress)


def _search(setting: Setting, plan: Plan, system: System, progress: Progress | None) -> Result:
    def tell(states: int, depth: int) -> None:
        if progress:
            progress(f"{states:,} states, {depth} steps deep")

    found = search(
        system,
        setting.key(system),
        symmetric=setting.symmetric,
        graph=plan.graph,
        most=plan.states,
        progress=tell,
    )
    replay = None
    if found.shortest is not None:
        # By the coarser key the run is a run, and the shortest: what it leaves out is not read.
        replay = record(setting, found.shortest, shortest=True)
    return Result(
        setting=setting,
        plan=plan,
        result=_verdict(setting, found, replay, system.interchangeable),
        replay=replay,
        states=found.states,
        transitions=found.transitions,
        runs=0,
        replays=0,
        hangs=found.hangs,
        violations=found.violations,
        missed=found.missed if found.complete else [],
    )


def _verdict(
    setting: Setting, found: Found, replay: Replay | None, interchangeable: bool
) -> Verdict:
    if replay:
        return replay.result
    if not found.complete:
        return "budget"
    proved = setting.rules and setting.commands is None and interchangeable
    return "proved" if proved else "exhausted"


def _sample(
    setting: Setting,
    plan: Plan,
    strategy: SampleStrategy,
    system: System,
    progress: Progress | None,
) -> Result:
    def tell(runs: int) -> None:
        if progress:
            progress(f"{runs:,} runs")

    burst = default_burst(setting.entries) if setting.commands is None else setting.commands
    sampled = sample(
        system,
        strategy=strategy,
        seed=plan.seed,
        runs=plan.runs,
        depth=plan.depth,
        burst=burst,
        progress=tell,
    )
    replay, replays = None, 0
    if sampled.labels is not None:
        if progress:
            progress(f"a run of {len(sampled.labels)} steps fails; it is made shorter")
        # To leave out a `submit` is to submit fewer: any number must be possible.
        free = msgspec.structs.replace(setting, commands=None)
        shrunk = shrink(free.system(), sampled.labels)
        replays = shrunk.replays
        replay = record(free, shrunk.played.labels, strategy=strategy, seed=plan.seed)
        replay = _certified(free, replay, progress)
    return Result(
        setting=setting,
        plan=plan,
        result=replay.result if replay else "budget",
        replay=replay,
        states=0,
        transitions=sampled.steps,
        runs=sampled.runs,
        replays=replays,
        hangs=int(replay is not None and replay.result == "hang"),
        violations=int(replay is not None and replay.result == "violation"),
        missed=[],
    )


def _certified(setting: Setting, replay: Replay, progress: Progress | None) -> Replay:
    """The shortest run that ends the same way, where the system is small enough to search."""
    if setting.entries > CERTIFY_ENTRIES_MAX:
        return replay
    if progress:
        progress("searched for a shorter run")
    # What hangs does not depend on what the rules read.
    searched = msgspec.structs.replace(setting, rules=setting.rules and replay.result != "hang")
    system = searched.system()
    found = search(system, searched.key(system), symmetric=searched.symmetric)
    if found.shortest is None:
        return replay
    best = record(
        setting, found.shortest, strategy=replay.strategy, seed=replay.seed, shortest=True
    )
    return best if best.rule == replay.rule and best.ball == replay.ball else replay
