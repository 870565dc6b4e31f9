"""Real drivers, presumed innocent: kernels and firmware on our controller, judged by `run --check`.

What is noted of them was looked into by hand, and stands in docs/findings.md.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.guest.firmware import BOOTED, Fat, boot_disk, efi_disk
from tests.guest.lab import (
    BOOT_LIMIT_S,
    LAB,
    NVMELAB,
    QEMU,
    Outcome,
    accelerator,
    environment,
    guest_command,
    nvme_disk,
    run_nvmelab,
)

pytestmark = pytest.mark.guest

NUMBER_FIRST = "queues.number-first"
CLEARED = "queues.cleared"
"""Linux clears a completion queue after it was created."""
REPEATED = "doorbell.repeated"
"""SeaBIOS with queues whose size is no power of two: its tail comes back to where it was."""

CHECK = ("--check", "--json")
KERNELS = ("linux-5.10", "linux-6.1", "linux-6.12", "linux-7")
JOB = """
modprobe nvme
wait-for /dev/nvme0n1
fio --name=verify --filename=/dev/nvme0n1 --ioengine=libaio --direct=1 --rw=randrw --bs=4k \\
    --size=4M --iodepth=16 --numjobs=2 --offset_increment=8M --verify=crc32c --output=/dev/null
dd if=/dev/zero of=/dev/nvme0n1 bs=1M seek=32 count=4 oflag=direct 2> /dev/null
echo 1 > /sys/class/nvme/nvme0/reset_controller
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=16 2> /dev/null
echo "KERNEL $(uname -r)"
"""


def judged(messages: str) -> dict[str, Any]:
    """What the summary of the one device says of the judgment."""
    (line,) = (line for line in messages.splitlines() if line.startswith("{"))
    check: dict[str, Any] = json.loads(line)["check"]
    return check


def noted(outcome: Outcome) -> set[str]:
    """The rules of the notes, of a driver that has broken none that counts."""
    check = judged(outcome.messages)
    assert (check["verdict"], check["stuck"], check["in_flight"]) == ("clean", [], 0)
    assert {finding["severity"] for finding in check["findings"]} <= {"note"}
    assert len(check["exercised"]) > 50
    return {finding["rule"] for finding in check["findings"]}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    return image


@pytest.mark.parametrize(
    "options",
    [
        ("--doorbells", "trapped"),
        ("--doorbells", "shadow", "--queue-entries", "2"),
        ("--doorbells", "trapped", "--queue-entries", "3"),
        ("--doorbells", "shadow", "--queue-entries", "4"),
        ("--doorbells", "trapped", "--queue-entries", "8"),
    ],
    ids=lambda options: "-".join(options[1::2]),
)
@pytest.mark.parametrize("linux", KERNELS)
def test_linux(tmp_path: Path, image: Path, linux: str, options: tuple[str, ...]) -> None:
    command = guest_command(JOB, tmp_path, nvme_disk(image), linux=linux)
    outcome = run_nvmelab([*options, *CHECK], command)
    assert f"KERNEL {linux.removeprefix('linux-')}." in outcome.check()
    # The others are of the firmware, which looked at the disk before.
    assert noted(outcome) == {CLEARED, NUMBER_FIRST} | ({REPEATED} if "3" in options else set())


def firmware_command(*words: str) -> list[str]:
    """A QEMU command line without a kernel."""
    return [
        *(str(QEMU), *accelerator(), "-machine", "q35", "-m", "512M", "-nic", "none"),
        *("-nographic", "-no-reboot", *words),
    ]


def run_seabios(folder: Path, *options: str) -> Outcome:
    """A boot from our disk."""
    image = folder / "boot.img"
    image.write_bytes(boot_disk(8 << 20, reads=20))
    command = firmware_command("-bios", str(LAB / "firmware/seabios.bin"))
    command += ["-boot", "reboot-timeout=0", *nvme_disk(image, device=",bootindex=0")]
    return run_nvmelab([*options, *CHECK], command)


@pytest.mark.parametrize("entries", [2048, 2, 4])
def test_seabios_boots(tmp_path: Path, entries: int) -> None:
    outcome = run_seabios(tmp_path, "--queue-entries", str(entries))
    assert outcome.status == 0 and BOOTED.decode() in outcome.console
    assert noted(outcome) == {NUMBER_FIRST}


def test_seabios_does_not_move_its_tail_in_a_queue_of_three(tmp_path: Path) -> None:
    outcome = run_seabios(tmp_path, "--queue-entries", "3")
    assert outcome.status == 0 and "could not read the boot disk" in outcome.console
    assert noted(outcome) == {NUMBER_FIRST, REPEATED}


def test_seabios_turns_around_too_early_in_a_queue_of_twelve(tmp_path: Path) -> None:
    outcome = run_seabios(tmp_path, "--queue-entries", "12", "--latency", "20ms")
    check = judged(outcome.messages)
    broken = [finding for finding in check["findings"] if finding["severity"] == "error"]
    assert outcome.status == 1 and BOOTED.decode() not in outcome.console
    assert check["verdict"] == "driver" and {finding["party"] for finding in broken} == {"driver"}
    assert "doorbell.value" in {finding["rule"] for finding in broken}


def ovmf_command(folder: Path, disk: bytes, device: str = "") -> list[str]:
    """A QEMU with UEFI firmware and this disk."""
    image, variables = folder / "fat.img", folder / "vars.fd"
    image.write_bytes(disk)
    shutil.copy(LAB / "firmware/ovmf-vars.fd", variables)
    code = LAB / "firmware/ovmf-code.fd"
    return firmware_command(
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
        *nvme_disk(image, device=device),
    )


@pytest.mark.parametrize("options", [(), ("--queue-entries", "2"), ("--queue-entries", "3")])
def test_ovmf_boots(tmp_path: Path, options: tuple[str, ...]) -> None:
    disk = efi_disk(LAB, tmp_path, random.Random(2388).randbytes(700_000), bursts=8, commands=12)
    outcome = run_nvmelab([*options, *CHECK], ovmf_command(tmp_path, disk))
    assert outcome.status == 0 and "EFI-APP-OK" in outcome.console
    assert noted(outcome) == {NUMBER_FIRST}


SLOW = ("--queue-entries", "4", "--latency", "40ms", "--schedule", "seed:7")
"""So that reads of OVMF's end out of order, and some while others are under way."""


@pytest.mark.parametrize("device", ["nvmelab", "qemu-9.0"])
def test_ovmf_over_commits_its_second_queue(tmp_path: Path, device: str) -> None:
    disk = efi_disk(LAB, tmp_path, bursts=16, commands=12)
    log = tmp_path / "schedule.log"
    options = [*SLOW, "--device", device, "--schedule-file", str(log), "--check"]
    outcome = run_nvmelab(options, ovmf_command(tmp_path, disk))
    if device == "nvmelab":
        assert outcome.status == 0 and "EFI-APP-OK" in outcome.console
        assert "VERDICT  clean" in outcome.messages
    else:
        assert outcome.status == 1 and "EFI-HANG" in outcome.console
        assert "HANG, and it is the device's: SQ 2 (tail " in outcome.messages
        assert "VERDICT  device: " in outcome.messages  # though it has shut down since
        assert "pattern  lost wake-up on an over-committed queue" in outcome.messages


def test_ovmf_has_no_disk_where_there_is_one_queue_pair(tmp_path: Path) -> None:
    disk = efi_disk(LAB, tmp_path)
    command = ovmf_command(tmp_path, disk, device=",max_ioqpairs=1")
    console = Console([*NVMELAB, "run", *CHECK, "--", *command])
    try:
        shown = console.read_until(b"No bootable option")
        console.quit()
        status, messages = console.end()
    finally:
        console.kill()
    check = judged(messages)
    assert status == 1 and "EFI-APP-OK" not in shown
    assert check["verdict"] == "driver"
    broken = [finding for finding in check["findings"] if finding["severity"] == "error"]
    assert {finding["rule"] for finding in broken} == {"queues.identifier"}


CONSOLE_LIMIT_S = 100
"""Firmware needs two seconds."""


class Console:
    """A guest whose console one types on."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._limit = time.monotonic() + CONSOLE_LIMIT_S

    def read_until(self, word: bytes) -> str:
        """What is printed up to `word`."""
        output = self._process.stdout
        assert output
        shown = b""
        while word not in shown:
            ready, _, _ = select.select([output], [], [], max(0, self._limit - time.monotonic()))
            more = os.read(output.fileno(), 4096) if ready else b""
            assert more, f"{word!r} never came; the last was {shown[-2000:]!r}"
            shown += more
        return shown.decode(errors="replace")

    def type(self, line: str) -> None:
        """A line, without waiting for anything."""
        assert self._process.stdin
        self._process.stdin.write(line.encode() + b"\r")
        self._process.stdin.flush()

    def quit(self) -> None:
        """End QEMU, by the escape of its terminal."""
        assert self._process.stdin
        self._process.stdin.write(b"\x01x")
        self._process.stdin.flush()

    def end(self) -> tuple[int, str]:
        """Its exit status and its messages."""
        _console, messages = self._process.communicate(timeout=BOOT_LIMIT_S)
        return self._process.returncode, messages.decode()

    def kill(self) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()


@pytest.mark.parametrize("options", [(), ("--queue-entries", "2"), ("--queue-entries", "3")])
def test_u_boot_reads_and_writes(tmp_path: Path, options: tuple[str, ...]) -> None:
    data = random.Random(2388).randbytes(300_000)
    fat = Fat()
    image = tmp_path / "fat.img"
    image.write_bytes(fat.disk(fat.file("DATA.BIN", data)))
    command = firmware_command("-bios", str(LAB / "firmware/u-boot.rom"), *nvme_disk(image))
    console = Console([*NVMELAB, "run", *options, *CHECK, "--", *command])
    try:
        console.read_until(b"autoboot")
        console.type("")

        def answer(line: str) -> str:
            console.type(line)
            return console.read_until(b"\n=> ")

        console.read_until(b"=> ")
        answer("nvme scan")
        assert "deadbeef" in answer("nvme info")
        assert "300000 bytes read" in answer("fatload nvme 0 2000000 data.bin")
        assert f"{zlib.crc32(data):08x}" in answer(f"crc32 2000000 {len(data):x}")
        answer("mw.b 3000000 5a 4000; nvme write 3000000 6000 20; nvme read 4000000 6000 20")
        assert "16384 byte(s) were the same" in answer("cmp.b 3000000 4000000 4000")
        console.type("reset")
        status, messages = console.end()
    finally:
        console.kill()
    assert status == 0
    assert image.read_bytes()[0x6000 * 512 :][: 32 * 512] == b"\x5a" * 32 * 512
    assert noted(Outcome(status, "", messages)) == set()
