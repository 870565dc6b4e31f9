"""The control socket: its answers, and what hostile peers cannot do. The loop is turned by hand."""

from __future__ import annotations

import json
import os
import select
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.limits import (
    CONTROL_ANSWER_BYTES_MAX,
    CONTROL_CLIENTS_MAX,
    CONTROL_REQUEST_BYTES_MAX,
    CONTROL_WINDOW_S,
    CONTROL_WORK_MAX,
)
from nvmelab.link import control
from nvmelab.link.control import REQUEST, ControlClient, ControlEnded, ControlError, ControlServer
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.server import ServerError


class Served:
    """A control server whose time stands still, and who asks it."""

    def __init__(self, path: str) -> None:
        self.loop = Loop()
        self.now = 0.0
        self.made = 0
        self.answer = b'{"made": 1}'
        self.server = ControlServer(path, self.loop, self._answer, clock=lambda: self.now)
        self.peers: list[socket.socket] = []

    def _answer(self) -> bytes:
        self.made += 1
        return self.answer

    def peer(self) -> socket.socket:
        """Somebody who has connected, and was let in."""
        peer = socket.socket(socket.AF_UNIX)
        peer.connect(self.server.path)
        peer.setblocking(False)
        self.peers.append(peer)
        self.loop.turn(0)
        return peer

    def ask(self, peer: socket.socket, request: bytes = REQUEST) -> bytes:
        peer.send(request)
        self.loop.turn(0)
        return peer.recv(CONTROL_ANSWER_BYTES_MAX)

    def later(self) -> None:
        """The next window."""
        self.now += CONTROL_WINDOW_S
        self.loop.turn(0)

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.server.close()
        self.loop.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "nvme.sock.ctl")


@pytest.fixture
def served(path: str) -> Iterator[Served]:
    served = Served(path)
    yield served
    served.close()


def gone(peer: socket.socket) -> bool:
    """The server has hung up, and everything it said was read."""
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def hung_up(peer: socket.socket) -> bool:
    """The server has hung up, whatever is left to be read."""
    poll = select.poll()
    poll.register(peer, select.POLLRDHUP)
    return bool(poll.poll(0))


def test_a_request_has_an_answer_on_a_line_and_the_next_has_too(served: Served) -> None:
    peer = served.peer()
    assert served.ask(peer) == b'{"made": 1}\n'
    assert served.ask(peer) == b'{"made": 1}\n'
    assert not gone(peer)


def test_nothing_is_made_while_nobody_asks(served: Served) -> None:
    served.peer()
    served.loop.turn(0)
    assert served.made == 0


def test_whoever_says_no_more_still_has_the_answer(served: Served) -> None:
    """As `echo ... | nc -U` does."""
    peer = served.peer()
    peer.send(REQUEST)
    peer.shutdown(socket.SHUT_WR)
    served.loop.turn(0)
    served.loop.turn(0)
    assert peer.recv(100) == b'{"made": 1}\n' and gone(peer)


def test_a_request_may_come_in_pieces(served: Served) -> None:
    peer = served.peer()
    for byte in REQUEST[:-1]:
        peer.send(bytes([byte]))
        served.loop.turn(0)
    assert not gone(peer) and served.made == 0
    assert served.ask(peer, b"\n") == b'{"made": 1}\n'


def test_the_socket_is_its_users_alone_and_goes_with_the_server(served: Served) -> None:
    path = served.server.path
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    peer = served.peer()
    served.server.close()
    served.server.close()
    assert not os.path.exists(path) and gone(peer)


def test_a_stale_socket_is_replaced_and_a_living_one_is_not(served: Served, path: str) -> None:
    with pytest.raises(ServerError, match="another server listens"):
        Served(path)
    stale = f"{path}.stale"
    socket.socket(socket.AF_UNIX).bind(stale)  # closed by now
    again = Served(stale)
    assert again.ask(again.peer()) == b'{"made": 1}\n'
    again.close()


# Hostile peers.


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n",
        b"GET / HTTP/1.1\n",
        b"\xff\xfe\0\n",
        b'{"get": "\xff"}\n',
        b'{"get": 1}\n',
        b'{"get": "memory"}\n',
        b'{"get": "state", "path": "/etc/shadow"}\n',
        b'{"get": "state"',
        b"[" * (CONTROL_REQUEST_BYTES_MAX - 2) + b"\n",
        b'["state"]\n',
        REQUEST + REQUEST,
        REQUEST[:-1] + b" " * CONTROL_REQUEST_BYTES_MAX + b"\n",
        b"x" * (CONTROL_REQUEST_BYTES_MAX + 1),
        b"x" * 100_000,
    ],
    ids=lambda garbage: repr(garbage[:20]),
)
def test_garbage_has_one_line_of_error_and_is_closed(served: Served, garbage: bytes) -> None:
    peer = served.peer()
    if not garbage.endswith(b"\n") and len(garbage) < CONTROL_REQUEST_BYTES_MAX:
        garbage += b"\n"
    said = served.ask(peer, garbage)
    assert said.endswith(b"\n") and set(json.loads(said)) == {"error"}
    assert gone(peer) and served.made == 0
    assert served.ask(served.peer()) == b'{"made": 1}\n'


def test_a_peer_that_does_not_read_is_dropped_and_nothing_is_kept_for_it(served: Served) -> None:
    served.answer = b"x" * (CONTROL_ANSWER_BYTES_MAX - 1)
    slow, other = served.peer(), served.peer()
    asked = 0
    while not hung_up(slow):
        assert asked < 8, "it is still served"
        served.later()
        slow.send(REQUEST)
        served.loop.turn(0)
        asked += 1
    had = b""
    while data := slow.recv(CONTROL_ANSWER_BYTES_MAX):
        had += data
    # It is dropped by the first answer that is cut short.
    assert (asked - 1) * CONTROL_ANSWER_BYTES_MAX < len(had) < asked * CONTROL_ANSWER_BYTES_MAX
    assert len(served.ask(other)) > 0


def test_the_longest_answer_fits_at_once(served: Served) -> None:
    served.answer = b"x" * (CONTROL_ANSWER_BYTES_MAX - 1)
    peer = served.peer()
    found = served.ask(peer)
    while len(found) < CONTROL_ANSWER_BYTES_MAX:
        found += peer.recv(CONTROL_ANSWER_BYTES_MAX)
    assert found == served.answer + b"\n"


def test_the_one_that_was_quiet_for_longest_makes_room(served: Served) -> None:
    peers = [served.peer() for _ in range(CONTROL_CLIENTS_MAX)]
    served.ask(peers[0])
    newcomer = served.peer()
    assert "too many" in json.loads(peers[1].recv(1000))["error"] and gone(peers[1])
    assert served.ask(newcomer) == served.ask(peers[0]) == b'{"made": 1}\n'


def test_descriptors_do_not_grow_with_peers(served: Served) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        served.peer().close()
        served.peers.clear()
        served.later()
        served.later()
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_answer_is_made_once_in_a_window(served: Served) -> None:
    peer, other = served.peer(), served.peer()
    for _ in range(4):
        served.ask(peer)
        served.ask(other)
    assert served.made == 1
    served.later()
    served.ask(peer)
    assert served.made == 2


def test_a_flood_is_left_alone_until_the_window_has_passed(served: Served) -> None:
    peer = served.peer()
    for _ in range(CONTROL_WORK_MAX - 1):
        served.ask(peer)
    peer.send(REQUEST)
    served.loop.turn(0)
    assert not served.loop.turn(0)  # nobody is heard, and the loop may sleep
    with pytest.raises(BlockingIOError):
        peer.recv(1)
    late = socket.socket(socket.AF_UNIX)
    late.connect(served.server.path)
    served.peers.append(late)
    assert not served.loop.turn(0)
    served.later()
    served.loop.turn(0)
    assert peer.recv(100) == b'{"made": 1}\n'
    late.send(REQUEST)
    served.loop.turn(0)
    assert late.recv(100) == b'{"made": 1}\n'


def test_a_server_that_hears_nobody_can_be_closed(served: Served) -> None:
    peer = served.peer()
    for _ in range(CONTROL_WORK_MAX):
        peer.send(REQUEST)
        served.loop.turn(0)
    served.server.close()
    assert not served.loop.turn(0)


def test_a_flood_does_not_hold_up_the_rest_of_the_loop(served: Served) -> None:
    turns = 0

    def turn() -> bool:
        nonlocal turns
        turns += 1
        return True

    served.loop.add_worker(turn)
    peer = served.peer()
    for _ in range(1000):
        try:
            peer.send(REQUEST)
        except OSError:
            break
        served.loop.turn(0)
    assert turns >= CONTROL_WORK_MAX and served.made == 1


# The client.


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=r"there is no .*nvme\.sock\.ctl; is nvmelab still"):
        ControlClient(str(tmp_path / "nvme.sock"))


def test_a_socket_that_was_left_behind(path: str) -> None:
    socket.socket(socket.AF_UNIX).bind(path)
    with pytest.raises(ControlError, match="nobody listens on"):
        ControlClient(path)


def test_a_path_that_no_socket_can_have() -> None:
    with pytest.raises(ControlError, match="cannot connect to xxx"):
        ControlClient("x" * 200)


def listening(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    return listener


def test_a_server_that_hangs_up_at_once_is_none_of_ours(path: str) -> None:
    with listening(path) as listener:
        client = ControlClient(path)
        listener.accept()[0].close()
        with pytest.raises(ControlError, match="no answer that nvmelab gives"):
            client.ask()
        client.close()


def test_an_answer_that_does_not_end_is_given_up(path: str) -> None:
    with listening(path) as listener:
        client = ControlClient(path)
        peer, _ = listener.accept()
        peer.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                peer.send(b"x" * 65536)
        peer.close()
        with pytest.raises(ControlError, match="no answer that nvmelab gives"):
            client.ask()
        client.close()


def test_a_server_that_does_not_answer(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CONTROL_REPLY_S", 0.01)
    with listening(path):
        client = ControlClient(path)
        with pytest.raises(ControlError, match="no answer in"):
            client.ask()
        client.close()


def test_a_server_that_ends(path: str) -> None:
    with listening(path) as listener:
        client = ControlClient(path.removesuffix(".ctl"))
        peer, _ = listener.accept()
        peer.send(b"{}\n")
        assert client.ask() == b"{}\n"
        peer.close()
        with pytest.raises(ControlEnded):
            client.ask()
        client.close()


def test_guests_that_run_are_found_and_leavings_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert control.running() == []
    for name in ("nvmelab-a", "nvmelab-b", "other-c"):
        (tmp_path / name).mkdir()
    socket.socket(socket.AF_UNIX).bind(str(tmp_path / "nvmelab-a/nvme0.sock.ctl"))
    (tmp_path / "nvmelab-b/nvme1.sock.ctl").touch()
    alive = str(tmp_path / "nvmelab-b/nvme0.sock")
    with listening(f"{alive}.ctl"), listening(str(tmp_path / "other-c/nvme0.sock.ctl")):
        assert control.running() == [alive]
