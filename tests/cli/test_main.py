"""The program itself, as a process of its own."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Invoke, error_of


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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("serve", "x.img"), "Missing option '--socket'; see nvmelab serve --help"),
        (("diagnose",), "Missing argument 'LOG'; see nvmelab diagnose --help"),
        (("diagnose", "x", "--sq-entries", "1"), "1 is not in the range 2<=x<=65536; see "),
        (("diagnose", "x", "--hang"), "No such option '--hang'"),
        (("diagnose", "x", "--html", "."), "'--html': File '.' is a directory; see "),
        (("explore", "nothing"), "'nothing' is not 'overcommit'"),
        (("hang",), "No such command 'hang'; see nvmelab --help"),
        (("--hang",), "No such option '--hang'"),
    ],
)
def test_a_command_line_that_is_not_understood_is_one_line(
    nvmelab: Invoke, words: tuple[str, ...], said: str
) -> None:
    assert said in error_of(nvmelab(*words), 2)


def test_without_words_there_is_help(nvmelab: Invoke) -> None:
    result = nvmelab()
    assert "Usage: " in result.output and "nvmelab: error" not in result.output


@pytest.mark.parametrize("words", [("diagnose",), ("replay",), ("export", "--perfetto", "x.json")])
def test_a_file_without_permission_is_one_line(
    nvmelab: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    path = tmp_path / "log"
    path.write_text("secret")
    refuse_to_read(monkeypatch, str(path))
    message = error_of(nvmelab(words[0], str(path), *words[1:]), 2)
    assert message == f"{path}: Permission denied"


def refuse_to_read(monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    """That file cannot be opened, nor does it look so: root may read whatever its mode says."""
    plain_open, plain_access = io.open, os.access

    def refuse(file: Any, *words: Any, **more: Any) -> Any:
        if str(file) == secret:
            raise PermissionError(errno.EACCES, "Permission denied", file)
        return plain_open(file, *words, **more)

    monkeypatch.setattr("builtins.open", refuse)
    monkeypatch.setattr("io.open", refuse)
    monkeypatch.setattr(
        os, "access", lambda path, mode: str(path) != secret and plain_access(path, mode)
    )
