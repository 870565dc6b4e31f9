"""O_DIRECT: requests of any alignment, on a file system that insists on its own."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelab.limits import DIRECT_ALIGN_MAX
from nvmelab.storage import file as file_module
from nvmelab.storage.base import ImageError
from nvmelab.storage.file import CACHE_MODES, FileBackend
from tests.storage.conftest import Serve, image, piece

PAGE = 4096

Transfer = Callable[[int, Sequence[memoryview], int], int]


def disk_of_block(block: int, transfer: Transfer) -> Transfer:
    """A `transfer` as of a disk with logical blocks of `block` bytes, when O_DIRECT is on."""

    def call(fd: int, views: Sequence[memoryview], offset: int) -> int:
        direct = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        if direct and (offset | sum(map(len, views))) % block:
            raise OSError(errno.EINVAL, "not a multiple of the block")
        return transfer(fd, views, offset)

    return call


def short_by_blocks(block: int, transfer: Transfer) -> Transfer:
    """A `transfer` that stops after one block where O_DIRECT is on."""

    def call(fd: int, views: Sequence[memoryview], offset: int) -> int:
        return transfer(fd, [views[0][:block]], offset)

    return call


@contextmanager
def kernel(
    wrap: Callable[[int, Transfer], Transfer], block: int, bounce: int = 1 << 20
) -> Iterator[None]:
    """A kernel whose transfers are wrapped so, and a bounce buffer of `bounce` bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", wrap(block, os.preadv))
        patch.setattr(os, "pwritev", wrap(block, os.pwritev))
        patch.setattr(file_module, "BOUNCE_BYTES", bounce)
        yield


class Request(NamedTuple):
    kind: str
    offset: int
    lengths: list[int]
    misalignment: int


SIZE = 5 * PAGE + 700
"""Not a multiple of any block, so that the file ends within one."""

numbers = st.one_of(
    st.integers(0, 3 * PAGE),
    st.sampled_from([0, 511, 512, 513, 1024, PAGE - 1, PAGE, PAGE + 1, 2 * PAGE, 5 * PAGE]),
)
requests = st.builds(
    Request,
    kind=st.sampled_from(["read", "write", "zeroes"]),
    offset=st.one_of(numbers, st.integers(0, SIZE)),
    lengths=st.lists(numbers, min_size=1, max_size=4),
    misalignment=st.sampled_from([0, 1, 3, 4, 511, 512, 2048]),
)


def carry_out(disk: FileBackend, model: bytearray, request: Request, fill: int) -> None:
    """Do `request` to both, cut to what fits, and compare what is read."""
    views: list[memoryview] = []
    end = request.offset
    for length in request.lengths:
        length = min(length, SIZE - end)
        views.append(piece(bytes([fill]) * length, request.misalignment))
        end += length
    if request.kind == "read":
        disk.read(request.offset, views)
        assert b"".join(views) == model[request.offset : end]
    elif request.kind == "write":
        disk.write(request.offset, views)
        model[request.offset : end] = b"".join(views)
    else:
        disk.write_zeroes(request.offset, end - request.offset, may_unmap=True)
        model[request.offset : end] = bytes(end - request.offset)


@pytest.mark.parametrize("block", [512, 4096])
@pytest.mark.parametrize("bounce", [2 * PAGE, 1 << 20])
@pytest.mark.parametrize("wrap", [disk_of_block, short_by_blocks])
@settings(max_examples=60, deadline=None)
@given(script=st.lists(requests, max_size=12))
def test_any_requests_do_what_a_bytearray_does(
    direct_folder: Path,
    block: int,
    bounce: int,
    wrap: Callable[[int, Transfer], Transfer],
    script: list[Request],
) -> None:
    model = bytearray(os.urandom(SIZE))
    with (
        tempfile.TemporaryDirectory(dir=direct_folder) as folder,
        kernel(wrap, block, bounce),
    ):
        path = image(Path(folder) / "disk.img", bytes(model))
        disk = FileBackend(path, cache=CACHE_MODES["none"], probe=False)
        for fill, request in enumerate(script, start=1):
            carry_out(disk, model, request, fill)
        disk.close()
        assert path.read_bytes() == model


@pytest.fixture
def path(direct_folder: Path, request: pytest.FixtureRequest) -> Path:
    """An image of 16 pages whose every byte is an `x`, on a file system with O_DIRECT."""
    return image(direct_folder / "disk.img", b"x" * 16 * PAGE)


def calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[tuple[int, int]]:
    """The (offset, length) of each later call of `os.<name>`."""
    seen: list[tuple[int, int]] = []
    real = getattr(os, name)

    def spy(fd: int, views: Sequence[memoryview], offset: int) -> int:
        seen.append((offset, sum(map(len, views))))
        return int(real(fd, views, offset))

    monkeypatch.setattr(os, name, spy)
    return seen


def test_aligned_read_is_one_call(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(path, cache=CACHE_MODES["none"])
    seen = calls(monkeypatch, "preadv")
    disk.read(PAGE, [piece(bytes(PAGE)), piece(bytes(PAGE))])
    assert seen == [(PAGE, 2 * PAGE)]


def test_aligned_write_is_one_call(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(path, cache=CACHE_MODES["none"])
    seen = calls(monkeypatch, "pwritev")
    disk.write(PAGE, [piece(bytes(PAGE)), piece(bytes(PAGE))])
    assert seen == [(PAGE, 2 * PAGE)]


def test_open_file_has_o_direct_also_after_a_write_to_an_unaligned_end(
    serve: Serve, path: Path
) -> None:
    disk = serve(image(path, b"x" * 1000), cache=CACHE_MODES["none"])
    disk.write(990, [piece(b"y" * 10)])
    assert fcntl.fcntl(disk._fd, fcntl.F_GETFL) & os.O_DIRECT


def test_write_to_an_unaligned_end_keeps_the_size(serve: Serve, path: Path) -> None:
    disk = serve(image(path, b"x" * 1000), cache=CACHE_MODES["none"])
    disk.write(500, [piece(b"y" * 500)])
    assert path.read_bytes() == b"x" * 500 + b"y" * 500


def test_image_smaller_than_a_block_works(serve: Serve, path: Path) -> None:
    disk = serve(image(path, b"0123456789"), cache=CACHE_MODES["none"])
    disk.write(2, [piece(b"ab")])
    view = piece(b"---")
    disk.read(1, [view])
    assert bytes(view) == b"1ab"


def test_larger_blocks_are_found_out_when_opening(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kernel(disk_of_block, 4096):
        disk = serve(path, cache=CACHE_MODES["none"])
        seen = calls(monkeypatch, "preadv")
        disk.read(1, [piece(b"-")])
    assert seen == [(1, 1), (0, 4096)]


def test_invalid_for_another_reason_is_raised(serve: Serve, path: Path) -> None:
    disk = serve(path, cache=CACHE_MODES["none"])
    with kernel(disk_of_block, 2 * DIRECT_ALIGN_MAX), pytest.raises(OSError) as caught:
        disk.write(512, [piece(bytes(512))])
    assert caught.value.errno == errno.EINVAL


def test_read_of_a_file_truncated_meanwhile_is_eio(serve: Serve, path: Path) -> None:
    disk = serve(path, cache=CACHE_MODES["none"])
    os.truncate(path, 5000)
    with pytest.raises(OSError, match="ends early, at byte 5000") as caught:
        disk.read(0, [piece(bytes(2 * PAGE))])
    assert caught.value.errno == errno.EIO


def test_unaligned_write_to_a_file_truncated_meanwhile_is_eio(serve: Serve, path: Path) -> None:
    disk = serve(path, cache=CACHE_MODES["none"])
    os.truncate(path, PAGE)
    with pytest.raises(OSError) as caught:
        disk.write(2 * PAGE + 1, [piece(b"a")])
    assert caught.value.errno == errno.EIO


def test_threads_that_write_parts_of_one_block_lose_nothing(serve: Serve, path: Path) -> None:
    disk = serve(path, cache=CACHE_MODES["none"])

    def fill(first: int) -> None:
        for at in range(first, PAGE, 4):
            disk.write(at, [piece(bytes([first + 1]))])

    threads = [threading.Thread(target=fill, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes()[:PAGE] == b"\1\2\3\4" * (PAGE // 4)


@pytest.mark.parametrize(("cache", "synced_at_once"), [("none", 0), ("directsync", 1)])
def test_direct_modes_differ_in_when_data_is_made_durable(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, synced_at_once: int
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    disk = serve(path, cache=CACHE_MODES[cache])
    disk.write(1, [piece(b"a")])
    assert len(synced) == synced_at_once
    assert disk.write_cache == (cache == "none")


def test_file_system_without_o_direct_says_what_to_use(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def without(name: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(name, flags)

    monkeypatch.setattr(os, "open", without)
    with pytest.raises(ImageError) as caught:
        serve(path, cache=CACHE_MODES["none"])
    assert str(caught.value) == f"{path}: its file system has no O_DIRECT; use cache=writeback"
