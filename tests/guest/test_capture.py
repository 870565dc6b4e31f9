"""A guest's capture: the verdict on it is the trace's, and a kill takes next to nothing of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nvmelab.trace.capture import CaptureReader
from tests.guest.lab import (
    BOOT_LIMIT_S,
    NVMELAB,
    environment,
    guest_command,
    nvme_disk,
    run_nvmelab,
)

pytestmark = pytest.mark.guest

JOB = """
modprobe nvme; wait-for /dev/nvme0n1
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=32 iflag=direct 2> /dev/null
"""
ENDLESS = JOB + "echo READS; while :; do dd if=/dev/nvme0n1 of=/dev/null iflag=direct; done"


def diagnosed(log: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "nvmelab", "diagnose", str(log), "--json"],
        capture_output=True,
        text=True,
    )
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.fixture
def disk(tmp_path: Path) -> list[str]:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(16 << 20))
    return nvme_disk(image)


def test_trace_capture_and_judge_agree(tmp_path: Path, disk: list[str]) -> None:
    log, capture = tmp_path / "run.log", tmp_path / "run.capture"
    options = ["--trace", "pci_nvme_*", "--trace-file", str(log), "--capture", str(capture)]
    outcome = run_nvmelab([*options, "--check", "--json"], guest_command(JOB, tmp_path, disk))
    outcome.check()
    live = json.loads(next(ln for ln in outcome.messages.splitlines() if ln.startswith("{")))
    of_log, of_capture = diagnosed(log), diagnosed(capture)
    assert of_capture["unit"] == "event" and of_capture["cut"] is None
    for said in (of_log, of_capture):
        assert said["verdict"] == live["check"]["verdict"] == "clean"
        assert said["exercised"] == live["check"]["exercised"]
        rules = [finding["rule"] for finding in live["check"]["findings"]]
        assert [finding["rule"] for finding in said["findings"]] == rules
    assert of_log["events"] == of_capture["events"]
    assert capture.stat().st_size < log.stat().st_size / 3


def test_what_happened_before_a_kill_is_there(tmp_path: Path, disk: list[str]) -> None:
    capture = tmp_path / "run.capture"
    command = [*NVMELAB, "run", "--capture", str(capture), "--"]
    command += guest_command(ENDLESS, tmp_path, disk)
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(),
        start_new_session=True,
    )
    assert process.stdout
    limit = time.monotonic() + BOOT_LIMIT_S
    while b"READS" not in (line := process.stdout.readline()):
        assert line and time.monotonic() < limit
    size = capture.stat().st_size
    while capture.stat().st_size < size + 100_000:
        assert time.monotonic() < limit
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    reader = CaptureReader([capture.read_bytes()])
    events = sum(1 for _event in reader)
    assert events > 5_000 and "was not ended" in reader.cut and not reader.damaged
    said = diagnosed(capture)
    assert said["verdict"] == "clean" and "was not ended" in said["cut"]
