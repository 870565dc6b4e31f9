"""Get Log Page. Base 2.2, 5.1.12."""

from __future__ import annotations

import struct

import pytest

from nvmelab.device import dispatch
from nvmelab.spec.admin import GetLogPage
from nvmelab.spec.logpages import LogPage, Smart
from nvmelab.spec.nvm import Flush, Read, Write
from nvmelab.spec.registers import DOORBELLS
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import NO_RAM, PAGE, RAM, Bench
from tests.device.disks import Disk

SIZES = {
    LogPage.ERROR_INFORMATION: 16 * 64,
    LogPage.SMART: 512,
    LogPage.FIRMWARE_SLOT: 512,
    LogPage.CHANGED_NAMESPACES: 4096,
    LogPage.COMMANDS_AND_EFFECTS: 4096,
}
INVALID_FIELD = Status.INVALID_FIELD_IN_COMMAND | DNR


def enabled(*, mdts: int = 7, firmware: str = "0.1") -> Bench:
    bench = Bench(backends=[Disk()], mdts=mdts, firmware=firmware)
    bench.enable()
    return bench


def log(bench: Bench, lid: int, size: int, **fields: int) -> bytes:
    """`size` bytes of the page, in a buffer that was full of EEh."""
    buffer = bench.allocate(2 * PAGE)
    bench.memory.write(buffer, b"\xee" * 2 * PAGE)
    done = bench.execute(
        GetLogPage(lid=lid, numd=size // 4, prp1=buffer, prp2=buffer + PAGE, **fields)
    )
    assert done.status == Status.SUCCESS
    assert bench.memory.read(buffer + size, 4) == b"\xee" * 4, "more was written than asked for"
    return bench.memory.read(buffer, size)


def refusal(bench: Bench, lid: int, **fields: int) -> int:
    return bench.execute(GetLogPage(lid=lid, prp1=RAM + (6 << 20), **fields)).status


def smart(bench: Bench) -> Smart:
    return Smart.decode(log(bench, LogPage.SMART, 512))


# Which part of a page.


@pytest.mark.parametrize("lid", SIZES)
def test_part_of_a_page_from_an_offset_is_that_part(lid: int) -> None:
    bench = enabled()
    whole = log(bench, lid, SIZES[LogPage(lid)])
    assert log(bench, lid, 64, lpo=128) == whole[128:192]


@pytest.mark.parametrize("lid", SIZES)
def test_asking_for_more_than_the_page_returns_the_page(lid: int) -> None:
    bench = enabled()
    size = SIZES[LogPage(lid)]
    assert log(bench, lid, size + 64)[:size] == log(bench, lid, size)


@pytest.mark.parametrize("lid", SIZES)
def test_offset_at_the_end_of_the_page_succeeds_and_one_behind_it_is_refused(lid: int) -> None:
    bench = enabled()
    size = SIZES[LogPage(lid)]
    assert refusal(bench, lid, lpo=size) == Status.SUCCESS
    assert refusal(bench, lid, lpo=size + 4) == INVALID_FIELD


@pytest.mark.parametrize("offset", [1 << 32, (1 << 64) - 4])
def test_offset_above_32_bits_is_not_cut(offset: int) -> None:
    assert refusal(enabled(), LogPage.SMART, lpo=offset) == INVALID_FIELD


def test_offset_that_is_not_dword_aligned_is_an_invalid_field() -> None:
    assert refusal(enabled(), LogPage.SMART, lpo=2) == INVALID_FIELD


def test_offset_type_of_an_index_is_an_invalid_field() -> None:
    assert refusal(enabled(), LogPage.SMART, ot=1) == INVALID_FIELD


def test_length_above_mdts_is_an_invalid_field() -> None:
    bench = enabled(mdts=1)
    assert refusal(bench, LogPage.COMMANDS_AND_EFFECTS, numd=2049) == INVALID_FIELD


def test_length_of_exactly_mdts_is_taken() -> None:
    bench = enabled(mdts=1)
    assert refusal(bench, LogPage.COMMANDS_AND_EFFECTS, numd=2048) == Status.SUCCESS


def test_length_of_4_gib_reads_as_much_as_there_is_when_nothing_limits_it() -> None:
    assert refusal(enabled(mdts=0), LogPage.SMART, numd=1 << 30) == Status.SUCCESS


# What is refused.


def test_every_other_page_is_an_invalid_log_page() -> None:
    bench = enabled()
    found = {refusal(bench, lid) for lid in range(256) if lid not in SIZES}
    assert found == {Status.INVALID_LOG_PAGE | DNR}


@pytest.mark.parametrize("lid", SIZES)
@pytest.mark.parametrize("nsid", [1, 2, 0xFFFF_FFFE])
def test_page_of_the_controller_asked_of_a_namespace_is_an_invalid_field(
    lid: int, nsid: int
) -> None:
    assert refusal(enabled(), lid, nsid=nsid) == INVALID_FIELD


@pytest.mark.parametrize("lid", SIZES)
@pytest.mark.parametrize("nsid", [0, 0xFFFF_FFFF])
def test_page_of_the_controller_asked_of_none_or_all_is_returned(lid: int, nsid: int) -> None:
    assert refusal(enabled(), lid, nsid=nsid) == Status.SUCCESS


@pytest.mark.parametrize(
    ("prp1", "wanted"), [(NO_RAM, Status.DATA_TRANSFER_ERROR), (RAM + 1, Status.PRP_OFFSET_INVALID)]
)
def test_bad_data_pointer_is_refused(prp1: int, wanted: Status) -> None:
    done = enabled().execute(GetLogPage(lid=LogPage.SMART, numd=128, prp1=prp1))
    assert done.status & 0x7FF == wanted


# SMART.


def test_new_controller_is_healthy() -> None:
    data = smart(enabled())
    assert (data.critical_warning, data.percentage_used, data.media_errors) == (0, 0, 0)
    assert data.available_spare > data.available_spare_threshold
    assert 273 < data.composite_temperature < 343


def test_commands_and_data_are_counted_in_thousands_of_512_bytes_rounded_up() -> None:
    bench = enabled()
    sq = bench.create_pair()
    buffer = bench.allocate(PAGE)
    for _ in range(125):
        bench.execute(Write(nsid=1, prp1=buffer, nlb=8), sq)
    assert smart(bench).data_units_written == 1
    for command in (Write(nsid=1, prp1=buffer), Read(nsid=1, prp1=buffer), Flush(nsid=1)):
        bench.execute(command, sq)
    data = smart(bench)
    assert (data.data_units_written, data.data_units_read) == (2, 1)
    assert (data.host_write_commands, data.host_read_commands) == (126, 1)


def test_nothing_is_counted_before_the_first_command() -> None:
    data = smart(enabled())
    assert (data.data_units_read, data.data_units_written) == (0, 0)
    assert (data.host_read_commands, data.host_write_commands) == (0, 0)


def test_counts_live_longer_than_a_reset() -> None:
    bench = enabled()
    bench.execute(Read(nsid=1, prp1=bench.allocate(PAGE)), bench.create_pair())
    bench.write(DOORBELLS + 8 * 9, 0)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    data = smart(bench)
    assert (data.host_read_commands, data.error_log_entries) == (1, 1)


# The other pages.


def test_firmware_is_in_slot_1() -> None:
    data = log(enabled(firmware="1.2.3"), LogPage.FIRMWARE_SLOT, 512)
    assert data == b"\x01".ljust(8, b"\0") + b"1.2.3".ljust(8) + bytes(496)


def test_no_namespace_has_changed() -> None:
    assert log(enabled(), LogPage.CHANGED_NAMESPACES, 4096) == bytes(4096)


def test_effects_name_exactly_the_commands_that_are_carried_out() -> None:
    effects = struct.unpack("<1024I", log(enabled(), LogPage.COMMANDS_AND_EFFECTS, 4096))
    admin = {opcode for opcode in range(256) if effects[opcode] & 1}
    io = {opcode for opcode in range(256) if effects[256 + opcode] & 1}
    assert (admin, io) == (set(dispatch.ADMIN_COMMANDS), set(dispatch.IO_COMMANDS))
    assert not any(effects[512:])


def test_effects_say_which_commands_change_blocks() -> None:
    effects = struct.unpack("<1024I", log(enabled(), LogPage.COMMANDS_AND_EFFECTS, 4096))
    assert {opcode for opcode in range(256) if effects[256 + opcode] & 2} == {0x01, 0x08, 0x09}


# The error log.


def entries(bench: Bench) -> list[tuple[int, ...]]:
    """(count, SQID, CID, status, parameter location, LBA, NSID) of each entry that is valid."""
    data = log(bench, LogPage.ERROR_INFORMATION, 1024)
    found = [struct.unpack_from("<QHHHHQI", data, 64 * slot) for slot in range(16)]
    return [entry for entry in found if entry[0]]


def test_new_error_log_has_no_valid_entry() -> None:
    assert log(enabled(), LogPage.ERROR_INFORMATION, 1024) == bytes(1024)


def test_newest_error_stands_first() -> None:
    bench = enabled()
    bench.create_pair(1, entries=4)
    bench.write(DOORBELLS + 8 * 9, 0)
    bench.write(DOORBELLS + 8 * 1, 99)
    assert entries(bench) == [
        (2, 1, 0xFFFF, 0, 0xFFFF, 0, 0),
        (1, 0xFFFF, 0xFFFF, 0, 0xFFFF, 0, 0),
    ]


def test_error_log_keeps_the_newest_16_and_counts_all() -> None:
    bench = enabled()
    for _ in range(20):
        bench.write(DOORBELLS + 8 * 9, 0)
    assert [entry[0] for entry in entries(bench)] == list(range(20, 4, -1))
    assert smart(bench).error_log_entries == 20


def test_reset_empties_the_error_log_and_keeps_its_count() -> None:
    bench = enabled()
    bench.write(DOORBELLS + 8 * 9, 0)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    assert entries(bench) == []
    bench.write(DOORBELLS + 8 * 9, 0)
    assert [entry[0] for entry in entries(bench)] == [2]
