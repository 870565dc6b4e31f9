"""What it takes to find QEMU's hang with Spin, from the model to a counterexample to read: for
`explore.py`, which sets it beside ours.

The model is tests/explore/m1.pml, before the fix, with as many slots as entries. Spin writes a
verifier, gcc compiles it, the verifier searches breadth first until the first hang, which is a
nearest one, and Spin replays it. All are those of `make lab`.

Two ways: as usual, and in haste, as somebody would who knows that the model is tiny: compiled
without optimisation, with a small hash table, of which the usual one takes 60 ms to clear.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SPIN = ROOT / ".lab/bin/spin"
GCC = ROOT / ".lab/bin/gcc"
MODEL = ROOT / "tests/explore/m1.pml"


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
    steps: int
    """To the hang that was found."""

    @property
    def total(self) -> float:
        return self.generate + self.compile + self.search + self.replay


def measure(entries: int, commands: int, way: Way) -> Run:
    """One run through all of it, in a folder of its own."""
    values = {"N": entries, "P": entries, "K": commands, "V": 0}
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
        assert found, said
        replay, _ = timed(folder, SPIN, "-t", "-p", *defines, MODEL.name)
        return Run(generate, compiling, search, replay, int(found[1]))


def timed(folder: Path, *words: str | Path) -> tuple[float, str]:
    begin = time.perf_counter()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begin
    assert done.returncode == 0, done.stdout + done.stderr
    return spent, done.stdout
