"""Driver and device in one process."""

from __future__ import annotations

import itertools
import struct

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.link.base import HostLink
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory, MemoryFault
from nvmelab.spec.registers import OFFSET
from nvmelab.storage.ram import RamBackend

PAGE = 4096
SIZE = 1 << 20


def function() -> NvmeFunction:
    namespace = Namespace(1, RamBackend(PAGE), "test")
    return NvmeFunction(Controller(ControllerConfig(), [namespace], GuestMemory()))


def test_is_a_host_link_that_may_master_the_bus_and_send_interrupts() -> None:
    pci = function()
    link: HostLink = InprocLink(pci, size=SIZE)
    assert link.memory is pci.memory
    assert (pci.controller.life.bus_master, pci.controller.msix_enabled) == (True, True)
    assert pci.config_read(4, 1) == b"\x06"


def test_other_bits_of_the_command_register_stay() -> None:
    pci = function()
    pci.config_write(4, b"\x00\x04")
    InprocLink(pci, size=SIZE)
    assert pci.config_read(4, 2) == b"\x06\x04"


def test_msix_is_found_behind_another_capability() -> None:
    class Moved(NvmeFunction):
        """Its list of capabilities begins at power management, and MSI-X is the last of it."""

        def config_read(self, offset: int, length: int) -> bytes:
            space = bytearray(super().config_read(0, 256))
            power, express = space[0x41], space[space[0x41] + 1]
            space[0x34], space[express + 1], space[0x41] = power, 0x40, 0
            return bytes(space[offset : offset + length])

    pci = Moved(function().controller)
    InprocLink(pci, size=SIZE)
    assert pci.controller.msix_enabled


def test_allocations_are_zeroed_aligned_and_apart() -> None:
    link = InprocLink(function(), size=SIZE)
    addresses = [link.allocate(size) for size in (1, PAGE, PAGE + 1, 8)]
    assert all(addr % PAGE == 0 for addr in addresses)
    steps = [b - a for a, b in itertools.pairwise(addresses)]
    assert steps == [PAGE, PAGE, 2 * PAGE]
    assert link.memory.read(addresses[0], 5 * PAGE) == bytes(5 * PAGE)


def test_all_of_the_memory_can_be_allocated_and_no_more() -> None:
    link = InprocLink(function(), size=2 * PAGE)
    link.allocate(2 * PAGE)
    with pytest.raises(MemoryError, match="no 1 bytes left"):
        link.allocate(1)


def test_registers_are_reached_in_both_widths() -> None:
    pci = function()
    link = InprocLink(pci, size=SIZE)
    link.write(OFFSET["asq"], 8, 0x1_2345_6000)
    link.write(OFFSET["acq"], 4, 0x7000)
    assert link.read(OFFSET["asq"], 8) == 0x1_2345_6000
    assert link.read(OFFSET["asq"], 4) == 0x2345_6000
    assert link.read(OFFSET["acq"], 8) == 0x7000
    assert link.read(OFFSET["cap"], 8) == pci.bar_read(0, 0, 8)


def test_interrupts_are_counted_for_each_vector_until_they_are_taken() -> None:
    pci = function()
    link = InprocLink(pci, size=SIZE)
    for vector in (0, 3, 3, 64):
        pci.interrupt(vector)
    assert [link.take_interrupts(vector) for vector in (0, 1, 3, 64)] == [1, 0, 2, 1]
    assert [link.take_interrupts(vector) for vector in (0, 3, 64)] == [0, 0, 0]


def test_device_does_nothing_between_two_waits() -> None:
    pci = function()
    link = InprocLink(pci, size=SIZE)
    link.write(OFFSET["aqa"], 4, 1 << 16 | 1)
    link.write(OFFSET["asq"], 8, link.allocate(PAGE))
    link.write(OFFSET["acq"], 8, link.allocate(PAGE))
    link.write(OFFSET["cc"], 4, 1)
    assert link.read(OFFSET["csts"], 4) == 0
    link.settle()
    assert link.read(OFFSET["csts"], 4) == 1


def test_wait_for_a_device_at_rest_is_given_up() -> None:
    assert InprocLink(function(), size=SIZE).wait(lambda: False) is False


def test_wait_goes_on_while_what_is_waited_for_rings_doorbells() -> None:
    link = InprocLink(function(), size=SIZE)
    looks = 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        link.write(OFFSET["aqa"], 4, 0)
        return looks == 5

    assert link.wait(done)


def test_memory_that_is_given_back_is_zero_again() -> None:
    link = InprocLink(function(), size=SIZE)
    first = link.allocate(PAGE)
    link.memory.write(first, b"x" * PAGE)
    link.free_all()
    assert link.allocate(PAGE) == first
    assert link.memory.read(first, PAGE) == bytes(PAGE)


def test_memory_is_gone_with_the_link() -> None:
    pci, closed = function(), []
    link = InprocLink(pci, size=SIZE, close=lambda: closed.append(True))
    addr = link.allocate(8)
    link.close()
    assert (pci.memory.regions, closed) == ([], [True])
    with pytest.raises(MemoryFault):
        link.memory.read(addr, 8)


def test_memory_is_what_the_device_reaches() -> None:
    pci = function()
    link = InprocLink(pci, size=SIZE)
    addr = link.allocate(8)
    link.memory.write(addr, struct.pack("<Q", 7))
    pci.memory.store_u64(addr, pci.memory.load_u32(addr) + 1)
    assert link.memory.read(addr, 8) == struct.pack("<Q", 8)
