"""A guest's driver that over-commits its queue, in user space: it hangs on QEMU 9.0's rules where
the storage takes a while, and on no repaired ones."""

from __future__ import annotations

import base64
import gzip
import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.guest.lab import (
    BOOT_LIMIT_S,
    LAB,
    NVMELAB,
    ROOT,
    Outcome,
    environment,
    guest_command,
    nvme_disk,
    run_nvmelab,
)

pytestmark = pytest.mark.guest

SOURCE = ROOT / "tests/guest/overcommit.c"
HANG = 3
"""Exit status of the program when a command never completes."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The driver, as a program of the guest."""
    path = tmp_path_factory.mktemp("program") / "overcommit"
    flags = ("-O2", "-Wall", "-Wextra", "-Werror")
    subprocess.run([LAB / "bin/gcc", *flags, "-o", path, SOURCE], check=True)
    return path.read_bytes()


def job_of(program: bytes, bursts: int) -> str:
    """The guest's job: bursts of 12 reads through a queue of 4 entries."""
    packed = base64.encodebytes(gzip.compress(program)).decode()
    return f"""base64 -d <<'END' | gunzip > /tmp/overcommit
{packed}END
chmod +x /tmp/overcommit
/tmp/overcommit 4 12 {bursts}"""


def boot(program: bytes, folder: Path, bursts: int, *options: str) -> Outcome:
    image = folder / "disk.img"
    image.write_bytes(bytes(1 << 20))
    options = ("--queue-entries", "4", *options)
    command = guest_command(job_of(program, bursts), folder, nvme_disk(image))
    return run_nvmelab(options, command)


SLOW = ("--latency", "0.5ms", "--schedule", "seed:7")


@pytest.mark.parametrize("device", ["qemu-9.0", "qemu-9.0+1"])
def test_it_hangs_on_the_old_rules_and_the_report_says_whose_fault_it_is(
    program: bytes, tmp_path: Path, device: str
) -> None:
    log = tmp_path / "schedule.log"
    options = ("--check", "--device", device, *SLOW, "--schedule-file", str(log))
    outcome = boot(program, tmp_path, 500, *options)
    assert outcome.job_status == HANG, outcome.console[-3000:]
    assert outcome.status == 1 and "VERDICT  device" in outcome.messages
    assert "OVERCOMMIT hang in burst" in outcome.console
    assert "HANG, and it is the device's: SQ 1 (tail " in outcome.messages
    assert "nothing is scheduled: the device has the ball" in outcome.messages
    assert f"schedule: seed 7, {log}" in outcome.messages
    assert log.read_text().count("fetch 1\n") > 3


def test_its_capture_and_its_log_give_that_verdict_too(program: bytes, tmp_path: Path) -> None:
    """The guest powers off after its hang, which resets the controller."""
    capture, log = tmp_path / "run.capture", tmp_path / "run.log"
    files = ("--capture", str(capture), "--trace", "pci_nvme_*", "--trace-file", str(log))
    outcome = boot(program, tmp_path, 500, "--check", "--device", "qemu-9.0", *SLOW, *files)
    assert outcome.job_status == HANG and "VERDICT  device" in outcome.messages
    for words in ([str(capture)], [str(capture), "--hung"], [str(log), "--hung"]):
        command = [*NVMELAB, "diagnose", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = json.loads(done.stdout)
        assert (said["verdict"], done.returncode) == ("device", 1), words
        assert said["pattern"] and said["stuck"], words


def test_a_hang_stops_the_guest(program: bytes, tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    command = guest_command(job_of(program, 500), tmp_path, nvme_disk(image))
    options = ("--queue-entries", "4", "--check=stop", "--device", "qemu-9.0", *SLOW)
    process = subprocess.Popen(
        [*NVMELAB, "run", *options, "--", *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr
    line = next(line for line in process.stderr if "the guest is stopped" in line)
    assert "SQ 1 (4 entries)" in line and "rung, not fetched; device: fetch" in line
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=BOOT_LIMIT_S)
    assert "VERDICT  device" in messages


@pytest.mark.parametrize("device", ["nvmelab", "qemu-9.1.2"])
def test_it_does_not_hang_on_repaired_ones(program: bytes, tmp_path: Path, device: str) -> None:
    log = tmp_path / "schedule.log"
    options = ("--check", "--device", device, *SLOW, "--schedule-file", str(log))
    outcome = boot(program, tmp_path, 100, *options)
    assert outcome.status == 0 and outcome.job_status == 0, outcome.console[-3000:]
    assert "OVERCOMMIT ok: 100 bursts of 12 commands, at most 6 were" in outcome.console
    assert "VERDICT  clean" in outcome.messages
    assert "HANG" not in outcome.messages and "outstanding:" not in outcome.messages
