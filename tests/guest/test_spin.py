"""Spin counts the hang's model as the oracle does: the same search, by an engine that is not ours.

The model is written twice, as tests/explore/m1.pml and as tests/explore/oracle.py.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.explore.constants import LARGE
from tests.explore.oracle import (
    BEFORE_THE_FIX,
    FINAL_FIX,
    FIRST_PATCH,
    NEVER_SQ,
    Counts,
    Model,
    explore,
)
from tests.guest.lab import LAB, ROOT

SPIN = LAB / "bin/spin"
GCC = LAB / "bin/gcc"
SOURCE = ROOT / "tests/explore/m1.pml"
LIMIT_S = 120

pytestmark = pytest.mark.guest


@pytest.fixture(autouse=True, scope="module")
def spin_is_prepared() -> None:
    for path in (SPIN, GCC):
        assert path.exists(), f"{path} is missing: run `make lab`"


def run(*words: str | Path, folder: Path) -> str:
    done = subprocess.run(
        words, cwd=folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


def counted_by_spin(model: Model, folder: Path) -> Counts:
    """All states, breadth first, so that the first hang is a nearest one. Spin's own three more
    transitions and two more states (see the model) are taken off."""
    assert model == Model(model.entries, model.slots, model.commands, model.variant)
    parameters = {"N": model.entries, "P": model.slots, "K": model.commands, "V": model.variant}
    defines = [f"-D{name}={value}" for name, value in parameters.items()]
    run(SPIN, "-a", *defines, SOURCE, folder=folder)
    run(GCC, "-O2", "-DSAFETY", "-DNOREDUCE", "-DBFS", "-o", "pan", "pan.c", folder=folder)
    said = run("./pan", "-c0", folder=folder)
    assert "Search not completed" not in said, said
    hangs = number(r"errors: (\d+)", said)
    return Counts(
        number(r"(\d+) states, stored", said) - 2,
        number(r"(\d+) transitions", said) - 3,
        hangs,
        number(r"invalid end state \(at depth (\d+)\)", said) if hangs else None,
    )


@pytest.mark.parametrize("variant", [BEFORE_THE_FIX, FIRST_PATCH, FINAL_FIX, NEVER_SQ])
@pytest.mark.parametrize("cell", [(2, 2, 12), (3, 3, 6), (4, 4, 6), (4, 6, 9)])
def test_spin_counts_what_the_oracle_counts(
    cell: tuple[int, int, int], variant: int, tmp_path: Path
) -> None:
    model = Model(*cell, variant)
    assert counted_by_spin(model, tmp_path) == explore(model)


@pytest.mark.parametrize("variant", [BEFORE_THE_FIX, FINAL_FIX])
def test_spin_counts_a_million_states_as_recorded(variant: int, tmp_path: Path) -> None:
    model = Model(8, 8, 12, variant)
    assert counted_by_spin(model, tmp_path) == LARGE[model]
