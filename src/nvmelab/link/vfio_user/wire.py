"""The vfio-user wire: message numbers, layouts, cutting frames from a socket, sending replies.

A message is a header of 16 bytes and a payload; both are in the host's byte order, except the data
of a BAR access, which is little-endian. Descriptors travel beside a message as SCM_RIGHTS.
Source: the protocol document in QEMU's docs/interop/vfio-user.rst, as of 11.1.

Server and client share the layouts and `FrameReader`. `REQUESTS` has what our server takes, and
`ReplyWriter` is how it answers: it never waits, and sends no command of its own. Nothing here knows
what a message means.
"""

from __future__ import annotations

import array
import os
import socket
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nvmelab.limits import (
    MESSAGE_BYTES_MAX,
    MESSAGE_FDS_MAX,
    RECEIVE_BUFFER_BYTES,
    REPLY_QUEUE_BYTES_MAX,
)

# Commands.
VERSION = 1
DMA_MAP = 2
DMA_UNMAP = 3
DEVICE_GET_INFO = 4
DEVICE_GET_REGION_INFO = 5
DEVICE_GET_IRQ_INFO = 7
DEVICE_SET_IRQS = 8
REGION_READ = 9
REGION_WRITE = 10
DMA_READ = 11
DMA_WRITE = 12
DEVICE_RESET = 13


class Request(NamedTuple):
    """What a command must look like before anybody looks into its payload."""

    name: str
    payload_bytes_min: int
    fds_max: int


REQUESTS = {
    VERSION: Request("VERSION", 4, 0),
    DMA_MAP: Request("DMA_MAP", 32, 1),
    DMA_UNMAP: Request("DMA_UNMAP", 24, 0),
    DEVICE_GET_INFO: Request("DEVICE_GET_INFO", 16, 0),
    DEVICE_GET_REGION_INFO: Request("DEVICE_GET_REGION_INFO", 32, 0),
    DEVICE_GET_IRQ_INFO: Request("DEVICE_GET_IRQ_INFO", 16, 0),
    DEVICE_SET_IRQS: Request("DEVICE_SET_IRQS", 20, MESSAGE_FDS_MAX),
    REGION_READ: Request("REGION_READ", 16, 0),
    REGION_WRITE: Request("REGION_WRITE", 16, 0),
    DEVICE_RESET: Request("DEVICE_RESET", 0, 0),
}

# Regions: 0 to 5 are the BARs, 6 the ROM, 7 configuration space, 8 VGA.
CONFIG_REGION = 7

# Flags of DEVICE_GET_INFO and DEVICE_GET_REGION_INFO, and the one capability of a region.
DEVICE_RESETS, DEVICE_PCI = 0x1, 0x2
REGION_READ_WRITE, REGION_WRITEABLE, REGION_MMAP, REGION_CAPABILITIES = 0x3, 0x2, 0x4, 0x8
SPARSE_MMAP_ID = 1

# Flags of the header.
TYPE_MASK = 0xF
REPLY = 0x1
NO_REPLY = 0x10
ERROR = 0x20

# Layouts. All but the header are payloads.
HEADER = struct.Struct("=HHIII")
"""Message id, command, message size with the header, flags, errno."""
VERSION_HEAD = struct.Struct("=HH")
"""Major, minor; a JSON object with a terminating zero byte follows."""
DMA_MAP_BODY = struct.Struct("=IIQQQ")
"""argsz, flags, offset in the file, bus address, size."""
DMA_UNMAP_BODY = struct.Struct("=IIQQ")
"""argsz, flags, bus address, size."""
DEVICE_INFO = struct.Struct("=IIII")
"""argsz, flags, number of regions, number of interrupt types."""
REGION_INFO = struct.Struct("=IIIIQQ")
"""argsz, flags, index, offset of the first capability, size, offset for mmap."""
CAPABILITY = struct.Struct("=HHI")
"""Capability id, version, offset of the next, from the start of REGION_INFO; 0 ends."""
SPARSE_MMAP = struct.Struct("=II")
"""What follows CAPABILITY: number of areas, 0. So many AREAs follow."""
AREA = struct.Struct("=QQ")
"""Offset in the region, size."""
IRQ_INFO = struct.Struct("=IIII")
"""argsz, flags, index, count."""
SET_IRQS = struct.Struct("=IIIII")
"""argsz, flags, index, start, count."""
ACCESS = struct.Struct("=QII")
"""Offset in the region, region, count; the data follows."""
DMA_ACCESS = struct.Struct("=QQ")
"""Bus address, count; the data follows."""

_REPLY_ACCESS = struct.Struct("=HHIIIQII")
# Plain numbers: an operation on a member of socket.MsgFlag takes microseconds.
_CLOEXEC, _CUT_SHORT = int(socket.MSG_CMSG_CLOEXEC), int(socket.MSG_CTRUNC)
_NO_SIGNAL = int(socket.MSG_NOSIGNAL)

_FDS_ROOM = socket.CMSG_SPACE(MESSAGE_FDS_MAX * 4)
# Both of a partly received message and of one behind it.
_FDS_WAITING_MAX = 2 * MESSAGE_FDS_MAX


class PeerGone(Exception):
    """The other side closed the connection, or it broke."""


class ProtocolError(Exception):
    """The stream cannot be followed, or must not be: the connection has to be closed."""


class Refused(Exception):
    """One request is answered with an error. `errno` goes to the peer, the text to the log."""

    def __init__(self, errno: int, why: str) -> None:
        super().__init__(why)
        self.errno = errno


def command_name(command: int) -> str:
    """The name the protocol document gives to a command, or its number."""
    if request := REQUESTS.get(command):
        return request.name
    return {DMA_READ: "DMA_READ", DMA_WRITE: "DMA_WRITE"}.get(command, f"command {command}")


def reply(message_id: int, command: int, payload: bytes = b"") -> bytes:
    """A good reply, whole."""
    return HEADER.pack(message_id, command, 16 + len(payload), REPLY, 0) + payload


def error_reply(message_id: int, command: int, errno: int) -> bytes:
    """An error reply: a header without a payload."""
    return HEADER.pack(message_id, command, 16, REPLY | ERROR, errno)


def access_reply(
    message_id: int, command: int, access: tuple[int, int, int], data: bytes = b""
) -> bytes:
    """The reply to a region access: `access` is the request's ACCESS, `data` what was read."""
    size = 32 + len(data)
    return _REPLY_ACCESS.pack(message_id, command, size, REPLY, 0, *access) + data


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that came with a message."""
    for fd in fds:
        os.close(fd)


class FrameReader:
    """Cuts messages of at most `bytes_max` from a stream socket that does not block.

    `receive` takes what is there with one recvmsg, `frames` gives the whole messages in it. They
    stay in `buffer` until the next `receive`, which must not come before all of them were taken:
    then there is always room for it.

    The kernel never delivers bytes from behind a descriptor together with it. So the last byte of
    a read that brought descriptors belongs to the message they were sent with, given that each
    message is sent by calls of its own, which is how every client does it.
    """

    def __init__(
        self,
        sock: socket.socket,
        bytes_max: int = MESSAGE_BYTES_MAX,
        buffer_bytes: int = RECEIVE_BUFFER_BYTES,
    ) -> None:
        assert bytes_max < buffer_bytes
        self.buffer = bytearray(buffer_bytes)
        self.bytes_max = bytes_max
        self.fds_waiting = False
        self._sock = sock
        self._view = memoryview(self.buffer)
        self._whole = [self._view]
        self._at = 0
        self._end = 0
        # Place of the last byte that came with them, descriptors; in the order of arrival.
        self._fds: list[tuple[int, list[int]]] = []

    def receive(self) -> None:
        """One recvmsg. Nothing happens if nothing is there. Raises PeerGone at the end of the
        stream, ProtocolError if there are more descriptors than a message may have."""
        rest = self._end - self._at
        if rest:
            self.buffer[:rest] = self.buffer[self._at : self._end]
            self._fds = [(place - self._at, fds) for place, fds in self._fds]
        self._at, self._end = 0, rest
        room = [self._view[rest:]] if rest else self._whole
        try:
            size, ancillary, flags, _ = self._sock.recvmsg_into(room, _FDS_ROOM, _CLOEXEC)
        except BlockingIOError:
            return
        except OSError as error:
            raise PeerGone(f"connection lost: {error.strerror}") from None
        self._end += size
        if ancillary:
            self._take(ancillary)
        if flags & _CUT_SHORT:
            raise ProtocolError("more descriptors than a message may have, or than we can open")
        if size == 0:
            raise PeerGone("connection closed by the peer")

    def frames(self) -> Iterator[tuple[int, int, int, int, int]]:
        """Each whole message that has arrived: place in `buffer`, size, id, command, flags.
        Raises ProtocolError at a size that no message has."""
        unpack, buffer, at, end = HEADER.unpack_from, self.buffer, self._at, self._end
        bytes_max = self.bytes_max
        while end - at >= 16:
            message_id, command, size, flags, _ = unpack(buffer, at)
            if not 16 <= size <= bytes_max:
                raise ProtocolError(f"{command_name(command)} of {size} bytes")
            if end - at < size:
                return
            self._at = at + size
            yield at, size, message_id, command, flags
            at += size

    def fds_before(self, end: int) -> bool:
        """Descriptors wait for the message that ends before `end`, or one ahead of it."""
        return bool(self._fds) and self._fds[0][0] < end

    def take_fds(self, end: int) -> list[int]:
        """The descriptors of the message that ends before `end`. They are the caller's now. To be
        asked for each message while `fds_waiting`."""
        taken: list[int] = []
        while self._fds and self._fds[0][0] < end:
            taken += self._fds.pop(0)[1]
        self.fds_waiting = bool(self._fds)
        return taken

    def close(self) -> None:
        """Close the descriptors that nobody took. The socket is the caller's."""
        for _, fds in self._fds:
            close_all(fds)
        self._fds.clear()
        self.fds_waiting = False

    def _take(self, ancillary: list[tuple[int, int, bytes]]) -> None:
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not fds:
            return
        self._fds.append((self._end - 1, fds.tolist()))
        self.fds_waiting = True
        if sum(len(waiting) for _, waiting in self._fds) > _FDS_WAITING_MAX:
            raise ProtocolError("more descriptors than a message may have")


class ReplyWriter:
    """Sends whole messages on a stream socket that does not block.

    What the socket does not take waits in a bounded queue. Each message goes out with one sendmsg:
    QEMU gives up when a header arrives in two reads, and the kernel takes a message this small
    as a whole or not at all.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._queue: deque[tuple[bytes, Sequence[int]]] = deque()
        self._queued_bytes = 0

    @property
    def waiting(self) -> bool:
        """Replies are queued: call `flush` when the socket can be written."""
        return bool(self._queue)

    def send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        """Send a message, with descriptors that stay open until it is gone. Raises PeerGone, or
        ProtocolError if the peer leaves too many replies unread."""
        if not self._queue and self._try(message, fds):
            return
        self._queue.append((message, fds))
        self._queued_bytes += len(message)
        if self._queued_bytes > REPLY_QUEUE_BYTES_MAX:
            raise ProtocolError(f"the peer left {self._queued_bytes} bytes of replies unread")

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. Raises PeerGone."""
        while self._queue and self._try(*self._queue[0]):
            self._queued_bytes -= len(self._queue.popleft()[0])

    def _try(self, message: bytes, fds: Sequence[int]) -> bool:
        try:
            if fds:
                sent = socket.send_fds(self._sock, [message], list(fds), _NO_SIGNAL)
            else:
                sent = self._sock.send(message, _NO_SIGNAL)
        except BlockingIOError:
            return False
        except OSError as error:
            raise PeerGone(f"connection lost: {error.strerror}") from None
        if sent != len(message):
            raise PeerGone(f"only {sent} of {len(message)} bytes of a reply could be sent")
        return True
