"""Without the lab, the tests here fail rather than being skipped: who runs them wants them run."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from nvmelab.host.driver import Controller
from nvmelab.targets import connect
from tests.guest.lab import LAB

QEMUS = ("5.2", "7.2", "10.0", "11.1")
"""The lab's QEMUs that are driven. The newest is whatever Debian forky has: see `binary`."""

Connect = Callable[..., Controller]


def binary(version: str) -> str:
    """The lab's QEMU of that version; 11.1 stands for the newest."""
    name = "qemu-system-x86_64" if version == QEMUS[-1] else f"qemu-system-x86_64-{version}"
    path = LAB / "bin" / name
    assert path.exists(), f"{path} is missing: run `make lab`"
    return str(path)


@pytest.fixture
def open_qemu() -> Iterator[Connect]:
    """open_qemu(version, *words): a started driver on that QEMU's NVMe device."""
    opened: list[Controller] = []

    def open_qemu(version: str, *words: str) -> Controller:
        opened.append(connect(f"qemu:{binary(version)}", *words))
        return opened[-1]

    yield open_qemu
    for controller in opened:
        controller.close()
