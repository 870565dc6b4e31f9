"""Locks between ourselves. Those between us and QEMU are in tests/guest/test_image_locks.py."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from nvmelab.storage.base import ImageError
from nvmelab.storage.locks import LockConflict, lock_fd
from tests.storage.conftest import Serve, image

HOLD = """
import sys
from nvmelab.storage.file import FileBackend
disk = FileBackend(sys.argv[1], read_only=sys.argv[2] == "reader")
print("open", flush=True)
sys.stdin.read()
"""

SEIZE = """
import fcntl, sys
image = open(sys.argv[1], "r+b")
fcntl.lockf(image, fcntl.LOCK_EX)
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return image(tmp_path / "disk.img", bytes(4096))


def other_process(program: str, path: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A process that has opened the image, and keeps it until its stdin is closed."""
    command = [sys.executable, "-c", program, str(path), *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    return process


def locked_bytes(path: Path) -> list[int]:
    """The bytes of QEMU's two ranges that somebody holds a lock on."""
    flock = struct.Struct("@hhqqi4x")
    with path.open("r+b") as image:
        return [
            byte
            for byte in [*range(100, 164), *range(200, 264)]
            if flock.unpack(
                fcntl.fcntl(image, fcntl.F_OFD_GETLK, flock.pack(fcntl.F_WRLCK, 0, byte, 1, 0))
            )[0]
            != fcntl.F_UNLCK
        ]


def test_writer_holds_the_bytes_of_a_qemu_nvme_device(serve: Serve, path: Path) -> None:
    disk = serve(path)
    assert locked_bytes(path) == [100, 101, 201, 203]
    disk.close()


def test_reader_holds_the_bytes_of_a_read_only_qemu_nvme_device(serve: Serve, path: Path) -> None:
    disk = serve(path, read_only=True)
    assert locked_bytes(path) == [100, 201, 203]
    disk.close()


def test_close_releases_the_locks(serve: Serve, path: Path) -> None:
    serve(path).close()
    assert locked_bytes(path) == []


def test_refused_image_is_not_left_locked(serve: Serve, path: Path) -> None:
    first = serve(path, read_only=True)
    with pytest.raises(ImageError):
        serve(path)
    first.close()
    assert locked_bytes(path) == []


def test_without_locking_nothing_is_locked_and_nobody_asked(serve: Serve, path: Path) -> None:
    first = serve(path)
    second = serve(path, lock=False)
    first.close()
    assert locked_bytes(path) == []
    second.close()


def test_two_readers_coexist(serve: Serve, path: Path) -> None:
    first = serve(path, read_only=True)
    second = serve(path, read_only=True)
    first.close()
    assert locked_bytes(path) == [100, 201, 203]
    second.close()


@pytest.mark.parametrize("read_only", [False, True])
def test_nobody_else_opens_what_this_process_writes(
    serve: Serve, path: Path, read_only: bool
) -> None:
    first = serve(path)
    with pytest.raises(ImageError) as caught:
        serve(path, read_only=read_only)
    assert str(caught.value) == (
        f"{path}: in use by this process (pid {os.getpid()}), open for writing; "
        "stop that first, or serve a copy"
    )
    first.close()


def test_hard_link_is_the_same_image(serve: Serve, path: Path, tmp_path: Path) -> None:
    first = serve(path)
    link = tmp_path / "link.img"
    link.hardlink_to(path)
    with pytest.raises(ImageError):
        serve(link)
    first.close()


def test_writer_is_refused_what_another_process_reads(serve: Serve, path: Path) -> None:
    with other_process(HOLD, path, "reader") as other, pytest.raises(ImageError) as caught:
        try:
            serve(path)
        finally:
            other.communicate()
    assert f"(pid {other.pid}), open for reading; stop that first" in str(caught.value)
    assert "or open it read-only (readonly=on or --read-only)" in str(caught.value)


def test_reader_opens_what_another_process_reads(serve: Serve, path: Path) -> None:
    with other_process(HOLD, path, "reader") as other:
        serve(path, read_only=True).close()
        other.communicate()


def test_locks_vanish_when_their_process_is_killed(serve: Serve, path: Path) -> None:
    with other_process(HOLD, path, "writer") as other:
        assert locked_bytes(path) == [100, 101, 201, 203]
        other.kill()
        other.wait()
    serve(path).close()


def test_image_that_another_program_locked_as_a_whole_is_refused(serve: Serve, path: Path) -> None:
    with other_process(SEIZE, path) as other, pytest.raises(ImageError) as caught:
        try:
            serve(path, read_only=True)
        finally:
            other.communicate()
    assert f"(pid {other.pid}), open for writing" in str(caught.value)


def test_conflict_names_who_holds_the_lock(serve: Serve, path: Path) -> None:
    first = serve(path)
    with path.open("r+b") as second, pytest.raises(LockConflict, match="in use by this process"):
        lock_fd(second.fileno(), write=False)
    first.close()


def test_file_system_without_locks_says_how_to_go_on(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> bytes:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "fcntl", no_locks)
    with pytest.raises(ImageError, match=r"cannot be locked .*; if nothing else uses it, open it"):
        serve(path)
