"""The image locks against those of a real QEMU: each respects the other's."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nvmelab.storage.base import ImageError
from nvmelab.storage.file import FileBackend
from tests.guest.lab import QEMU, QEMU_IMG

PATIENCE_S = 60.0

pytestmark = pytest.mark.guest

MACHINE = [str(QEMU), "-M", "q35", "-accel", "tcg", "-display", "none", "-nodefaults", "-S"]
NVME = ["-device", "nvme,drive=disk,serial=1"]
VIRTIO = ["-device", "virtio-blk,drive=disk"]
VIRTIO_SHARED = ["-device", "virtio-blk,drive=disk,share-rw=on"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(1 << 20))
    return path


def drive(path: Path, options: str = "") -> list[str]:
    return ["-drive", f"if=none,id=disk,format=raw,file={path}{options}"]


@contextmanager
def qemu(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A stopped QEMU, which has opened its image."""
    process = subprocess.Popen(
        [*MACHINE, *arguments, "-qmp", "stdio"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert "QMP" in json.loads(process.stdout.readline())
        process.stdin.write('{"execute": "qmp_capabilities"}\n')
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == {"return": {}}
        yield process
    finally:
        process.kill()
        process.communicate()


def qemu_refusal(*arguments: str) -> str:
    """What a QEMU says that does not start."""
    command = [*MACHINE, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert result.returncode == 1
    return result.stderr


def qemu_img(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [QEMU_IMG, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def locked_bytes(path: Path) -> set[int]:
    """The bytes of the image that the kernel lists as read-locked."""
    entry = re.compile(rf"OFDLCK +ADVISORY +READ .*:{path.stat().st_ino} (\d+) (\d+)\n")
    spans = entry.findall(Path("/proc/locks").read_text())
    return {byte for first, last in spans for byte in range(int(first), int(last) + 1)}


@pytest.mark.parametrize("options", ["", ",readonly=on"])
def test_we_hold_the_same_bytes_as_the_nvme_device_of_qemu(path: Path, options: str) -> None:
    with qemu(*drive(path, options), *NVME):
        theirs = locked_bytes(path)
    ours = FileBackend(path, read_only=bool(options))
    assert locked_bytes(path) == theirs
    ours.close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("device", [NVME, VIRTIO, VIRTIO_SHARED])
def test_image_that_qemu_writes_is_refused(path: Path, device: list[str], read_only: bool) -> None:
    with qemu(*drive(path), *device), pytest.raises(ImageError, match="open for writing") as caught:
        FileBackend(path, read_only=read_only)
    assert re.search(r"in use by \S+ \(pid \d+\)", str(caught.value))


@pytest.mark.parametrize("device", [NVME, VIRTIO])
def test_image_that_qemu_reads_is_refused_for_writing_only(path: Path, device: list[str]) -> None:
    with qemu(*drive(path, ",readonly=on"), *device):
        with pytest.raises(ImageError, match="open for reading"):
            FileBackend(path)
        FileBackend(path, read_only=True).close()


def test_image_is_free_once_qemu_is_gone(path: Path) -> None:
    with qemu(*drive(path), *NVME) as process:
        process.kill()
        process.wait()
        FileBackend(path).close()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("device", [NVME, VIRTIO, VIRTIO_SHARED])
def test_qemu_does_not_write_what_we_serve(path: Path, device: list[str], read_only: bool) -> None:
    disk = FileBackend(path, read_only=read_only)
    assert 'Failed to get "write" lock' in qemu_refusal(*drive(path), *device)
    disk.close()


def test_qemu_does_not_read_what_we_write(path: Path) -> None:
    disk = FileBackend(path)
    refusal = qemu_refusal(*drive(path, ",readonly=on"), *NVME)
    assert 'Failed to get shared "write" lock' in refusal
    disk.close()


def test_qemu_reads_what_we_read(path: Path) -> None:
    disk = FileBackend(path, read_only=True)
    with qemu(*drive(path, ",readonly=on"), *NVME):
        pass
    disk.close()


def test_qemu_img_does_not_resize_what_we_serve(path: Path) -> None:
    disk = FileBackend(path)
    result = qemu_img("resize", "-f", "raw", path, "2M")
    assert 'Failed to get "write" lock' in result.stderr
    assert path.stat().st_size == disk.size
    disk.close()


def test_qemu_img_looks_at_what_we_serve_when_told_to_share(path: Path) -> None:
    disk = FileBackend(path)
    assert qemu_img("info", "-U", path).returncode == 0
    disk.close()


def test_qemu_img_copies_what_we_serve_when_told_to_share(path: Path, tmp_path: Path) -> None:
    disk = FileBackend(path)
    result = qemu_img("convert", "-U", "-O", "raw", "-f", "raw", path, tmp_path / "copy.img")
    assert result.returncode == 0
    disk.close()
