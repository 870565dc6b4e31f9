"""What a user reads when there is no vfio-user server to connect to."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.client import VfioUserLink
from tests.link.vfio_user.conftest import open_fds
from tests.link.vfio_user.fake_server import FakeServer, nothing, refused


def error_of(path: str) -> str:
    before = open_fds()
    with pytest.raises(LinkError) as caught:
        VfioUserLink(path)
    assert open_fds() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_path_that_does_not_exist(path: str) -> None:
    assert error_of(path) == (
        f"{path} does not exist; start a server, such as: nvmelab serve disk.img --socket {path}"
    )


def test_file_that_is_no_socket(path: str) -> None:
    Path(path).write_text("a disk image")

    assert f"{path} is no socket; start a server, such as: nvmelab serve" in error_of(path)


def test_directory_as_spdk_makes_it(tmp_path: Path) -> None:
    assert f"give the socket in it (SPDK's is {tmp_path}/cntrl)" in error_of(str(tmp_path))


def test_socket_of_a_dead_server(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    assert f"nobody listens on {path} any more; start a server" in error_of(path)


def test_socket_of_another_type(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)

        assert f"{path} is a socket of another type" in error_of(path)


@pytest.mark.parametrize("name", ["", "x" * 108, "é" * 54, "\0abstract"])
def test_impossible_path(name: str) -> None:
    assert "cannot be a socket: a path has 1 to 107 bytes" in error_of(name)


def test_server_that_accepts_nobody_does_not_hold_us(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as other:
        listener.bind(path)
        listener.listen(0)
        other.connect(path)

        assert "others wait for this server already" in error_of(path)


def test_server_that_never_answers(fake: FakeServer) -> None:
    fake.answers[wire.VERSION] = nothing

    assert fake.error_of_link() == (
        f"{fake.path}: no reply to VERSION within 10 s: the server hangs, "
        "or has another client: most take one at a time"
    )


def test_server_that_hangs_up_at_once(fake: FakeServer) -> None:
    def hang_up(_said: object) -> list[bytes]:
        fake.hang_up()
        return []

    fake.answers[wire.VERSION] = hang_up

    assert "the server closed the connection, or has another client" in fake.error_of_link()


def test_server_that_refuses_the_version(fake: FakeServer) -> None:
    fake.answers[wire.VERSION] = refused(22)

    assert "the server refuses VERSION: Invalid argument (EINVAL)" in fake.error_of_link()


def test_no_descriptor_to_be_had(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_arguments: object) -> int:
        raise OSError(24, os.strerror(24))

    monkeypatch.setattr(socket, "socket", none_left)

    assert error_of(path) == f"no link to {path}: Too many open files; see ulimit -a"


def test_memory_is_whole_pages(path: str) -> None:
    with pytest.raises(ValueError, match="no whole pages of 4096"):
        VfioUserLink(path, size=4097)
