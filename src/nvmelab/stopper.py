"""Stopping a guest from outside: QEMU's monitor, without ever waiting for it.

QEMU must not be waited for here: while its processor waits for our answer to a register read,
nobody in it reads its monitor. So requests are sent, and answers are read when they come.
"""

from __future__ import annotations

import json
import socket

from nvmelab.link.loop import Loop

_LINE_BYTES_MAX = 65536
"""More of a line is not kept: those that matter here are short."""


def _event(line: bytes) -> object:
    """The name of the event in a line of QEMU's; None if it is something else."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return said.get("event") if isinstance(said, dict) else None


class GuestStopper:
    """Listens on the UNIX socket `path`, to which a QEMU with `arguments` connects (QMP)."""

    def __init__(self, path: str, loop: Loop) -> None:
        self.arguments = self.arguments_for(path)
        self._loop = loop
        self._wanted = False
        self._peer: socket.socket | None = None
        self._line = b""
        """What was read of QEMU's next line."""
        self._stopped = False
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(1)
        self._listener.setblocking(False)
        loop.add(self._listener.fileno(), self._accept)

    @staticmethod
    def arguments_for(path: str) -> list[str]:
        """What QEMU needs on its command line."""
        return ["-qmp", f"unix:{path}"]

    def stop(self) -> None:
        """Have the guest stopped, at once or as soon as QEMU listens."""
        self._wanted = True
        self._send_stop()

    def is_stopped(self) -> bool:
        """QEMU says that the guest is stopped: it may go on again, by another monitor."""
        return self._stopped

    def _accept(self, _events: int) -> None:
        try:
            peer, _ = self._listener.accept()
        except BlockingIOError:
            return
        if self._peer:
            peer.close()
            return
        self._peer = peer
        peer.setblocking(False)
        self._loop.add(peer.fileno(), self._read)
        self._send("qmp_capabilities")  # it may come before the greeting is read
        self._send_stop()

    def _send_stop(self) -> None:
        if self._wanted and self._peer:
            self._wanted = False
            self._send("stop")

    def _send(self, command: str) -> None:
        assert self._peer
        try:
            self._peer.sendall((json.dumps({"execute": command}) + "\n").encode())
        except OSError:
            self._forget()  # QEMU is gone: there is nothing left to stop

    def _read(self, _events: int) -> None:
        assert self._peer
        try:
            data = self._peer.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._forget()
            return
        *lines, rest = (self._line + data).split(b"\n")
        self._line = rest[-_LINE_BYTES_MAX:]
        for line in lines:
            event = _event(line)
            if event in ("STOP", "RESUME"):
                self._stopped = event == "STOP"

    def _forget(self) -> None:
        if self._peer:
            self._loop.remove(self._peer.fileno())
            self._peer.close()
            self._peer = None

    def close(self) -> None:
        self._forget()
        self._loop.remove(self._listener.fileno())
        self._listener.close()
