"""DEVICE_RESET."""

from __future__ import annotations

import os

from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.conftest import Peer, Stub, map_request, ram


def test_function_is_reset(peer: Peer, function: Stub) -> None:
    reply = peer.ask(wire.DEVICE_RESET)

    assert (reply.errno, reply.payload) == (None, b"")
    assert function.calls == [("reset",)]


def test_memory_and_eventfds_stay(peer: Peer, function: Stub) -> None:
    fd, event = ram(4096), os.eventfd(0, os.EFD_NONBLOCK)
    peer.ask(wire.DMA_MAP, map_request(0, 4096), fds=[fd])
    peer.ask(wire.DEVICE_SET_IRQS, wire.SET_IRQS.pack(20, 0x24, 2, 0, 1), fds=[event])

    peer.ask(wire.DEVICE_RESET)
    function.interrupt(0)

    assert len(function.memory.regions) == 1
    assert os.eventfd_read(event) == 1
    os.close(fd)
    os.close(event)


def test_pending_vectors_are_forgotten(peer: Peer, function: Stub) -> None:
    function.interrupt(3)

    peer.ask(wire.DEVICE_RESET)

    assert not function.pending(3)
