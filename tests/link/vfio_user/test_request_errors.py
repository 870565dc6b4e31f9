"""What no peer should send: every such message is refused or ends the connection, with one line."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelab.limits import LOG_LINES_MAX, LOG_WINDOW_S, MESSAGE_BYTES_MAX, MESSAGE_FDS_MAX
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.server import Server
from tests.link.vfio_user.conftest import Peer, Stub, open_fds, ram

EINVAL, ENOTSUP = 22, 95
GOOD_READ = wire.ACCESS.pack(0, 7, 4)


@pytest.mark.parametrize("command", [0, 6, 11, 12, 14, 15, 16, 17, 18, 0xFFFF])
def test_other_commands_are_not_supported(peer: Peer, command: int) -> None:
    assert peer.ask(command, bytes(32)).errno == ENOTSUP
    assert peer.ask(wire.REGION_READ, GOOD_READ).errno is None


def test_unknown_command_that_wants_no_reply_gets_none(peer: Peer) -> None:
    peer.send(6, flags=wire.NO_REPLY)

    assert not peer.hung_up()


@pytest.mark.parametrize("flags", [wire.ERROR, 0x40, 0x80000000])
def test_flags_that_a_command_does_not_have(peer: Peer, function: Stub, flags: int) -> None:
    assert peer.ask(wire.REGION_READ, wire.ACCESS.pack(0, 0, 4), flags=flags).errno == EINVAL
    assert function.calls == []


@pytest.mark.parametrize("type_", [1, 2, 15])
def test_anything_but_a_command_ends_the_connection(peer: Peer, type_: int) -> None:
    peer.send(wire.REGION_READ, GOOD_READ, flags=type_)

    assert peer.hung_up()


@pytest.mark.parametrize("size", [0, 15, MESSAGE_BYTES_MAX + 1, 0xFFFFFFFF])
def test_impossible_size_ends_the_connection(peer: Peer, size: int) -> None:
    peer.sock.send(wire.HEADER.pack(1, wire.REGION_READ, size, 0, 0))

    assert peer.hung_up()


def test_longest_message_is_read(peer: Peer) -> None:
    payload = bytes(MESSAGE_BYTES_MAX - 16)

    assert peer.ask(wire.DEVICE_RESET, payload).errno is None


def test_message_that_arrives_byte_by_byte(peer: Peer) -> None:
    whole = wire.HEADER.pack(7, wire.REGION_READ, 32, 0, 0) + GOOD_READ

    for at in range(len(whole)):
        peer.sock.send(whole[at : at + 1])
        peer.loop.turn(0)

    assert peer.receive().message_id == 7


def test_messages_that_arrive_together(peer: Peer) -> None:
    whole = wire.HEADER.pack(7, wire.REGION_READ, 32, 0, 0) + GOOD_READ

    peer.sock.send(whole * 3 + whole[:20])
    peer.loop.turn(0)
    peer.sock.send(whole[20:])
    peer.loop.turn(0)

    assert [peer.receive().errno for _ in range(4)] == [None] * 4


def test_descriptor_belongs_to_its_own_message(peer: Peer, function: Stub) -> None:
    fd = ram(4096)
    read = wire.HEADER.pack(7, wire.REGION_READ, 32, 0, 0) + GOOD_READ
    dma_map = wire.HEADER.pack(8, wire.DMA_MAP, 48, 0, 0) + struct.pack("=IIQQQ", 32, 3, 0, 0, 4096)

    peer.sock.send(read)
    socket.send_fds(peer.sock, [dma_map], [fd])
    peer.sock.send(read)
    peer.loop.turn(0)
    peer.loop.turn(0)

    assert [peer.receive().errno for _ in range(3)] == [None] * 3
    assert len(function.memory.regions) == 1
    os.close(fd)


@pytest.mark.parametrize("cut", [1, 16, 47])
def test_descriptor_with_the_first_part_of_a_message(peer: Peer, function: Stub, cut: int) -> None:
    fd = ram(4096)
    dma_map = wire.HEADER.pack(8, wire.DMA_MAP, 48, 0, 0) + struct.pack("=IIQQQ", 32, 3, 0, 0, 4096)

    socket.send_fds(peer.sock, [dma_map[:cut]], [fd])
    peer.loop.turn(0)
    peer.sock.send(dma_map[cut:])
    peer.loop.turn(0)

    assert peer.receive().errno is None
    assert len(function.memory.regions) == 1
    os.close(fd)


def test_descriptors_of_a_message_that_takes_none_are_closed(peer: Peer) -> None:
    fd = ram(4096)
    before = open_fds()

    assert peer.ask(wire.DEVICE_RESET, fds=[fd] * MESSAGE_FDS_MAX).errno == EINVAL

    assert open_fds() == before
    os.close(fd)


def test_more_descriptors_than_a_message_may_have_end_the_connection(peer: Peer) -> None:
    fd = ram(4096)
    before = open_fds()

    peer.send(wire.DEVICE_RESET, fds=[fd] * (MESSAGE_FDS_MAX + 1))

    assert peer.hung_up()
    assert open_fds() == before - 1
    os.close(fd)


def test_descriptors_piled_up_on_one_message_end_the_connection(peer: Peer) -> None:
    fd = ram(4096)
    before = open_fds()

    for byte in wire.HEADER.pack(1, wire.DEVICE_RESET, 16, 0, 0)[:3]:
        socket.send_fds(peer.sock, [bytes([byte])], [fd] * MESSAGE_FDS_MAX)
        peer.loop.turn(0)

    assert peer.hung_up()
    assert open_fds() == before - 1
    os.close(fd)


def test_connection_that_ends_inside_a_message_leaves_nothing_open(peer: Peer) -> None:
    fd = ram(4096)
    before = open_fds()

    socket.send_fds(peer.sock, [b"\0\0\2\0"], [fd])
    peer.loop.turn(0)
    peer.close()

    assert open_fds() == before - 2
    os.close(fd)


def test_peer_that_does_not_read_is_disconnected(peer: Peer, server: Server) -> None:
    requests = (
        wire.HEADER.pack(7, wire.REGION_READ, 32, 0, 0) + wire.ACCESS.pack(0, 7, 256)
    ) * 1024

    for _ in range(4):
        try:
            peer.sock.send(requests)
        except (BlockingIOError, BrokenPipeError):
            pass
        peer.loop.turn(0)

    assert not server.connected


def test_queued_replies_arrive_when_the_peer_reads_again(peer: Peer, server: Server) -> None:
    requests = (
        wire.HEADER.pack(7, wire.REGION_READ, 32, 0, 0) + wire.ACCESS.pack(0, 7, 256)
    ) * 1024
    peer.sock.send(requests)
    peer.loop.turn(0)
    read = b""

    while len(read) < 1024 * 288:
        read += peer.sock.recv(1 << 20)
        peer.loop.turn(0)

    assert len(read) == 1024 * 288
    assert peer.ask(wire.REGION_READ, GOOD_READ).errno is None


def test_repeated_complaints_are_only_counted(peer: Peer, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(100):
        peer.ask(6)

    assert len(caplog.records) == LOG_LINES_MAX


def test_count_of_complaints_comes_with_the_next_one(
    peer: Peer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(LOG_LINES_MAX + 5):
        peer.ask(6)

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + LOG_WINDOW_S)
    peer.ask(6)

    last = caplog.records[-1].getMessage()
    assert last.endswith("command 6 is not supported (and 5 lines before that were left out)")


Numbers = st.sampled_from([0, 1, 2, 3, 4, 7, 8, 16, 20, 32, 0x1000, 0x4000, 0xFFFFFFFF])
Payloads = st.one_of(
    st.binary(max_size=80),
    st.lists(Numbers, max_size=8).map(lambda words: struct.pack(f"={len(words)}I", *words)),
    st.lists(Numbers, max_size=4).map(lambda words: struct.pack(f"={len(words)}Q", *words)),
    st.tuples(Numbers, st.sampled_from([0, 7]), Numbers, st.binary(max_size=8)).map(
        lambda access: wire.ACCESS.pack(*access[:3]) + access[3]
    ),
    st.tuples(st.sampled_from([0x21, 0x24]), Numbers, Numbers, Numbers).map(
        lambda irqs: wire.SET_IRQS.pack(20, *irqs)
    ),
    st.tuples(st.sampled_from([1, 3]), Numbers, Numbers, Numbers).map(
        lambda dma: wire.DMA_MAP_BODY.pack(32, *dma)
    ),
)
KINDS: list[Callable[[], int]] = [
    lambda: ram(0x4000),
    lambda: os.eventfd(0),
    lambda: os.open("/dev/null", os.O_RDWR),
]
Messages = st.tuples(
    st.one_of(st.integers(0, 20), st.sampled_from(list(wire.REQUESTS))),
    Payloads,
    st.sampled_from([0, 0, 0, 0, wire.NO_REPLY, wire.ERROR, wire.REPLY]),
    st.sampled_from([0, 0, 0, 0, 0, 0, 1, -1, 1000, -20]),
    st.lists(st.integers(0, len(KINDS) - 1), max_size=3),
)


def send_quietly(sock: socket.socket, data: bytes, kinds: list[int]) -> None:
    """Send with descriptors of these kinds. The server may have hung up already."""
    fds = [KINDS[kind]() for kind in kinds]
    try:
        socket.send_fds(sock, [data], fds)
    except OSError:
        pass
    finally:
        wire.close_all(fds)


@settings(deadline=None, max_examples=300)
@given(negotiated=st.booleans(), noise=st.binary(max_size=60), messages=st.lists(Messages))
def test_no_message_harms_the_server(
    negotiated: bool,
    noise: bytes,
    messages: list[tuple[int, bytes, int, int, list[int]]],
) -> None:
    before = open_fds()
    path = f"/tmp/nvmelab-{os.getpid()}.sock"
    function, loop = Stub(), Loop()
    server = Server(function, path, loop)
    peer = Peer(path, loop)

    if negotiated:
        peer.negotiate()
    for command, payload, flags, lie, kinds in messages:
        head = wire.HEADER.pack(1, command, max(0, 16 + len(payload) + lie), flags, 0)
        send_quietly(peer.sock, head + payload, kinds)
        loop.turn(0)
    send_quietly(peer.sock, noise, [])
    loop.turn(0)
    function.interrupt(0)
    peer.close()
    loop.turn(0)

    assert function.memory.regions == []
    good = Peer(path, loop).negotiate()
    assert good.ask(wire.REGION_READ, GOOD_READ).errno is None
    good.close()
    server.close()
    loop.close()
    assert open_fds() == before
