"""What is found out about a QEMU binary. Shell scripts stand in for QEMU here."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from nvmelab.qemu.binary import QemuError, QemuInfo, guest_runs, kvm_works, probe


def script(folder: Path, text: str) -> str:
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def fake_qemu(folder: Path, version: str, answer: str) -> str:
    return script(
        folder,
        f"if [ \"$1\" = --version ]; then echo 'QEMU emulator version {version}'; exit; fi\n"
        f"echo '{answer}'; test '{answer}' != '{ABSENT}'",
    )


VFIO_USER = "vfio-user-pci options:"
ABSENT = "Device not found"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("11.1.2 (Debian 1:11.1.2+ds-3)", (11, 1, 2)),
        ("10.1.50 (v10.1.0-123-gabcdef)", (10, 1, 50)),
        ("10.2", (10, 2, 0)),
    ],
)
def test_version(tmp_path: Path, text: str, version: tuple[int, int, int]) -> None:
    info = probe(fake_qemu(tmp_path, text, VFIO_USER))
    assert info == QemuInfo(version, True)
    info.require_vfio_user("./qemu")


def test_too_old(tmp_path: Path) -> None:
    info = probe(fake_qemu(tmp_path, "7.2.22 (Debian)", ABSENT))
    assert info == QemuInfo((7, 2, 22), False)
    with pytest.raises(QemuError) as caught:
        info.require_vfio_user("./qemu")
    assert str(caught.value) == (
        "./qemu is QEMU 7.2.22, which is too old: vfio-user-pci needs 10.1 or later; Debian "
        "trixie-backports and forky have it, and `make lab` in a checkout of nvmelab makes "
        ".lab/bin/qemu-system-x86_64"
    )


def test_new_enough_but_built_without_it(tmp_path: Path) -> None:
    info = probe(fake_qemu(tmp_path, "10.1.0", ABSENT))
    with pytest.raises(QemuError, match=r"is QEMU 10\.1\.0, built without vfio-user-pci"):
        info.require_vfio_user("./qemu")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("echo GNU bash, version unknown", "does not look like a QEMU"),
        ("echo broken >&2; exit 1", "failed with status 1: broken"),
        ("kill -SEGV $$", "failed with status -11"),
    ],
)
def test_not_a_qemu(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(QemuError) as caught:
        probe(script(tmp_path, text))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing() -> None:
    with pytest.raises(QemuError, match=r"/none/qemu is not there; install QEMU 10\.1 or later"):
        probe("/none/qemu")
    assert not kvm_works("/none/qemu")


def test_not_executable(tmp_path: Path) -> None:
    path = tmp_path / "qemu"
    path.write_text("")
    with pytest.raises(QemuError, match="cannot be run: Permission denied"):
        probe(str(path))


def test_one_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    binary = script(tmp_path, f"sleep 1000 & echo $! > {tmp_path}/child; wait")
    with pytest.raises(QemuError, match=r"qemu --version did not end within 2 s"):
        probe(binary, limit_s=2)
    child = int((tmp_path / "child").read_text())
    assert _is_gone(child)


def _is_gone(pid: int) -> bool:
    """Whether a process has ended, or does so soon."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ended, _, _ = select.select([pidfd], [], [], 60)
    os.close(pidfd)
    return ended == [pidfd]


def test_a_guest_that_answers(tmp_path: Path) -> None:
    binary = script(tmp_path, f'printf "%s\\n" "$@" > {tmp_path}/arguments; exit 33')
    assert kvm_works(binary)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments[arguments.index("-accel") + 1] == "kvm"


def test_the_guest_is_one_boot_sector_which_is_removed(tmp_path: Path) -> None:
    binary = script(
        tmp_path,
        f'for a in "$@"; do case "$a" in file=*) f=${{a#file=}}; cp "${{f%%,*}}" {tmp_path}/copy;\n'
        f'echo "${{f%%,*}}" > {tmp_path}/name;; esac; done; exit 33',
    )
    assert guest_runs(binary, "tcg")
    sector = (tmp_path / "copy").read_bytes()
    assert len(sector) == 512
    assert sector[-2:] == b"\x55\xaa"
    assert not os.path.exists((tmp_path / "name").read_text().strip())


@pytest.mark.parametrize("text", ["exit 0", "exit 1", "kill -ABRT $$", "sleep 1000"])
def test_a_guest_that_does_not_answer(tmp_path: Path, text: str) -> None:
    assert not guest_runs(script(tmp_path, text), "kvm", limit_s=2)
