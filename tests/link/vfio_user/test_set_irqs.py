"""DEVICE_SET_IRQS: eventfds given, replaced and taken, and what waits for one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from nvmelab.link.vfio_user import wire
from tests.link.vfio_user.conftest import Peer, Stub, open_fds

EINVAL, ENOTSUP = 22, 95
GIVE, DISABLE = 0x24, 0x21
MSIX, ERR, REQ = 2, 3, 4


def request_(flags: int, start: int, count: int, *, index: int = MSIX, argsz: int = 20) -> bytes:
    return wire.SET_IRQS.pack(argsz, flags, index, start, count)


@pytest.fixture
def eventfds() -> Iterator[list[int]]:
    fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(4)]
    yield fds
    for fd in fds:
        os.close(fd)


def fired(fd: int) -> int:
    """How often an eventfd was written to since the last look."""
    try:
        return os.eventfd_read(fd)
    except BlockingIOError:
        return 0


def test_vector_reaches_its_eventfd(peer: Peer, function: Stub, eventfds: list[int]) -> None:
    reply = peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 4), fds=eventfds)

    function.interrupt(2)
    function.interrupt(2)

    assert (reply.errno, reply.payload) == (None, b"")
    assert [fired(fd) for fd in eventfds] == [0, 0, 2, 0]
    assert not function.pending(2)


def test_vector_without_eventfd_waits_for_one(
    peer: Peer, function: Stub, eventfds: list[int]
) -> None:
    function.interrupt(1)
    function.interrupt(1)
    pending = [function.pending(vector) for vector in range(4)]

    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 1, 1), fds=eventfds[:1])

    assert pending == [False, True, False, False]
    assert fired(eventfds[0]) == 1
    assert not function.pending(1)


def test_enabling_without_descriptors_fires_nothing(peer: Peer, function: Stub) -> None:
    function.interrupt(0)

    assert peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1)).errno is None

    assert function.pending(0)


def test_replaced_eventfd_is_closed(peer: Peer, function: Stub, eventfds: list[int]) -> None:
    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1), fds=eventfds[:1])
    before = open_fds()

    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1), fds=eventfds[1:2])
    function.interrupt(0)

    assert open_fds() == before
    assert [fired(fd) for fd in eventfds[:2]] == [0, 1]


def test_taken_eventfd_is_closed_and_the_vector_waits(
    peer: Peer, function: Stub, eventfds: list[int]
) -> None:
    before = open_fds()
    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1), fds=eventfds[:1])

    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1))
    function.interrupt(0)

    assert open_fds() == before
    assert fired(eventfds[0]) == 0
    assert function.pending(0)


def test_disable_closes_all_and_forgets_what_waits(
    peer: Peer, function: Stub, eventfds: list[int]
) -> None:
    before = open_fds()
    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 3), fds=eventfds[:3])
    function.interrupt(3)

    reply = peer.ask(wire.DEVICE_SET_IRQS, request_(DISABLE, 0, 0))

    assert reply.errno is None
    assert open_fds() == before
    assert not function.pending(3)


def test_full_counter_is_no_error(peer: Peer, function: Stub, eventfds: list[int]) -> None:
    os.eventfd_write(eventfds[0], 2**64 - 2)
    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1), fds=eventfds[:1])

    function.interrupt(0)

    assert fired(eventfds[0]) == 2**64 - 2


def test_blocking_eventfd_does_not_block_us(peer: Peer, function: Stub) -> None:
    fd = os.eventfd(2**32 - 2)
    os.eventfd_write(fd, 2**64 - 2**32)
    peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1), fds=[fd])

    function.interrupt(0)

    assert not os.get_blocking(fd)
    os.close(fd)


def test_error_interrupt_is_accepted_and_kept_nowhere(peer: Peer, eventfds: list[int]) -> None:
    before = open_fds()

    give = peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 1, index=ERR), fds=eventfds[:1])
    take = peer.ask(wire.DEVICE_SET_IRQS, request_(DISABLE, 0, 0, index=ERR))

    assert (give.errno, take.errno) == (None, None)
    assert open_fds() == before


def test_disabling_what_does_not_exist_is_accepted(peer: Peer) -> None:
    assert peer.ask(wire.DEVICE_SET_IRQS, request_(DISABLE, 0, 0, index=0)).errno is None


@pytest.mark.parametrize(
    ("payload", "fds", "errno"),
    [
        (request_(GIVE, 0, 2), 1, ENOTSUP),
        (request_(GIVE, 0, 1), 2, ENOTSUP),
        (request_(GIVE, 0, 0), 0, ENOTSUP),
        (request_(DISABLE, 0, 0), 1, ENOTSUP),
        (request_(DISABLE, 0, 1), 0, ENOTSUP),
        (request_(0x22, 0, 1), 0, ENOTSUP),
        (request_(0x0C, 0, 1), 1, ENOTSUP),
        (request_(GIVE, 3, 2), 2, EINVAL),
        (request_(GIVE, 0xFFFFFFFF, 0xFFFFFFFF), 0, EINVAL),
        (request_(GIVE, 0, 1, index=REQ), 1, EINVAL),
        (request_(GIVE, 0, 1, index=0), 1, EINVAL),
        (request_(GIVE, 0, 1, index=5), 1, EINVAL),
        (request_(GIVE, 0, 1, argsz=19), 1, EINVAL),
        (request_(GIVE, 0, 1)[:19], 1, EINVAL),
    ],
    ids=[
        "fewer-descriptors",
        "more-descriptors",
        "none-of-none",
        "disable-with-descriptor",
        "trigger",
        "trigger-some",
        "mask",
        "range",
        "range-wraps",
        "req",
        "intx",
        "index",
        "argsz",
        "cut",
    ],
)
def test_refused(
    peer: Peer, function: Stub, eventfds: list[int], payload: bytes, fds: int, errno: int
) -> None:
    before = open_fds()

    assert peer.ask(wire.DEVICE_SET_IRQS, payload, fds=eventfds[:fds]).errno == errno

    function.interrupt(0)
    assert open_fds() == before
    assert [fired(fd) for fd in eventfds] == [0, 0, 0, 0]


def test_descriptor_that_is_no_eventfd_is_refused(peer: Peer, eventfds: list[int]) -> None:
    reader, writer = os.pipe()
    before = open_fds()

    reply = peer.ask(wire.DEVICE_SET_IRQS, request_(GIVE, 0, 2), fds=[eventfds[0], writer])

    assert reply.errno == EINVAL
    assert open_fds() == before
    os.close(reader)
    os.close(writer)
