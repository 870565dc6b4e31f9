"""`nvmelab top`: against a real server, and against one that says what a test wants."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from nvmelab.snapshot import Snapshot
from tests.cli.conftest import Invoke, error_of
from tests.report.test_top import HANG, snapshot, sq

STUCK = msgspec.json.encode(snapshot([sq(1, rung=2, tail=2, stuck=True, ball=HANG)])) + b"\n"


class Server:
    """Answers each request of who comes with the next of `answers`, then hangs up; so many come."""

    def __init__(self, path: str, *answers: bytes, comes: int = 1) -> None:
        self._comes = comes
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{path}.ctl")
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, args=(answers,))
        self._thread.start()

    def _serve(self, answers: tuple[bytes, ...]) -> None:
        for _ in range(self._comes):
            peer, _ = self._listener.accept()
            with peer:
                for answer in answers:
                    if not peer.recv(100):
                        break
                    peer.sendall(answer)

    def close(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "nvme.sock")


@pytest.fixture
def served(image: Path, path: str) -> Iterator[str]:
    """The socket of a server of ours, in a process of its own."""
    server = subprocess.Popen(
        [sys.executable, "-m", "nvmelab", "serve", image, "--socket", path],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr and "is served on" in server.stderr.readline()
    yield path
    server.send_signal(signal.SIGINT)
    server.communicate(timeout=60)


def test_a_snapshot_of_a_real_server(nvmelab: Invoke, served: str, image: Path) -> None:
    result = nvmelab("top", served, "--json")
    assert result.exit_code == 0, result.stderr
    (line,) = result.stdout.splitlines()
    state = msgspec.json.decode(line, type=Snapshot)
    assert state.image == str(image) and json.loads(line)["format"] == "nvmelab-state"


def test_blocks_of_text_where_there_is_no_terminal(nvmelab: Invoke, path: str) -> None:
    server = Server(path, STUCK, STUCK)
    result = nvmelab("top", path, "--count", "2", "--interval", "0.1")
    server.close()
    assert result.exit_code == 0
    first, second = result.stdout.split("\n\nSTUCK  ")
    assert "STUCK: device: 2 commands are rung, not fetched: fetch them" in first
    assert second.count("\n\n") == 2 and "\x1b" not in result.stdout


@pytest.mark.parametrize("words", [(), ("--json", "--count", "9")])
def test_the_end_of_the_server_is_one_line_and_no_failure(
    nvmelab: Invoke, path: str, words: tuple[str, ...]
) -> None:
    server = Server(path, STUCK)
    result = nvmelab("top", path, "--interval", "3600", *words)  # nobody waits for that
    server.close()
    assert result.exit_code == 0
    assert result.output.splitlines()[-1] == "nvmelab: the server has ended"
    if words:
        assert len(result.stdout.splitlines()) == 1


@pytest.mark.parametrize("words", [("--json",), ("--count", "1")])
def test_one_snapshot_has_no_interval(nvmelab: Invoke, path: str, words: tuple[str, ...]) -> None:
    assert "add --count 2" in error_of(nvmelab("top", path, "--interval", "2", *words), 2)


def test_no_server(nvmelab: Invoke, path: str) -> None:
    message = error_of(nvmelab("top", path), 2)
    assert f"there is no {path}.ctl; is nvmelab still serving there?" in message


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\n", "no answer that this nvmelab knows"),
        (b'{"format": "nvmelab-state", "version": 1}\n', "no answer that this nvmelab knows"),
        (b'{"error": "too many ask at once"}\n', "nvme.sock.ctl: too many ask at once"),
        (b'{"error": "\\u001b[2J"}\n', "no good answer"),
        (b"\xff\xfe\n", "no answer that this nvmelab knows"),
        (b"[" * 5000 + b"\n", "no answer that this nvmelab knows"),
        (b"", "no answer that nvmelab gives"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_another_programs_answer(nvmelab: Invoke, path: str, answer: bytes, said: str) -> None:
    server = Server(path, answer)
    message = error_of(nvmelab("top", path), 2)
    server.close()
    assert said in message and message.isprintable()


def test_one_that_had_to_make_room_is_told_why(nvmelab: Invoke, path: str) -> None:
    server = Server(path, STUCK, b'{"error": "too many ask at once"}\n')
    result = nvmelab("top", path, "--json", "--count", "2", "--interval", "0.1")
    server.close()
    assert result.exit_code == 2 and "nvme.sock.ctl: too many ask at once" in result.stderr


def test_without_a_name_there_must_be_a_guest(
    nvmelab: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    message = error_of(nvmelab("top"), 2)
    assert "no guest of nvmelab run is here; name the socket of nvmelab serve" in message


def test_of_several_each_is_named_with_its_image(
    nvmelab: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    servers = []
    for name, answer in (("a", STUCK), ("b", STUCK), ("c", b"who asks?\n")):
        (tmp_path / f"nvmelab-{name}").mkdir()
        path = str(tmp_path / f"nvmelab-{name}/nvme0.sock")
        servers.append(Server(path, answer, comes=2))  # who looks for them connects as well
    message = error_of(nvmelab("top"), 2)
    for server in servers:
        server.close()
    assert "several are served; name one: " in message
    for name, said in (("a", " (disk.img)"), ("b", " (disk.img)"), ("c", "")):
        assert f"{tmp_path}/nvmelab-{name}/nvme0.sock{said}" in message
    assert message.count("(disk.img)") == 2


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_on_a_terminal_it_is_drawn_in_place_until_a_key_ends_it(path: str, key: bytes) -> None:
    server = Server(path, STUCK, STUCK)
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "nvmelab", "top", path, "--interval", "3600"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        preexec_fn=lambda: os.close(os.open(os.ttyname(terminal), os.O_RDWR)),  # its terminal
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(terminal)
    limit = threading.Timer(60, process.kill)
    limit.start()
    shown = b""
    typed = False
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # the last one has closed it
            break
        shown += data
        if not typed and b"q ends" in shown:
            os.write(master, key)
            typed = True
    os.close(master)
    server.close()
    assert process.wait() == 0, shown
    limit.cancel()
    screen = shown.decode()
    frame, rest = screen.split("\x1b[?1049l")
    assert frame.startswith("\x1b[?1049h\x1b[?25l\x1b[H") and "\x1b[31m\x1b[1m" in frame
    assert "STUCK" in frame and "STUCK" in rest and "Traceback" not in screen
