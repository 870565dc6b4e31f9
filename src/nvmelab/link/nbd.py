"""A small NBD server whose replies a tester holds back: the disk behind a QEMU that we test.

QEMU's block layer finishes a request when the reply arrives, so whoever holds the replies decides
when, and in which order, QEMU's NVMe device sees its commands finish. Memory keeps the blocks.

Source: the NBD protocol document (NetworkBlockDevice/nbd, doc/proto.md): fixed newstyle handshake,
simple replies. Not offered: structured replies, metadata contexts, TLS.
"""

from __future__ import annotations

import errno
import mmap
import select
import socket
import struct
from collections.abc import Sequence

from nvmelab.limits import NBD_REQUEST_BYTES_MAX
from nvmelab.link.loop import Loop

_GREETING = struct.Struct(">8sQH")
_OPTION = struct.Struct(">QII")
"""Magic, option, length of its data."""
_OPTION_REPLY = struct.Struct(">QIII")
"""Magic, option, reply, length of its data."""
_REQUEST = struct.Struct(">IHHQQI")
"""Magic, flags, type, cookie, offset, length."""
_REPLY = struct.Struct(">IIQ")
"""Magic, error, cookie."""

_IHAVEOPT = 0x49484156454F5054
_OPTION_REPLY_MAGIC = 0x3E889045565A9
_REQUEST_MAGIC, _REPLY_MAGIC = 0x25609513, 0x67446698

_FIXED_NEWSTYLE, _NO_ZEROES = 1, 2
_EXPORT_NAME, _ABORT, _INFO, _GO = 1, 2, 6, 7
_ACK, _REP_INFO, _UNSUPPORTED, _UNKNOWN = 1, 3, (1 << 31) + 1, (1 << 31) + 6
_INFO_EXPORT = 0

READ, WRITE, DISCONNECT, FLUSH, TRIM, WRITE_ZEROES = 0, 1, 2, 3, 4, 6
_EXPORT_FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6
"""There are flags; FLUSH, FUA, TRIM and WRITE_ZEROES are served."""


class _Broken(Exception):
    """The peer does not speak the protocol; its connection is closed."""


class _Export:
    """One disk: `data` are its bytes, which take up room only where they were written."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.data = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _Operation:
    """One request that has no reply yet."""

    __slots__ = ("client", "cookie", "length", "offset", "payload", "type")

    def __init__(
        self, client: _Client, type: int, cookie: int, offset: int, length: int, payload: bytes
    ) -> None:
        self.client = client
        self.type = type
        self.cookie = cookie
        self.offset = offset
        self.length = length
        self.payload = payload


class NbdServer:
    """Serves the disks `names`, each of `size` bytes of zeroes, on the UNIX socket `path`.

    Implements `link.base.Storage`. What a held write brings reaches the disk when it is released.
    Runs in `loop`; raises OSError if it cannot listen.
    """

    def __init__(self, path: str, loop: Loop, names: Sequence[str], size: int) -> None:
        self.hold = False
        self.activity = 0
        """Requests received and replies sent so far."""
        self.exports = {name: _Export(name, size) for name in names}
        self._loop = loop
        self._held: list[_Operation] = []
        self._clients: set[_Client] = set()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen()
        self._listener.setblocking(False)
        loop.add(self._listener.fileno(), self._accept)

    def held(self) -> int:
        return len(self._held)

    def release(self, index: int = 0) -> None:
        self._finish(self._held.pop(index))

    def let_go(self) -> None:
        self.hold = False
        while self._held:
            self.release()

    def close(self) -> None:
        """Close every connection, and free the disks. Safe to call twice."""
        for client in list(self._clients):
            self.drop(client)
        for export in self.exports.values():
            export.data.close()
        if self._listener.fileno() >= 0:
            self._loop.remove(self._listener.fileno())
            self._listener.close()

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        client = _Client(self, sock)
        self._clients.add(client)
        self._loop.add(sock.fileno(), client.ready)

    def drop(self, client: _Client) -> None:
        """Forget a connection and what it has asked for."""
        if client in self._clients:
            self._clients.discard(client)
            self._loop.remove(client.sock.fileno())
            client.sock.close()
            self._held = [operation for operation in self._held if operation.client is not client]

    def want_write(self, client: _Client, wanted: bool) -> None:
        """Be told when the connection takes more bytes."""
        out = select.EPOLLOUT if wanted else 0
        self._loop.modify(client.sock.fileno(), select.EPOLLIN | out)

    def submit(self, operation: _Operation) -> None:
        """A request has arrived."""
        self.activity += 1
        if self.hold:
            self._held.append(operation)
        else:
            self._finish(operation)

    def _finish(self, operation: _Operation) -> None:
        export = operation.client.export
        assert export
        self.activity += 1
        error, data = 0, b""
        end = operation.offset + operation.length
        if end > len(export.data):
            error = errno.EINVAL
        elif operation.type == READ:
            data = export.data[operation.offset : end]
        elif operation.type == WRITE:
            export.data[operation.offset : end] = operation.payload
        elif operation.type in (TRIM, WRITE_ZEROES):
            export.data[operation.offset : end] = bytes(operation.length)
        elif operation.type != FLUSH:
            error = errno.EINVAL
        operation.client.send(_REPLY.pack(_REPLY_MAGIC, error, operation.cookie) + data)


class _Client:
    """One connection: the handshake, then requests."""

    def __init__(self, server: NbdServer, sock: socket.socket) -> None:
        self.sock = sock
        self.export: _Export | None = None
        self._server = server
        self._unread = bytearray()
        self._unsent = bytearray()
        self._greeted = False
        self._no_zeroes = False
        self.send(_GREETING.pack(b"NBDMAGIC", _IHAVEOPT, _FIXED_NEWSTYLE | _NO_ZEROES))

    def send(self, data: bytes) -> None:
        """Send now, or when the socket has room."""
        if not self._unsent:
            try:
                data = data[self.sock.send(data, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                pass
            except OSError:
                return  # the end of the stream will be read next
        if data:
            self._unsent += data
            self._server.want_write(self, True)

    def ready(self, events: int) -> None:
        """The socket can be read or written."""
        try:
            if events & select.EPOLLOUT and self._unsent:
                del self._unsent[: self.sock.send(self._unsent, socket.MSG_NOSIGNAL)]
                if not self._unsent:
                    self._server.want_write(self, False)
            if events & ~select.EPOLLOUT:
                data = self.sock.recv(1 << 20)
                if not data:
                    raise _Broken
                self._unread += data
                while self._take():
                    pass
        except BlockingIOError:
            pass
        except (_Broken, OSError):
            self._server.drop(self)

    def _take(self) -> bool:
        """Take one whole message out of what has arrived. Raises _Broken."""
        if not self._greeted:
            return self._take_flags()
        return self._take_option() if self.export is None else self._take_request()

    def _cut(self, length: int) -> bytes:
        data = bytes(self._unread[:length])
        del self._unread[:length]
        return data

    def _take_flags(self) -> bool:
        if len(self._unread) < 4:
            return False
        flags = int.from_bytes(self._cut(4), "big")
        self._greeted, self._no_zeroes = True, bool(flags & _NO_ZEROES)
        return True

    def _take_option(self) -> bool:
        if len(self._unread) < _OPTION.size:
            return False
        magic, option, length = _OPTION.unpack_from(self._unread)
        if magic != _IHAVEOPT or length > 4096:
            raise _Broken
        if len(self._unread) < _OPTION.size + length:
            return False
        data = self._cut(_OPTION.size + length)[_OPTION.size :]
        if option == _ABORT:
            raise _Broken
        if option == _EXPORT_NAME:
            export = self._server.exports.get(data.decode("utf-8", "replace"))
            if export is None:
                raise _Broken
            zeroes = b"" if self._no_zeroes else bytes(124)
            self.send(struct.pack(">QH", len(export.data), _EXPORT_FLAGS) + zeroes)
            self.export = export
        elif option in (_GO, _INFO):
            self._go(option, data)
        else:
            self._answer(option, _UNSUPPORTED)
        return True

    def _go(self, option: int, data: bytes) -> None:
        if len(data) < 4:
            raise _Broken
        name = data[4 : 4 + int.from_bytes(data[:4], "big")].decode("utf-8", "replace")
        export = self._server.exports.get(name)
        if export is None:
            self._answer(option, _UNKNOWN)
            return
        info = struct.pack(">HQH", _INFO_EXPORT, len(export.data), _EXPORT_FLAGS)
        self._answer(option, _REP_INFO, info)
        self._answer(option, _ACK)
        if option == _GO:
            self.export = export

    def _answer(self, option: int, reply: int, data: bytes = b"") -> None:
        self.send(_OPTION_REPLY.pack(_OPTION_REPLY_MAGIC, option, reply, len(data)) + data)

    def _take_request(self) -> bool:
        if len(self._unread) < _REQUEST.size:
            return False
        magic, _flags, type, cookie, offset, length = _REQUEST.unpack_from(self._unread)
        if magic != _REQUEST_MAGIC or length > NBD_REQUEST_BYTES_MAX or type == DISCONNECT:
            raise _Broken
        whole = _REQUEST.size + (length if type == WRITE else 0)
        if len(self._unread) < whole:
            return False
        payload = self._cut(whole)[_REQUEST.size :]
        self._server.submit(_Operation(self, type, cookie, offset, length, payload))
        return True


def blockdev(name: str, path: str) -> str:
    """QEMU's -blockdev argument for the disk `name` of the server on `path`."""
    escaped = path.replace(",", ",,")
    return f"driver=nbd,node-name={name},server.type=unix,server.path={escaped},export={name}"
