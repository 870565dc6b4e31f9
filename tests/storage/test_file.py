from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from nvmelab.limits import IO_PIECES_MAX, ZERO_PIECE_BYTES
from nvmelab.storage import file as file_module
from nvmelab.storage.base import Backend, ImageError
from nvmelab.storage.file import CACHE_MODES, FileBackend
from tests.storage.conftest import Serve, image, piece

MIB = 1 << 20

Transfer = Callable[[int, Sequence[memoryview], int], int]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An image of 1 MiB whose every byte is an `x`."""
    return image(tmp_path / "disk.img", b"x" * MIB)


def fail_with(code: int) -> Callable[..., int]:
    def call(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    return call


def at_most(count: int, transfer: Transfer) -> Transfer:
    """A `transfer` that stops after `count` bytes, as the kernel may."""

    def call(fd: int, views: Sequence[memoryview], offset: int) -> int:
        return transfer(fd, [next(view for view in views if len(view))[:count]], offset)

    return call


def allocated(path: Path) -> int:
    """Bytes that the file takes up on its disk."""
    return path.stat().st_blocks * 512


def open_files() -> list[str]:
    """The descriptors of this process that lead to a file."""
    return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]


def refusal(path: Path | str, *, read_only: bool = False) -> str:
    """The message of the ImageError, which must be one line that names the file first."""
    with pytest.raises(ImageError) as caught:
        FileBackend(path, read_only=read_only)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# Transfers.


def test_is_a_backend_with_the_size_of_the_file(serve: Serve, path: Path) -> None:
    disk: Backend = serve(path)
    assert (disk.size, disk.name, disk.read_only, disk.write_cache) == (MIB, str(path), False, True)


def test_pieces_are_written_one_after_the_other(serve: Serve, path: Path) -> None:
    serve(path).write(10, [piece(b"ab", 3), piece(b""), piece(b"cde", 5)])
    assert path.read_bytes()[:16] == b"x" * 10 + b"abcdex"


def test_pieces_are_filled_one_after_the_other(serve: Serve, path: Path) -> None:
    path.write_bytes(b"0123456789abcdef")
    first, second = piece(b"--", 1), piece(b"---", 2)
    serve(path).read(11, [first, second])
    assert (bytes(first), bytes(second)) == (b"bc", b"def")


def test_more_pieces_than_one_call_takes_are_written_and_read(serve: Serve, path: Path) -> None:
    disk = serve(path)
    data = os.urandom(2 * IO_PIECES_MAX + 1)
    disk.write(7, [piece(data[at : at + 1]) for at in range(len(data))])
    views = [piece(b"-") for _ in data]
    disk.read(7, views)
    assert b"".join(views) == data


def test_no_pieces_are_no_error(serve: Serve, path: Path) -> None:
    disk = serve(path)
    disk.read(MIB, [])
    disk.write(MIB, [])


def test_read_goes_on_after_a_short_transfer(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(image(path, b"0123456789"))
    monkeypatch.setattr(os, "preadv", at_most(2, os.preadv))
    first, second = piece(b"---"), piece(b"-----")
    disk.read(1, [first, second])
    assert (bytes(first), bytes(second)) == (b"123", b"45678")


def test_write_goes_on_after_a_short_transfer(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(image(path, b"0123456789"))
    monkeypatch.setattr(os, "pwritev", at_most(2, os.pwritev))
    disk.write(1, [piece(b"abc"), piece(b"defgh")])
    assert path.read_bytes() == b"0abcdefgh9"


def test_read_of_a_file_truncated_meanwhile_is_eio(serve: Serve, path: Path) -> None:
    disk = serve(path)
    os.truncate(path, 5000)
    with pytest.raises(OSError, match="ends early, at byte 5000") as caught:
        disk.read(4096, [piece(bytes(4096))])
    assert caught.value.errno == errno.EIO


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EINVAL])
def test_error_of_the_host_comes_out_of_write(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk = serve(path)
    monkeypatch.setattr(os, "pwritev", fail_with(code))
    with pytest.raises(OSError) as caught:
        disk.write(0, [piece(b"a")])
    assert caught.value.errno == code


def test_access_past_the_end_is_our_own_mistake(serve: Serve, path: Path) -> None:
    with pytest.raises(AssertionError):
        serve(path).read(MIB - 1, [piece(b"--")])


def test_read_only_image_is_read_and_not_written(serve: Serve, path: Path) -> None:
    disk = serve(path, read_only=True)
    view = piece(b"-")
    disk.read(0, [view])
    assert bytes(view) == b"x"
    with pytest.raises(AssertionError):
        disk.write(0, [view])


def test_path_with_spaces_and_of_another_kind_is_fine(serve: Serve, tmp_path: Path) -> None:
    disk = image(tmp_path / "a disk; rm -rf.img", b"x")
    assert serve(str(disk)).size == serve(disk, lock=False).size == 1


def test_close_releases_the_file_and_may_be_repeated(serve: Serve, path: Path) -> None:
    disk = serve(path)
    disk.close()
    disk.close()
    assert not any(os.path.samefile(path, f"/proc/self/fd/{fd}") for fd in open_files())


# Cache modes.


@pytest.mark.parametrize(
    ("cache", "after_write", "after_flush"),
    [("writeback", 0, 1), ("writethrough", 1, 2), ("unsafe", 0, 0)],
)
def test_cache_mode_decides_when_data_is_made_durable(
    serve: Serve,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cache: str,
    after_write: int,
    after_flush: int,
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    disk = serve(path, cache=CACHE_MODES[cache])
    disk.write(0, [piece(b"abc")])
    assert len(synced) == after_write
    disk.flush()
    assert len(synced) == after_flush


@pytest.mark.parametrize("host_can", [False, True])
def test_writethrough_makes_zeroes_durable_too(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch, host_can: bool
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    monkeypatch.setattr(file_module, "_fallocate", lambda *_: host_can)
    serve(path, cache=CACHE_MODES["writethrough"]).write_zeroes(0, 512, may_unmap=True)
    assert len(synced) == 1


def test_cache_modes_are_those_of_qemu() -> None:
    assert sorted(CACHE_MODES) == ["directsync", "none", "unsafe", "writeback", "writethrough"]


@pytest.mark.parametrize("cache", ["writethrough", "writeback", "unsafe"])
def test_write_cache_is_off_for_writethrough_only(serve: Serve, path: Path, cache: str) -> None:
    assert serve(path, cache=CACHE_MODES[cache]).write_cache == (cache != "writethrough")


def test_flush_that_failed_once_fails_again(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(path)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail_with(errno.EIO))
        with pytest.raises(OSError):
            disk.flush()
    with pytest.raises(OSError) as caught:
        disk.flush()
    assert caught.value.errno == errno.EIO


# Discard and zeroes.


def test_discard_makes_a_hole_that_reads_as_zeroes(serve: Serve, path: Path) -> None:
    serve(path).discard(4096, MIB - 8192)
    assert path.read_bytes() == b"x" * 4096 + bytes(MIB - 8192) + b"x" * 4096
    assert allocated(path) < MIB // 2


def test_discard_to_the_end_keeps_the_size(serve: Serve, path: Path) -> None:
    serve(path).discard(0, MIB)
    assert path.stat().st_size == MIB


def test_discard_does_nothing_when_switched_off(serve: Serve, path: Path) -> None:
    serve(path, discard=False).discard(0, MIB)
    assert path.read_bytes() == b"x" * MIB


def test_discard_of_nothing_is_no_error(serve: Serve, path: Path) -> None:
    serve(path).discard(MIB, 0)


@pytest.mark.parametrize("code", [errno.EOPNOTSUPP, errno.EINVAL])
def test_discard_that_the_host_cannot_do_is_no_error(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    disk = serve(path)
    monkeypatch.setattr(file_module, "_libc_fallocate", lambda: lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    disk.discard(0, MIB)
    assert path.read_bytes() == b"x" * MIB


def test_error_of_the_host_comes_out_of_discard(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(path)
    monkeypatch.setattr(file_module, "_libc_fallocate", lambda: lambda *_: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.ENOSPC)
    with pytest.raises(OSError) as caught:
        disk.discard(0, MIB)
    assert caught.value.errno == errno.ENOSPC


def test_interrupted_discard_is_repeated(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = serve(path)
    answers = [-1, 0]
    monkeypatch.setattr(file_module, "_libc_fallocate", lambda: lambda *_: answers.pop(0))
    monkeypatch.setattr(ctypes, "get_errno", lambda: errno.EINTR)
    disk.discard(0, MIB)
    assert answers == []


@pytest.mark.parametrize("host_can", [False, True])
@pytest.mark.parametrize("may_unmap", [False, True])
@pytest.mark.parametrize(("offset", "length"), [(0, MIB), (4095, 8194), (1, 1), (MIB, 0)])
def test_write_zeroes_zeroes_its_range_exactly(
    serve: Serve,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    offset: int,
    length: int,
    may_unmap: bool,
    host_can: bool,
) -> None:
    real = file_module._fallocate
    monkeypatch.setattr(file_module, "_fallocate", lambda *args: host_can and real(*args))
    serve(path).write_zeroes(offset, length, may_unmap=may_unmap)
    expected = b"x" * offset + bytes(length) + b"x" * (MIB - offset - length)
    assert path.read_bytes() == expected


@pytest.mark.parametrize(
    ("may_unmap", "discard", "is_hole"),
    [(True, True, True), (True, False, False), (False, True, False)],
)
def test_write_zeroes_makes_a_hole_only_if_permitted(
    serve: Serve, path: Path, may_unmap: bool, discard: bool, is_hole: bool
) -> None:
    serve(path, discard=discard).write_zeroes(0, MIB, may_unmap=may_unmap)
    assert (allocated(path) < MIB) == is_hole


def test_write_zeroes_by_writing_goes_in_bounded_pieces(
    serve: Serve, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = 2 * ZERO_PIECE_BYTES + 5
    disk = serve(image(path, b"x" * (length + 2)))
    lengths: list[int] = []
    real = os.pwritev

    def spy(fd: int, views: Sequence[memoryview], offset: int) -> int:
        lengths.append(sum(map(len, views)))
        return real(fd, views, offset)

    monkeypatch.setattr(file_module, "_fallocate", lambda *_: False)
    monkeypatch.setattr(os, "pwritev", spy)
    disk.write_zeroes(1, length, may_unmap=False)
    assert path.read_bytes() == b"x" + bytes(length) + b"x"
    assert lengths == [ZERO_PIECE_BYTES, ZERO_PIECE_BYTES, 5]


# What keeps an image from being served.


def test_missing_image_says_how_to_create_it(tmp_path: Path) -> None:
    path = tmp_path / "my disk.img"
    assert refusal(path) == f"there is no such image; create it: truncate -s 1G '{path}'"


def test_missing_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "disk.img"
    assert refusal(path) == f"there is no directory {path.parent}; correct the path"


def test_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == "is a directory; name an image file or a block device"


def test_device_that_is_no_disk_is_refused() -> None:
    assert refusal("/dev/null").startswith("is neither a file nor a block device")


def test_empty_image_says_how_to_size_it(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", b"")
    assert refusal(path) == f"is empty; give it a size: truncate -s 1G {path}"


def test_other_format_names_the_conversion(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2", b"QFI\xfb\0\0\0\3" + bytes(MIB))
    assert refusal(path) == (
        "is a qcow2 image, and only raw ones are served; convert it: "
        f"qemu-img convert -O raw {path} {tmp_path / 'disk.raw'}"
    )


def test_other_format_is_served_as_raw_when_told_so(serve: Serve, tmp_path: Path) -> None:
    path = image(tmp_path / "disk.qcow2", b"QFI\xfb\0\0\0\3" + bytes(MIB))
    assert serve(path, probe=False).size == MIB + 8


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_image_that_may_only_be_read_says_how_to_open_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "open", fail_with(code))
    assert refusal(path) == (
        f"cannot be opened for writing ({os.strerror(code)}); open it read-only "
        f"(readonly=on or --read-only), or check its mode: ls -l {path}"
    )


def test_image_that_may_not_even_be_read_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "open", fail_with(errno.EACCES))
    assert refusal(path, read_only=True) == (
        f"cannot be opened (Permission denied); check it: ls -l {path}"
    )


def test_image_that_cannot_be_read_at_all_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "preadv", fail_with(errno.EIO))
    assert refusal(path).startswith("cannot be read (Input/output error); check the disk it is on")


def test_name_with_a_newline_stays_one_line(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(ImageError) as caught:
        serve(tmp_path / "a\nb")
    assert "\n" not in str(caught.value)


def test_refused_image_is_not_left_open(tmp_path: Path) -> None:
    path = image(tmp_path / "disk.img", b"")
    before = os.listdir("/proc/self/fd")
    refusal(path)
    assert os.listdir("/proc/self/fd") == before
