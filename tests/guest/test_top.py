"""`nvmelab top` on a guest that hangs: it finds the guest, and says which queue, and whose turn."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.guest.lab import BOOT_LIMIT_S, NVMELAB, environment, guest_command, nvme_disk
from tests.guest.test_overcommit import SLOW, job_of, program

__all__ = ["program"]

pytestmark = pytest.mark.guest


@contextmanager
def hanging_guest(packed: bytes, folder: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A guest whose driver has given up waiting, and which stays."""
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    job = f"{job_of(packed, 500)} || echo GIVEN-UP\nsleep 100000"
    device = ("--queue-entries", "4", "--device", "qemu-9.0", *SLOW)
    options = (*device, "--schedule-file", str(folder / "schedule.log"), "--check")
    qemu = guest_command(job, folder, nvme_disk(image))
    process = subprocess.Popen(
        [*NVMELAB, "run", *options, "--", *qemu],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment() | {"TMPDIR": str(temporary)},
        start_new_session=True,
        text=True,
        errors="replace",
    )
    limit = threading.Timer(BOOT_LIMIT_S, os.killpg, (process.pid, signal.SIGKILL))
    limit.start()
    try:
        assert process.stdout
        console = ""
        for line in process.stdout:
            console += line
            if line.startswith("GIVEN-UP"):
                break
        assert "OVERCOMMIT hang in burst" in console, console[-3000:]
        yield process
    finally:
        process.terminate()
        process.communicate()
        limit.cancel()


def top(temporary: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NVMELAB, "top", *words],
        env=environment() | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_hang_is_seen_while_it_lasts(program: bytes, tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,  # a short path, as sockets need
        hanging_guest(program, tmp_path, Path(folder)) as process,
    ):
        found = top(Path(folder), "--json")
        assert found.returncode == 0, found.stderr
        state: dict[str, Any] = json.loads(found.stdout)
        (path,) = Path(folder).glob("nvmelab-*/nvme0.sock")
        shown = top(Path(folder), str(path), "--count", "1")

    assert (state["device"], state["guest"]) == ("qemu-9.0", True)
    (stuck,) = [sq for sq in state["sqs"] if sq["stuck"]]
    assert (stuck["id"], stuck["entries"], stuck["ball"]["parties"]) == (1, 4, ["device"])
    assert stuck["rung"] > 0 and stuck["outstanding"] == 0
    assert "free); it looks at this queue only when" in stuck["ball"]["text"]
    assert stuck["oldest"]["command"] == "read" and stuck["oldest"]["state"] == "rung"
    assert state["check"]["verdict"] == "device"

    assert shown.returncode == 0
    assert re.search(r"^ +STUCK.*: device: \d commands? (is|are) rung", shown.stdout, re.MULTILINE)
    assert process.returncode is not None
