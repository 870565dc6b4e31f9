"""Properties in BAR0: what can be read and written, how wide, and when."""

from __future__ import annotations

import pytest

from nvmelab.spec.registers import Cap
from tests.device.conftest import Bench

CAP, VS, INTMS, INTMC, CC, CSTS = 0x00, 0x08, 0x0C, 0x10, 0x14, 0x1C
AQA, ASQ, ACQ = 0x24, 0x28, 0x30
RESERVED = [0x18, 0x20, 0x38, 0x3C, 0x40, 0x58, 0x64, 0x68, 0x100, 0xE00, 0xFF8, 0xFFC]


# CAP and VS.


@pytest.mark.parametrize("entries", [2, 3, 4, 2048, 4097, 65535, 65536])
def test_cap_mqes_is_one_less_than_the_configured_entries(entries: int) -> None:
    bench = Bench(queue_entries=entries)
    assert bench.read(CAP, 8) & 0xFFFF == entries - 1


def test_cap_says_contiguous_queues_nvm_command_set_stride_0_and_some_time_out() -> None:
    cap = Cap.decode(Bench().read(CAP, 8).to_bytes(8, "little"))
    assert (cap.cqr, cap.css & 1, cap.dstrd, cap.mpsmin) == (1, 1, 0, 0)
    assert cap.to >= 1  # 0 makes drivers give up at once


def test_cap_offers_nothing_that_is_not_there() -> None:
    cap = Cap.decode(Bench().read(CAP, 8).to_bytes(8, "little"))
    assert (cap.ams, cap.nssrs, cap.bps, cap.pmrs, cap.cmbs, cap.nsss, cap.crms) == (0,) * 7


def test_vs_is_a_published_version() -> None:
    assert Bench().read(VS) in {0x10300, 0x10400, 0x20000, 0x20100, 0x20200}


# Widths.


def test_64_bit_register_is_read_as_two_halves() -> None:
    bench = Bench()
    assert bench.read(CAP) | bench.read(CAP + 4) << 32 == bench.read(CAP, 8)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_narrow_reads_together_give_the_whole_register(size: int) -> None:
    bench = Bench(queue_entries=0x1235)
    parts = [bench.read(CAP + at, size) << 8 * at for at in range(0, 8, size)]
    assert sum(parts) == bench.read(CAP, 8)


def test_misaligned_read_gives_the_bytes_that_stand_there() -> None:
    bench = Bench()
    assert bench.read(CAP + 6, 4) == bench.read(CAP, 8) >> 48 | (bench.read(VS) & 0xFFFF) << 16


@pytest.mark.parametrize("offset", [ASQ, ACQ])
def test_64_bit_register_is_written_as_two_halves(offset: int) -> None:
    bench = Bench()
    bench.write(offset + 4, 0x0123_4567)
    bench.write(offset, 0x89AB_C000)
    assert bench.read(offset, 8) == 0x0123_4567_89AB_C000


@pytest.mark.parametrize("offset", [ASQ, ACQ])
def test_write_of_one_half_leaves_the_other_half(offset: int) -> None:
    bench = Bench()
    bench.write(offset, 0x1111_2222_3333_4000, 8)
    bench.write(offset, 0x5000)
    assert bench.read(offset, 8) == 0x1111_2222_0000_5000


@pytest.mark.parametrize("size", [1, 2, 4])
def test_narrow_writes_together_write_the_whole_register(size: int) -> None:
    bench = Bench()
    value = 0x0123_4567_89AB_C000
    for at in range(0, 8, size):
        bench.write(ASQ + at, value >> 8 * at & (1 << 8 * size) - 1, size)
    assert bench.read(ASQ, 8) == value


def test_byte_write_changes_that_byte_alone() -> None:
    bench = Bench()
    bench.write(AQA, 0x0ABC_0DEF)
    bench.write(AQA + 2, 0x11, 1)
    assert bench.read(AQA) == 0x0A11_0DEF


def test_byte_write_of_the_enable_bit_enables() -> None:
    bench = Bench()
    bench.prepare()
    bench.write(CC + 2, 0x46, 1)
    bench.write(CC, 1, 1)
    bench.settle()
    assert (bench.read(CC), bench.csts.rdy) == (0x0046_0001, 1)


def test_misaligned_write_reaches_the_bytes_it_names_in_both_registers() -> None:
    bench = Bench()
    bench.write(AQA, 0x0111_0111)
    bench.write(ASQ, 0x1111_1000)
    bench.write(AQA + 2, 0x2000_0222)
    assert (bench.read(AQA), bench.read(ASQ)) == (0x0222_0111, 0x1111_2000)


def test_64_bit_write_reaches_both_32_bit_registers_it_covers() -> None:
    bench = Bench()
    bench.write(INTMC, 0x0046_0000 << 32, 8)
    assert bench.read(CC) == 0x0046_0000


# Masks.


@pytest.mark.parametrize(
    ("offset", "size", "readable"),
    [
        (AQA, 4, 0x0FFF_0FFF),
        (ASQ, 8, 0xFFFF_FFFF_FFFF_F000),
        (ACQ, 8, 0xFFFF_FFFF_FFFF_F000),
    ],
)
def test_reserved_bits_of_a_register_stay_zero(offset: int, size: int, readable: int) -> None:
    bench = Bench()
    bench.write(offset, (1 << 8 * size) - 1, size)
    assert bench.read(offset, size) == readable


def test_reserved_bits_of_cc_stay_zero() -> None:
    bench = Bench()
    bench.write(CC, 0xFFFF_FFFE)
    assert bench.read(CC) == 0x00FF_FFF0


@pytest.mark.parametrize(("offset", "size"), [(CAP, 8), (CAP, 4), (CAP, 1), (VS, 4), (CSTS, 4)])
def test_write_to_a_read_only_register_changes_nothing(offset: int, size: int) -> None:
    bench = Bench()
    bench.enable()
    before = [bench.read(at, 8) for at in range(0, 0x40, 8)]
    bench.write(offset, (1 << 8 * size) - 1, size)
    assert [bench.read(at, 8) for at in range(0, 0x40, 8)] == before


@pytest.mark.parametrize("offset", RESERVED)
def test_reserved_register_reads_as_zero_after_a_write(offset: int) -> None:
    bench = Bench()
    bench.write(offset, 0xFFFF_FFFF)
    assert bench.read(offset) == 0


def test_write_of_the_reset_signature_to_nssr_does_nothing_without_cap_nssrs() -> None:
    bench = Bench()
    bench.enable()
    bench.write(0x20, 0x4E56_4D65)
    bench.settle()
    assert (bench.read(0x20), bench.csts.rdy) == (0, 1)


def test_read_of_a_doorbell_is_zero_whatever_was_written() -> None:
    bench = Bench()
    bench.enable()
    bench.admin.ring(0)
    assert [bench.read(0x1000), bench.read(0x1004, 4), bench.read(0x1000, 8)] == [0, 0, 0]


@pytest.mark.parametrize("offset", [0xFFC, 0xFFE, 0x1000 + 8 * 65 - 4])
def test_read_across_the_edge_of_an_area_is_zero(offset: int) -> None:
    assert Bench().read(offset, 8) == 0


def test_write_behind_the_last_doorbell_is_ignored() -> None:
    bench = Bench(io_queues=1)
    bench.enable()
    bench.traced()
    bench.write(0x1000 + 8 * 2, 1)
    assert bench.traced("enqueue_event") == []


# AQA, ASQ and ACQ.


@pytest.mark.parametrize(
    ("offset", "size", "value"),
    [(AQA, 4, 0x0001_0001), (ASQ, 8, 0x7000), (ASQ, 4, 0x7000), (ACQ, 8, 0x7000), (ACQ + 4, 4, 7)],
)
def test_admin_queue_registers_are_locked_while_enabled(offset: int, size: int, value: int) -> None:
    bench = Bench()
    bench.enable()
    before = [bench.read(AQA), bench.read(ASQ, 8), bench.read(ACQ, 8)]
    bench.write(offset, value, size)
    assert [bench.read(AQA), bench.read(ASQ, 8), bench.read(ACQ, 8)] == before


def test_admin_queue_registers_are_locked_from_the_write_of_cc_on() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1)
    bench.write(AQA, 0)
    bench.settle()
    assert (bench.read(AQA), bench.csts.rdy) == (0x001F_001F, 1)


def test_admin_queue_registers_may_be_written_again_after_a_reset() -> None:
    bench = Bench()
    bench.enable()
    bench.write_cc(en=0)
    bench.settle()
    bench.write(AQA, 0x0003_0007)
    assert bench.read(AQA) == 0x0003_0007


# INTMS and INTMC.


def test_intms_sets_bits_and_both_registers_show_the_mask() -> None:
    bench = Bench()
    bench.write(INTMS, 0b0101)
    bench.write(INTMS, 0b0010)
    assert (bench.read(INTMS), bench.read(INTMC)) == (0b0111, 0b0111)


def test_intmc_clears_bits_and_zeroes_have_no_effect() -> None:
    bench = Bench()
    bench.write(INTMS, 0xFFFF_FFFF)
    bench.write(INTMC, 0x8000_0001)
    bench.write(INTMS, 0)
    bench.write(INTMC, 0)
    assert (bench.read(INTMS), bench.read(INTMC)) == (0x7FFF_FFFE, 0x7FFF_FFFE)


def test_byte_write_of_intms_sets_bits_of_that_byte_alone() -> None:
    bench = Bench()
    bench.write(INTMS + 1, 0xFF, 1)
    assert bench.read(INTMS) == 0x0000_FF00


def test_masks_do_not_hold_back_msix_interrupts() -> None:
    bench = Bench()
    bench.enable()
    bench.write(INTMS, 0xFFFF_FFFF)
    bench.interrupts.clear()
    bench.create_cq(1, entries=2)
    assert bench.interrupts == [0]


# What the trace shows of them.


@pytest.mark.parametrize(
    ("offset", "size", "value", "events"),
    [
        (AQA, 4, 0x0001_0001, [("mmio_aqattr", (0x0001_0001,))]),
        (ASQ, 8, 0x9_1234_5000, [("mmio_asqaddr", (0x9_1234_5000,))]),
        (ASQ, 4, 0x1234_5000, [("mmio_asqaddr", (0x1234_5000,))]),
        (ACQ + 4, 4, 9, [("mmio_acqaddr_hi", (9, 0x9_0000_0000))]),
        (CC, 4, 0x0046_0000, [("mmio_cfg", (0x0046_0000,))]),
        (INTMS, 4, 6, [("mmio_intm_set", (6, 6)), ("ub_mmiowr_intmask_with_msix", ())]),
        (INTMC, 4, 6, [("mmio_intm_clr", (6, 0)), ("ub_mmiowr_intmask_with_msix", ())]),
        (CSTS, 4, 1, [("ub_mmiowr_ro_csts", ())]),
        (VS, 4, 1, [("ub_mmiowr_invalid", (VS, 1))]),
        (0x18, 4, 1, [("ub_mmiowr_invalid", (0x18, 1))]),
        (0x102, 4, 1, [("ub_mmiowr_misaligned32", (0x102,)), ("ub_mmiowr_invalid", (0x102, 1))]),
        (0x100, 2, 1, [("ub_mmiowr_toosmall", (0x100, 2)), ("ub_mmiowr_invalid", (0x100, 1))]),
    ],
)
def test_write_is_traced_and_its_meaning_after_it(
    offset: int, size: int, value: int, events: list[tuple[str, tuple[int, ...]]]
) -> None:
    bench = Bench()
    bench.write(offset, value, size)
    assert bench.traced() == [("mmio_write", (offset, value, size)), *events]


@pytest.mark.parametrize(
    ("offset", "size", "events"),
    [
        (CAP, 8, []),
        (CAP + 2, 4, [("ub_mmiord_misaligned32", (2,))]),
        (CAP, 2, [("ub_mmiord_toosmall", (0,))]),
        (0x1000, 4, []),
    ],
)
def test_read_is_traced(offset: int, size: int, events: list[tuple[str, tuple[int, ...]]]) -> None:
    bench = Bench()
    bench.read(offset, size)
    assert bench.traced() == [("mmio_read", (offset, size)), *events]
