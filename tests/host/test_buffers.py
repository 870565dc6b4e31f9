"""Buffers and the PRPs that describe them."""

from __future__ import annotations

import struct

import pytest

from nvmelab.host.buffers import ENTRIES_PER_PAGE, PAGE, Buffer, Pool
from tests.host.conftest import DeadLink


def pool(pages: int = 4096) -> Pool:
    link = DeadLink()
    link.memory.map(1 << 32, bytearray(pages * PAGE))
    link._next = 1 << 32
    return Pool(link)


def walk(buffer: Buffer, memory: Pool) -> list[int]:
    """The data's page addresses as a device finds them, from PRP1, PRP2 and the list."""
    prp1, prp2 = buffer.prps()
    pages = [prp1]
    left = -(-(buffer.offset + buffer.size) // PAGE) - 1
    if left <= 1:
        return pages + [prp2] * left
    at = prp2
    while left:
        room = (PAGE - at % PAGE) // 8
        count = left if left <= room else room - 1
        pages += struct.unpack(f"<{count}Q", memory.memory.read(at, 8 * count))
        left -= count
        if left:
            (at,) = struct.unpack("<Q", memory.memory.read(at + 8 * count, 8))
            assert at % PAGE == 0
    return pages


SHAPES = [
    (size, offset, scattered, list_offset)
    for size in (1, 512, PAGE, PAGE + 1, 2 * PAGE, 3 * PAGE, 40 * PAGE)
    for offset in (0, 4, 4092)
    for scattered in (False, True)
    for list_offset in (0, PAGE - 8, PAGE - 16, PAGE - 24)
]


@pytest.mark.parametrize(("size", "offset", "scattered", "list_offset"), SHAPES)
def test_device_finds_every_page_of_a_buffer(
    size: int, offset: int, scattered: bool, list_offset: int
) -> None:
    # A list that ends after one entry of its page can only chain, so it needs two entries of room.
    memory = pool()
    buffer = memory.buffer(size, offset=offset, scattered=scattered, list_offset=list_offset)
    found = walk(buffer, memory)
    assert found[0] == buffer.pages[0] + offset
    assert found[1:] == buffer.pages[1:]


@pytest.mark.parametrize("entries", [ENTRIES_PER_PAGE - 1, ENTRIES_PER_PAGE, ENTRIES_PER_PAGE + 1])
def test_list_chains_only_when_more_than_a_page_of_entries_is_needed(entries: int) -> None:
    memory = pool()
    buffer = memory.buffer((entries + 1) * PAGE)
    assert walk(buffer, memory)[1:] == buffer.pages[1:]
    assert len(buffer._lists) == (1 if entries <= ENTRIES_PER_PAGE else 2)


@pytest.mark.parametrize("scattered", [False, True])
def test_what_is_written_is_read_over_page_borders(scattered: bool) -> None:
    buffer = pool().buffer(3 * PAGE, offset=100, scattered=scattered)
    data = bytes(range(256)) * 48
    buffer.write(data)
    assert buffer.read() == data
    buffer.write(b"abc", PAGE - 101)
    assert (
        buffer.read(PAGE - 102, 5)
        == data[PAGE - 102 : PAGE - 101] + b"abc" + data[PAGE - 98 : PAGE - 97]
    )


def test_scattered_pages_are_no_neighbours() -> None:
    pages = pool().buffer(8 * PAGE, scattered=True).pages
    assert all(abs(a - b) > PAGE for a in pages for b in pages if a != b)


def test_memory_of_a_buffer_that_is_dropped_is_used_again() -> None:
    memory = pool(pages=8)
    for _ in range(50):
        memory.buffer(4 * PAGE)


def test_memory_of_a_buffer_that_is_kept_is_not() -> None:
    memory = pool()
    first, second = memory.buffer(PAGE), memory.buffer(PAGE)
    assert first.addr != second.addr


def test_fill_sets_every_byte_and_no_other() -> None:
    memory = pool()
    buffer = memory.buffer(1000, offset=8)
    buffer.fill(0xA5)
    page = memory.memory.read(buffer.pages[0], PAGE)
    assert page == bytes(8) + b"\xa5" * 1000 + bytes(PAGE - 1008)
