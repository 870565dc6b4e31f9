"""The client's end of a vfio-user connection: one command at a time, and its reply.

A server is not trusted. Whatever it sends that is no answer, comes too late, or is too long or too
short, ends in LinkError, and from then on every call raises that again: nobody can tell what a
later message would belong to. Only a refusal, which is an answer, leaves the connection as it is.

The server may send commands too. DMA_READ and DMA_WRITE are served from `memory`, which holds what
was mapped and nothing else; all others are refused.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nvmelab.limits import (
    SOCKET_PATH_BYTES_MAX,
    VFIO_USER_MESSAGE_BYTES_MAX,
    VFIO_USER_RECEIVE_BYTES,
    VFIO_USER_REPLY_S,
    VFIO_USER_TRANSFER_BYTES_MAX,
)
from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.wire import PeerGone, ProtocolError
from nvmelab.memory import GuestMemory, MemoryFault

_NO_SIGNAL = int(socket.MSG_NOSIGNAL)


class _Message(NamedTuple):
    message_id: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list[int]
    """The receiver's to close."""


class Connection:
    """Connected to the server that listens on `path`. Raises LinkError.

    `pump` is called instead of sleeping, for a server in this very thread. `clock` says what time
    it is, in seconds.
    """

    def __init__(
        self,
        path: str,
        memory: GuestMemory,
        *,
        pump: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = path
        self._memory = memory
        self._pump = pump
        self._clock = clock
        self._failure = ""
        self._answered = False
        self._last_id = 0
        self._sock = _connect(path)
        self._frames = wire.FrameReader(
            self._sock, VFIO_USER_MESSAGE_BYTES_MAX, VFIO_USER_RECEIVE_BYTES
        )
        self._readable = select.poll()
        self._readable.register(self._sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._sock, select.POLLOUT)

    def fileno(self) -> int:
        """For whoever sleeps until the server says something."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, and descriptors that nobody took. Safe to call twice."""
        self._failure = self._failure or f"{self.path}: the connection was closed by us"
        self._frames.close()
        self._sock.close()

    def ask(
        self,
        command: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        least: int = 0,
        most: int | None = None,
    ) -> bytes:
        """The payload of the reply to a command: `least` to `most` bytes, the latter by default
        as many as the command's own. Raises LinkError, also when the server refuses."""
        reply, its_fds = self.ask_for_fds(command, payload, fds, least=least, most=most)
        if its_fds:
            wire.close_all(its_fds)
            raise self.fail(f"descriptors with the reply to {wire.command_name(command)}")
        return reply

    def ask_for_fds(
        self,
        command: int,
        payload: bytes = b"",
        fds: Sequence[int] = (),
        *,
        least: int = 0,
        most: int | None = None,
    ) -> tuple[bytes, list[int]]:
        """As `ask`; and the descriptors that came with the reply, which are the caller's."""
        if self._failure:
            raise LinkError(self._failure)
        name = wire.command_name(command)
        deadline = self._clock() + VFIO_USER_REPLY_S
        self._last_id = (self._last_id + 1) & 0xFFFF
        head = wire.HEADER.pack(self._last_id, command, wire.HEADER.size + len(payload), 0, 0)
        self._send(head + payload, fds, deadline, name)
        reply = self._reply(command, name, deadline)
        if reply.flags & wire.ERROR:
            wire.close_all(reply.fds)
            raise LinkError(f"{self.path}: the server refuses {name}: {_errno_text(reply.error)}")
        most = len(payload) if most is None else most
        if not least <= len(reply.payload) <= most:
            wire.close_all(reply.fds)
            length = f"{least}" if least == most else f"{least} to {most}"
            raise self.fail(
                f"a reply to {name} with {len(reply.payload)} bytes of payload instead of {length}"
            )
        return reply.payload, reply.fds

    def look(self) -> None:
        """Serve what the server asks of us, as far as it is there. Raises LinkError, in particular
        when the server is gone."""
        if self._failure:
            raise LinkError(self._failure)
        if self._readable.poll(0):
            self._receive()
        deadline = self._clock() + VFIO_USER_REPLY_S
        while (message := self._next()) is not None:
            if message.flags & wire.TYPE_MASK == wire.REPLY:
                wire.close_all(message.fds)
                raise self.fail("a reply to nothing")
            self._serve(message, deadline)

    def fail(self, what: str) -> LinkError:
        """The server has sent what it must not send: the error to raise, now and ever after."""
        return self._fail(f"the server does not keep to vfio-user: it has sent {what}")

    # Receiving.

    def _reply(self, command: int, name: str, deadline: float) -> _Message:
        while True:
            message = self._next()
            if message is None:
                self._wait(self._readable, deadline, f"no reply to {name}")
                self._receive()
            elif message.flags & wire.TYPE_MASK != wire.REPLY:
                self._serve(message, deadline)
                if self._clock() > deadline:
                    raise self._late(f"no reply to {name}")
            elif (message.message_id, message.command) != (self._last_id, command):
                wire.close_all(message.fds)
                raise self.fail(
                    f"a reply to message {message.message_id}, "
                    f"{wire.command_name(message.command)}, while message {self._last_id}, "
                    f"{name}, is the only one that waits for one"
                )
            else:
                self._answered = True
                return message

    def _receive(self) -> None:
        try:
            self._frames.receive()
        except PeerGone:
            raise self._gone() from None
        except ProtocolError as why:
            raise self.fail(str(why)) from None

    def _next(self) -> _Message | None:
        """The next whole message of those that were received."""
        try:
            for at, size, message_id, command, flags in self._frames.frames():
                buffer, end = self._frames.buffer, at + size
                error = wire.HEADER.unpack_from(buffer, at)[4]
                payload = bytes(buffer[at + wire.HEADER.size : end])
                fds = self._frames.take_fds(end) if self._frames.fds_waiting else []
                return _Message(message_id, command, flags, error, payload, fds)
        except ProtocolError as why:
            raise self.fail(str(why)) from None
        return None

    def _wait(self, poll: select.poll, deadline: float, what: str) -> None:
        """Until the socket is ready for what `poll` has registered. Raises LinkError."""
        while not poll.poll(0):
            left = deadline - self._clock()
            if left <= 0:
                raise self._late(what)
            if self._pump:
                self._pump()
            else:
                poll.poll(left * 1000)

    # Sending.

    def _send(self, message: bytes, fds: Sequence[int], deadline: float, name: str) -> None:
        while message:
            try:
                if fds:
                    sent = socket.send_fds(self._sock, [message], list(fds), _NO_SIGNAL)
                else:
                    sent = self._sock.send(message, _NO_SIGNAL)
            except BlockingIOError:
                self._wait(self._writable, deadline, f"{name} is not taken")
                continue
            except OSError:
                raise self._gone() from None
            message, fds = message[sent:], ()

    def _serve(self, message: _Message, deadline: float) -> None:
        """Do and answer a command of the server's own. One that comes with descriptors is refused:
        none has any use for them."""
        if message.flags & wire.TYPE_MASK:
            wire.close_all(message.fds)
            raise self.fail(f"a message with flags {message.flags:#x}")
        wire.close_all(message.fds)
        error, answer = errno.ENOTSUP, b""
        if message.fds or message.flags & ~wire.NO_REPLY:
            error = errno.EINVAL
        elif message.command in (wire.DMA_READ, wire.DMA_WRITE):
            error, answer = self._dma(message.command, message.payload)
        asked = message.message_id, message.command
        name = f"the answer to {wire.command_name(message.command)}"
        if error:
            self._send(wire.error_reply(*asked, error), (), deadline, name)
        elif not message.flags & wire.NO_REPLY:
            self._send(wire.reply(*asked, answer), (), deadline, name)

    def _dma(self, command: int, payload: bytes) -> tuple[int, bytes]:
        """An access to our memory: errno, or 0 and the payload of the reply."""
        if len(payload) < wire.DMA_ACCESS.size:
            return errno.EINVAL, b""
        addr, count = wire.DMA_ACCESS.unpack_from(payload)
        access, data = payload[: wire.DMA_ACCESS.size], payload[wire.DMA_ACCESS.size :]
        if count > VFIO_USER_TRANSFER_BYTES_MAX:
            return errno.E2BIG, b""
        if len(data) != (count if command == wire.DMA_WRITE else 0):
            return errno.EINVAL, b""
        try:
            if command == wire.DMA_READ:
                return 0, access + self._memory.read(addr, count)
            self._memory.write(addr, data)
        except MemoryFault:
            return errno.EFAULT, b""
        return 0, access

    # The end.

    def _fail(self, why: str) -> LinkError:
        self._failure = f"{self.path}: {why}"
        return LinkError(self._failure)

    def _late(self, what: str) -> LinkError:
        return self._fail(
            f"{what} within {VFIO_USER_REPLY_S:g} s: the server hangs{self._next_step()}"
        )

    def _gone(self) -> LinkError:
        return self._fail(f"the server closed the connection{self._next_step()}")

    def _next_step(self) -> str:
        if self._answered:
            return "; see what it says itself"
        return ", or has another client: most take one at a time"


def _connect(path: str) -> socket.socket:
    """A socket that does not block, connected to the server. Raises LinkError."""
    length = len(os.fsencode(path))
    if not 0 < length <= SOCKET_PATH_BYTES_MAX or "\0" in path:
        raise LinkError(
            f"{path!r} cannot be a socket: a path has 1 to {SOCKET_PATH_BYTES_MAX} bytes, "
            f"this one {length}; use a shorter directory or a relative path"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.connect(path)
    except OSError as error:
        sock.close()
        raise LinkError(_why_not(path, error)) from None
    return sock


def _why_not(path: str, error: OSError) -> str:
    """Why there is no connection, and what to do next."""
    start = f"start a server, such as: nvmelab serve disk.img --socket {path}"
    match error.errno:
        case errno.ENOENT:
            return f"{path} does not exist; {start}"
        case errno.EACCES:
            return f"{path}: {error.strerror}; run this as the user who runs the server"
        case errno.EAGAIN:
            return f"{path}: others wait for this server already; it hangs, or serves one client"
        case errno.ECONNREFUSED:
            if os.path.isdir(path):
                return f"{path} is a directory; give the socket in it (SPDK's is {path}/cntrl)"
            if not stat.S_ISSOCK(os.stat(path).st_mode):
                return f"{path} is no socket; {start}"
            return f"nobody listens on {path} any more; {start}"
        case errno.EPROTOTYPE:
            return f"{path} is a socket of another type than a vfio-user server's; {start}"
    return f"{path}: {error.strerror}; {start}"


def _errno_text(number: int) -> str:
    """The protocol allows errno 0 with an error, and a broken server any 32 bits."""
    if number in errno.errorcode:
        return f"{os.strerror(number)} ({errno.errorcode[number]})"
    return f"error number {number}"
