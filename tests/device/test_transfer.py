"""PRP entries and lists to pieces of guest memory. Base 2.2, 4.3.1.

Every dword of the data region holds its own index, so that the bytes show where they were taken
from.
"""

from __future__ import annotations

import itertools
import struct
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelab.device.transfer import map_prp
from nvmelab.memory import GuestMemory, MemoryFault
from nvmelab.spec.status import DNR, NvmeError, Status

PAGE = 4096
PAGE_SIZES = [4096 << mps for mps in range(5)]
DATA, DATA_BYTES = 0x10_0000, 1 << 20
LISTS, LISTS_BYTES = 0x80_0000, 1 << 20
NOWHERE = 0x4000_0000
CONTENT = array("I", range(DATA_BYTES // 4)).tobytes()


class Spy(GuestMemory):
    """Guest memory that notes every copy and every view that is taken of it."""

    def __init__(self) -> None:
        super().__init__()
        self.copied: list[tuple[int, int]] = []
        self.viewed: list[tuple[int, int]] = []

    def read(self, addr: int, length: int) -> bytes:
        self.copied.append((addr, length))
        return super().read(addr, length)

    def views(self, addr: int, length: int, *, write: bool) -> list[memoryview]:
        self.viewed.append((addr, length))
        return super().views(addr, length, write=write)


def guest(*, data_writable: bool = True, lists_writable: bool = True) -> Spy:
    memory = Spy()
    memory.map(DATA, bytearray(CONTENT), writable=data_writable)
    memory.map(LISTS, bytearray(LISTS_BYTES), writable=lists_writable)
    return memory


def put(memory: GuestMemory, addr: int, *entries: int) -> None:
    memory.write(addr, struct.pack(f"<{len(entries)}Q", *entries))


def lay(memory: GuestMemory, pointer: int, entries: list[int], page_size: int = PAGE) -> None:
    """A PRP list from `pointer` on, chained where its page ends; each next list page is the one
    after the page behind, so that no two of them touch."""
    left = list(entries)
    while left:
        room = (page_size - pointer % page_size) // 8
        if len(left) <= room:
            put(memory, pointer, *left)
            return
        following = pointer - pointer % page_size + 2 * page_size
        put(memory, pointer, *left[: room - 1], following)
        del left[: room - 1]
        pointer = following


def content(addr: int, length: int) -> bytes:
    return CONTENT[addr - DATA : addr - DATA + length]


def mapped(
    memory: GuestMemory,
    prp1: int,
    prp2: int,
    length: int,
    page_size: int = PAGE,
    *,
    write: bool = False,
) -> bytes:
    return b"".join(map_prp(memory, prp1, prp2, length, page_size, write=write))


def refused(
    memory: GuestMemory, prp1: int, prp2: int, length: int, page_size: int = PAGE
) -> NvmeError:
    with pytest.raises(NvmeError) as caught:
        map_prp(memory, prp1, prp2, length, page_size, write=True)
    return caught.value


# One page and two pages.


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("offset", [0, 4, 512, 4092])
def test_transfer_to_the_end_of_its_page_ignores_prp2(page_size: int, offset: int) -> None:
    assert mapped(guest(), DATA + offset, 0x123, page_size - offset, page_size) == content(
        DATA + offset, page_size - offset
    )


def test_transfer_inside_a_page_is_one_piece_of_its_length() -> None:
    pieces = map_prp(guest(), DATA + 12, 0, 512, PAGE, write=False)
    assert [bytes(piece) for piece in pieces] == [content(DATA + 12, 512)]


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize(
    ("offset", "short"), [(0, 0), (4, 4), (4, 0), (4092, 4092), (4092, 0), (0, 4), (2048, 100)]
)
def test_one_page_boundary_makes_prp2_the_second_page(
    page_size: int, offset: int, short: int
) -> None:
    second = DATA + 5 * page_size
    length = 2 * page_size - offset - short
    got = mapped(guest(), DATA + offset, second, length, page_size)
    first = content(DATA + offset, page_size - offset)
    assert got == first + content(second, length - len(first))


@pytest.mark.parametrize("rest", [1, 4])
def test_first_byte_behind_the_boundary_is_in_the_second_page(rest: int) -> None:
    second = DATA + 5 * PAGE
    assert mapped(guest(), DATA, second, PAGE + rest)[PAGE:] == content(second, rest)


def test_prp2_may_be_the_page_of_prp1_again() -> None:
    assert mapped(guest(), DATA, DATA, 2 * PAGE) == content(DATA, PAGE) * 2


# Lists.


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_one_byte_more_than_two_pages_makes_prp2_a_list(page_size: int) -> None:
    memory = guest()
    pages = [DATA + 3 * page_size, DATA + 7 * page_size]
    put(memory, LISTS, *pages)
    got = mapped(memory, DATA, LISTS, 2 * page_size + 1, page_size)
    assert got == b"".join(
        (content(DATA, page_size), content(pages[0], page_size), content(pages[1], 1))
    )


def test_offset_that_pushes_the_end_over_the_second_boundary_makes_prp2_a_list() -> None:
    memory = guest()
    put(memory, LISTS, DATA + 3 * PAGE, DATA + 9 * PAGE)
    got = mapped(memory, DATA + 4, LISTS, 2 * PAGE)
    assert got[-4:] == content(DATA + 9 * PAGE, 4)


def test_list_may_begin_in_mid_page_at_any_quadword() -> None:
    memory = guest()
    put(memory, LISTS + 1000, DATA + 3 * PAGE, DATA + 5 * PAGE)
    got = mapped(memory, DATA, LISTS + 1000, 3 * PAGE)
    assert got[PAGE:] == content(DATA + 3 * PAGE, PAGE) + content(DATA + 5 * PAGE, PAGE)


def test_list_whose_last_entry_is_the_last_of_its_page_is_not_chained() -> None:
    memory = guest()
    put(memory, LISTS + PAGE - 16, DATA + 3 * PAGE, DATA + 5 * PAGE)
    got = mapped(memory, DATA, LISTS + PAGE - 16, 3 * PAGE)
    assert got[2 * PAGE :] == content(DATA + 5 * PAGE, PAGE)


def test_list_with_room_for_one_entry_is_nothing_but_a_chain_pointer() -> None:
    memory = guest()
    put(memory, LISTS + PAGE - 8, LISTS + 4 * PAGE)
    put(memory, LISTS + 4 * PAGE, DATA + 3 * PAGE, DATA + 5 * PAGE)
    got = mapped(memory, DATA, LISTS + PAGE - 8, 3 * PAGE)
    assert got[PAGE:] == content(DATA + 3 * PAGE, PAGE) + content(DATA + 5 * PAGE, PAGE)


def test_list_page_of_exactly_512_entries_is_all_data() -> None:
    memory = guest()
    entries = [DATA + PAGE * (i % 256) for i in range(512)]
    put(memory, LISTS, *entries)
    got = mapped(memory, DATA, LISTS, 513 * PAGE)
    assert got == content(DATA, PAGE) + b"".join(content(entry, PAGE) for entry in entries)


def test_list_of_513_entries_uses_the_last_of_the_page_as_a_pointer() -> None:
    memory = guest()
    entries = [DATA + PAGE * (255 - i % 256) for i in range(513)]
    put(memory, LISTS, *entries[:511], LISTS + 8 * PAGE)
    put(memory, LISTS + 8 * PAGE, *entries[511:])
    got = mapped(memory, DATA, LISTS, 514 * PAGE)
    assert got == content(DATA, PAGE) + b"".join(content(entry, PAGE) for entry in entries)


@pytest.mark.parametrize("count", [1022, 1023, 1024, 1533, 1534, 1535, 2000])
def test_list_over_several_pages_is_followed_to_its_end(count: int) -> None:
    memory = guest()
    entries = [DATA + PAGE * (i * 7 % 256) for i in range(count)]
    lay(memory, LISTS, entries)
    got = mapped(memory, DATA, LISTS, (count + 1) * PAGE)
    assert got[PAGE:] == b"".join(content(entry, PAGE) for entry in entries)


def test_list_in_64_kib_pages_is_chained_after_8191_entries() -> None:
    memory, big = guest(), 65536
    entries = [DATA + big * (i % 16) for i in range(8193)]
    lay(memory, LISTS, entries, big)
    pieces = map_prp(memory, DATA, LISTS, 8194 * big, big, write=False)
    assert sum(len(piece) for piece in pieces) == 8194 * big
    assert bytes(pieces[-1][-4:]) == content(entries[-1] + big - 4, 4)


# Offsets.


@pytest.mark.parametrize("low", [1, 2, 3])
def test_prp1_that_is_not_dword_aligned_is_prp_offset_invalid(low: int) -> None:
    assert refused(guest(), DATA + low, 0, 512).field == Status.PRP_OFFSET_INVALID | DNR


@pytest.mark.parametrize("page_size", PAGE_SIZES)
@pytest.mark.parametrize("low", [1, 4, 8, 512, 2048, 4092])
def test_second_page_with_an_offset_is_prp_offset_invalid(page_size: int, low: int) -> None:
    error = refused(guest(), DATA, DATA + page_size + low, 2 * page_size, page_size)
    assert error.status == Status.PRP_OFFSET_INVALID


@pytest.mark.parametrize("page_size", PAGE_SIZES[1:])
def test_second_page_at_half_a_page_is_prp_offset_invalid(page_size: int) -> None:
    error = refused(guest(), DATA, DATA + page_size // 2, 2 * page_size, page_size)
    assert error.status == Status.PRP_OFFSET_INVALID


@pytest.mark.parametrize("low", [1, 2, 4, 7])
def test_list_pointer_that_is_not_qword_aligned_is_prp_offset_invalid(low: int) -> None:
    error = refused(guest(), DATA, LISTS + low, 3 * PAGE)
    assert error.status == Status.PRP_OFFSET_INVALID


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("low", [1, 4, 8, 2048])
def test_list_entry_with_an_offset_is_prp_offset_invalid(at: int, low: int) -> None:
    memory = guest()
    put(memory, LISTS, DATA, DATA, DATA)
    put(memory, LISTS + 8 * at, DATA + low)
    assert refused(memory, DATA, LISTS, 4 * PAGE).status == Status.PRP_OFFSET_INVALID


@pytest.mark.parametrize("low", [1, 4, 8, 2048])
def test_chain_pointer_with_an_offset_is_prp_offset_invalid(low: int) -> None:
    memory = guest()
    put(memory, LISTS + PAGE - 8, LISTS + 2 * PAGE + low)
    error = refused(memory, DATA, LISTS + PAGE - 8, 3 * PAGE)
    assert error.status == Status.PRP_OFFSET_INVALID


def test_entry_behind_the_last_one_needed_is_not_judged() -> None:
    memory = guest()
    put(memory, LISTS, DATA + PAGE, DATA + 2 * PAGE, 0x123)
    assert len(mapped(memory, DATA, LISTS, 3 * PAGE)) == 3 * PAGE


# Addresses that are not memory.


@pytest.mark.parametrize("prp1", [0, NOWHERE, DATA + DATA_BYTES, (1 << 64) - PAGE])
def test_prp1_outside_memory_faults(prp1: int) -> None:
    with pytest.raises(MemoryFault):
        map_prp(guest(), prp1, 0, PAGE, PAGE, write=False)


@pytest.mark.parametrize("prp2", [0, NOWHERE, DATA - PAGE, (1 << 64) - PAGE])
def test_second_page_outside_memory_faults(prp2: int) -> None:
    with pytest.raises(MemoryFault):
        map_prp(guest(), DATA, prp2, 2 * PAGE, PAGE, write=False)


@pytest.mark.parametrize("prp2", [0, NOWHERE, LISTS + LISTS_BYTES, (1 << 64) - 8])
def test_list_pointer_outside_memory_faults(prp2: int) -> None:
    with pytest.raises(MemoryFault):
        map_prp(guest(), DATA, prp2, 3 * PAGE, PAGE, write=False)


def test_list_entry_outside_memory_faults() -> None:
    memory = guest()
    put(memory, LISTS, DATA + PAGE, NOWHERE)
    with pytest.raises(MemoryFault):
        map_prp(memory, DATA, LISTS, 3 * PAGE, PAGE, write=False)


def test_chain_pointer_outside_memory_faults() -> None:
    memory = guest()
    put(memory, LISTS + PAGE - 8, NOWHERE)
    with pytest.raises(MemoryFault):
        map_prp(memory, DATA, LISTS + PAGE - 8, 3 * PAGE, PAGE, write=False)


def test_page_that_memory_covers_in_part_faults() -> None:
    memory = GuestMemory()
    memory.map(DATA, bytearray(PAGE + 8))
    with pytest.raises(MemoryFault):
        map_prp(memory, DATA, DATA + PAGE, 2 * PAGE, PAGE, write=False)


def test_data_to_read_only_memory_faults() -> None:
    with pytest.raises(MemoryFault):
        map_prp(guest(data_writable=False), DATA, 0, PAGE, PAGE, write=True)


def test_data_from_read_only_memory_is_mapped() -> None:
    assert mapped(guest(data_writable=False), DATA, 0, PAGE) == content(DATA, PAGE)


def test_list_in_read_only_memory_serves_a_transfer_to_the_host() -> None:
    memory = Spy()
    memory.map(DATA, bytearray(CONTENT))
    memory.map(LISTS, bytearray(struct.pack("<2Q", DATA, DATA)), writable=False)
    assert len(mapped(memory, DATA, LISTS, 3 * PAGE, write=True)) == 3 * PAGE


# Pieces, and what is read.


def test_pages_that_follow_each_other_are_one_piece() -> None:
    memory = guest()
    put(memory, LISTS, DATA + PAGE, DATA + 2 * PAGE, DATA + 3 * PAGE)
    pieces = map_prp(memory, DATA + 512, LISTS, 4 * PAGE - 512, PAGE, write=False)
    assert [bytes(piece) for piece in pieces] == [content(DATA + 512, 4 * PAGE - 512)]


def test_two_pages_that_follow_each_other_are_one_piece() -> None:
    assert len(map_prp(guest(), DATA, DATA + PAGE, 2 * PAGE, PAGE, write=False)) == 1


def test_pages_in_falling_order_are_pieces_of_their_own() -> None:
    memory = guest()
    put(memory, LISTS, DATA + 2 * PAGE, DATA + PAGE)
    pieces = map_prp(memory, DATA + 3 * PAGE, LISTS, 3 * PAGE, PAGE, write=False)
    assert [len(piece) for piece in pieces] == [PAGE] * 3


def test_pages_that_follow_each_other_in_two_regions_are_two_pieces() -> None:
    memory = GuestMemory()
    memory.map(DATA, bytearray(b"a" * PAGE))
    memory.map(DATA + PAGE, bytearray(b"b" * PAGE))
    pieces = map_prp(memory, DATA, DATA + PAGE, 2 * PAGE, PAGE, write=False)
    assert [bytes(piece) for piece in pieces] == [b"a" * PAGE, b"b" * PAGE]


def test_pieces_are_the_memory_itself() -> None:
    memory = guest()
    (piece,) = map_prp(memory, DATA, 0, 8, PAGE, write=True)
    piece[:] = b"changed!"
    assert memory.read(DATA, 8) == b"changed!"


def test_one_and_two_pages_are_mapped_without_reading_guest_memory() -> None:
    memory = guest()
    map_prp(memory, DATA, DATA + 5 * PAGE, 2 * PAGE, PAGE, write=False)
    assert memory.copied == []


def test_each_list_page_is_copied_once_and_only_as_far_as_needed() -> None:
    memory = guest()
    lay(memory, LISTS + PAGE - 24, [DATA] * 600)
    memory.viewed.clear()
    map_prp(memory, DATA, LISTS + PAGE - 24, 601 * PAGE, PAGE, write=False)
    assert memory.copied == [
        (LISTS + PAGE - 24, 24),
        (LISTS + 2 * PAGE, PAGE),
        (LISTS + 4 * PAGE, 8 * (600 - 2 - 511)),
    ]


@st.composite
def transfers(draw: st.DrawFn) -> tuple[int, int, int, list[int], int]:
    """(page size, offset of PRP1, length, pages after the first, where the list begins)."""
    page_size = draw(st.sampled_from([4096, 8192, 16384]))
    offset = 4 * draw(st.integers(0, page_size // 4 - 1))
    count = draw(st.integers(0, 12))
    if count:
        length = page_size - offset + (count - 1) * page_size + draw(st.integers(1, page_size))
    else:
        length = draw(st.integers(1, page_size - offset))
    page = st.integers(0, DATA_BYTES // page_size - 1)
    pages = [DATA + page_size * number for number in draw(st.lists(page, min_size=count,
             max_size=count))]  # fmt: skip
    entries = draw(st.integers(1, min(16, page_size // 8)))
    return page_size, offset, length, pages, LISTS + page_size - 8 * entries


@given(transfers(), st.integers(0, 15))
def test_any_transfer_is_where_a_naive_walk_finds_it(
    transfer: tuple[int, int, int, list[int], int], first: int
) -> None:
    page_size, offset, length, pages, pointer = transfer
    memory = guest()
    prp1 = DATA + first * page_size + offset
    if len(pages) > 1:
        lay(memory, pointer, pages, page_size)
        prp2 = pointer
    else:
        prp2 = pages[0] if pages else 0xDEAD
    memory.viewed.clear()
    wanted = content(prp1, min(length, page_size - offset))
    wanted += b"".join(content(page, page_size) for page in pages)
    assert mapped(memory, prp1, prp2, length, page_size) == wanted[:length]
    copies = sorted(memory.copied)
    assert all(a + size <= b for (a, size), (b, _) in itertools.pairwise(copies))
    assert sum(size for _, size in memory.viewed) == length
