"""DEVICE_GET_INFO, and that it is refused when the guest's RAM is out of reach."""

from __future__ import annotations

import os

import pytest

from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.conftest import Peer, map_request, ram

PAGE = 4096
EINVAL = 22
REQUEST = wire.DEVICE_INFO.pack(16, 0, 0, 0)


def test_pci_device_with_reset(peer: Peer) -> None:
    reply = peer.ask(wire.DEVICE_GET_INFO, REQUEST)

    assert wire.DEVICE_INFO.unpack(reply.payload) == (16, 0x3, 9, 5)


def test_more_room_than_needed(peer: Peer) -> None:
    reply = peer.ask(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(64, 0, 0, 0))

    assert wire.DEVICE_INFO.unpack(reply.payload) == (16, 0x3, 9, 5)


@pytest.mark.parametrize("request_", [wire.DEVICE_INFO.pack(15, 0, 0, 0), REQUEST[:12], b""])
def test_too_little_room_or_payload_is_refused(peer: Peer, request_: bytes) -> None:
    assert peer.ask(wire.DEVICE_GET_INFO, request_).errno == EINVAL


def test_writable_regions_without_any_file_are_refused(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    peer.ask(wire.DMA_MAP, map_request(0, PAGE))

    assert peer.ask(wire.DEVICE_GET_INFO, REQUEST).errno == EINVAL

    [line] = [record.getMessage() for record in caplog.records]
    assert "guest RAM is not shared (it has no file behind it): start QEMU with -object" in line


def test_writable_region_without_a_file_beside_ram_is_normal(peer: Peer) -> None:
    fd = ram(PAGE)
    peer.ask(wire.DMA_MAP, map_request(0xA0000, PAGE))
    peer.ask(wire.DMA_MAP, map_request(0, PAGE), fds=[fd])

    assert peer.ask(wire.DEVICE_GET_INFO, REQUEST).errno is None
    os.close(fd)


def test_rom_alone_is_normal(peer: Peer) -> None:
    peer.ask(wire.DMA_MAP, map_request(0xC0000, PAGE, flags=1))

    assert peer.ask(wire.DEVICE_GET_INFO, REQUEST).errno is None
