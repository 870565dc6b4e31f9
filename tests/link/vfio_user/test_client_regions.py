"""The client against servers that describe their device or its regions wrongly.

Each ends in LinkError with one line, and leaves no descriptor open: `error_of_link` looks at both.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

import pytest

from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.conftest import BAR_BYTES
from tests.link.vfio_user.fake_server import (
    PAGE,
    Answer,
    FakeServer,
    Part,
    Said,
    file_of,
    good,
    region_info,
    words_of,
)

MAPPABLE = wire.REGION_READ_WRITE | wire.REGION_MMAP
SPARSE = MAPPABLE | wire.REGION_CAPABILITIES


# What the device is.


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"x" * 15, "a reply to DEVICE_GET_INFO with 15 bytes of payload instead of 16"),
        (wire.DEVICE_INFO.pack(16, 1, 9, 5), "no PCI device (flags 0x1, 9 regions)"),
        (wire.DEVICE_INFO.pack(16, 2, 7, 5), "no PCI device (flags 0x2, 7 regions)"),
    ],
    ids=words_of,
)
def test_device_that_is_no_pci_device(fake: FakeServer, payload: bytes, what: str) -> None:
    fake.answers[wire.DEVICE_GET_INFO] = good(payload)

    assert what in fake.error_of_link()


@pytest.mark.parametrize(
    ("payload", "what"),
    [
        (b"x" * 31, "DEVICE_GET_REGION_INFO with 31 bytes of payload instead of 32"),
        (region_info(3), "information on region 3 with argsz 32 and 0 descriptors, when asked for"),
        (region_info(argsz=31), "argsz 31"),
        (region_info(argsz=0), "argsz 0"),
        (region_info() + b"x", "with 33 bytes of payload instead of 32"),
        (region_info(argsz=4097), "4097 bytes of information on region 0"),
        (region_info(argsz=0xFFFF_FFFF), "4294967295 bytes of information on region 0"),
    ],
    ids=words_of,
)
def test_region_that_makes_no_sense(fake: FakeServer, payload: bytes, what: str) -> None:
    fake.answers[wire.DEVICE_GET_REGION_INFO] = good(payload)

    assert what in fake.error_of_link()


def test_region_that_grows_each_time_it_is_asked_for(fake: FakeServer) -> None:
    def grow(said: Said) -> Iterable[Part]:
        argsz = wire.REGION_INFO.unpack(said.payload)[0]
        return [wire.reply(said.message_id, said.command, region_info(argsz=argsz + 16))]

    fake.answers[wire.DEVICE_GET_REGION_INFO] = grow

    assert "another length of the information on region 0 each time" in fake.error_of_link()


@pytest.mark.parametrize(
    ("bar", "config"), [(0, 256), (0x1007, 256), (BAR_BYTES, 255), (BAR_BYTES, 0)]
)
def test_device_that_is_too_small_for_nvme(fake: FakeServer, bar: int, config: int) -> None:
    def sizes(said: Said) -> Iterable[Part]:
        index = wire.REGION_INFO.unpack(said.payload)[2]
        size = {0: bar, 7: config}.get(index, 0)
        return [wire.reply(said.message_id, said.command, region_info(index, size=size))]

    fake.answers[wire.DEVICE_GET_REGION_INFO] = sizes

    assert (
        f"is no NVMe controller: its BAR0 has {bar:#x} bytes and its configuration space "
        f"{config:#x}" in fake.error_of_link()
    )


def test_device_of_another_class(fake: FakeServer) -> None:
    fake.config[9:12] = bytes((0, 0, 2))

    assert "is no NVMe controller: its PCI class is 020000, not 010802" in fake.error_of_link()


# BAR0 and its mapping.


def mapped(*payloads: bytes, fds: list[int]) -> Answer:
    """BAR0 with these answers, to a first and a second question, and these descriptors; the other
    regions as usual."""
    asked = iter(payloads)

    def answer(said: Said) -> Iterable[Part]:
        index = wire.REGION_INFO.unpack(said.payload)[2]
        if index == 0:
            return [(wire.reply(said.message_id, said.command, next(asked)), fds)]
        info = region_info(index, size=256 if index == 7 else 0)
        return [wire.reply(said.message_id, said.command, info)]

    return answer


def sparse(*words: int, at: int = 32, argsz: int = 0) -> bytes:
    """BAR0 with a capability: id, version, next, number of areas, 0, then 8-byte words."""
    body = struct.pack("=HHIII", *words[:5]) + struct.pack(f"={len(words[5:])}Q", *words[5:])
    return region_info(argsz=argsz or 32 + len(body), flags=SPARSE, at=at) + body


ONE_AREA = (1, 1, 0, 1, 0, 0x1000, 0x1000)


@pytest.mark.parametrize(
    ("whole", "what"),
    [
        (sparse(*ONE_AREA, at=31), "a list of capabilities that leads to 31 of 64"),
        (sparse(*ONE_AREA, at=57), "a list of capabilities that leads to 57 of 64"),
        (sparse(*ONE_AREA, at=0xFFFF_FFFF), "a list of capabilities that leads to 4294967295"),
        (sparse(9, 1, 32, 0, 0, 0, 0), "a list of capabilities that leads to 32 of 64"),
        (sparse(1, 1, 0, 2, 0, 0x1000, 0x1000), "a list of mappable areas that is cut short"),
        (sparse(1, 1, 0, 0xFFFF_FFFF, 0, 0, 0), "a list of mappable areas that is cut short"),
        (sparse(*ONE_AREA[:6], 0x10001, at=56), "a list of mappable areas that is cut short"),
        (sparse(1, 1, 0, 1, 0, 0x1000, 0x4000), "area of 0x4000 bytes at 0x1000 of region 0"),
        (sparse(1, 1, 0, 1, 0, 1 << 63, 1 << 63), "a mappable area of 0x8000000000000000 bytes"),
        (sparse(1, 1, 0, 1, 0, 0x1000, 0x800), "a mappable area of 0x800 bytes at 0x1000"),
        (sparse(1, 1, 0, 1, 0, 0x800, 0x1000), "a mappable area of 0x1000 bytes at 0x800"),
    ],
    ids=words_of,
)
def test_mappable_areas_that_make_no_sense(fake: FakeServer, whole: bytes, what: str) -> None:
    fd = file_of(BAR_BYTES)
    first = region_info(argsz=64, flags=SPARSE)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(first, whole, fds=[fd])

    assert what in fake.error_of_link()
    os.close(fd)


def test_mapping_from_an_odd_place_in_the_file(fake: FakeServer) -> None:
    fd = file_of(2 * BAR_BYTES)
    whole = region_info(flags=MAPPABLE, offset=8)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(whole, fds=[fd])

    assert "from 0x8 of its file" in fake.error_of_link()
    os.close(fd)


def test_two_descriptors_for_one_region(fake: FakeServer) -> None:
    fd = file_of(BAR_BYTES)
    whole = region_info(flags=MAPPABLE)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(whole, fds=[fd, fd])

    assert "2 descriptors" in fake.error_of_link()
    os.close(fd)


def test_file_that_is_too_short_for_the_doorbells(fake: FakeServer) -> None:
    fd = file_of(PAGE)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(region_info(flags=MAPPABLE), fds=[fd])

    assert "the mapping of 0x3000 bytes from 0x1000 of a file of 0x1000" in fake.error_of_link()
    os.close(fd)


def test_descriptor_of_the_doorbells_that_is_no_file(fake: FakeServer) -> None:
    ends = os.pipe()
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(region_info(flags=MAPPABLE), fds=[ends[0]])

    assert "doorbells that cannot be mapped: the mapping of a desc" in fake.error_of_link()
    for fd in ends:
        os.close(fd)


def test_far_end_of_a_file_cannot_be_mapped(fake: FakeServer) -> None:
    fd = file_of(BAR_BYTES)
    whole = region_info(flags=MAPPABLE, offset=(1 << 64) - PAGE)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(whole, fds=[fd])

    assert "doorbells that cannot be mapped" in fake.error_of_link()
    os.close(fd)


def test_descriptor_without_the_flag_is_closed_and_not_used(fake: FakeServer) -> None:
    fd = file_of(PAGE)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(region_info(), fds=[fd])

    link = fake.link()
    link.write(0x1000, 4, 5)

    assert fake.registers[0x1000] == 5
    link.close()
    os.close(fd)


def test_doorbell_file_cannot_be_cut_short_any_more(fake: FakeServer) -> None:
    fd = file_of(BAR_BYTES)
    fake.answers[wire.DEVICE_GET_REGION_INFO] = mapped(region_info(flags=MAPPABLE), fds=[fd])
    link = fake.link()

    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)

    link.close()
    os.close(fd)
