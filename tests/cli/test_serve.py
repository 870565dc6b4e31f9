"""`nvmelab serve`: its errors in this process, its life in one of its own."""

from __future__ import annotations

import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, error_of


def test_socket_path_that_is_too_long(nvmelab: Invoke, image: Path, tmp_path: Path) -> None:
    path = str(tmp_path / ("x" * 120))

    message = error_of(nvmelab("serve", str(image), "--socket", path), 2)

    assert "107" in message


def test_missing_image_leaves_no_socket(nvmelab: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "nvme.sock"

    message = error_of(nvmelab("serve", str(tmp_path / "gone.img"), "--socket", str(path)), 2)

    assert "gone.img" in message
    assert not path.exists()


def test_live_socket_of_another_server(nvmelab: Invoke, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "nvme.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        message = error_of(nvmelab("serve", str(image), "--socket", str(path)), 2)

    assert str(path) in message


def test_trace_file_without_a_trace(nvmelab: Invoke, image: Path) -> None:
    words = ("serve", str(image), "--socket", "nvme.sock", "--trace-file", "run.log")

    assert "--trace-file needs --trace" in error_of(nvmelab(*words), 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_it_with_a_summary_and_no_socket(
    number: signal.Signals, image: Path, tmp_path: Path
) -> None:
    path = tmp_path / "nvme.sock"
    server = subprocess.Popen(
        [sys.executable, "-m", "nvmelab", "serve", image, "--socket", path, "--json"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr
    first = server.stderr.readline()
    mode = stat.S_IMODE(path.stat().st_mode)

    server.send_signal(number)
    _, rest = server.communicate(timeout=60)

    assert f"is served on {path}; Ctrl-C ends it" in first
    assert mode == 0o600
    assert server.returncode == 0
    assert json.loads(rest.splitlines()[-1])["commands"] == []
    assert not path.exists()


def test_a_server_cannot_stop_somebody_elses_guest(nvmelab: Invoke, image: Path) -> None:
    words = ("serve", str(image), "--socket", "nvme.sock", "--check=stop")
    assert "use nvmelab run" in error_of(nvmelab(*words), 2)
