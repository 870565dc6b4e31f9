"""Linux's own trace of its driver, recorded in a guest: what it names is what our device saw."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nvmelab.trace.capture import CaptureReader
from nvmelab.trace.ftrace_reader import read_ftrace
from tests.guest.lab import NVMELAB, guest_command, nvme_disk, run_nvmelab
from tests.trace.test_ftrace_reader import Heard

pytestmark = pytest.mark.guest

START = """
mkdir -p /t; mount -t tracefs t /t
modprobe nvme_core
echo 16384 > /t/buffer_size_kb
echo 1 > /t/events/nvme/enable
modprobe nvme
wait-for /dev/nvme0n1
"""
LOAD = """
fio --name=load --filename=/dev/nvme0n1 --ioengine=libaio --direct=1 --rw=randrw --bs=4k \\
    --size=1M --iodepth=16 --numjobs=2 --offset_increment=4M --cpus_allowed=0,1 \\
    --cpus_allowed_policy=split --output=/dev/null
"""
OUTSTANDING = """
dd if=/dev/nvme0n1 of=/dev/null bs=4k count=1 skip=100 iflag=direct 2> /dev/null &
until grep -q 'slba=800,' /t/trace; do :; done
"""
SHOW = "cat /t/trace\n"


def traced(folder: Path, linux: str, job: str, *options: str) -> tuple[Path, list[Any], Path]:
    """The console of a guest that shows its trace, what the trace tells, and our capture."""
    image, console, capture = folder / "disk.img", folder / "console", folder / "run.capture"
    image.write_bytes(bytes(16 << 20))
    command = guest_command(START + job + SHOW, folder, nvme_disk(image), linux=linux)
    outcome = run_nvmelab([*options, "--capture", str(capture)], command)
    console.write_text(outcome.check())
    listener = Heard()
    counts = read_ftrace([console.read_bytes()], listener)
    assert counts.damaged == []
    return console, listener.told, capture


def diagnosed(log: Path, *options: str) -> dict[str, Any]:
    words = [*NVMELAB, "diagnose", str(log), "--json", *options]
    said: dict[str, Any] = json.loads(subprocess.run(words, capture_output=True).stdout)
    return said


def commands_of(capture: Path) -> set[tuple[int, int]]:
    """(SQID, CID) of every command that our device has fetched."""
    found = set()
    for event in CaptureReader([capture.read_bytes()]):
        if event.name == "io_cmd":
            found.add((int(event.values[2]), int(event.values[0])))
        elif event.name == "admin_cmd":
            found.add((0, int(event.values[0])))
    return found


@pytest.mark.parametrize("linux", ["linux-5.10", "linux-6.1", "linux-6.12", "linux-7"])
def test_the_trace_of_a_healthy_run_is_clean(tmp_path: Path, linux: str) -> None:
    console, told, capture = traced(tmp_path, linux, LOAD)
    said = diagnosed(console, "--hung")
    assert (said["verdict"], said["in_flight"], said["stuck"]) == ("clean", 0, [])
    assert ("no command is outstanding" in said["notes"][0]) and len(said["notes"]) == 1
    set_up = [event for event in told if event[0] == "set up"]
    assert len(set_up) > 500
    assert {event[3] for event in set_up} == {"nvme0"}
    assert {event[4] for event in set_up} == {0, 1, 2}
    assert {(event[4], event[5]) for event in set_up} <= commands_of(capture)


@pytest.mark.parametrize("linux", ["linux-5.10", "linux-7"])
def test_a_command_that_the_storage_still_has_is_named(tmp_path: Path, linux: str) -> None:
    console, told, capture = traced(tmp_path, linux, OUTSTANDING, "--latency", "3s")
    said = diagnosed(console, "--hung")
    (part,) = said["stuck"]
    assert (said["verdict"], part["controller"], part["state"]) == ("undecided", "nvme0", "set up")
    (at,) = part["evidence"]
    (named,) = (event for event in told if event[0] == "set up" and event[1] == at)
    assert "slba=800," in named[7]
    assert (part["sqid"], named[5]) in commands_of(capture)
    assert diagnosed(console)["verdict"] == "clean"
