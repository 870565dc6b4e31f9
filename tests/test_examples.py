"""Every example runs, on our controller."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if not path.name.startswith("test_"))
LAST_LINES = {
    "abort.py": "the command itself: success",
    "hold_cq_doorbell.py": "6 of 6 done after the head doorbell",
    "identify.py": "namespace 8: 131072 blocks of 512 bytes",
    "prp_shapes.py": "64 KiB written through it are read back",
    "raw_sqe.py": "CID 0xbeef: invalid command opcode",
    "read_write.py": "40 writes of 4 KiB read back",
    "registers.py": "CSTS 0x00000000 after CC.EN = 0",
    "reset_in_flight.py": "and the controller works again",
    "shared_cq.py": "40 commands, 40 completions in a ring of 3 entries",
    "sqhd_flow.py": "all done",
}


def test_every_example_is_run() -> None:
    assert {path.name for path in PROGRAMS} == set(LAST_LINES)


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_example_ends_as_it_says(path: Path) -> None:
    done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == LAST_LINES[path.name]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_example_says_how_it_is_started(path: Path) -> None:
    assert f"python examples/{path.name} [TARGET]" in path.read_text()
