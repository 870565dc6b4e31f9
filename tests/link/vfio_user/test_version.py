"""VERSION: the handshake, and what must not come before or after it."""

from __future__ import annotations

import json
import struct

import pytest

from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.server import Server
from tests.link.vfio_user.conftest import Peer

EINVAL = 22

QEMU_PROPOSES = (
    b'{"capabilities": {"pgsizes": 4096, "max_msg_fds": 16, "max_dma_maps": 65535, '
    b'"max_data_xfer_size": 1048576, "migration": {"max_bitmap_size": 268435456, '
    b'"pgsize": 4096}, "write_multiple": true}}\0'
)


def version(major: int, minor: int, text: bytes = b"") -> bytes:
    return struct.pack("=HH", major, minor) + text


def test_reply_to_qemu_fits_into_the_request_and_names_our_limits(raw: Peer) -> None:
    reply = raw.ask(wire.VERSION, version(0, 0, QEMU_PROPOSES))

    assert reply.errno is None
    assert reply.payload[:4] == version(0, 0)
    assert len(reply.payload) <= len(version(0, 0, QEMU_PROPOSES)) == 214 - 16
    assert reply.payload[-1] == 0
    assert json.loads(reply.payload[4:-1]) == {
        "capabilities": {"max_msg_fds": 16, "max_data_xfer_size": 4096}
    }


def test_without_capabilities(raw: Peer, server: Server) -> None:
    assert raw.ask(wire.VERSION, version(0, 0)).errno is None
    assert server.connected


def test_higher_minor_is_answered_with_ours(raw: Peer) -> None:
    reply = raw.ask(wire.VERSION, version(0, 7))

    assert (reply.errno, reply.payload[:4]) == (None, version(0, 0))


@pytest.mark.parametrize(
    "payload",
    [
        version(1, 0),
        b"\0\0",
        version(0, 0, b"{}"),
        version(0, 0, b"[]\0"),
        version(0, 0, b"\0"),
        version(0, 0, b"\xff\0"),
        version(0, 0, b"[" * 5000 + b"\0"),
        version(0, 0, b'{"capabilities": \0'),
    ],
    ids=["major", "short", "no-zero", "no-object", "empty", "no-utf8", "deep", "cut"],
)
def test_bad_proposal_is_refused_and_ends_the_connection(
    raw: Peer, server: Server, payload: bytes
) -> None:
    assert raw.ask(wire.VERSION, payload).errno == EINVAL
    assert raw.hung_up()
    assert not server.connected


def test_other_command_first_is_refused_and_ends_the_connection(raw: Peer) -> None:
    assert raw.ask(wire.REGION_READ, struct.pack("=QII", 0, 7, 4)).errno == EINVAL
    assert raw.hung_up()


def test_bar_access_before_the_version_does_not_reach_the_function(raw: Peer) -> None:
    assert raw.ask(wire.REGION_READ, struct.pack("=QII", 0, 0, 4)).errno == EINVAL
    assert raw.hung_up()


def test_second_version_is_refused(peer: Peer, server: Server) -> None:
    assert peer.ask(wire.VERSION, version(0, 0)).errno == EINVAL
    assert server.connected
