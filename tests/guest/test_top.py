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

from tests.guest.lab import (
    BOOT_LIMIT_S,
    KERNEL,
    NVMELAB,
    QEMU,
    ROOT,
    accelerator,
    environment,
    nvme_disk,
)
from tests.guest.test_overcommit import SLOW

pytestmark = pytest.mark.guest


@contextmanager
def hanging_guest(folder: Path, temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """The guest of docs/guests.md: its driver has given up waiting, and it stays."""
    image, initrd = folder / "disk.img", folder / "hang.gz"
    image.write_bytes(bytes(1 << 20))
    subprocess.run([ROOT / "lab/hanging-guest", initrd], check=True)
    device = ("--queue-entries", "4", "--device", "qemu-9.0", *SLOW)
    files = ("--schedule-file", folder / "schedule.log", "--capture", folder / "hang.capture")
    options = (*device, *map(str, files), "--check")
    qemu = [
        *(str(QEMU), *accelerator(), "-m", "512M", "-smp", "2", "-nographic", "-nic", "none"),
        *("-no-reboot", *nvme_disk(image), "-kernel", str(KERNEL), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 panic=-1 quiet job=hang"),
    ]
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
            if line.startswith("The guest stays as it is."):
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


def test_a_hang_is_seen_while_it_lasts_and_in_its_capture(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,  # a short path, as sockets need
        hanging_guest(tmp_path, Path(folder)) as process,
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
    assert shown.stdout.startswith("STUCK  device must act for SQ 1")

    assert process.returncode is not None
    words = ("diagnose", str(tmp_path / "hang.capture"), "--hung")
    after = subprocess.run([*NVMELAB, *words], capture_output=True, text=True, timeout=60)
    assert "VERDICT  device" in after.stdout and "lost wake-up" in after.stdout
