"""The real QEMU and Linux of `make lab`, and how tests boot them on our controller."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nvmelab.qemu.binary import kvm_works

ROOT = Path(__file__).parents[2]
LAB = ROOT / ".lab"
QEMU = LAB / "bin/qemu-system-x86_64"
QEMU_IMG = LAB / "bin/qemu-img"
KERNEL = LAB / "linux/vmlinuz"
INITRD = LAB / "linux/initrd"
NVMELAB = [sys.executable, "-m", "nvmelab"]

BOOT_LIMIT_S = 400
"""A guest that has not ended by then hangs. Under TCG on a busy machine a boot takes up to a
minute, and the longest job here another two."""


class Outcome(NamedTuple):
    """How a run ended."""

    status: int
    console: str
    """What the guest printed, without carriage returns."""
    messages: str
    """Standard error: ours and QEMU's."""

    @property
    def job_status(self) -> int | None:
        """Exit status of the guest's job; None if the guest did not get so far."""
        found = re.search(r"^JOB-EXIT (\d+)$", self.console, re.MULTILINE)
        return int(found[1]) if found else None

    def check(self) -> str:
        """The console, of a run whose QEMU and job both ended well."""
        shown = f"{self.console[-6000:]}\n---\n{self.messages[-3000:]}"
        assert self.status == 0, shown
        assert self.job_status == 0, shown
        return self.console


@functools.cache
def accelerator() -> list[str]:
    """KVM where a probe guest really runs under it, otherwise TCG."""
    return ["-accel", "kvm" if kvm_works(str(QEMU)) else "tcg"]


def initrd_with(job: str, folder: Path, linux: str = "linux") -> Path:
    """An initrd for a kernel of the lab, whose guest runs this shell script as the job `test`. The
    script's first failing command ends it. The kernel keeps its messages for `dmesg`: on the
    console they would come between the letters of what the job prints."""
    script = folder / "test.sh"
    script.write_text(f"set -e\ndmesg -n 1\n{job}\n")
    initrd = folder / "initrd"
    subprocess.run([ROOT / "lab/add-job", LAB / linux / "initrd", script, initrd], check=True)
    return initrd


def guest_command(
    job: str, folder: Path, disk: Sequence[str], *, machine: str = "q35", linux: str = "linux"
) -> list[str]:
    """A QEMU command line that boots a Linux of the lab with two CPUs, runs a job and ends."""
    return [
        *(str(QEMU), *accelerator(), "-machine", machine, "-m", "1G", "-smp", "2"),
        *("-nic", "none", "-nographic", "-no-reboot"),
        *disk,
        *("-kernel", str(LAB / linux / "vmlinuz")),
        *("-initrd", str(initrd_with(job, folder, linux))),
        *("-append", "console=ttyS0 panic=-1 quiet job=test"),
    ]


def nvme_disk(image: Path, *, drive: str = "", device: str = "") -> list[str]:
    """`-drive` and `-device nvme` as a user of QEMU writes them."""
    return [
        *("-drive", f"file={image},format=raw,if=none,id=nvm{drive}"),
        *("-device", f"nvme,serial=deadbeef,drive=nvm{device}"),
    ]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONUNBUFFERED": "1"}


def run_nvmelab(options: Sequence[str], qemu: Sequence[str]) -> Outcome:
    """`nvmelab run OPTIONS -- QEMU`, to its end."""
    process = subprocess.Popen(
        [*NVMELAB, "run", *options, "--", *qemu],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        start_new_session=True,
        text=True,
        errors="replace",
    )
    try:
        console, messages = process.communicate(timeout=BOOT_LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        console, messages = process.communicate()
        messages += f"\nthe guest did not end within {BOOT_LIMIT_S} s"
    return Outcome(process.returncode, console.replace("\r", ""), messages)
