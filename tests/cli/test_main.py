"""The program itself, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_standard_output_takes_the_name_of_any_file(tmp_path: Path) -> None:
    """With the locale that most have, in which Python's own would refuse what is not UTF-8."""
    words = ("explore", "overcommit", "--entries", "3", "--device", "qemu-9.0", "--output")
    done = subprocess.run(
        [sys.executable, "-m", "nvmelab", *words, tmp_path / "\udcff"],
        stdout=subprocess.PIPE,
        env=os.environ | {"LC_ALL": "C.UTF-8", "PYTHONIOENCODING": "", "PYTHONUTF8": "0"},
        check=False,
    )
    assert done.returncode == 1
    assert b"nvmelab replay %s/\\udcff/hang-3.json" % bytes(tmp_path) in done.stdout


ROOMS = {
    "": {"cli"},
    "diagnose": {"cli", "check", "limits", "report", "spec", "trace"},
    "doctor": {"cli", "limits", "qemu"},
    "export": {"cli", "check", "limits", "report", "spec", "trace"},
    "top": {
        *("cli", "check", "limits", "link", "memory", "report", "snapshot", "spec", "standing"),
    },
}
"""What a verb needs of the package, and the program for `--help`."""


@pytest.mark.parametrize("verb", ROOMS)
def test_verb_imports_only_what_it_needs(verb: str) -> None:
    script = (
        "import sys; from nvmelab.cli.main import cli\n"
        f"cli({[*filter(None, [verb]), '--help']}, standalone_mode=False)\n"
        "print({name.split('.')[1] for name in sys.modules if name.startswith('nvmelab.')})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True
    )
    assert eval(done.stdout.splitlines()[-1]) == ROOMS[verb]
