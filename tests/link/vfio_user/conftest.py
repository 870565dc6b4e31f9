"""A PCI function that records what is done to it, and a raw vfio-user client to do it with.

Client and server stand in one thread: `Peer.ask` sends, turns the loop once, and reads the reply.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.server import Server
from nvmelab.memory import GuestMemory

if TYPE_CHECKING:
    from tests.link.vfio_user.fake_server import FakeServer  # which imports this file

BAR_BYTES = 0x4000
MSIX_AT = 0x40


def config_space(vectors: int) -> bytearray:
    """A type 0 header: NVMe class, one 64-bit BAR, MSI-X with its table and PBA in that BAR."""
    space = bytearray(256)
    struct.pack_into("<HHHH", space, 0x00, 0x1B36, 0x0010, 0, 0x0010)
    struct.pack_into("<I", space, 0x08, 0x01080202)
    struct.pack_into("<I", space, 0x10, 0x4)
    space[0x34] = MSIX_AT
    struct.pack_into("<BBHII", space, MSIX_AT, 0x11, 0, vectors - 1, 0x2000, 0x3000)
    return space


class Stub:
    """Registers are plain memory; `calls` has every call with its arguments, in order."""

    def __init__(self, vectors: int = 4) -> None:
        self.memory = GuestMemory()
        self.bars = {0: BAR_BYTES}
        self.vectors = vectors
        self.interrupt: Callable[[int], None] = lambda vector: None
        self.pending: Callable[[int], bool] = lambda vector: False
        self.config = config_space(vectors)
        self.registers = bytearray(BAR_BYTES)
        self.calls: list[tuple[object, ...]] = []

    def config_read(self, offset: int, length: int) -> bytes:
        self.calls.append(("config_read", offset, length))
        return bytes(self.config[offset : offset + length])

    def config_write(self, offset: int, data: bytes) -> None:
        self.calls.append(("config_write", offset, data))
        # Only COMMAND and the MSI-X control word keep what is written.
        if offset in (0x04, MSIX_AT + 2):
            self.config[offset : offset + len(data)] = data

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        self.calls.append(("bar_read", bar, offset, size))
        return int.from_bytes(self.registers[offset : offset + size], "little")

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        self.calls.append(("bar_write", bar, offset, size, value))
        self.registers[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        self.calls.append(("reset",))

    def step(self, choose: Callable[[int], int]) -> bool:
        return False

    def run(self) -> bool:
        return False


class Reply(NamedTuple):
    """A reply, its error number (None for a good one), and the descriptors that came with it."""

    message_id: int
    command: int
    errno: int | None
    payload: bytes
    fds: list[int]


class Peer:
    """A client's end of a connection."""

    def __init__(self, path: str, loop: Loop) -> None:
        self.loop = loop
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(path)
        self.sock.setblocking(False)
        self.next_id = 100
        self.loop.turn(0)

    def send(
        self, command: int, payload: bytes = b"", *, fds: Sequence[int] = (), flags: int = 0
    ) -> int:
        """Send a command; returns its message id."""
        self.next_id += 1
        head = wire.HEADER.pack(self.next_id, command, 16 + len(payload), flags, 0)
        socket.send_fds(self.sock, [head + payload], list(fds))
        return self.next_id

    def receive(self) -> Reply:
        """The next reply. BlockingIOError if there is none, EOFError if the server hung up."""
        try:
            head, fds, _, _ = socket.recv_fds(self.sock, 16, 16)
        except ConnectionResetError:
            # The server closed the connection before it had read everything.
            raise EOFError from None
        if not head:
            raise EOFError
        message_id, command, size, flags, errno = wire.HEADER.unpack(head)
        assert flags in (wire.REPLY, wire.REPLY | wire.ERROR)
        payload = self.sock.recv(size - 16) if size > 16 else b""
        assert len(payload) == size - 16
        error = errno if flags & wire.ERROR else None
        return Reply(message_id, command, error, payload, fds)

    def ask(
        self, command: int, payload: bytes = b"", *, fds: Sequence[int] = (), flags: int = 0
    ) -> Reply:
        """Send a command and take its reply."""
        message_id = self.send(command, payload, fds=fds, flags=flags)
        self.loop.turn(0)
        reply = self.receive()
        assert (reply.message_id, reply.command) == (message_id, command)
        return reply

    def negotiate(self) -> Peer:
        assert self.ask(wire.VERSION, struct.pack("=HH", 0, 0)).errno is None
        return self

    def hung_up(self) -> bool:
        """The server has closed the connection, and nothing is left to read."""
        self.loop.turn(0)
        try:
            return self.sock.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.sock.close()
        self.loop.turn(0)


def ram(size: int, *, sealable: bool = True) -> int:
    """A memfd of `size` bytes."""
    fd = os.memfd_create("ram", os.MFD_CLOEXEC | (os.MFD_ALLOW_SEALING if sealable else 0))
    os.ftruncate(fd, size)
    return fd


def map_request(
    address: int, size: int, *, offset: int = 0, flags: int = 3, argsz: int = 32
) -> bytes:
    return struct.pack("=IIQQQ", argsz, flags, offset, address, size)


def unmap_request(address: int, size: int, *, flags: int = 0, argsz: int = 24) -> bytes:
    return struct.pack("=IIQQ", argsz, flags, address, size)


def open_fds() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def function() -> Stub:
    return Stub()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "nvme.sock")


@pytest.fixture
def server(function: Stub, path: str, loop: Loop) -> Iterator[Server]:
    server = Server(function, path, loop)
    yield server
    server.close()


@pytest.fixture
def raw(server: Server, loop: Loop) -> Iterator[Peer]:
    """Connected, nothing said yet."""
    peer = Peer(server.path, loop)
    yield peer
    peer.sock.close()


@pytest.fixture
def peer(raw: Peer) -> Peer:
    """Connected, version agreed on."""
    return raw.negotiate()


@pytest.fixture
def fake(path: str) -> Iterator[FakeServer]:
    """A server that says what the test tells it to."""
    from tests.link.vfio_user.fake_server import FakeServer

    server = FakeServer(path)
    yield server
    server.close()
