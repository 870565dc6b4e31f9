"""Read, Write, Flush, Write Zeroes and Dataset Management, from the SQE to the disk and back."""

from __future__ import annotations

import struct

import pytest

from nvmelab.device.namespaces import Namespace
from nvmelab.memory import GuestMemory
from nvmelab.spec.admin import CreateIoCq, CreateIoSq, DeleteIoSq, SetFeatures
from nvmelab.spec.commands import Command, NvmOpcode
from nvmelab.spec.features import Feature
from nvmelab.spec.nvm import DatasetManagement, Flush, Range, Read, Write, WriteZeroes
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import NO_RAM, PAGE, RAM, Bench, HostCq, HostSq
from tests.device.disks import Disk

BLOCKS = 2048
"""Of 512 bytes: a disk of 1 MiB."""
DATA = bytes(range(256)) * 16
TOP = (1 << 64) - 1


def rig(disk: Disk | None = None, *, block: int = 512, mdts: int = 7) -> tuple[Bench, HostSq]:
    """An enabled controller with that disk and one queue pair."""
    disk = Disk() if disk is None else disk
    bench = Bench(backends=[disk], mdts=mdts)
    bench.controller.namespaces[1] = Namespace(1, disk, "test", block=block)
    bench.enable()
    return bench, bench.create_pair(1, entries=16)


def status(bench: Bench, sq: HostSq, command: Command) -> Status:
    """Status code type and code, without Do Not Retry. No I/O command has a result beside it."""
    done = bench.execute(command, sq)
    assert (done.dw0, done.dw1) == (0, 0)
    return Status(done.status & 0x7FF)


def ranges(*pairs: tuple[int, int]) -> bytes:
    return b"".join(Range(slba=slba, nlb=nlb).encode() for slba, nlb in pairs)


# Read and Write.


def test_write_stores_the_blocks_it_names() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    buffer = bench.allocate(PAGE)
    bench.memory.write(buffer, DATA)
    done = bench.execute(Write(cid=3, nsid=1, prp1=buffer, slba=100, nlb=8), sq)
    assert (done.status, done.cid, done.dw0) == (0, 3, 0)
    assert disk.contents(100 * 512 - 8, 4112) == bytes(8) + DATA + bytes(8)


def test_read_fills_exactly_its_length() -> None:
    disk = Disk()
    disk.fill(100 * 512, DATA)
    bench, sq = rig(disk)
    buffer = bench.allocate(PAGE)
    bench.memory.write(buffer, b"\xee" * PAGE)
    assert status(bench, sq, Read(nsid=1, prp1=buffer, slba=101, nlb=3)) == Status.SUCCESS
    assert bench.memory.read(buffer, PAGE) == DATA[512:2048] + b"\xee" * (PAGE - 1536)


def test_write_and_read_through_prp_lists_keep_the_order_of_pages() -> None:
    bench, sq = rig()
    pages = [bench.allocate(PAGE) for _ in range(5)]
    lists = bench.allocate(PAGE)
    bench.memory.write(lists, struct.pack("<4Q", *pages[:0:-1]))
    for number, page in enumerate([pages[0], *pages[:0:-1]]):
        bench.memory.write(page, bytes([number + 1]) * PAGE)
    bench.execute(Write(nsid=1, prp1=pages[0], prp2=lists, slba=8, nlb=40), sq)
    bench.memory.write(pages[0], bytes(5 * PAGE))
    target = bench.allocate(5 * PAGE)
    bench.memory.write(lists, struct.pack("<4Q", *range(target + PAGE, target + 5 * PAGE, PAGE)))
    assert status(bench, sq, Read(nsid=1, prp1=target, prp2=lists, slba=8, nlb=40)) == 0
    assert bench.memory.read(target, 5 * PAGE) == b"".join(bytes([n]) * PAGE for n in range(1, 6))


def test_blocks_of_4096_bytes_are_counted_as_such() -> None:
    disk = Disk()
    bench, sq = rig(disk, block=4096)
    buffer = bench.allocate(2 * PAGE)
    command = Write(nsid=1, prp1=buffer, prp2=buffer + PAGE, slba=254, nlb=2)
    assert status(bench, sq, command) == Status.SUCCESS
    assert disk.calls == [("write", 254 * 4096, 8192)]


def test_block_of_4096_bytes_past_the_end_is_out_of_range() -> None:
    bench, sq = rig(block=4096)
    command = Write(nsid=1, prp1=bench.allocate(PAGE), slba=255, nlb=2)
    assert status(bench, sq, command) == Status.LBA_OUT_OF_RANGE


@pytest.mark.parametrize("make", [Read, Write, WriteZeroes])
def test_last_block_is_in_range(make: type[Read] | type[Write] | type[WriteZeroes]) -> None:
    bench, sq = rig()
    command = make(nsid=1, prp1=bench.allocate(PAGE), slba=BLOCKS - 1, nlb=1)
    assert status(bench, sq, command) == Status.SUCCESS


@pytest.mark.parametrize("make", [Read, Write, WriteZeroes])
@pytest.mark.parametrize(
    ("slba", "nlb"),
    [(BLOCKS, 1), (BLOCKS - 1, 2), (TOP, 1), (TOP, 2), (TOP - 65534, 65536), (1 << 63, 8)],
)
def test_range_that_ends_past_the_namespace_is_out_of_range_and_does_nothing(
    make: type[Read] | type[Write] | type[WriteZeroes], slba: int, nlb: int
) -> None:
    disk = Disk()
    bench, sq = rig(disk, mdts=0)
    done = bench.execute(make(nsid=1, prp1=bench.allocate(PAGE), slba=slba, nlb=nlb), sq)
    assert done.status == Status.LBA_OUT_OF_RANGE | DNR
    assert disk.calls == []


@pytest.mark.parametrize("make", [Read, Write])
def test_transfer_of_exactly_mdts_is_done(make: type[Read] | type[Write]) -> None:
    bench, sq = rig(mdts=1)
    buffer = bench.allocate(2 * PAGE)
    command = make(nsid=1, prp1=buffer, prp2=buffer + PAGE, nlb=16)
    assert status(bench, sq, command) == Status.SUCCESS


@pytest.mark.parametrize("make", [Read, Write])
def test_transfer_of_one_block_above_mdts_is_an_invalid_field(
    make: type[Read] | type[Write],
) -> None:
    disk = Disk()
    bench, sq = rig(disk, mdts=1)
    buffer, lists = bench.allocate(3 * PAGE), bench.allocate(PAGE)
    bench.memory.write(lists, struct.pack("<2Q", buffer + PAGE, buffer + 2 * PAGE))
    command = make(nsid=1, prp1=buffer, prp2=lists, nlb=17)
    assert status(bench, sq, command) == Status.INVALID_FIELD_IN_COMMAND
    assert disk.calls == []


def test_mdts_counts_4_kib_whatever_the_page_size_of_the_host() -> None:
    bench = Bench(mdts=1)
    bench.prepare(align=65536)
    bench.write_cc(en=1, mps=4)
    bench.settle()
    cq_base, sq_base, data = (bench.allocate(PAGE, align=65536) for _ in range(3))
    bench.execute(CreateIoCq(qid=1, qsize=16, prp1=cq_base))
    bench.execute(CreateIoSq(qid=1, qsize=16, prp1=sq_base, cqid=1))
    sq = HostSq(bench, 1, sq_base, 16, HostCq(bench, 1, cq_base, 16))
    assert status(bench, sq, Read(nsid=1, prp1=data, nlb=16)) == Status.SUCCESS
    assert status(bench, sq, Read(nsid=1, prp1=data, nlb=17)) == Status.INVALID_FIELD_IN_COMMAND


def test_without_mdts_the_largest_transfer_a_command_can_name_is_done() -> None:
    disk = Disk(32 << 20)
    bench, sq = rig(disk, mdts=0)
    page, lists = bench.allocate(PAGE), bench.allocate(17 * PAGE)
    for number in range(17):
        following = lists + (number + 1) * PAGE
        entries = [page] * 511 + [following]
        bench.memory.write(lists + number * PAGE, struct.pack("<512Q", *entries))
    assert status(bench, sq, Write(nsid=1, prp1=page, prp2=lists, nlb=65536)) == Status.SUCCESS
    assert disk.calls == [("write", 0, 32 << 20)]


def test_write_zeroes_is_not_limited_by_mdts() -> None:
    disk = Disk()
    bench, sq = rig(disk, mdts=1)
    assert status(bench, sq, WriteZeroes(nsid=1, nlb=BLOCKS)) == Status.SUCCESS
    assert disk.calls == [("write_zeroes", 0, 1 << 20, False)]


# Data pointers that are wrong.


@pytest.mark.parametrize("make", [Read, Write])
@pytest.mark.parametrize(
    ("prp1", "prp2", "nlb", "wanted"),
    [
        (RAM + 2, 0, 1, Status.PRP_OFFSET_INVALID),
        (RAM, RAM + 512, 16, Status.PRP_OFFSET_INVALID),
        (RAM, RAM + 4, 24, Status.PRP_OFFSET_INVALID),
        (NO_RAM, 0, 1, Status.DATA_TRANSFER_ERROR),
        (RAM, NO_RAM, 16, Status.DATA_TRANSFER_ERROR),
        (RAM, NO_RAM, 24, Status.DATA_TRANSFER_ERROR),
    ],
)
def test_bad_data_pointer_is_refused_before_the_disk_is_touched(
    make: type[Read] | type[Write], prp1: int, prp2: int, nlb: int, wanted: Status
) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    assert status(bench, sq, make(nsid=1, prp1=prp1, prp2=prp2, nlb=nlb)) == wanted
    assert disk.calls == []


def test_read_into_read_only_memory_is_a_data_transfer_error() -> None:
    bench, sq = rig()
    bench.memory.map(0x1000, bytearray(PAGE), writable=False)
    assert status(bench, sq, Read(nsid=1, prp1=0x1000)) == Status.DATA_TRANSFER_ERROR


def test_write_from_read_only_memory_is_done() -> None:
    bench, sq = rig()
    bench.memory.map(0x1000, bytearray(PAGE), writable=False)
    assert status(bench, sq, Write(nsid=1, prp1=0x1000)) == Status.SUCCESS


def test_nothing_of_guest_memory_is_copied_twice() -> None:
    copied: list[range] = []

    class Spy(GuestMemory):
        def read(self, addr: int, length: int) -> bytes:
            copied.append(range(addr, addr + length))
            return super().read(addr, length)

        def unpack(self, layout: struct.Struct, addr: int) -> tuple[int, ...]:
            copied.append(range(addr, addr + layout.size))
            return super().unpack(layout, addr)

        def load_u32(self, addr: int) -> int:
            copied.append(range(addr, addr + 4))
            return super().load_u32(addr)

    bench, sq = rig()
    buffer, lists = bench.allocate(3 * PAGE), bench.allocate(PAGE)
    bench.memory.write(lists, struct.pack("<2Q", buffer + PAGE, buffer + 2 * PAGE))
    spy = Spy()
    spy.map(RAM, bench.ram)
    bench.controller.memory = spy
    sq.submit(
        Write(cid=1, nsid=1, prp1=buffer, prp2=lists, nlb=24),
        DatasetManagement(cid=2, nsid=1, prp1=buffer, attributes=1 << 2),
        bytes([0x7F]).ljust(64, b"\0"),
    )
    bench.settle()
    slots = [range(sq.base + at, sq.base + at + 64) for at in (0, 64, 128)]
    assert sorted(copied, key=lambda piece: piece.start) == sorted(
        [*slots, range(lists, lists + 16)], key=lambda piece: piece.start
    )


# Namespaces, opcodes, bits of the first dword.


@pytest.mark.parametrize("make", [Read, Write, WriteZeroes, DatasetManagement])
@pytest.mark.parametrize(
    ("nsid", "wanted"),
    [
        (0, Status.INVALID_NAMESPACE_OR_FORMAT),
        (2, Status.INVALID_FIELD_IN_COMMAND),
        (4, Status.INVALID_NAMESPACE_OR_FORMAT),
        (0xFFFF_FFFE, Status.INVALID_NAMESPACE_OR_FORMAT),
        (0xFFFF_FFFF, Status.INVALID_FIELD_IN_COMMAND),
    ],
)
def test_namespace_that_is_invalid_inactive_or_broadcast_is_refused(
    make: type[Command], nsid: int, wanted: Status
) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    bench.controller.namespaces[3] = Namespace(3, Disk(), "test")  # so 2 is valid, not active
    assert status(bench, sq, make(nsid=nsid, prp1=bench.allocate(PAGE))) == wanted
    assert disk.calls == []


def test_opcodes_that_are_not_implemented_are_invalid() -> None:
    bench, sq = rig()
    known = {int(opcode) for opcode in NvmOpcode}
    entries = [struct.pack("<IIQ", opcode, 1, 0).ljust(64, b"\0")
               for opcode in range(256) if opcode not in known]  # fmt: skip
    found = {bench.execute(entry, sq).status for entry in entries}
    assert found == {Status.INVALID_COMMAND_OPCODE | DNR}


@pytest.mark.parametrize("bits", [1 << 8, 2 << 8, 3 << 8, 1 << 14, 2 << 14, 3 << 14])
def test_fused_and_sgl_commands_are_invalid_fields(bits: int) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    sqe = Read(nsid=1, prp1=bench.allocate(PAGE)).encode()
    entry = (int.from_bytes(sqe, "little") | bits).to_bytes(64, "little")
    assert bench.execute(entry, sq).status == Status.INVALID_FIELD_IN_COMMAND | DNR
    assert disk.calls == []


@pytest.mark.parametrize("bits", [1 << 8, 1 << 14])
def test_fused_and_sgl_bits_of_admin_commands_are_invalid_fields(bits: int) -> None:
    bench, _ = rig()
    sqe = SetFeatures(fid=Feature.ARBITRATION, value=1).encode()
    entry = (int.from_bytes(sqe, "little") | bits).to_bytes(64, "little")
    assert bench.execute(entry).status == Status.INVALID_FIELD_IN_COMMAND | DNR


def test_bits_that_are_reserved_or_hints_are_ignored() -> None:
    bench, sq = rig()
    sqe = Read(nsid=1, prp1=bench.allocate(PAGE), lr=1, prinfo=0, dsm=0xFF).encode()
    reserved = 0b1111 << 10 | 0xFFFF_FFFF_FFFF_FFFF << 64  # CDW0 bits 13:10, CDW2 and CDW3
    entry = (int.from_bytes(sqe, "little") | reserved).to_bytes(64, "little")
    assert bench.execute(entry, sq).status == Status.SUCCESS


# Write Zeroes and Dataset Management.


@pytest.mark.parametrize("deac", [0, 1])
def test_write_zeroes_zeroes_its_range_and_unmaps_only_with_deac(deac: int) -> None:
    disk = Disk()
    disk.fill(0, b"x" * 4096)
    bench, sq = rig(disk)
    assert status(bench, sq, WriteZeroes(nsid=1, slba=2, nlb=3, deac=deac)) == Status.SUCCESS
    assert disk.calls == [("write_zeroes", 1024, 1536, bool(deac))]
    assert disk.contents(0, 4096) == b"x" * 1024 + bytes(1536) + b"x" * 1536


def test_write_zeroes_needs_no_data_pointer() -> None:
    bench, sq = rig()
    assert status(bench, sq, WriteZeroes(nsid=1, prp1=0x3, prp2=0x5)) == Status.SUCCESS


def deallocate(bench: Bench, data: bytes, **fields: int) -> DatasetManagement:
    buffer = bench.allocate(2 * PAGE)
    bench.memory.write(buffer, data)
    return DatasetManagement(nsid=1, prp1=buffer, attributes=1 << 2, **fields)


def test_deallocate_discards_the_ranges_in_order() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    command = deallocate(bench, ranges((8, 2), (100, 1), (2047, 1)), nr=3)
    assert status(bench, sq, command) == Status.SUCCESS
    assert disk.calls == [
        ("discard", 8 * 512, 1024),
        ("discard", 100 * 512, 512),
        ("discard", 2047 * 512, 512),
    ]


def test_deallocate_of_4096_byte_blocks_scales_its_ranges() -> None:
    disk = Disk()
    bench, sq = rig(disk, block=4096)
    assert status(bench, sq, deallocate(bench, ranges((255, 1)))) == Status.SUCCESS
    assert disk.calls == [("discard", 255 * 4096, 4096)]


def test_deallocate_looks_at_as_many_ranges_as_it_says() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    assert status(bench, sq, deallocate(bench, ranges((1, 1), (TOP, 9)), nr=1)) == Status.SUCCESS
    assert disk.calls == [("discard", 512, 512)]


def test_deallocate_of_256_ranges_reads_all_of_its_4096_bytes() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    command = deallocate(bench, ranges(*((4 * i, 1) for i in range(256))), nr=256)
    assert status(bench, sq, command) == Status.SUCCESS
    assert disk.calls == [("discard", 4 * i * 512, 512) for i in range(256)]


def test_deallocate_follows_prp2_when_its_ranges_cross_a_page() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    first, second = bench.allocate(PAGE), bench.allocate(2 * PAGE) + PAGE
    bench.memory.write(first + PAGE - 16, ranges((1, 1)))
    bench.memory.write(second, ranges((2, 2)))
    command = DatasetManagement(
        nsid=1, prp1=first + PAGE - 16, prp2=second, nr=2, attributes=1 << 2
    )
    assert status(bench, sq, command) == Status.SUCCESS
    assert disk.calls == [("discard", 512, 512), ("discard", 1024, 1024)]


def test_deallocate_reads_its_ranges_from_read_only_memory() -> None:
    bench, sq = rig()
    bench.memory.map(0x1000, bytearray(PAGE), writable=False)
    command = DatasetManagement(nsid=1, prp1=0x1000, attributes=1 << 2)
    assert status(bench, sq, command) == Status.SUCCESS


def test_deallocate_of_no_blocks_does_nothing() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    assert status(bench, sq, deallocate(bench, ranges((5, 0)))) == Status.SUCCESS
    assert disk.calls == []


@pytest.mark.parametrize(
    ("slba", "nlb"), [(BLOCKS, 1), (0, BLOCKS + 1), (TOP, 1), (TOP, 0xFFFF_FFFF), (1, 0xFFFF_FFFF)]
)
def test_deallocate_with_one_range_out_of_range_discards_nothing(slba: int, nlb: int) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    command = deallocate(bench, ranges((0, 8), (slba, nlb)), nr=2)
    assert status(bench, sq, command) == Status.LBA_OUT_OF_RANGE
    assert disk.calls == []


@pytest.mark.parametrize("attributes", [0, 1, 2, 3])
def test_dataset_management_without_deallocate_is_a_hint(attributes: int) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    command = DatasetManagement(nsid=1, prp1=bench.allocate(PAGE), attributes=attributes)
    assert status(bench, sq, command) == Status.SUCCESS
    assert disk.calls == []


def test_deallocate_with_ranges_outside_memory_is_a_data_transfer_error() -> None:
    bench, sq = rig()
    command = DatasetManagement(nsid=1, prp1=NO_RAM, attributes=1 << 2)
    assert status(bench, sq, command) == Status.DATA_TRANSFER_ERROR


# A disk that may not be written.


@pytest.mark.parametrize("make", [Write, WriteZeroes])
def test_write_to_a_read_only_disk_is_write_protected(
    make: type[Write] | type[WriteZeroes],
) -> None:
    disk = Disk(read_only=True)
    bench, sq = rig(disk)
    done = bench.execute(make(nsid=1, prp1=bench.allocate(PAGE)), sq)
    assert done.status == Status.NAMESPACE_IS_WRITE_PROTECTED | DNR
    assert disk.calls == []


def test_deallocate_on_a_read_only_disk_is_write_protected() -> None:
    bench, sq = rig(Disk(read_only=True))
    command = deallocate(bench, ranges((0, 1)))
    assert status(bench, sq, command) == Status.NAMESPACE_IS_WRITE_PROTECTED


def test_hint_on_a_read_only_disk_succeeds() -> None:
    bench, sq = rig(Disk(read_only=True))
    command = DatasetManagement(nsid=1, prp1=bench.allocate(PAGE), attributes=1)
    assert status(bench, sq, command) == Status.SUCCESS


def test_read_of_a_read_only_disk_succeeds() -> None:
    bench, sq = rig(Disk(read_only=True))
    assert status(bench, sq, Read(nsid=1, prp1=bench.allocate(PAGE))) == Status.SUCCESS


@pytest.mark.parametrize("nsid", [1, 0xFFFF_FFFF])
def test_flush_of_a_read_only_disk_succeeds_and_does_nothing(nsid: int) -> None:
    disk = Disk(read_only=True)
    bench, sq = rig(disk)
    assert status(bench, sq, Flush(nsid=nsid)) == Status.SUCCESS
    assert disk.calls == []


# Turns and single steps.


def test_commands_of_a_queue_that_is_deleted_in_the_same_turn_do_nothing() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    sq.submit(Write(cid=1, nsid=1, prp1=bench.allocate(PAGE)))
    bench.admin.submit(DeleteIoSq(cid=2, qid=1))
    bench.settle()
    assert [(done.cid, done.status) for done in bench.admin_cq.reap()] == [(2, 0)]
    assert (disk.calls, sq.cq.reap()) == ([], [])


def test_command_fetched_by_a_single_step_is_carried_out_by_the_next_turn() -> None:
    bench, sq = rig()
    sq.submit(Read(cid=1, nsid=1, prp1=bench.allocate(PAGE)))
    bench.step("fetch", 1)
    bench.settle()
    assert [done.cid for done in sq.cq.reap()] == [1]
    assert bench.enabled() == []
