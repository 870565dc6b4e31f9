"""The client and `nvmelab serve`, a process of its own, in real time."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user.client import VfioUserLink
from nvmelab.spec.registers import DOORBELLS, OFFSET
from tests.link.vfio_user.test_client import enable, identify

PAGE = 4096
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path, path: str) -> Iterator[Start]:
    """Starts `nvmelab serve` on `path`; it is killed at the end."""
    image = tmp_path / "disk.img"
    image.write_bytes(b"written" + bytes((1 << 20) - 7))
    with contextlib.ExitStack() as stack:

        def start(*options: str) -> subprocess.Popen[bytes]:
            words = [sys.executable, "-m", "nvmelab", "serve", str(image), "--socket", path]
            server = subprocess.Popen([*words, *options], stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.kill)
            return server

        yield start


def connect(path: str, server: subprocess.Popen[bytes], rest_s: float = 60) -> VfioUserLink:
    """A link to a server that is starting."""
    while True:
        try:
            return VfioUserLink(path, size=1 << 20, rest_s=rest_s)
        except LinkError as error:
            assert "start a server" in str(error), error
            assert server.poll() is None


@pytest.mark.parametrize("options", [(), ("--doorbells", "mapped")], ids=["trapped", "mapped"])
def test_controller_is_identified_and_raises_its_interrupt(
    start: Start, path: str, options: tuple[str, ...]
) -> None:
    link = connect(path, start("--serial", "the serial", *options))
    count = 0

    def raised() -> bool:
        nonlocal count
        count += link.take_interrupts(0)
        return count > 0

    assert identify(link)[4:24] == b"the serial".ljust(20)
    assert link.wait(raised)
    assert count == 1
    link.close()


def test_many_commands_one_after_the_other(start: Start, path: str) -> None:
    link = connect(path, start("--doorbells", "mapped"))
    sq, cq = enable(link)
    data = link.allocate(PAGE)

    for number in range(200):
        entry = struct.pack("<IIQQQQIIIIII", number << 16 | 6, 0, 0, 0, data, 0, 1, 0, 0, 0, 0, 0)
        link.memory.write(sq + 64 * (number % 4), entry)
        link.write(DOORBELLS, 4, (number + 1) % 4)
        at, phase = cq + 16 * (number % 4) + 12, 1 - number // 4 % 2
        assert link.wait(lambda at=at, phase=phase: link.memory.load_u32(at) >> 16 & 1 == phase)  # type: ignore[misc]
        assert link.memory.load_u32(at) & 0xFFFF == number
        link.write(DOORBELLS + 4, 4, (number + 1) % 4)

    link.close()


def test_second_client_is_refused_and_the_next_one_is_not(start: Start, path: str) -> None:
    server = start()
    first = connect(path, server)

    with pytest.raises(LinkError, match="has another client"):
        VfioUserLink(path)

    assert first.read(OFFSET["csts"], 4) == 0
    first.close()
    connect(path, server).close()


def test_server_that_is_killed_while_something_is_waited_for(start: Start, path: str) -> None:
    server = start()
    link = connect(path, server)
    looks = 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        if looks == 3:
            server.kill()
        return False

    with pytest.raises(LinkError, match="the server closed the connection"):
        link.wait(done)

    link.close()


def test_server_that_hangs_is_given_up(
    start: Start, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    link = connect(path, server)
    monkeypatch.setattr("nvmelab.link.vfio_user.connection.VFIO_USER_REPLY_S", 0.01)
    os.kill(server.pid, signal.SIGSTOP)

    with pytest.raises(
        LinkError, match=r"no reply to REGION_READ within 0\.01 s: the server hangs"
    ):
        link.read(0, 4)

    link.close()


def test_device_at_rest_is_given_up_in_real_time(start: Start, path: str) -> None:
    link = connect(path, start(), rest_s=0.01)
    looks = 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        return False

    assert link.wait(done) is False
    assert looks > 2
    link.settle()
    link.close()
