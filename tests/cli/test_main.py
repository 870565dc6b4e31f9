"""The program itself, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


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
