"""A QEMU without a running guest, started for its devices: a machine that qtest drives.

Where a distribution left the qtest accelerator out (Debian 12 and 13), QEMU is started with
`-accel tcg -S`: the processor never runs, and devices work all the same. Only the virtual clock
then stands still and cannot be stepped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from nvmelab.limits import QEMU_KILLED_S, QEMU_MESSAGE_BYTES_MAX
from nvmelab.qemu.binary import QemuError
from nvmelab.qemu.options import shorten

RAM_BYTES = 64 << 20
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def die_with_parent() -> None:
    """For the child between fork and exec: it ends when we end, however that comes about."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def require_clock(version: tuple[int, int, int], clock: bool) -> None:
    """Raise QemuError where the nvme device itself needs the virtual clock and it stands still:
    before 7.2 it looks at its doorbells from timers."""
    if not clock and version[:2] < (7, 2):
        raise QemuError(
            f"QEMU {'.'.join(map(str, version))} was built without the qtest accelerator, and its "
            "nvme device needs the virtual clock that comes with it; use another build, or 7.2 or "
            "later"
        )


class Machine:
    """A QEMU process. `folder` is ours: its sockets and what it prints go there.

    RAM is a memfd that can be mapped by others (see `ram_fd`). Raises QemuError.
    """

    def __init__(self, binary: str, folder: Path, devices: Sequence[str], *, clock: bool) -> None:
        self.binary = binary
        self.qtest_path = str(folder / "qtest")
        self.clock = clock
        """The virtual clock can be stepped."""
        self._errors = folder / "qemu-stderr"
        accelerator = ["-accel", "qtest"] if clock else ["-accel", "tcg", "-S"]
        command = [
            *(binary, "-machine", "pc,memory-backend=ram", *accelerator, "-m", "64"),
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-object", f"memory-backend-memfd,id=ram,size={RAM_BYTES},share=on"),
            *("-qtest", f"unix:{self.qtest_path},server=on,wait=off", "-qtest-log", "none"),
            *devices,
        ]
        with self._errors.open("wb") as errors:
            try:
                self.process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=errors,
                    stderr=errors,
                    preexec_fn=die_with_parent,
                )
            except FileNotFoundError:
                raise QemuError(
                    f"{binary} is not there; install a QEMU (apt install qemu-system-x86) or give "
                    "its path"
                ) from None
            except OSError as error:
                raise QemuError(f"{binary} cannot be run: {error.strerror}") from None

    @property
    def pid(self) -> int:
        return self.process.pid

    def ended(self) -> bool:
        return self.process.poll() is not None

    def messages(self) -> str:
        """What QEMU printed, at most its last QEMU_MESSAGE_BYTES_MAX bytes."""
        data = self._errors.read_bytes()[-QEMU_MESSAGE_BYTES_MAX:]
        return data.decode("utf-8", "replace").strip()

    def last_words(self) -> str:
        """Why it ended, on one line. Waits for the end if it is about to come."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(QEMU_KILLED_S)
        status = self.process.returncode
        if status is None:
            how = "closed its socket and goes on"
        elif status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}"
        lines = self.messages().splitlines()
        words = shorten(lines[-1]) if lines else "it printed nothing; is it a QEMU?"
        return f"{self.binary} {how}: {words}"

    def ram_fd(self) -> int:
        """A descriptor of its RAM; the caller's. Raises QemuError if it cannot be had."""
        folder = f"/proc/{self.pid}/fd"
        try:
            for name in os.listdir(folder):
                with contextlib.suppress(OSError):
                    if "memfd:memory-backend-memfd" in os.readlink(f"{folder}/{name}"):
                        return os.open(f"{folder}/{name}", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            pass
        raise QemuError(f"the memory of {self.binary} cannot be found below {folder}")

    def close(self) -> None:
        """End QEMU. Safe to call twice."""
        if self.process.poll() is None:
            self.process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(QEMU_KILLED_S)
