"""DEVICE_GET_REGION_INFO: sizes and flags, and the doorbell page that can be mapped."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.server import Server, ServerError
from tests.link.vfio_user.conftest import Peer, Stub

EINVAL = 22


def request_(index: int, argsz: int = 32) -> bytes:
    return wire.REGION_INFO.pack(argsz, 0, index, 0, 0, 0)


@pytest.mark.parametrize(
    ("index", "flags", "size"),
    [(0, 3, 0x4000), (1, 0, 0), (5, 0, 0), (6, 0, 0), (7, 3, 256), (8, 0, 0)],
)
def test_regions(peer: Peer, index: int, flags: int, size: int) -> None:
    reply = peer.ask(wire.DEVICE_GET_REGION_INFO, request_(index))

    assert wire.REGION_INFO.unpack(reply.payload) == (32, flags, index, 0, size, 0)
    assert reply.fds == []


@pytest.mark.parametrize("payload", [request_(9), request_(0, argsz=31), request_(0)[:31]])
def test_malformed_request_is_refused(peer: Peer, payload: bytes) -> None:
    assert peer.ask(wire.DEVICE_GET_REGION_INFO, payload).errno == EINVAL


@pytest.fixture
def doorbells() -> Iterator[int]:
    fd = os.memfd_create("doorbells")
    os.ftruncate(fd, 0x2000)
    yield fd
    os.close(fd)


@pytest.fixture
def mapping_peer(function: Stub, path: str, loop: Loop, doorbells: int) -> Iterator[Peer]:
    """A client of a server that offers its doorbell page."""
    server = Server(function, path, loop, doorbells=doorbells)
    peer = Peer(path, loop).negotiate()
    yield peer
    peer.sock.close()
    server.close()


def test_doorbell_page_without_room_says_how_much_is_needed(mapping_peer: Peer) -> None:
    reply = mapping_peer.ask(wire.DEVICE_GET_REGION_INFO, request_(0))

    assert wire.REGION_INFO.unpack(reply.payload) == (64, 0xF, 0, 32, 0x4000, 0)
    assert len(reply.fds) == 1
    os.close(reply.fds[0])


def test_doorbell_page_with_room(mapping_peer: Peer, doorbells: int) -> None:
    reply = mapping_peer.ask(wire.DEVICE_GET_REGION_INFO, request_(0, argsz=64))

    assert wire.REGION_INFO.unpack(reply.payload[:32]) == (64, 0xF, 0, 32, 0x4000, 0)
    assert struct.unpack("=HHIIIQQ", reply.payload[32:]) == (1, 1, 0, 1, 0, 0x1000, 0x1000)
    [fd] = reply.fds
    assert os.path.sameopenfile(fd, doorbells)
    os.close(fd)


def test_other_regions_are_not_mapped(mapping_peer: Peer) -> None:
    reply = mapping_peer.ask(wire.DEVICE_GET_REGION_INFO, request_(7, argsz=64))

    assert wire.REGION_INFO.unpack(reply.payload) == (32, 3, 7, 0, 256, 0)
    assert reply.fds == []


def test_short_doorbell_file_is_our_own_mistake(function: Stub, loop: Loop, tmp_path: Path) -> None:
    fd = os.memfd_create("doorbells")
    os.ftruncate(fd, 0x1FFF)

    with pytest.raises(ServerError, match="shorter than 0x2000"):
        Server(function, tmp_path / "s", loop, doorbells=fd)
    os.close(fd)
