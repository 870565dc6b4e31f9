"""The NBD server as QEMU's client sees it, and as a tester holds it."""

from __future__ import annotations

import mmap
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.link import nbd
from nvmelab.link.loop import Loop
from nvmelab.link.nbd import NbdServer

SIZE = 1 << 16
LARGE = 256 << 20


def resident() -> int:
    """Bytes of memory that this process takes up."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


class Client:
    """The client's half, one byte string at a time."""

    def __init__(self, path: Path, loop: Loop) -> None:
        self.loop = loop
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(path))
        self.sock.setblocking(False)
        self.loop.turn(0)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)
        self.loop.turn(0)

    def receive(self, length: int) -> bytes:
        """That many bytes, which must be there."""
        data = self.sock.recv(length)
        assert len(data) == length
        return data

    def silent(self) -> bool:
        """Nothing has come, and the server is still there."""
        self.loop.turn(0)
        try:
            return not self.sock.recv(1)
        except BlockingIOError:
            return True

    def hung_up(self) -> bool:
        self.loop.turn(0)
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True
        except BlockingIOError:
            return False

    def option(self, option: int, data: bytes = b"") -> None:
        self.send(b"IHAVEOPT" + struct.pack(">II", option, len(data)) + data)

    def reply(self) -> tuple[int, bytes]:
        """The next option reply: its type and data."""
        _, _, kind, length = struct.unpack(">QIII", self.receive(20))
        return kind, self.receive(length) if length else b""

    def go(self, name: str) -> Client:
        """Handshake and NBD_OPT_GO."""
        assert self.receive(18)[:16] == b"NBDMAGICIHAVEOPT"
        self.send(struct.pack(">I", 3))
        self.option(7, struct.pack(">I", len(name)) + name.encode() + struct.pack(">H", 0))
        kind, info = self.reply()
        assert (kind, struct.unpack(">HQ", info[:10])) == (3, (0, SIZE))
        assert self.reply() == (1, b"")
        return self

    def request(self, type: int, cookie: int, offset: int, length: int, data: bytes = b"") -> None:
        self.send(struct.pack(">IHHQQI", 0x25609513, 0, type, cookie, offset, length) + data)

    def answer(self) -> tuple[int, int]:
        """Cookie and error of the next reply."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        assert magic == 0x67446698
        return cookie, error


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nbd"


@pytest.fixture
def server(path: Path, loop: Loop) -> Iterator[NbdServer]:
    server = NbdServer(str(path), loop, ("d0", "d1"), SIZE)
    yield server
    server.close()


@pytest.fixture
def client(server: NbdServer, path: Path, loop: Loop) -> Client:
    return Client(path, loop).go("d0")


def test_what_is_written_is_read(client: Client) -> None:
    client.request(nbd.WRITE, 1, 512, 4, b"abcd")
    assert client.answer() == (1, 0)
    client.request(nbd.READ, 2, 510, 8)
    assert client.answer() == (2, 0)
    assert client.receive(8) == b"\0\0abcd\0\0"


def test_each_disk_has_data_of_its_own(client: Client, path: Path, loop: Loop) -> None:
    client.request(nbd.WRITE, 1, 0, 4, b"abcd")
    other = Client(path, loop).go("d1")
    other.request(nbd.READ, 1, 0, 4)
    assert (other.answer(), other.receive(4)) == ((1, 0), bytes(4))


def test_disks_take_up_memory_only_where_they_were_written(tmp_path: Path, loop: Loop) -> None:
    before = resident()
    server = NbdServer(str(tmp_path / "large"), loop, ("d0",), LARGE)
    assert resident() - before < LARGE // 4
    server.close()
    assert server.exports["d0"].data.closed


@pytest.mark.parametrize("type", [nbd.TRIM, nbd.WRITE_ZEROES])
def test_trim_and_write_zeroes_clear(client: Client, type: int) -> None:
    client.request(nbd.WRITE, 1, 0, 4, b"abcd")
    client.request(type, 2, 1, 2)
    client.request(nbd.READ, 3, 0, 4)
    assert [client.answer(), client.answer(), client.answer()] == [(1, 0), (2, 0), (3, 0)]
    assert client.receive(4) == b"a\0\0d"


def test_held_requests_are_answered_in_the_order_of_their_release(
    client: Client, server: NbdServer
) -> None:
    server.hold = True
    for cookie in (1, 2, 3):
        client.request(nbd.FLUSH, cookie, 0, 0)
    assert client.silent() and server.held() == 3
    for index in (2, 0, 0):
        server.release(index)
    assert [client.answer()[0] for _ in range(3)] == [3, 1, 2]
    assert server.held() == 0


def test_held_write_reaches_the_disk_when_it_is_released(client: Client, server: NbdServer) -> None:
    server.hold = True
    client.request(nbd.WRITE, 1, 0, 4, b"abcd")
    assert server.exports["d0"].data[:4] == bytes(4)
    server.release()
    assert server.exports["d0"].data[:4] == b"abcd"


def test_request_behind_the_end_is_an_error(client: Client) -> None:
    client.request(nbd.READ, 7, SIZE - 1, 2)
    assert client.answer() == (7, 22)


def test_unknown_command_is_an_error(client: Client) -> None:
    client.request(99, 7, 0, 0)
    assert client.answer() == (7, 22)


def test_request_that_arrives_in_pieces_is_put_together(client: Client) -> None:
    message = struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 9, 0, 4) + b"abcd"
    for at in range(len(message)):
        client.send(message[at : at + 1])
    assert client.answer() == (9, 0)


def test_option_that_is_not_known_is_refused_and_the_handshake_goes_on(
    server: NbdServer, path: Path, loop: Loop
) -> None:
    client = Client(path, loop)
    client.receive(18)
    client.send(struct.pack(">I", 3))
    client.option(8)
    assert client.reply() == ((1 << 31) + 1, b"")
    client.option(6, struct.pack(">I", 2) + b"d1" + struct.pack(">H", 0))
    assert [client.reply()[0], client.reply()[0]] == [3, 1]


def test_disk_that_does_not_exist_is_refused(server: NbdServer, path: Path, loop: Loop) -> None:
    client = Client(path, loop)
    client.receive(18)
    client.send(struct.pack(">I", 3))
    client.option(7, struct.pack(">I", 2) + b"d9" + struct.pack(">H", 0))
    assert client.reply()[0] == (1 << 31) + 6


@pytest.mark.parametrize(
    "garbage", [b"\0" * 64, struct.pack(">IHHQQI", 0x25609513, 0, nbd.WRITE, 1, 0, 1 << 31)]
)
def test_peer_that_breaks_the_protocol_is_disconnected(client: Client, garbage: bytes) -> None:
    client.send(garbage)
    assert client.hung_up()


def test_held_requests_of_a_peer_that_goes_are_forgotten(
    client: Client, server: NbdServer, loop: Loop
) -> None:
    server.hold = True
    client.request(nbd.READ, 1, 0, 512)
    client.sock.close()
    loop.turn(0)
    assert server.held() == 0


def test_reply_larger_than_the_socket_takes_arrives_whole(client: Client, loop: Loop) -> None:
    for cookie in range(40):
        client.request(nbd.READ, cookie, 0, SIZE)
    received = 0
    while received < 40 * (16 + SIZE):
        received += len(client.sock.recv(1 << 20))
        loop.turn(0)
    assert client.silent()


def test_letting_go_answers_what_waits_and_holds_nothing_more(
    client: Client, server: NbdServer
) -> None:
    server.hold = True
    for cookie in (1, 2):
        client.request(nbd.FLUSH, cookie, 0, 0)
    server.let_go()
    client.request(nbd.FLUSH, 3, 0, 0)
    assert [client.answer()[0] for _ in range(3)] == [1, 2, 3]
