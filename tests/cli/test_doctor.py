"""`nvmelab doctor`, on a PATH of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.test_run import fake_qemu


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of the PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_qemu_it_says_how_to_get_one(nvmelab: Invoke, folder: Path) -> None:
    result = nvmelab("doctor")

    assert result.exit_code == 1
    assert "no qemu-system-* on the PATH" in result.stdout
    assert "Debian trixie-backports and forky have it" in result.stdout
    assert "nvmelab demo: yes" in result.stdout


def test_old_qemu_is_named_with_its_version(nvmelab: Invoke, folder: Path) -> None:
    fake_qemu(folder, "8.2.2", "-device) exit 1")

    result = nvmelab("doctor", "--json")

    report = json.loads(result.stdout)
    check, advice = [check for check in report["checks"] if check["what"] == "QEMU"]
    assert result.exit_code == 1
    assert not report["can_run_guests"]
    assert "8.2.2, too old for vfio-user-pci" in check["found"]
    assert "Debian trixie-backports" in advice["advice"]


def test_good_qemu_gives_status_0(nvmelab: Invoke, folder: Path) -> None:
    fake_qemu(folder, "10.1.0", '-device) echo "vfio-user-pci options:"; exit 0')

    result = nvmelab("doctor")

    assert result.exit_code == 0
    assert "10.1.0, has vfio-user-pci" in result.stdout


def test_what_the_lab_has_is_found(nvmelab: Invoke, folder: Path) -> None:
    lab = folder / ".lab/bin"
    lab.mkdir(parents=True)
    fake_qemu(lab, "11.1.0", '-device) echo "vfio-user-pci options:"; exit 0')
    (lab / "qemu-img").symlink_to("qemu-system-x86_64")

    checks = json.loads(nvmelab("doctor", "--json").stdout)["checks"]

    found = {check["what"]: check["found"] for check in checks}
    assert found["qemu-img"] == ".lab/bin/qemu-img"
    assert found["QEMU"] == ".lab/bin/qemu-system-x86_64: 11.1.0, has vfio-user-pci"
