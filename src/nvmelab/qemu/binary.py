"""What a QEMU binary is and can: its version, `vfio-user-pci`, and whether KVM runs a guest.

Nothing here trusts a program to end: every run has a time limit, after which its whole process
group is killed.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from nvmelab.limits import QEMU_GUEST_PROBE_S, QEMU_KILLED_S, QEMU_PROBE_S
from nvmelab.qemu.options import shorten

QEMU_MIN = (10, 1)
"""The first QEMU with `vfio-user-pci`."""

_VERSION = re.compile(r"version (\d+)\.(\d+)(?:\.(\d+))?")

_ANSWER = 0x10
_EXIT_STATUS = _ANSWER << 1 | 1  # What isa-debug-exit makes of a value written to it.

_BOOT_CODE = bytes.fromhex(
    # 16-bit code, loaded at 0x7c00. Page tables at 0x1000, 0x2000 and 0x3000 map 2 MiB.
    "fa"  # cli
    "31c0 8ed8 8ec0"  # ax = ds = es = 0
    "bf0010 b90018 f3ab"  # clear 0x1000 to 0x3fff
    "c706 0010 0320"  # level 4: entry 0 is the table at 0x2000
    "c706 0020 0330"  # level 3: entry 0 is the table at 0x3000
    "c706 0030 8300"  # level 2: entry 0 is 2 MiB from address 0
    "0f0116 8f7c"  # lgdt
    "66b820060000 0f22e0"  # cr4: PAE, SSE
    "66b800100000 0f22d8"  # cr3 = 0x1000
    "66b9800000c0 0f32 80cc01 0f30"  # EFER: long mode
    "66b803000080 0f22c0"  # cr0: paging and protection
    "ea 537c 0800"  # far jump to the next instruction
    # 64-bit code.
    "660f6ec0 660fd4c0"  # an SSE2 move and addition
    "31c0 0fa2 83f807 7214"  # cpuid: without leaf 7, go to the answer
    "b807000000 31c9 0fa2"  # cpuid leaf 7
    "0fbae308 7305"  # without BMI2, go to the answer
    "c4e2f1f7c0"  # shlx: what a Linux kernel unpacks itself with
    f"b0{_ANSWER:02x} e6f4"  # the answer: write to port 0xf4
    "f4 ebfd"  # halt, for ever
    # The descriptors: none, and 64-bit code; then what lgdt loads.
    "0000000000000000 00000000009a2000"
    "0f00 7f7c0000"
)
_SECTOR_BYTES = 512


class QemuError(Exception):
    """A QEMU that is missing, cannot be run, or is too old. The message is one line."""


class QemuInfo(msgspec.Struct, frozen=True):
    """What `probe` found out about a QEMU binary."""

    version: tuple[int, int, int]
    has_vfio_user_pci: bool

    def require_vfio_user(self, binary: str) -> None:
        """Raise QemuError if this QEMU, of that name, cannot have our controller as a device."""
        if self.has_vfio_user_pci:
            return
        found = ".".join(map(str, self.version))
        if self.version[:2] >= QEMU_MIN:
            raise QemuError(f"{binary} is QEMU {found}, built without vfio-user-pci")
        raise QemuError(
            f"{binary} is QEMU {found}, which is too old: vfio-user-pci needs 10.1 or later; "
            "Debian trixie-backports and forky have it, and `make lab` in a checkout of nvmelab "
            "makes .lab/bin/qemu-system-x86_64"
        )


def version_of(binary: str, *, limit_s: float = QEMU_PROBE_S) -> tuple[int, int, int]:
    """The version a QEMU says it has. Raises QemuError as `probe` does."""
    answer = _ask([binary, "--version"], limit_s)
    match = _VERSION.search(answer)
    if match is None:
        raise QemuError(f"{binary} does not look like a QEMU: {shorten(answer)!r}")
    return int(match[1]), int(match[2]), int(match[3] or 0)


def probe(binary: str, *, limit_s: float = QEMU_PROBE_S) -> QemuInfo:
    """Ask a QEMU for its version and for `vfio-user-pci`, `limit_s` seconds for each.

    Raises QemuError if it is missing, does not run or does not answer like a QEMU.
    """
    version = version_of(binary, limit_s=limit_s)
    # Not `-device help`: that loads every module, and a QEMU that meets the modules of another
    # build aborts. One device's help loads what it needs; without the device, it fails (or not).
    options = _ask([binary, "-device", "vfio-user-pci,help"], limit_s, expected=(0, 1))
    return QemuInfo(version, "vfio-user-pci options" in options)


def kvm_works(binary: str, *, limit_s: float = QEMU_GUEST_PROBE_S) -> bool:
    """Whether a guest really runs under KVM; `/dev/kvm` may be there and yet fail on guests.

    False as well for a QEMU that is missing or is not for x86 PCs. Takes up to `limit_s` seconds.
    """
    return guest_runs(binary, "kvm", limit_s=limit_s)


def guest_runs(binary: str, accelerator: str, *, limit_s: float = QEMU_GUEST_PROBE_S) -> bool:
    """Boot one sector of code under an accelerator, and see whether it answers from 64-bit mode."""
    with tempfile.TemporaryDirectory(prefix="nvmelab-") as folder:
        sector = Path(folder, "sector")
        sector.write_bytes(_BOOT_CODE.ljust(_SECTOR_BYTES - 2, b"\0") + b"\x55\xaa")
        command = (
            *(binary, "-machine", "pc", "-accel", accelerator, "-m", "16", "-nodefaults"),
            *("-display", "none", "-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
            *("-drive", f"file={str(sector).replace(',', ',,')},format=raw,if=ide"),
        )
        try:
            status, _ = _run(command, limit_s)
        except OSError:
            return False
        return status == _EXIT_STATUS


def _ask(command: Sequence[str], limit_s: float, *, expected: Sequence[int] = (0,)) -> str:
    """What a command prints. Raises QemuError unless it ends as expected, in time."""
    shown = " ".join(command)
    try:
        status, output = _run(command, limit_s)
    except FileNotFoundError:
        raise QemuError(
            f"{command[0]} is not there; install QEMU 10.1 or later, or give its path"
        ) from None
    except OSError as error:
        raise QemuError(f"{command[0]} cannot be run: {error.strerror}") from None
    if status is None:
        raise QemuError(f"{shown} did not end within {limit_s:g} s")
    if status not in expected:
        raise QemuError(f"{shown} failed with status {status}: {shorten(output)}")
    return output


def _run(command: Sequence[str], limit_s: float) -> tuple[int | None, str]:
    """Exit status and output. Out of time, the status is None and the process group is killed."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=limit_s)
        return process.returncode, output
    except subprocess.TimeoutExpired:
        return None, ""
    finally:
        # Also after Ctrl-C. A leader that was not waited for keeps its number from being reused.
        if process.returncode is None:
            _kill_group(process)


def _kill_group(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    try:
        process.wait(QEMU_KILLED_S)
    except subprocess.TimeoutExpired:
        pass
    if process.stdout is not None:
        process.stdout.close()
