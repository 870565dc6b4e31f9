"""The controller as a PCI function. NVMe over PCIe Transport, 3.1.1 and 3.8; PCI Local Bus 3.0."""

from __future__ import annotations

import itertools
import struct

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import CONFIG_SIZE, NvmeFunction
from nvmelab.memory import GuestMemory
from nvmelab.spec.registers import DOORBELLS, OFFSET
from nvmelab.storage.ram import RamBackend
from tests.device.conftest import Bench

COMMAND, STATUS, BAR0 = 0x04, 0x06, 0x10
MEMORY_SPACE, BUS_MASTER = 1 << 1, 1 << 2
MSIX_ID, PM_ID, PCIE_ID = 0x11, 0x01, 0x10

GEOMETRIES = [(queues, vectors) for queues in (1, 64, 511, 65535) for vectors in (1, 2, 256, 2048)]


def function(**config: int) -> NvmeFunction:
    namespace = Namespace(1, RamBackend(4096), "test")
    return NvmeFunction(Controller(ControllerConfig(**config), [namespace], GuestMemory()))  # type: ignore[arg-type]


def word(pci: NvmeFunction, offset: int) -> int:
    return int.from_bytes(pci.config_read(offset, 2), "little")


def long(pci: NvmeFunction, offset: int) -> int:
    return int.from_bytes(pci.config_read(offset, 4), "little")


def put(pci: NvmeFunction, offset: int, value: int, size: int) -> None:
    pci.config_write(offset, value.to_bytes(size, "little"))


def capabilities(pci: NvmeFunction) -> dict[int, int]:
    """Offset of each capability by its identifier, from walking the list."""
    found: dict[int, int] = {}
    at = pci.config_read(0x34, 1)[0]
    while at:
        assert at % 4 == 0 and at >= 0x40 and at not in found.values()
        identifier, following = pci.config_read(at, 2)
        found[identifier] = at
        at = following
    return found


def capability(pci: NvmeFunction, identifier: int) -> int:
    return capabilities(pci)[identifier]


# The header.


def test_identity_is_that_of_qemus_device_unless_told_otherwise() -> None:
    pci = function()
    assert [word(pci, offset) for offset in (0x00, 0x02, 0x2C, 0x2E)] == [
        0x1B36,
        0x0010,
        0x1AF4,
        0x1100,
    ]


def test_identity_is_what_is_configured() -> None:
    pci = function(
        pci_vendor=0x1234, pci_device=0x5678, pci_subsystem_vendor=0x9ABC, pci_subsystem=0xDEF0
    )
    assert [word(pci, offset) for offset in (0x00, 0x02, 0x2C, 0x2E)] == [
        0x1234,
        0x5678,
        0x9ABC,
        0xDEF0,
    ]


def test_class_is_an_nvme_io_controller() -> None:
    assert long(function(), 0x08) >> 8 == 0x01_08_02


def test_header_is_of_type_0_without_pin_rom_or_second_function() -> None:
    pci = function()
    assert pci.config_read(0x0E, 1) == b"\0"
    assert pci.config_read(0x3D, 1) == b"\0"
    assert long(pci, 0x30) == 0


def test_status_announces_capabilities_and_cannot_be_written() -> None:
    pci = function()
    put(pci, STATUS, 0xFFFF, 2)
    assert word(pci, STATUS) == 1 << 4


def test_identity_and_class_cannot_be_written() -> None:
    pci = function()
    before = pci.config_read(0, 4), pci.config_read(8, 4), pci.config_read(0x2C, 4)
    for offset in (0, 8, 0x2C):
        put(pci, offset, 0xA5A5_A5A5, 4)
    assert (pci.config_read(0, 4), pci.config_read(8, 4), pci.config_read(0x2C, 4)) == before


def test_cache_line_size_and_interrupt_line_keep_what_is_written() -> None:
    pci = function()
    put(pci, 0x0C, 0x10, 1)
    put(pci, 0x3C, 0x0B, 1)
    assert (pci.config_read(0x0C, 1), pci.config_read(0x3C, 1)) == (b"\x10", b"\x0b")


# COMMAND.


def test_command_keeps_only_bits_that_mean_something() -> None:
    pci = function()
    put(pci, COMMAND, 0xFFFF, 2)
    assert word(pci, COMMAND) & MEMORY_SPACE and word(pci, COMMAND) & BUS_MASTER
    assert word(pci, COMMAND) & ~0x0547 == 0


@pytest.mark.parametrize("on", [False, True])
def test_bus_mastering_follows_its_bit(on: bool) -> None:
    pci = function()
    put(pci, COMMAND, BUS_MASTER * (not on), 2)
    put(pci, COMMAND, BUS_MASTER * on, 2)
    assert pci.controller.life.bus_master is on


def test_write_of_the_low_command_byte_leaves_the_high_one_alone() -> None:
    pci = function()
    put(pci, COMMAND + 1, 0x04, 1)
    put(pci, COMMAND, 0x06, 1)
    assert word(pci, COMMAND) == 0x0406


def test_four_byte_write_of_command_and_status_changes_command() -> None:
    pci = function()
    put(pci, COMMAND, 0xFFFF_0006, 4)
    assert (word(pci, COMMAND), word(pci, STATUS)) == (0x0006, 1 << 4)


def test_without_bus_mastering_no_command_is_fetched() -> None:
    bench = Bench()
    bench.enable()
    bench.bus_master(False)
    bench.admin.submit(bytes([0x0A]).ljust(64, b"\0"))
    assert bench.enabled() == []
    bench.bus_master(True)
    bench.settle()
    assert len(bench.admin_cq.reap()) == 1


# BARs.


def test_bar0_is_64_bits_wide_in_memory_and_not_prefetchable() -> None:
    assert long(function(), BAR0) & 0xF == 0b0100


@pytest.mark.parametrize(("queues", "vectors"), GEOMETRIES)
def test_sizing_bar0_by_halves_gives_its_size(queues: int, vectors: int) -> None:
    pci = function(io_queues=queues, vectors=vectors)
    put(pci, BAR0, 0xFFFF_FFFF, 4)
    put(pci, BAR0 + 4, 0xFFFF_FFFF, 4)
    mask = long(pci, BAR0 + 4) << 32 | long(pci, BAR0) & ~0xF
    assert (1 << 64) - mask == pci.bars[0]


@pytest.mark.parametrize(("queues", "vectors"), GEOMETRIES)
def test_bar0_holds_doorbells_table_and_pba_in_pages_of_their_own(
    queues: int, vectors: int
) -> None:
    pci = function(io_queues=queues, vectors=vectors)
    at = capability(pci, MSIX_ID)
    table, pba = long(pci, at + 4), long(pci, at + 8)
    doorbells_end = DOORBELLS + 8 * (queues + 1)
    assert pci.doorbells_end == doorbells_end <= table
    assert table + 16 * vectors <= pba
    assert pba + 8 * -(-vectors // 64) <= pci.bars[0]
    assert (table % 4096, pba % 4096) == (0, 0)  # which leaves BIR 0 in both
    assert pci.bars[0] >= 16384 and pci.bars[0].bit_count() == 1


def test_smallest_bar0_is_16_kib() -> None:
    assert function(io_queues=1, vectors=1).bars == {0: 16384}


def test_base_address_is_kept_and_its_low_bits_are_fixed() -> None:
    pci = function()
    put(pci, BAR0, 0xFEB0_0FFF, 4)
    put(pci, BAR0 + 4, 0x0000_00C0, 4)
    assert long(pci, BAR0) == 0xFEB0_0000 & ~(pci.bars[0] - 1) | 0b100
    assert long(pci, BAR0 + 4) == 0xC0


def test_base_address_may_be_written_by_bytes() -> None:
    pci = function()
    for at, byte in enumerate(b"\xff\xff\xb0\xfe"):
        put(pci, BAR0 + at, byte, 1)
    assert long(pci, BAR0) == 0xFEB0_FFFF & ~(pci.bars[0] - 1) | 0b100


@pytest.mark.parametrize("offset", [0x18, 0x1C, 0x20, 0x24])
def test_other_bars_do_not_exist(offset: int) -> None:
    pci = function()
    put(pci, offset, 0xFFFF_FFFF, 4)
    assert long(pci, offset) == 0


# Capabilities.


def test_capabilities_are_msix_power_management_and_pci_express() -> None:
    assert capabilities(function()).keys() == {MSIX_ID, PM_ID, PCIE_ID}


def test_capabilities_do_not_overlap() -> None:
    sizes = {MSIX_ID: 12, PM_ID: 8, PCIE_ID: 0x3C}
    spans = sorted((at, at + sizes[kind]) for kind, at in capabilities(function()).items())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert spans[-1][1] <= CONFIG_SIZE


@pytest.mark.parametrize("vectors", [1, 2, 65, 2048])
def test_msix_table_size_is_0s_based(vectors: int) -> None:
    pci = function(vectors=vectors)
    assert word(pci, capability(pci, MSIX_ID) + 2) == vectors - 1


def test_msix_control_keeps_only_enable_and_function_mask() -> None:
    pci = function(vectors=2)
    at = capability(pci, MSIX_ID) + 2
    put(pci, at, 0xFFFF, 2)
    assert word(pci, at) == 0xC001
    put(pci, at, 0, 2)
    assert word(pci, at) == 1


@pytest.mark.parametrize(("control", "enabled"), [(0x8000, True), (0xC000, True), (0x4000, False)])
def test_msix_enable_follows_its_bit(control: int, enabled: bool) -> None:
    pci = function()
    put(pci, capability(pci, MSIX_ID) + 2, control, 2)
    assert pci.controller.msix_enabled is enabled


def test_msix_enable_by_the_high_byte_alone_counts() -> None:
    pci = function()
    put(pci, capability(pci, MSIX_ID) + 3, 0x80, 1)
    assert pci.controller.msix_enabled


def test_msix_table_and_pba_offsets_cannot_be_written() -> None:
    pci = function()
    at = capability(pci, MSIX_ID)
    before = pci.config_read(at + 4, 8)
    put(pci, at + 4, 0, 8)
    assert pci.config_read(at + 4, 8) == before


def test_pci_express_is_an_endpoint_of_version_2_with_flr_and_role_based_errors() -> None:
    pci = function()
    at = capability(pci, PCIE_ID)
    assert word(pci, at + 2) & 0xFF == 0x02
    assert long(pci, at + 4) & (1 << 28 | 1 << 15) == 1 << 28 | 1 << 15


def test_return_from_d3hot_keeps_the_state() -> None:
    pci = function()
    at = capability(pci, PM_ID) + 4
    assert word(pci, at) & 1 << 3, "No_Soft_Reset"
    put(pci, at, 3, 2)
    assert word(pci, at) & 3 == 3
    put(pci, at, 0, 2)
    assert word(pci, at) & 3 == 0


def test_all_of_configuration_space_can_be_read() -> None:
    assert len(function().config_read(0, CONFIG_SIZE)) == CONFIG_SIZE


def test_writing_ones_everywhere_changes_writable_bits_only() -> None:
    pci, untouched = function(), function()
    flr = capability(pci, PCIE_ID) + 9  # the byte with the bit that starts a reset
    for at in range(CONFIG_SIZE):
        pci.config_write(at, b"\x7f" if at == flr else b"\xff")
    changed = {at for at in range(CONFIG_SIZE)
               if pci.config_read(at, 1) != untouched.config_read(at, 1)}  # fmt: skip
    msix, power = capability(pci, MSIX_ID), capability(pci, PM_ID)
    assert changed == {4, 5, 0x0C, 0x3C, *range(0x11, 0x18), msix + 3, power + 4, flr - 1, flr}


# Function level reset.


@pytest.mark.parametrize(("start", "data"), [(8, b"\0\x80"), (9, b"\x80"), (8, b"\0\x80\0\0")])
def test_function_level_reset_returns_everything_to_power_on(start: int, data: bytes) -> None:
    bench = Bench()
    bench.enable()
    pci = bench.function
    fresh = function().config_read(0, CONFIG_SIZE)
    pci.config_write(capability(pci, PCIE_ID) + start, data)
    assert pci.config_read(0, CONFIG_SIZE) == fresh
    assert (bench.controller.life.bus_master, bench.controller.msix_enabled) == (False, False)
    assert [bench.register(name) for name in ("cc", "csts", "aqa")] == [0, 0, 0]
    assert [bench.register(name, 8) for name in ("asq", "acq")] == [0, 0]


def test_reset_bit_reads_as_zero() -> None:
    pci = function()
    at = capability(pci, PCIE_ID) + 8
    put(pci, at, 0xFFFF, 2)
    assert word(pci, at) == 0


def test_write_beside_the_reset_bit_resets_nothing() -> None:
    pci = function()
    put(pci, COMMAND, BUS_MASTER, 2)
    put(pci, capability(pci, PCIE_ID) + 8, 0x7FFF, 2)
    put(pci, capability(pci, PCIE_ID) + 8, 0xFF, 1)
    assert pci.controller.life.bus_master


def test_function_level_reset_keeps_the_memory_of_the_guest() -> None:
    bench = Bench()
    bench.enable()
    bench.function.reset()
    bench.bus_master(True)
    bench.msix(True)
    bench.enable()
    assert len(bench.memory.regions) == 1


# BAR0.


@pytest.mark.parametrize("queues", [1, 64, 65535])
def test_last_doorbell_reaches_the_controller_and_what_is_behind_does_not(queues: int) -> None:
    bench = Bench(io_queues=queues)
    bench.enable()
    bench.traced()
    bench.write(bench.function.doorbells_end, 1)
    assert bench.traced("mmio_write") == []
    bench.write(bench.function.doorbells_end - 4, 1)
    assert len(bench.traced("mmio_write")) == 1


def test_registers_are_read_through_bar0() -> None:
    pci = function(queue_entries=4)
    assert pci.bar_read(0, OFFSET["cap"], 8) & 0xFFFF == 3
    assert pci.bar_read(0, OFFSET["cap"], 2) == 3


def test_table_and_holes_read_as_zero_and_ignore_writes() -> None:
    pci = function()
    table = long(pci, capability(pci, MSIX_ID) + 4)
    for offset in (pci.doorbells_end, table, table + 16, pci.bars[0] - 8):
        pci.bar_write(0, offset, 8, 0xFFFF_FFFF_FFFF_FFFF)
        assert pci.bar_read(0, offset, 8) == 0


@pytest.mark.parametrize("vectors", [1, 8, 65, 2048])
def test_pending_bits_are_those_of_the_vectors_that_are_pending(vectors: int) -> None:
    pci = function(vectors=vectors)
    pci.pending = lambda vector: vector % 3 == 0
    pba = long(pci, capability(pci, MSIX_ID) + 8)
    bits = sum(pci.bar_read(0, pba + 8 * i, 8) << 64 * i for i in range(-(-vectors // 64)))
    assert bits == sum(1 << vector for vector in range(vectors) if vector % 3 == 0)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_pending_bits_are_read_in_any_width(size: int) -> None:
    pci = function(vectors=65)
    pci.pending = lambda vector: vector in (9, 31, 64)
    pba = long(pci, capability(pci, MSIX_ID) + 8)
    got = b"".join(
        pci.bar_read(0, pba + at, size).to_bytes(size, "little") for at in range(0, 16, size)
    )
    assert int.from_bytes(got, "little") == 1 << 9 | 1 << 31 | 1 << 64


def test_pending_bits_are_clear_and_cannot_be_written() -> None:
    pci = function()
    pba = struct.unpack("<I", pci.config_read(capability(pci, MSIX_ID) + 8, 4))[0]
    pci.bar_write(0, pba, 8, 0xFF)
    assert pci.bar_read(0, pba, 8) == 0


def test_interrupt_of_the_link_is_the_controllers() -> None:
    pci = function()
    raised: list[int] = []
    pci.interrupt = raised.append
    pci.controller.interrupt(3)
    assert raised == [3]


def test_msix_control_structs_are_where_the_header_says() -> None:
    pci = function(vectors=5)
    at = capability(pci, MSIX_ID)
    identifier, _, control = struct.unpack("<BBH", pci.config_read(at, 4))
    assert (identifier, control) == (0x11, 4)
