"""The control socket beside a vfio-user socket: one JSON object on a line asks, one answers.

    {"get": "state"}        the answer is what `answer()` gives
    anything else           {"error": "..."}, and the connection is closed

The peer is hostile. It costs the guest nothing but the time of its answers, and that is bounded:
in each CONTROL_WINDOW_S an answer is made once, and no more than CONTROL_WORK_MAX of what peers do
is looked at. Requests are short and come one at a time; an answer that does not fit into the
peer's socket ends the connection, so nothing is kept for slow readers; and a peer that comes when
CONTROL_CLIENTS_MAX are there takes the place of the one that was quiet for longest.
"""

from __future__ import annotations

import contextlib
import glob
import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial

import msgspec

from nvmelab.limits import (
    CONTROL_ANSWER_BYTES_MAX,
    CONTROL_CLIENTS_MAX,
    CONTROL_REPLY_S,
    CONTROL_REQUEST_BYTES_MAX,
    CONTROL_WINDOW_S,
    CONTROL_WORK_MAX,
)
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.listener import listen, unlisten

SUFFIX = ".ctl"
"""What the path of a control socket has behind that of its vfio-user socket."""
RUN_FOLDER = "nvmelab-"
"""How the temporary folder begins in which `nvmelab run` has its sockets."""
REQUEST = b'{"get": "state"}\n'


class ControlError(Exception):
    """There is nothing to ask, or no good answer. One line that says why, and what to do."""


class ControlEnded(Exception):
    """The server has ended."""


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    get: str


_request = msgspec.json.Decoder(_Request)


class ControlServer:
    """Listens on the UNIX socket `path`, mode 0600, and answers from `loop`. `answer` gives one
    JSON object of at most CONTROL_ANSWER_BYTES_MAX bytes. Raises ServerError."""

    def __init__(
        self,
        path: str,
        loop: Loop,
        answer: Callable[[], bytes],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._loop = loop
        self._answer = answer
        self._clock = clock
        self._window = -CONTROL_WINDOW_S
        self._work = 0
        self._made: bytes | None = None
        """The answer that was made in this window."""
        self._deaf = False
        self._peers: dict[socket.socket, bytes] = {}
        """What each peer has sent of a request, the one that was quiet for longest first."""
        self._listener, self._identity = listen(path)
        loop.add(self._listener.fileno(), self._accept)

    def close(self) -> None:
        """Disconnect everybody, remove the socket file. Safe to call twice."""
        if self._listener.fileno() < 0:
            return
        self._hear()
        for peer in tuple(self._peers):
            self._drop(peer)
        self._loop.remove(self._listener.fileno())
        unlisten(self._listener, self.path, self._identity)

    def _accept(self, _events: int) -> None:
        if not self._may_work():
            return
        try:
            peer, _ = self._listener.accept()
        except OSError:
            return  # it has gone, or there is no descriptor left: then others are heard first
        peer.setblocking(False)
        if len(self._peers) >= CONTROL_CLIENTS_MAX:
            self._refuse(next(iter(self._peers)), "too many ask at once: make do with fewer")
        self._peers[peer] = b""
        self._loop.add(peer.fileno(), partial(self._read, peer))

    def _read(self, peer: socket.socket, _events: int) -> None:
        if not self._may_work():
            return
        had = self._peers.pop(peer)
        self._peers[peer] = had  # it is the last one now
        try:
            data = peer.recv(CONTROL_REQUEST_BYTES_MAX + 1 - len(had))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        line, newline, rest = (had + data).partition(b"\n")
        if newline and not rest and len(line) < CONTROL_REQUEST_BYTES_MAX:
            self._peers[peer] = b""
            self._serve(peer, line)
        elif rest:
            self._refuse(peer, "one request at a time: read the answer before the next")
        elif len(had + data) > CONTROL_REQUEST_BYTES_MAX:
            self._refuse(peer, f"a request has at most {CONTROL_REQUEST_BYTES_MAX} bytes")
        else:
            self._peers[peer] = line

    def _serve(self, peer: socket.socket, line: bytes) -> None:
        try:
            known = _request.decode(line).get == "state"
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            known = False
        if not known:
            self._refuse(peer, 'not understood; the one request is {"get": "state"}')
            return
        if self._made is None:
            self._made = self._answer() + b"\n"
            assert len(self._made) <= CONTROL_ANSWER_BYTES_MAX
        if not _sent(peer, self._made):
            self._drop(peer)  # it does not read what it asks for

    def _refuse(self, peer: socket.socket, why: str) -> None:
        _sent(peer, json.dumps({"error": why}).encode() + b"\n")
        self._drop(peer)

    def _drop(self, peer: socket.socket) -> None:
        del self._peers[peer]
        self._loop.remove(peer.fileno())
        peer.close()

    # The time that peers may cost.

    def _may_work(self) -> bool:
        """Count something that a peer has done. False if it must wait: nobody is heard then until
        the window has passed."""
        now = self._clock()
        if now - self._window >= CONTROL_WINDOW_S:
            self._window, self._work, self._made = now, 0, None
        self._work += 1
        if self._work <= CONTROL_WORK_MAX:
            return True
        self._deaf = True
        for sock in (self._listener, *self._peers):
            self._loop.remove(sock.fileno())
        self._loop.add_worker(self._wait)
        self._loop.limit_sleep(self, CONTROL_WINDOW_S)
        return False

    def _wait(self) -> bool:
        if self._clock() - self._window >= CONTROL_WINDOW_S:
            self._hear()
        return False

    def _hear(self) -> None:
        if not self._deaf:
            return
        self._deaf = False
        self._loop.remove_worker(self._wait)
        self._loop.limit_sleep(self, None)
        self._loop.add(self._listener.fileno(), self._accept)
        for peer in self._peers:
            self._loop.add(peer.fileno(), partial(self._read, peer))


def _sent(peer: socket.socket, data: bytes) -> bool:
    """All of it went into the peer's socket."""
    try:
        return peer.send(data) == len(data)
    except OSError:
        return False


class ControlClient:
    """Asks a control socket, and waits `reply_s` for its answer. `name` is its path, or that of the
    vfio-user socket beside it. Raises ControlError."""

    def __init__(self, name: str, *, reply_s: float = CONTROL_REPLY_S) -> None:
        self.path = name if name.endswith(SUFFIX) else name + SUFFIX
        self._told = False
        self._sock = socket.socket(socket.AF_UNIX)
        self._reply_s = reply_s
        self._sock.settimeout(reply_s)
        try:
            self._sock.connect(self.path)
        except OSError as error:
            self._sock.close()
            raise ControlError(_no_connection(self.path, error)) from None

    def fileno(self) -> int:
        """Readable, when nothing was asked, once the server has ended."""
        return self._sock.fileno()

    def ask(self) -> bytes:
        """One answer: a line of JSON. Raises ControlError and ControlEnded."""
        answer = bytearray()
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._sock.sendall(REQUEST)  # where it has hung up, it may have said why
            while not answer.endswith(b"\n"):
                data = self._sock.recv(CONTROL_ANSWER_BYTES_MAX)
                answer += data
                if not data or len(answer) > CONTROL_ANSWER_BYTES_MAX:
                    break
        except TimeoutError:
            raise ControlError(
                f"{self.path}: no answer in {self._reply_s:.0f} s; the process that serves it "
                "is stopped, or waits for its disk"
            ) from None
        except OSError:
            answer.clear()
        if not answer and self._told:
            raise ControlEnded
        if not answer.endswith(b"\n"):
            raise ControlError(
                f"{self.path}: no answer that nvmelab gives; is it another program's?"
            )
        self._told = True
        return bytes(answer)

    def close(self) -> None:
        self._sock.close()


def _no_connection(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            f"there is no {path}; is nvmelab still serving there? "
            "Without a name, nvmelab top finds the guests of nvmelab run"
        )
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens on {path}: the nvmelab that did has ended"
    if isinstance(error, PermissionError):
        return f"{path} is another user's: ask as the one who serves it"
    return f"cannot connect to {path}: {error.strerror or error}"


def running() -> list[str]:
    """The vfio-user sockets of the controllers that `nvmelab run` serves on this machine for this
    user, as far as their control sockets answer."""
    found = []
    pattern = os.path.join(glob.escape(tempfile.gettempdir()), f"{RUN_FOLDER}*", f"*{SUFFIX}")
    for path in sorted(glob.glob(pattern)):
        try:
            if os.stat(path).st_uid == os.getuid():
                ControlClient(path).close()
                found.append(path.removesuffix(SUFFIX))
        except (ControlError, OSError):
            pass  # left behind by one that was killed
    return found
