"""What it takes to find QEMU's hang with Spin, from the model to a counterexample to read.

    python bench/spin.py [--rounds 5] [--variant 0]

The model is tests/explore/m1.pml, before the fix, with as many slots as entries. Spin writes a
verifier, gcc compiles it, the verifier searches breadth first until the first hang, which is a
nearest one, and Spin replays it. All are those of `make lab`. With a fix (--variant 2) there is
no hang to find, and the search is of every state.

Two ways: as usual, and in haste, as somebody would who knows that the model is tiny: compiled
without optimisation, with a small hash table, of which the usual one takes 60 ms to clear.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SPIN = ROOT / ".lab/bin/spin"
GCC = ROOT / ".lab/bin/gcc"
MODEL = ROOT / "tests/explore/m1.pml"

CELLS = [(3, 6), (4, 6), (6, 8), (6, 12), (8, 10), (8, 12)]
"""Entries and commands."""


class Way(NamedTuple):
    optimisation: str
    table: int
    """The hash table has 2 to the power of this many places; it holds any number of states."""


USUAL = Way("-O2", 24)
HASTE = Way("-O0", 18)


class Run(NamedTuple):
    """Wall time in seconds, and what was found."""

    generate: float
    compile: float
    search: float
    """The verifier alone."""
    replay: float
    """0.0 if there is no hang."""
    steps: int | None
    """To the hang that was found; None: there is none."""

    @property
    def total(self) -> float:
        return self.generate + self.compile + self.search + self.replay


def measure(entries: int, commands: int, way: Way, variant: int) -> Run:
    """One run through all of it, in a folder of its own."""
    values = {"N": entries, "P": entries, "K": commands, "V": variant}
    defines = [f"-D{name}={value}" for name, value in values.items()]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Spin looks for the trail by the name of the model, in the folder where it is started.
        (folder / MODEL.name).write_bytes(MODEL.read_bytes())
        generate, _ = timed(folder, SPIN, "-a", *defines, MODEL.name)
        flags = (way.optimisation, "-DSAFETY", "-DNOREDUCE", "-DBFS")
        compiling, _ = timed(folder, GCC, *flags, "-o", "pan", "pan.c")
        search, said = timed(folder, "./pan", f"-w{way.table}")
        found = re.search(r"invalid end state \(at depth (\d+)\)", said)
        if not found:
            assert "errors: 0" in said and "not completed" not in said, said
            return Run(generate, compiling, search, 0.0, None)
        replay, _ = timed(folder, SPIN, "-t", "-p", *defines, MODEL.name)
        return Run(generate, compiling, search, replay, int(found[1]))


def timed(folder: Path, *words: str | Path) -> tuple[float, str]:
    begin = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begin
    assert done.returncode == 0, done.stdout + done.stderr
    return spent, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variant", type=int, default=0, choices=range(4))
    options = parser.parse_args()
    for path in (SPIN, GCC):
        if not path.exists():
            parser.error(f"there is no {path}: run `make lab`")
    for title, way in (("As usual", USUAL), ("In haste", HASTE)):
        flags = f"gcc {way.optimisation}"
        print(f"\n{title} ({flags}, pan -w{way.table}):\n")
        print(f"| entries | commands | steps | spin -a | {flags} | pan | spin -t | whole | range |")
        print("|---|---|---|---|---|---|---|---|---|")
        for entries, commands in CELLS:
            print_row(entries, commands, way, options.variant, options.rounds)


def print_row(entries: int, commands: int, way: Way, variant: int, rounds: int) -> None:
    """Medians, and the range of the whole."""
    runs = [measure(entries, commands, way, variant) for _ in range(rounds)]
    columns = [(run.generate, run.compile, run.search, run.replay, run.total) for run in runs]
    parts = [statistics.median(column) for column in zip(*columns, strict=True)]
    shown = " | ".join(f"{1000 * part:,.0f} ms" for part in parts)
    totals = [run.total for run in runs]
    print(
        f"| {entries} | {commands} | {runs[0].steps or 'no hang'} | {shown}"
        f" | {1000 * min(totals):,.0f} to {1000 * max(totals):,.0f} ms |"
    )


if __name__ == "__main__":
    main()
