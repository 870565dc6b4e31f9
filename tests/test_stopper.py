"""Stopping a guest over QMP, against QEMUs that listen late or go at once."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.link.loop import Loop
from nvmelab.stopper import GuestStopper


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


@pytest.fixture
def stopper(loop: Loop, tmp_path: Path) -> Iterator[GuestStopper]:
    stopper = GuestStopper(str(tmp_path / "qmp"), loop)
    yield stopper
    stopper.close()


def _connect(stopper: GuestStopper) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(stopper.arguments[1].removeprefix("unix:"))
    return peer


def _commands(peer: socket.socket) -> list[str]:
    return [json.loads(line)["execute"] for line in peer.recv(65536).splitlines()]


@pytest.mark.parametrize("early", [False, True])
def test_guest_is_stopped_at_once_or_when_qemu_listens(
    stopper: GuestStopper, loop: Loop, early: bool
) -> None:
    if early:
        stopper.stop()
    with _connect(stopper) as peer:
        loop.turn(0)
        if not early:
            stopper.stop()
        assert _commands(peer) == ["qmp_capabilities", "stop"]


@pytest.mark.parametrize("early", [False, True])
def test_qemu_that_goes_as_it_comes_is_no_error(
    stopper: GuestStopper, loop: Loop, early: bool
) -> None:
    if early:
        stopper.stop()
    _connect(stopper).close()
    loop.turn(0)
    stopper.stop()
    loop.turn(0)
    with _connect(stopper) as peer:  # another may come
        loop.turn(0)
        assert _commands(peer)[0] == "qmp_capabilities"


def test_whether_the_guest_is_stopped_is_what_qemu_says(stopper: GuestStopper, loop: Loop) -> None:
    with _connect(stopper) as peer:
        loop.turn(0)
        stopper.stop()
        assert not stopper.is_stopped()
        peer.sendall(b'{"QMP": {}}\r\n[1]\r\nno JSON\r\n{"return": {}}\r\n{"event": "ST')
        loop.turn(0)
        assert not stopper.is_stopped()
        peer.sendall(b'OP", "timestamp": {"seconds": 1}}\r\n{"event": {"a": 1}}\r\n')
        loop.turn(0)
        assert stopper.is_stopped()
        peer.sendall(b'{"event": "RESUME"}\r\n')  # by the user's own monitor
        loop.turn(0)
        assert not stopper.is_stopped()
