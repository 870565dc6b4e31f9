"""DMA_UNMAP: exact matches, everything at once, and that nothing is left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.conftest import Peer, Stub, map_request, open_fds, ram, unmap_request

PAGE = 4096
ENOENT, EINVAL = 2, 22


@pytest.fixture
def mapped(peer: Peer) -> Iterator[Peer]:
    """Four pages at 0x10000, and one without a file at 0x20000."""
    fd = ram(4 * PAGE)
    assert peer.ask(wire.DMA_MAP, map_request(0x10000, 4 * PAGE), fds=[fd]).errno is None
    assert peer.ask(wire.DMA_MAP, map_request(0x20000, PAGE)).errno is None
    yield peer
    os.close(fd)


def test_exact_match_is_unmapped_and_echoed(mapped: Peer, function: Stub) -> None:
    before = open_fds()

    reply = mapped.ask(wire.DMA_UNMAP, unmap_request(0x10000, 4 * PAGE))

    assert (reply.errno, reply.payload) == (None, unmap_request(0x10000, 4 * PAGE))
    assert function.memory.regions == []
    assert open_fds() == before - 1


def test_mapping_is_gone_from_the_process(mapped: Peer) -> None:
    mapped.ask(wire.DMA_UNMAP, unmap_request(0x10000, 4 * PAGE))

    with open("/proc/self/maps") as maps:
        assert "memfd:ram" not in maps.read()


def test_region_without_a_file_is_unmapped(mapped: Peer, function: Stub) -> None:
    assert mapped.ask(wire.DMA_UNMAP, unmap_request(0x20000, PAGE)).errno is None
    assert mapped.ask(wire.DMA_UNMAP, unmap_request(0x20000, PAGE)).errno == ENOENT
    assert len(function.memory.regions) == 1


@pytest.mark.parametrize(
    ("address", "size"),
    [(0x10000, PAGE), (0x11000, PAGE), (0, 4 * PAGE), (0x10000, 5 * PAGE), (0, 0), (0x30000, PAGE)],
)
def test_anything_else_is_refused(mapped: Peer, function: Stub, address: int, size: int) -> None:
    assert mapped.ask(wire.DMA_UNMAP, unmap_request(address, size)).errno == ENOENT
    assert len(function.memory.regions) == 1


def test_unmapped_address_can_be_mapped_again(mapped: Peer, function: Stub) -> None:
    fd = ram(PAGE)
    os.pwrite(fd, b"new", 0)
    mapped.ask(wire.DMA_UNMAP, unmap_request(0x10000, 4 * PAGE))

    assert mapped.ask(wire.DMA_MAP, map_request(0x10000, PAGE), fds=[fd]).errno is None
    assert function.memory.read(0x10000, 3) == b"new"
    os.close(fd)


def test_all_at_once(mapped: Peer, function: Stub) -> None:
    assert mapped.ask(wire.DMA_UNMAP, unmap_request(0, 0, flags=2)).errno is None
    assert function.memory.regions == []
    assert mapped.ask(wire.DMA_UNMAP, unmap_request(0x20000, PAGE)).errno == ENOENT


@pytest.mark.parametrize(
    "request_",
    [
        unmap_request(0x10000, 4 * PAGE, flags=1),
        unmap_request(0x10000, 4 * PAGE, flags=2),
        unmap_request(0x10000, 4 * PAGE, argsz=23),
        unmap_request(0x10000, 4 * PAGE)[:23],
    ],
    ids=["dirty-bitmap", "all-with-a-range", "argsz", "cut"],
)
def test_malformed_request_is_refused(mapped: Peer, function: Stub, request_: bytes) -> None:
    assert mapped.ask(wire.DMA_UNMAP, request_).errno == EINVAL
    assert len(function.memory.regions) == 1
