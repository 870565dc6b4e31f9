"""The client and our own server, with a controller behind it, in one thread."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.doorbells import DoorbellPage
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.link.base import HostLink, LinkError
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.client import VfioUserLink
from nvmelab.link.vfio_user.server import Server
from nvmelab.memory import GuestMemory, MemoryFault
from nvmelab.spec.registers import DOORBELLS, OFFSET
from nvmelab.storage.ram import RamBackend
from tests.link.vfio_user.conftest import open_fds
from tests.link.vfio_user.fake_server import FakeServer, Ticks, good, mapped_bar0

PAGE = 4096
SIZE = 1 << 20
IDENTIFY_CONTROLLER = (0x06, 1)
"""Opcode and CNS."""


class Rig:
    """A controller, its server, and the links that a test makes to it. `page` is the doorbell
    page that the server offers, None if it offers none."""

    def __init__(self, path: str, *, offers_page: bool) -> None:
        self.loop = Loop()
        self.page: memoryview | None = None
        fd = None
        if offers_page:
            fd = os.memfd_create("doorbells", os.MFD_CLOEXEC)
            os.ftruncate(fd, DOORBELLS + PAGE)
            self.page = memoryview(mmap.mmap(fd, DOORBELLS + PAGE))[DOORBELLS:]
        self._fd = fd
        self.controller = Controller(
            ControllerConfig(serial="the serial"),
            [Namespace(1, RamBackend(PAGE), "test")],
            GuestMemory(),
            doorbells=DoorbellPage(self.page) if self.page else None,
        )
        self.function = NvmeFunction(self.controller)
        self.server = Server(self.function, path, self.loop, doorbells=fd)
        self.loop.add_worker(self.function.run)
        self.clock = Ticks()

    def pump(self) -> None:
        self.loop.turn(0)

    def link(self, *, mapped: bool = True) -> VfioUserLink:
        return VfioUserLink(
            self.server.path, size=SIZE, mapped=mapped, pump=self.pump, clock=self.clock
        )

    def close(self) -> None:
        self.server.close()
        self.loop.close()
        if self._fd is not None:
            os.close(self._fd)


@pytest.fixture
def rig(path: str) -> Iterator[Rig]:
    rig = Rig(path, offers_page=False)
    yield rig
    rig.close()


@pytest.fixture
def paged(path: str) -> Iterator[Rig]:
    """It offers a doorbell page."""
    rig = Rig(path, offers_page=True)
    yield rig
    rig.close()


def enable(link: HostLink) -> tuple[int, int]:
    """Enable the controller with admin queues of 4 entries; where these are."""
    sq, cq = link.allocate(PAGE), link.allocate(PAGE)
    link.write(OFFSET["aqa"], 4, 3 << 16 | 3)
    link.write(OFFSET["asq"], 8, sq)
    link.write(OFFSET["acq"], 8, cq)
    link.write(OFFSET["cc"], 4, 4 << 20 | 6 << 16 | 1)
    assert link.wait(lambda: link.read(OFFSET["csts"], 4) & 1 == 1)
    return sq, cq


def identify(link: HostLink) -> bytes:
    """Enable the controller, and the data of Identify Controller, by the first admin command."""
    sq, cq = enable(link)
    data = link.allocate(PAGE)
    opcode, cns = IDENTIFY_CONTROLLER
    link.memory.write(
        sq, struct.pack("<IIQQQQIIIIII", opcode, 0, 0, 0, data, 0, cns, 0, 0, 0, 0, 0)
    )
    link.write(DOORBELLS, 4, 1)
    assert link.wait(lambda: link.memory.load_u32(cq + 12) >> 16 & 1 == 1)
    assert link.memory.load_u32(cq + 12) >> 17 == 0
    link.write(DOORBELLS + 4, 4, 1)
    return link.memory.read(data, PAGE)


# The controller behind it.


def test_is_a_host_link_that_may_master_the_bus_and_send_interrupts(rig: Rig) -> None:
    link: HostLink = rig.link()

    assert (link.name, link.vectors, link.storage) == ("vfio-user server nvme.sock", 65, None)
    assert (rig.controller.life.bus_master, rig.controller.msix_enabled) == (True, True)
    link.close()


def test_controller_is_enabled_and_identified_by_raw_registers(rig: Rig) -> None:
    link = rig.link()

    data = identify(link)

    assert data[4:24] == b"the serial".ljust(20)
    assert [link.take_interrupts(vector) for vector in (0, 0, 1)] == [1, 0, 0]
    link.close()


def test_registers_are_reached_in_both_widths(rig: Rig) -> None:
    link = rig.link()

    link.write(OFFSET["asq"], 8, 0x1_2345_6000)
    link.write(OFFSET["acq"], 4, 0x7000)

    assert link.read(OFFSET["asq"], 8) == 0x1_2345_6000
    assert link.read(OFFSET["asq"], 4) == 0x2345_6000
    assert link.read(OFFSET["acq"], 8) == 0x7000
    assert link.read(OFFSET["cap"], 8) == rig.function.bar_read(0, 0, 8)
    link.close()


def test_configuration_space_is_reached_in_all_widths(rig: Rig) -> None:
    link = rig.link()

    link.config_write(4, 2, 0x406)

    assert [link.config_read(offset, size) for offset, size in ((4, 2), (5, 1), (8, 4))] == [
        0x406,
        0x4,
        int.from_bytes(rig.function.config_read(8, 4), "little"),
    ]
    link.close()


def test_interrupts_are_counted_for_each_vector_until_they_are_taken(rig: Rig) -> None:
    link = rig.link()

    for vector in (0, 3, 3, 15, 16, 64):
        rig.function.interrupt(vector)

    assert [link.take_interrupts(vector) for vector in (0, 1, 3, 15, 16, 64)] == [1, 0, 2, 1, 1, 1]
    assert not any(link.take_interrupts(vector) for vector in range(65))
    link.close()


# Doorbells.


def test_mapped_doorbells_are_stores_into_the_servers_page(paged: Rig) -> None:
    link = paged.link()
    said: set[int] = set()
    write = paged.function.bar_write

    def noted(bar: int, offset: int, size: int, value: int) -> None:
        said.add(offset)
        write(bar, offset, size, value)

    paged.function.bar_write = noted  # type: ignore[method-assign]

    data = identify(link)

    assert data[4:24] == b"the serial".ljust(20)
    assert said == {OFFSET[name] for name in ("aqa", "asq", "acq", "cc")}
    assert paged.page
    assert paged.page[:8] == struct.pack("=II", 1, 1)
    link.close()


def test_doorbells_are_messages_if_they_must_not_be_mapped(paged: Rig) -> None:
    link = paged.link(mapped=False)

    identify(link)

    assert paged.page
    assert paged.page[:8] == bytes(8)
    link.close()


def test_doorbells_behind_the_page_and_registers_in_front_of_it_are_messages(
    fake: FakeServer,
) -> None:
    page = mapped_bar0(fake, areas=[(0, 0x2000)])
    link = fake.link()

    for offset in (0x14, 0xFFC, 0x1000, 0x1FFC, 0x2000):
        link.write(offset, 4, offset)
    link.write(0x1008, 8, 0x1008)

    words = memoryview(fake.registers).cast("I")
    assert {4 * at: word for at, word in enumerate(words) if word} == {
        offset: offset for offset in (0x14, 0xFFC, 0x1008, 0x2000)
    }
    stored = memoryview(page).cast("I")
    assert {4 * at: word for at, word in enumerate(stored) if word} == {
        0x1000: 0x1000,
        0x1FFC: 0x1FFC,
    }
    link.close()


@pytest.mark.parametrize("areas", [None, [(0x2000, 0x1000), (0x1000, 0x1000)]])
def test_doorbells_are_found_in_any_area(
    fake: FakeServer, areas: list[tuple[int, int]] | None
) -> None:
    page = mapped_bar0(fake, areas=areas)
    link = fake.link()

    link.write(0x1004, 4, 7)

    assert page[0x1004:0x1008] == struct.pack("=I", 7)
    assert fake.registers[0x1004] == 0
    link.close()


# Other clients, and the end.


def test_second_client_is_refused_and_the_first_one_goes_on(rig: Rig) -> None:
    link = rig.link()

    with pytest.raises(LinkError, match="the server closed the connection, or has another client"):
        rig.link()

    assert identify(link)[4:7] == b"the"
    link.close()


def test_next_client_finds_a_device_as_after_power_on(rig: Rig) -> None:
    first = rig.link()
    enable(first)
    first.close()
    rig.pump()

    second = rig.link()

    assert second.read(OFFSET["cc"], 4) == 0
    assert len(rig.function.memory.regions) == 1
    second.close()


@pytest.mark.parametrize("flags", [wire.DEVICE_PCI, wire.DEVICE_PCI | wire.DEVICE_RESETS])
def test_device_is_reset_before_it_is_enabled_if_it_can_be(fake: FakeServer, flags: int) -> None:
    fake.answers[wire.DEVICE_GET_INFO] = good(wire.DEVICE_INFO.pack(16, flags, 9, 5))

    link = fake.link()

    said = fake.commands()
    assert ("DEVICE_RESET" in said) == bool(flags & wire.DEVICE_RESETS)
    if "DEVICE_RESET" in said:
        assert said.index("DEVICE_RESET") < said.index("REGION_WRITE")
    assert fake.config[4] & 6 == 6
    assert fake.config[0x43] == 0x80
    link.close()


def test_eventfds_are_given_after_msix_was_enabled(fake: FakeServer) -> None:
    link = fake.link()

    said = fake.commands()
    assert "REGION_WRITE" not in said[said.index("DEVICE_SET_IRQS") :]
    link.close()


def test_server_that_goes_away_while_something_is_waited_for(rig: Rig) -> None:
    link = rig.link()
    looks = 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        if looks == 5:
            rig.server.close()
        return False

    with pytest.raises(LinkError, match="the server closed the connection; see what it says"):
        link.wait(done)

    for gone in (lambda: link.read(0, 4), lambda: link.write(0, 4, 0), link.settle):
        with pytest.raises(LinkError, match="the server closed the connection"):
            gone()
    link.close()


def mappings(name: str) -> int:
    """How many mappings of a memfd of this name the process has."""
    return Path("/proc/self/maps").read_text().count(f"memfd:{name}")


def test_close_gives_everything_back_and_may_be_called_twice(paged: Rig) -> None:
    before, doorbells = open_fds(), mappings("doorbells")
    link = paged.link()
    addr = link.allocate(PAGE)

    link.close()
    link.close()
    paged.pump()

    assert open_fds() == before
    assert mappings("nvmelab-host") == 0
    assert mappings("doorbells") <= doorbells
    assert paged.function.memory.regions == []
    with pytest.raises(MemoryFault):
        link.memory.read(addr, 1)
    with pytest.raises(LinkError, match="closed by us"):
        link.write(DOORBELLS, 4, 1)


# Time.


def test_wait_ends_as_soon_as_it_is_done(rig: Rig) -> None:
    link = rig.link()
    start = rig.clock.now

    assert link.wait(lambda: True)

    assert rig.clock.now - start < 0.05
    link.close()


def test_wait_for_a_device_at_rest_is_given_up(rig: Rig) -> None:
    link = rig.link()
    start = rig.clock.now

    assert link.wait(lambda: False) is False

    assert 10 < rig.clock.now - start < 11
    link.close()


def test_wait_looks_once_more_when_its_time_is_over(rig: Rig) -> None:
    link = rig.link()
    start = rig.clock.now

    assert link.wait(lambda: rig.clock.now > start + 10)

    link.close()


def test_settle_lets_the_device_do_what_it_can(rig: Rig) -> None:
    link = rig.link()
    link.write(OFFSET["aqa"], 4, 3 << 16 | 3)
    link.write(OFFSET["asq"], 8, link.allocate(PAGE))
    link.write(OFFSET["acq"], 8, link.allocate(PAGE))
    link.write(OFFSET["cc"], 4, 4 << 20 | 6 << 16 | 1)

    link.settle()

    assert rig.function.bar_read(0, OFFSET["csts"], 4) == 1
    link.close()
