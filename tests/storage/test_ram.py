from __future__ import annotations

import mmap

import pytest

from nvmelab.limits import ZERO_PIECE_BYTES
from nvmelab.storage.base import Backend
from nvmelab.storage.ram import RamBackend
from tests.storage.conftest import piece

PAGE = mmap.PAGESIZE


def contents(backend: Backend) -> bytes:
    view = piece(bytes(backend.size))
    backend.read(0, [view])
    return bytes(view)


def full(size: int) -> RamBackend:
    """A disk whose every byte is an `x`."""
    disk = RamBackend(size)
    disk.write(0, [piece(b"x" * size)])
    return disk


def test_new_disk_reads_as_zeroes() -> None:
    assert contents(RamBackend(1000)) == bytes(1000)


def test_is_a_backend_with_its_name_and_without_a_cache() -> None:
    disk: Backend = RamBackend(512, name="scratch", read_only=True)
    assert (disk.size, disk.name, disk.read_only, disk.write_cache) == (512, "scratch", True, False)


def test_pieces_are_written_one_after_the_other() -> None:
    disk = RamBackend(16)
    disk.write(2, [piece(b"ab"), piece(b""), piece(b"cde")])
    assert contents(disk) == b"\0\0abcde" + bytes(9)


def test_pieces_are_filled_one_after_the_other() -> None:
    disk = RamBackend(16)
    disk.write(0, [piece(b"0123456789abcdef")])
    first, second = piece(b"--"), piece(b"---")
    disk.read(11, [first, second])
    assert (bytes(first), bytes(second)) == (b"bc", b"def")


def test_flush_succeeds() -> None:
    RamBackend(16).flush()


def test_discard_zeroes_the_whole_pages_of_its_range_only() -> None:
    disk = full(4 * PAGE)
    disk.discard(PAGE - 1, 2 * PAGE + 2)
    assert contents(disk) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE


def test_discard_within_one_page_changes_nothing() -> None:
    disk = full(PAGE)
    disk.discard(1, PAGE - 2)
    assert contents(disk) == b"x" * PAGE


@pytest.mark.parametrize("may_unmap", [False, True])
@pytest.mark.parametrize(
    ("offset", "length"),
    [(0, 4 * PAGE), (PAGE - 1, 2 * PAGE + 2), (1, 5), (PAGE - 1, 2), (PAGE, PAGE), (7, 0)],
)
def test_write_zeroes_zeroes_its_range_exactly(offset: int, length: int, may_unmap: bool) -> None:
    disk = full(4 * PAGE)
    disk.write_zeroes(offset, length, may_unmap=may_unmap)
    end = offset + length
    assert contents(disk) == b"x" * offset + bytes(length) + b"x" * (4 * PAGE - end)


def test_write_zeroes_of_more_than_one_piece_zeroes_all() -> None:
    disk = full(2 * ZERO_PIECE_BYTES + 100)
    disk.write_zeroes(1, 2 * ZERO_PIECE_BYTES + 98, may_unmap=False)
    assert contents(disk) == b"x" + bytes(2 * ZERO_PIECE_BYTES + 98) + b"x"


def test_close_twice_is_safe() -> None:
    disk = RamBackend(16)
    disk.close()
    disk.close()


def test_size_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 byte"):
        RamBackend(0)


def test_write_past_the_end_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        RamBackend(16).write(15, [piece(b"ab")])


def test_write_to_a_read_only_disk_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        RamBackend(16, read_only=True).write(0, [piece(b"a")])
