"""DEVICE_GET_IRQ_INFO."""

from __future__ import annotations

import pytest

from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.conftest import Peer

EINVAL = 22


@pytest.mark.parametrize(
    ("index", "flags", "count"),
    [(0, 0, 0), (1, 0, 0), (2, 1, 4), (3, 1, 1), (4, 0, 0)],
    ids=["intx", "msi", "msi-x", "err", "req"],
)
def test_types(peer: Peer, index: int, flags: int, count: int) -> None:
    reply = peer.ask(wire.DEVICE_GET_IRQ_INFO, wire.IRQ_INFO.pack(16, 0, index, 0))

    assert wire.IRQ_INFO.unpack(reply.payload) == (16, flags, index, count)


@pytest.mark.parametrize(
    "payload",
    [wire.IRQ_INFO.pack(16, 0, 5, 0), wire.IRQ_INFO.pack(15, 0, 2, 0), b"\x10\0\0\0"],
    ids=["index", "argsz", "cut"],
)
def test_malformed_request_is_refused(peer: Peer, payload: bytes) -> None:
    assert peer.ask(wire.DEVICE_GET_IRQ_INFO, payload).errno == EINVAL
