"""REGION_READ and REGION_WRITE: BAR and configuration space, answered and posted."""

from __future__ import annotations

import os
import struct

import pytest

from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.server import Server
from tests.link.vfio_user.conftest import Peer, Stub, map_request, ram

EINVAL = 22
POSTED = wire.NO_REPLY


def read(region: int, offset: int, count: int) -> bytes:
    return wire.ACCESS.pack(offset, region, count)


def write(region: int, offset: int, data: bytes) -> bytes:
    return wire.ACCESS.pack(offset, region, len(data)) + data


@pytest.mark.parametrize(
    ("count", "data"),
    [
        (1, b"\x11"),
        (2, b"\x11\x22"),
        (4, b"\x11\x22\x33\x44"),
        (8, bytes.fromhex("1122334455667788")),
    ],
)
def test_bar_read_of_each_size(peer: Peer, function: Stub, count: int, data: bytes) -> None:
    function.registers[8:16] = bytes.fromhex("1122334455667788")

    reply = peer.ask(wire.REGION_READ, read(0, 8, count))

    assert (reply.errno, reply.payload) == (None, read(0, 8, count) + data)
    assert function.calls == [("bar_read", 0, 8, count)]


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x01", 0x01),
        (b"\x01\x02", 0x0201),
        (b"\x01\x02\x03\x04", 0x04030201),
        (b"\x01\x02\x03\x04\x05\x06\x07\x08", 0x0807060504030201),
    ],
)
def test_bar_write_of_each_size(peer: Peer, function: Stub, data: bytes, value: int) -> None:
    reply = peer.ask(wire.REGION_WRITE, write(0, 0x28, data))

    assert (reply.errno, reply.payload) == (None, read(0, 0x28, len(data)))
    assert function.calls == [("bar_write", 0, 0x28, len(data), value)]


def test_last_register_of_the_bar(peer: Peer) -> None:
    assert peer.ask(wire.REGION_READ, read(0, 0x3FF8, 8)).errno is None


def test_posted_writes_take_effect_in_order_before_a_read(peer: Peer, function: Stub) -> None:
    peer.send(wire.REGION_WRITE, write(0, 0x1000, b"\1\0\0\0"), flags=POSTED)
    peer.send(wire.REGION_WRITE, write(0, 0x1008, b"\2\0\0\0"), flags=POSTED)

    reply = peer.ask(wire.REGION_READ, read(0, 0x1000, 4))

    assert reply.payload[16:] == b"\1\0\0\0"
    assert function.calls == [
        ("bar_write", 0, 0x1000, 4, 1),
        ("bar_write", 0, 0x1008, 4, 2),
        ("bar_read", 0, 0x1000, 4),
    ]


def test_access_ahead_of_a_message_with_a_descriptor(peer: Peer, function: Stub) -> None:
    fd = ram(4096)
    peer.send(wire.REGION_WRITE, write(0, 0x1000, b"\1\0\0\0"), flags=POSTED)
    peer.send(wire.DMA_MAP, map_request(0, 4096), fds=[fd])

    peer.loop.turn(0)

    assert function.calls == [("bar_write", 0, 0x1000, 4, 1)]
    assert (peer.receive().command, len(function.memory.regions)) == (wire.DMA_MAP, 1)
    os.close(fd)


@pytest.mark.parametrize("count", [1, 2, 4, 256])
def test_config_read(peer: Peer, function: Stub, count: int) -> None:
    reply = peer.ask(wire.REGION_READ, read(7, 0, count))

    assert reply.payload == read(7, 0, count) + function.config[:count]


def test_config_write(peer: Peer, function: Stub) -> None:
    assert peer.ask(wire.REGION_WRITE, write(7, 4, b"\6\0")).errno is None
    assert function.calls == [("config_write", 4, b"\6\0")]


def test_posted_config_write_is_not_answered(peer: Peer, function: Stub) -> None:
    peer.send(wire.REGION_WRITE, write(7, 4, b"\6\0"), flags=POSTED)

    assert not peer.hung_up()
    assert function.calls == [("config_write", 4, b"\6\0")]


@pytest.mark.parametrize(
    "payload",
    [
        read(0, 0, 0),
        read(0, 0, 3),
        read(0, 0, 16),
        read(0, 0, 0xFFFFFFFF),
        read(0, 2, 4),
        read(0, 0x4000, 4),
        read(0, 0x3FFC, 8),
        read(0, 2**64 - 4, 4),
        read(1, 0, 4),
        read(6, 0, 4),
        read(8, 0, 4),
        read(0xFFFFFFFF, 0, 4),
        read(7, 0, 0),
        read(7, 0, 257),
        read(7, 256, 1),
        read(7, 2**64 - 1, 1),
        read(0, 0, 4)[:15],
        read(0, 0, 4) + b"\0",
    ],
)
def test_bad_read_is_refused(peer: Peer, function: Stub, payload: bytes) -> None:
    assert peer.ask(wire.REGION_READ, payload).errno == EINVAL
    assert function.calls == []


@pytest.mark.parametrize(
    "payload",
    [
        write(0, 0, b""),
        write(0, 0, b"123"),
        write(0, 2, b"1234"),
        write(0, 0x4000, b"1234"),
        write(2, 0, b"1234"),
        write(7, 255, b"12"),
        write(7, 0, b""),
        write(0, 0, b"1234")[:-1],
        write(0, 0, b"1234") + b"5",
        write(7, 4, b"1234")[:-1],
        write(0, 0, b"1234")[:15],
        struct.pack("=QII", 0, 7, 0xFFFFFFFF) + b"1234",
    ],
)
def test_bad_write_is_refused(peer: Peer, function: Stub, payload: bytes) -> None:
    assert peer.ask(wire.REGION_WRITE, payload).errno == EINVAL
    assert function.calls == []


def test_bad_posted_write_is_not_answered(peer: Peer, function: Stub, server: Server) -> None:
    peer.send(wire.REGION_WRITE, write(0, 2, b"1234"), flags=POSTED)

    assert not peer.hung_up()
    assert server.connected
    assert function.calls == []


def test_read_that_wants_no_reply_is_not_done(peer: Peer, function: Stub) -> None:
    peer.send(wire.REGION_READ, read(0, 0, 4), flags=POSTED)

    assert not peer.hung_up()
    assert function.calls == []


@pytest.mark.parametrize("command", [wire.REGION_READ, wire.REGION_WRITE])
def test_descriptor_with_an_access_is_refused(peer: Peer, function: Stub, command: int) -> None:
    fd = ram(4096)

    assert peer.ask(command, write(0, 0, b"1234"), fds=[fd]).errno == EINVAL
    assert function.calls == []
    os.close(fd)
