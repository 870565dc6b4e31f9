"""What exploring costs: time to a hang, states per second, memory per state, proofs, large queues.

    python bench/explore.py [--rounds 5] [--proofs 6] [--profile]

The hang is QEMU's before the fix, found on the classes that serve guests and drive devices. Spin
finds the same hang in a model of a page: `spin.py` says how, as usual and in haste. In each round
all ways follow one another, and a ratio is taken within its round. `--profile` prints where the
time of a search without rules goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

from spin import GCC, HASTE, SPIN, USUAL, measure

from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.sample import default_burst, sample
from nvmelab.explore.search import Found, search
from nvmelab.explore.setting import Setting
from nvmelab.explore.shrink import shrink

HANGS = [(3, 6), (4, 6)]
"""Entries, and the fewest commands that hang."""
SPEEDS = [
    Setting(4, "nvmelab", rules=False),
    Setting(4, "qemu-9.0", commands=12, rules=False),
    Setting(6, "nvmelab", rules=False),
    Setting(6, "qemu-9.1.2", rules=False),
    Setting(3, "nvmelab", grain="fine", rules=False),
    Setting(4, "nvmelab"),
    Setting(4, "qemu-9.1.2"),
    Setting(2, "nvmelab", grain="fine"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--proofs", type=int, default=6, help="entries of the largest proof")
    parser.add_argument("--profile", action="store_true", help="only where the time goes")
    options = parser.parse_args()
    if options.profile:
        profile()
        return
    for path in (SPIN, GCC):
        if not path.exists():
            parser.error(f"there is no {path}: run `make lab`")
    hangs(options.rounds)
    speeds(options.rounds)
    large(options.rounds)
    proofs(options.proofs)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ms(values: list[float]) -> str:
    return f"{1000 * statistics.median(values):,.0f} ms"


def ratio(ours: list[float], theirs: list[float]) -> str:
    return f"{statistics.median(a / b for a, b in zip(ours, theirs, strict=True)):.2f}"


def hangs(rounds: int) -> None:
    """From the command to a counterexample, beside Spin's whole way and its verifier alone."""
    print("\n| entries | our command | in a process that runs | without rules |", end="")
    print(" Spin | ratio | Spin in haste | ratio | its verifier alone |")
    print("|---" * 9 + "|")
    for entries, commands in HANGS:
        rows = [hang(entries, commands) for _ in range(rounds)]
        command, inside, no_rules, usual, haste, verifier = (
            list(c) for c in zip(*rows, strict=True)
        )
        row = [ms(command), ms(inside), ms(no_rules), ms(usual), ratio(command, usual)]
        row += [ms(haste), ratio(command, haste), ms(verifier)]
        print(f"| {entries} | {' | '.join(row)} |", flush=True)


def hang(entries: int, commands: int) -> tuple[float, ...]:
    """One round: the seconds of each way."""
    with_rules = Setting(entries, "qemu-9.0")
    without = Setting(entries, "qemu-9.0", rules=False)
    command = seconds(partial(our_command, entries))
    inside = seconds(partial(explore, with_rules, Plan()))
    no_rules = seconds(partial(explore, without, Plan()))
    haste = measure(entries, commands, HASTE)
    usual = measure(entries, commands, USUAL)
    return command, inside, no_rules, usual.total, haste.total, haste.search


def our_command(entries: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["explore", "overcommit", "--entries", str(entries), "--device", "qemu-9.0"]
        ended = subprocess.run(
            [sys.executable, "-m", "nvmelab", *words, "--output", folder], capture_output=True
        )
        assert ended.returncode == 1, ended.stderr
        assert list(Path(folder).iterdir())


def whole(setting: Setting) -> Found:
    """Every state."""
    system = setting.system()
    return search(system, setting.key(system), symmetric=setting.symmetric, graph=True)


def speeds(rounds: int) -> None:
    """States per second, and memory, which is measured in a run of its own."""
    print("\n| entries | device | grain | rules | states | transitions | states/s |", end="")
    print(" transitions/s | memory of a state |")
    print("|---" * 9 + "|")
    for setting in SPEEDS:
        spent, found = [], Found()
        for _ in range(rounds):
            begin = time.perf_counter()
            found = whole(setting)
            spent.append(time.perf_counter() - begin)
        best = min(spent)
        tracemalloc.start()
        whole(setting)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        print(
            f"| {setting.entries} | {setting.device} | {setting.grain}"
            f" | {'on' if setting.rules else 'off'} | {found.states:,} | {found.transitions:,}"
            f" | {found.states / best:,.0f} | {found.transitions / best:,.0f}"
            f" | {peak / found.states:,.0f} bytes |",
            flush=True,
        )


def large(rounds: int) -> None:
    """From a seed to a hang of 64 entries, and from there to a run that cannot lose a step."""
    print("\n| entries | rules | runs | PCT | steps | shrunk to | replays | shrinking |")
    print("|---" * 8 + "|")
    for rules in (True, False):
        setting = Setting(64, "qemu-9.0", rules=rules)
        sampling, shrinking, labels = [], [], []
        for _ in range(rounds):
            system = setting.system()
            begin = time.perf_counter()
            found = sample(system, strategy="pct", seed=7, runs=1000, burst=default_burst(64))
            sampling.append(time.perf_counter() - begin)
            labels = found.labels or []
            begin = time.perf_counter()
            shrunk = shrink(system, labels)
            shrinking.append(time.perf_counter() - begin)
        print(
            f"| 64 | {'on' if rules else 'off'} | {found.runs} | {ms(sampling)}"
            f" | {len(labels)} | {len(shrunk.played.labels)} | {shrunk.replays}"
            f" | {ms(shrinking)} |",
            flush=True,
        )


def proofs(entries: int) -> None:
    """Proofs for any number of commands, by the sound key."""
    print("\n| entries | device | states | transitions | result | time |")
    print("|---" * 6 + "|")
    for count in range(2, entries + 1):
        for device in ("qemu-9.1.2", "nvmelab"):
            begin = time.perf_counter()
            result = explore(Setting(count, device), Plan())
            spent = time.perf_counter() - begin
            print(
                f"| {count} | {device} | {result.states:,} | {result.transitions:,}"
                f" | {result.result} | {spent:,.2f} s |",
                flush=True,
            )


def profile() -> None:
    setting = Setting(4, "qemu-9.0", commands=12, rules=False)
    whole(setting)
    profiler = cProfile.Profile()
    profiler.enable()
    whole(setting)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
