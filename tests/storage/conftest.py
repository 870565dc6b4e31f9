"""Places for images, and views into memory of any alignment."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.storage.file import CACHE_MODES, CacheMode, FileBackend


class Serve:
    """Opens images as FileBackend does, and closes them when the test is over."""

    def __init__(self) -> None:
        self.disks: list[FileBackend] = []

    def __call__(
        self,
        path: Path | str,
        *,
        cache: CacheMode = CACHE_MODES["writeback"],
        read_only: bool = False,
        discard: bool = True,
        lock: bool = True,
        probe: bool = True,
    ) -> FileBackend:
        disk = FileBackend(
            path, cache=cache, read_only=read_only, discard=discard, lock=lock, probe=probe
        )
        self.disks.append(disk)
        return disk


@pytest.fixture
def serve() -> Iterator[Serve]:
    serve = Serve()
    yield serve
    for disk in serve.disks:
        disk.close()


def has_direct(folder: Path) -> bool:
    try:
        fd = os.open(folder / "probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT)
    except OSError:
        return False
    os.close(fd)
    return True


@pytest.fixture(scope="module")
def direct_folder() -> Iterator[Path]:
    """A directory on a file system that has O_DIRECT. Without one, the tests fail."""
    for place in (tempfile.gettempdir(), "/var/tmp", os.getcwd()):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            if has_direct(Path(folder)):
                yield Path(folder)
                return
    pytest.fail("no directory with O_DIRECT found: set TMPDIR to one on a disk, not on tmpfs")


def piece(data: bytes, misalignment: int = 0) -> memoryview:
    """Writable memory that holds `data` and starts `misalignment` bytes after a page boundary."""
    memory = memoryview(mmap.mmap(-1, misalignment + len(data) + 1))
    view = memory[misalignment : misalignment + len(data)]
    view[:] = data
    return view


def image(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
