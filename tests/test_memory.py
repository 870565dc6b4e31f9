from __future__ import annotations

import mmap
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelab import memory as memory_module
from nvmelab.memory import GuestMemory, MemoryFault


def two_regions() -> GuestMemory:
    """0x1000 to 0x1010 and, right behind it, 0x1010 to 0x1018; nothing else."""
    memory = GuestMemory()
    memory.map(0x1010, bytearray(b"ghijklmn"))
    memory.map(0x1000, bytearray(b"0123456789abcdef"))
    return memory


# Regions.


def test_regions_are_listed_by_address() -> None:
    memory = two_regions()
    assert [(region.start, region.end) for region in memory.regions] == [
        (0x1000, 0x1010),
        (0x1010, 0x1018),
    ]


@pytest.mark.parametrize(
    ("start", "size"),
    [(0x1000, 16), (0x0FF8, 16), (0x1008, 8), (0x1008, 24), (0x0F00, 0x1000), (0x1010, 8)],
)
def test_region_that_overlaps_another_is_refused(start: int, size: int) -> None:
    memory = two_regions()
    with pytest.raises(ValueError, match="overlaps"):
        memory.map(start, bytearray(size))
    assert len(memory.regions) == 2


def test_region_may_touch_its_neighbours() -> None:
    memory = two_regions()
    memory.map(0x0FF8, bytearray(8))
    memory.map(0x1018, bytearray(8))
    assert memory.read(0x0FF8, 0x28) == bytes(8) + b"0123456789abcdefghijklmn" + bytes(8)


@pytest.mark.parametrize(("start", "size"), [(4, 16), (0, 12), (0, 0)])
def test_region_that_is_not_whole_quadwords_is_refused(start: int, size: int) -> None:
    with pytest.raises(ValueError, match="multiple of 8"):
        GuestMemory().map(start, bytearray(size))


def test_too_many_regions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_module, "DMA_REGIONS_MAX", 2)
    memory = two_regions()
    with pytest.raises(ValueError, match="more than 2"):
        memory.map(0x8000, bytearray(8))


def test_unmapped_region_faults_even_when_it_was_used_last() -> None:
    memory = two_regions()
    memory.read(0x1000, 4)
    memory.unmap(0x1000, 16)
    with pytest.raises(MemoryFault):
        memory.read(0x1000, 4)


def test_cleared_memory_faults_even_when_it_was_used_last() -> None:
    memory = two_regions()
    memory.load_u32(0x1010)
    memory.clear()
    with pytest.raises(MemoryFault):
        memory.load_u32(0x1010)
    assert memory.regions == []


def test_region_mapped_again_shows_its_new_buffer() -> None:
    memory = two_regions()
    memory.read(0x1000, 4)
    memory.unmap(0x1000, 16)
    memory.map(0x1000, bytearray(b"new data"))
    assert memory.read(0x1000, 8) == b"new data"


@pytest.mark.parametrize(("start", "size"), [(0x1000, 8), (0x1008, 8), (0x1000, 24), (0, 16)])
def test_unmap_of_no_exact_region_is_refused(start: int, size: int) -> None:
    memory = two_regions()
    with pytest.raises(KeyError):
        memory.unmap(start, size)
    assert len(memory.regions) == 2


def test_unmap_frees_the_buffer() -> None:
    buffer = mmap.mmap(-1, 4096)
    memory = GuestMemory()
    memory.map(0, buffer)  # type: ignore[arg-type]
    memory.read(0, 8)
    memory.unmap(0, 4096)
    buffer.close()  # raises BufferError while a view is left


# Reads and writes.


def test_read_crosses_into_the_next_region() -> None:
    assert two_regions().read(0x100E, 4) == b"efgh"


def test_write_crosses_into_the_next_region() -> None:
    memory = two_regions()
    memory.write(0x100E, b"WXYZ")
    assert memory.read(0x100C, 8) == b"cdWXYZij"


def test_read_is_a_copy() -> None:
    memory = two_regions()
    before = memory.read(0x1000, 4)
    memory.write(0x1000, b"XXXX")
    assert before == b"0123"


@pytest.mark.parametrize(("addr", "length"), [(0x0FFF, 1), (0x1018, 1), (0x1017, 2), (0, 1 << 40)])
def test_read_outside_every_region_faults(addr: int, length: int) -> None:
    with pytest.raises(MemoryFault):
        two_regions().read(addr, length)


def test_fault_names_the_address_that_has_no_memory() -> None:
    with pytest.raises(MemoryFault) as caught:
        two_regions().read(0x1014, 8)
    assert caught.value.addr == 0x1018


def test_write_that_faults_at_its_end_writes_nothing() -> None:
    memory = two_regions()
    with pytest.raises(MemoryFault):
        memory.write(0x100C, bytes(16))
    assert memory.read(0x1000, 24) == b"0123456789abcdefghijklmn"


def test_write_into_a_gap_writes_nothing() -> None:
    memory = GuestMemory()
    memory.map(0, bytearray(b"before!!"))
    memory.map(16, bytearray(b"behind!!"))
    with pytest.raises(MemoryFault):
        memory.write(4, bytes(16))
    assert (memory.read(0, 8), memory.read(16, 8)) == (b"before!!", b"behind!!")


def test_last_address_of_64_bits_is_no_wrap_around() -> None:
    memory = GuestMemory()
    memory.map(0, bytearray(8))
    memory.map((1 << 64) - 8, bytearray(8))
    with pytest.raises(MemoryFault):
        memory.read((1 << 64) - 4, 8)


def test_views_are_the_memory_itself() -> None:
    memory = two_regions()
    first, second = memory.views(0x100E, 4, write=True)
    first[:], second[:] = b"--", b"++"
    assert memory.read(0x100E, 4) == b"--++"


@given(
    cuts=st.sets(st.integers(1, 15), max_size=6),
    addr=st.integers(0, 127),
    length=st.integers(1, 128),
)
def test_cutting_memory_into_regions_changes_nothing(
    cuts: set[int], addr: int, length: int
) -> None:
    content = bytes(range(128))
    edges = [0, *sorted(8 * cut for cut in cuts), 128]
    memory = GuestMemory()
    for start, end in pairwise(edges):
        memory.map(start, bytearray(content[start:end]))
    length = min(length, 128 - addr)
    assert memory.read(addr, length) == content[addr : addr + length]


# Read-only regions.


def test_read_only_region_is_read() -> None:
    memory = GuestMemory()
    memory.map(0, bytearray(b"firmware"), writable=False)
    assert memory.read(0, 8) == b"firmware"


@pytest.mark.parametrize("store", ["write", "store_u32", "store_u64"])
def test_read_only_region_refuses_every_kind_of_store(store: str) -> None:
    memory = GuestMemory()
    memory.map(0, bytearray(b"firmware"), writable=False)
    with pytest.raises(MemoryFault, match="read-only"):
        getattr(memory, store)(0, b"x" if store == "write" else 1)
    assert memory.read(0, 8) == b"firmware"


def test_write_that_runs_into_a_read_only_region_writes_nothing() -> None:
    memory = GuestMemory()
    memory.map(0, bytearray(b"writable"))
    memory.map(8, bytearray(b"readonly"), writable=False)
    with pytest.raises(MemoryFault):
        memory.write(4, bytes(8))
    assert memory.read(0, 16) == b"writablereadonly"


# Aligned words.


def test_words_are_little_endian() -> None:
    memory = two_regions()
    memory.store_u64(0x1000, 0x0807060504030201)
    memory.store_u32(0x1010, 0xCAFEBABE)
    assert memory.read(0x1000, 8) == bytes(range(1, 9))
    assert memory.read(0x1010, 4) == b"\xbe\xba\xfe\xca"


def test_load_returns_what_a_store_left() -> None:
    memory = two_regions()
    memory.store_u32(0x1014, 0xFFFF_FFFF)
    assert memory.load_u32(0x1014) == 0xFFFF_FFFF


def test_word_store_touches_nothing_beside_it() -> None:
    memory = two_regions()
    memory.store_u32(0x1004, 0)
    assert memory.read(0x1000, 12) == b"0123\0\0\0\x0089ab"


@pytest.mark.parametrize("addr", [0x0FFC, 0x1018])
def test_words_outside_every_region_fault(addr: int) -> None:
    memory = two_regions()
    with pytest.raises(MemoryFault):
        memory.load_u32(addr)
    with pytest.raises(MemoryFault):
        memory.store_u32(addr, 0)
    with pytest.raises(MemoryFault):
        memory.store_u64(addr & ~7 if addr < 0x1000 else addr, 0)
