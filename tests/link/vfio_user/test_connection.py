"""The socket file, one client at a time, and what is left when one is gone."""

from __future__ import annotations

import os
import resource
import socket
import stat
from pathlib import Path

import pytest

from nvmelab.limits import LOG_LINES_MAX
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.server import Server, ServerError
from tests.link.vfio_user.conftest import Peer, Stub, map_request, open_fds, ram

READ = wire.ACCESS.pack(0, 7, 4)


def test_socket_is_the_owners_only_whatever_the_umask(
    function: Stub, path: str, loop: Loop
) -> None:
    umask = os.umask(0)

    server = Server(function, path, loop)

    assert stat.S_IMODE(os.lstat(path).st_mode) == 0o600
    os.umask(umask)
    server.close()


def test_close_removes_the_socket_and_may_be_called_twice(server: Server) -> None:
    server.close()
    server.close()

    assert not os.path.lexists(server.path)


def test_close_leaves_a_file_that_is_not_ours(server: Server) -> None:
    os.unlink(server.path)
    Path(server.path).write_text("somebody else's")

    server.close()

    assert Path(server.path).read_text() == "somebody else's"


def test_socket_of_a_dead_server_is_replaced(function: Stub, path: str, loop: Loop) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    server = Server(function, path, loop)

    assert Peer(path, loop).negotiate().ask(wire.REGION_READ, READ).errno is None
    server.close()


def test_socket_of_a_living_server_is_refused(function: Stub, loop: Loop, server: Server) -> None:
    with pytest.raises(ServerError, match="is in use: another server listens on it"):
        Server(function, server.path, loop)

    assert Peer(server.path, loop).hung_up() is False


def test_path_that_is_no_socket_is_refused(function: Stub, path: str, loop: Loop) -> None:
    Path(path).write_text("precious")

    with pytest.raises(ServerError, match="exists and is no socket"):
        Server(function, path, loop)

    assert Path(path).read_text() == "precious"


@pytest.mark.parametrize("name", ["", "x" * 108, "é" * 54, "a\0b"])
def test_impossible_path_is_refused(function: Stub, loop: Loop, name: str) -> None:
    with pytest.raises(ServerError, match="cannot be a socket: a path has 1 to 107 bytes"):
        Server(function, name, loop)


def test_longest_path(
    function: Stub, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    server = Server(function, "x" * 107, loop)

    assert Peer("x" * 107, loop).negotiate()
    server.close()


def test_missing_directory_is_refused(function: Stub, loop: Loop, tmp_path: Path) -> None:
    with pytest.raises(ServerError, match=r"cannot listen on .*: there is no directory "):
        Server(function, tmp_path / "missing" / "nvme.sock", loop)


def test_second_client_is_disconnected_and_the_first_is_served(
    peer: Peer, loop: Loop, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    second = Peer(server.path, loop)

    assert second.hung_up()
    assert peer.ask(wire.REGION_READ, READ).errno is None
    [line] = [record.getMessage() for record in caplog.records]
    assert f"process {os.getpid()} refused" in line
    assert "one guest at a time" in line


def test_client_behind_one_that_is_leaving_is_served(
    peer: Peer, loop: Loop, server: Server
) -> None:
    peer.sock.close()
    following = Peer(server.path, loop)

    loop.turn(0)

    assert following.negotiate().ask(wire.REGION_READ, READ).errno is None


def test_last_messages_of_a_leaving_client_count(
    peer: Peer, function: Stub, loop: Loop, server: Server
) -> None:
    posted = wire.ACCESS.pack(0x1000, 0, 4) + b"\7\0\0\0"
    peer.send(wire.REGION_WRITE, posted, flags=wire.NO_REPLY)
    peer.sock.close()
    following = Peer(server.path, loop)
    loop.turn(0)
    loop.turn(0)

    assert following.negotiate()
    assert function.calls == [("bar_write", 0, 0x1000, 4, 7), ("reset",)]


def test_disconnect_resets_the_function_and_frees_everything(
    peer: Peer, function: Stub, server: Server
) -> None:
    before = open_fds()
    fd, event = ram(4096), os.eventfd(0, os.EFD_NONBLOCK)
    peer.ask(wire.DMA_MAP, map_request(0, 4096), fds=[fd])
    peer.ask(wire.DEVICE_SET_IRQS, wire.SET_IRQS.pack(20, 0x24, 2, 0, 1), fds=[event])
    function.interrupt(1)

    peer.close()

    os.close(fd)
    os.close(event)
    # Its end and ours.
    assert open_fds() == before - 2
    assert function.calls == [("reset",)]
    assert function.memory.regions == []
    assert not function.pending(1)
    assert not server.connected


def test_whoever_only_looks_in_does_not_reset_the_function(raw: Peer, function: Stub) -> None:
    raw.close()

    assert function.calls == []


def test_next_client_starts_with_nothing_mapped(
    peer: Peer, function: Stub, loop: Loop, server: Server
) -> None:
    peer.ask(wire.DMA_MAP, map_request(0, 4096))
    peer.close()

    following = Peer(server.path, loop).negotiate()

    assert following.ask(wire.DMA_MAP, map_request(0, 4096)).errno is None


def test_on_disconnect_still_sees_the_memory(function: Stub, path: str, loop: Loop) -> None:
    seen: list[bytes] = []
    server = Server(
        function, path, loop, on_disconnect=lambda: seen.append(function.memory.read(0, 4))
    )
    peer = Peer(path, loop).negotiate()
    fd = ram(4096)
    os.pwrite(fd, b"last", 0)
    peer.ask(wire.DMA_MAP, map_request(0, 4096), fds=[fd])

    peer.close()

    assert seen == [b"last"]
    assert function.calls == [("reset",)]
    server.close()
    os.close(fd)


def test_close_disconnects_the_client(peer: Peer, server: Server, function: Stub) -> None:
    server.close()

    assert peer.hung_up()
    assert function.calls == [("reset",)]


def test_many_bad_connections_leave_few_lines_and_no_descriptors(
    server: Server, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    before = open_fds()

    for _ in range(300):
        bad = Peer(server.path, loop)
        bad.sock.send(bytes(16))
        bad.close()

    assert open_fds() == before
    assert len(caplog.records) == LOG_LINES_MAX


def test_no_descriptor_left_for_another_client(
    peer: Peer, server: Server, loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    second = socket.socket(socket.AF_UNIX)
    lowest_free = os.dup(0)
    os.close(lowest_free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    second.connect(server.path)
    loop.turn(0)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    [line] = [record.getMessage() for record in caplog.records]
    assert line == "cannot accept a connection: Too many open files"
    assert peer.ask(wire.REGION_READ, READ).errno is None
    second.close()


def test_two_servers_in_one_loop(function: Stub, peer: Peer, loop: Loop, tmp_path: Path) -> None:
    other = Stub()
    second = Server(other, tmp_path / "second.sock", loop)
    its_peer = Peer(second.path, loop).negotiate()

    its_peer.ask(wire.DEVICE_RESET)

    assert peer.ask(wire.REGION_READ, READ).errno is None
    assert (other.calls, function.calls) == ([("reset",)], [("config_read", 0, 4)])
    second.close()
