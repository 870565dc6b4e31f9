"""A vfio-user client: a `HostLink` to any vfio-user NVMe server.

    nvmelab serve disk.img --socket nvme.sock
    link = VfioUserLink("nvme.sock")

The memory that both sides share is a memfd, mapped by DMA_MAP. Interrupts are eventfds. If the
server offers pages of BAR0 for mapping, doorbells on them are stores; every other register is a
message with its answer. The server's own DMA_READ and DMA_WRITE are served from the same memory.

The server is another process, and nothing says when it is at rest. So `wait` gives up after
VFIO_USER_REST_S, and `settle` is a hint: see `HostLink`.

A server is not trusted: whatever it sends ends in LinkError, and it gets no other memory than the
memfd, which is sealed so that it cannot be cut short.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import select
import socket
import struct
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from nvmelab.limits import (
    MESSAGE_FDS_MAX,
    VFIO_USER_MESSAGE_BYTES_MAX,
    VFIO_USER_POLL_S,
    VFIO_USER_REPLY_S,
    VFIO_USER_REST_S,
    VFIO_USER_SETTLE_S,
)
from nvmelab.link.base import LinkError, Storage
from nvmelab.link.pci import enable_function, require_nvme
from nvmelab.link.vfio_user import irq, wire
from nvmelab.memory import GuestMemory, MemoryFault
from nvmelab.spec.registers import DOORBELLS

_RAM_AT = 0x1000_0000
"""Bus address of the shared memory."""
_PAGE = 4096
_CONFIG_REGION = 7
_PCI = 0x2
_READABLE, _WRITEABLE, _MMAP, _CAPABILITIES = 0x1, 0x2, 0x4, 0x8
_SPARSE_MMAP_ID = 1
_CAPABILITY = struct.Struct("=HHI")
"""Id, version, offset of the next."""
_AREAS = struct.Struct("=II")
"""Number of areas, reserved; then offset and size of each."""
_AREA = struct.Struct("=QQ")
_SETTLE_READS = 4


class _Region(NamedTuple):
    """What GET_REGION_INFO says of a region."""

    size: int
    flags: int
    areas: tuple[tuple[int, int], ...]
    """(offset, size) of what may be mapped."""
    file_offset: int
    fd: int
    """-1 if there is none."""


class Connection:
    """One connection: a command and its reply at a time. `memory` answers the server's own DMA."""

    def __init__(self, path: str, memory: GuestMemory, pump: Callable[[], None] | None) -> None:
        self.path = path
        self._memory = memory
        self._pump = pump
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._unread = b""
        self._fds: list[int] = []
        self._next_id = 0
        self.fds_max = 1
        """Descriptors that one message to the server may carry."""
        try:
            self._sock.connect(path)
        except OSError as error:
            self._sock.close()
            raise LinkError(
                f"{path}: {error.strerror}; start a server first, such as "
                f"`nvmelab serve disk.img --socket {path}`"
            ) from None
        self._sock.setblocking(False)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket and descriptors that nobody took. Safe to call twice."""
        self._drop_fds()
        self._sock.close()

    def ask(
        self, command: int, payload: bytes = b"", fds: Sequence[int] = ()
    ) -> tuple[bytes, list[int]]:
        """The payload of the reply to one command, and the descriptors that came with it, which
        are the caller's. Raises LinkError, also when the server refuses."""
        self._next_id = (self._next_id + 1) & 0xFFFF
        name = wire.command_name(command)
        self._send(wire.HEADER.pack(self._next_id, command, 16 + len(payload), 0, 0) + payload, fds)
        while True:
            message_id, what, flags, error, body = self._message(name)
            if flags & wire.TYPE_MASK != wire.REPLY:
                self._serve(message_id, what, flags, body)
                continue
            if (message_id, what) != (self._next_id, command):
                raise self._broken(f"a reply to message {message_id}, which is not outstanding")
            if flags & wire.ERROR:
                self._drop_fds()
                raise LinkError(f"{self.path}: the server refuses {name}: {os.strerror(error)}")
            taken, self._fds = self._fds, []
            return body, taken

    def look(self) -> None:
        """Serve what the server asks of us, if anything is there. Raises LinkError."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        while poll.poll(0):
            message_id, what, flags, _, body = self._message("nothing")
            if flags & wire.TYPE_MASK == wire.REPLY:
                raise self._broken("a reply to nothing")
            self._serve(message_id, what, flags, body)

    def _send(self, message: bytes, fds: Sequence[int] = ()) -> None:
        deadline = time.monotonic() + VFIO_USER_REPLY_S
        while message:
            try:
                if fds:
                    sent = socket.send_fds(self._sock, [message], list(fds), socket.MSG_NOSIGNAL)
                else:
                    sent = self._sock.send(message, socket.MSG_NOSIGNAL)
                message, fds = message[sent:], ()
            except BlockingIOError:
                self._wait(select.POLLOUT, deadline, "a message to be taken")
            except OSError as error:
                raise self._gone(error) from None

    def _message(self, name: str) -> tuple[int, int, int, int, bytes]:
        """The next message: id, command, flags, errno, payload."""
        deadline = time.monotonic() + VFIO_USER_REPLY_S
        head = self._take(16, deadline, name)
        message_id, command, size, flags, error = wire.HEADER.unpack(head)
        if not 16 <= size <= VFIO_USER_MESSAGE_BYTES_MAX:
            raise self._broken(f"a message of {size} bytes")
        return message_id, command, flags, error, self._take(size - 16, deadline, name)

    def _take(self, length: int, deadline: float, name: str) -> bytes:
        while len(self._unread) < length:
            self._receive(deadline, name)
        taken, self._unread = self._unread[:length], self._unread[length:]
        return taken

    def _receive(self, deadline: float, name: str) -> None:
        try:
            data, fds, flags, _ = socket.recv_fds(
                self._sock, 1 << 16, MESSAGE_FDS_MAX, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            self._wait(select.POLLIN, deadline, f"the reply to {name}")
            return
        except OSError as error:
            raise self._gone(error) from None
        self._fds += fds
        if flags & socket.MSG_CTRUNC or len(self._fds) > MESSAGE_FDS_MAX:
            raise self._broken("too many descriptors")
        if not data:
            raise self._gone(None)
        self._unread += data

    def _wait(self, event: int, deadline: float, what: str) -> None:
        if time.monotonic() > deadline:
            raise LinkError(
                f"{self.path}: {what} has not come within {VFIO_USER_REPLY_S:g} s: the server hangs"
            )
        if self._pump:
            self._pump()
            return
        poll = select.poll()
        poll.register(self._sock, event)
        poll.poll(max(1, int(1000 * (deadline - time.monotonic()))))

    def _serve(self, message_id: int, command: int, flags: int, body: bytes) -> None:
        """A command of the server's own: DMA by message. Anything else is refused."""
        self._drop_fds()
        refused = wire.error_reply(message_id, command, errno.ENOTSUP)
        answer = refused
        if flags & wire.TYPE_MASK == 0 and command in (wire.DMA_READ, wire.DMA_WRITE):
            answer = self._dma(message_id, command, body)
        if not flags & wire.NO_REPLY:
            self._send(answer)

    def _dma(self, message_id: int, command: int, body: bytes) -> bytes:
        if len(body) < wire.DMA_ACCESS.size:
            return wire.error_reply(message_id, command, errno.EINVAL)
        addr, count = wire.DMA_ACCESS.unpack_from(body)
        head, data = body[: wire.DMA_ACCESS.size], body[wire.DMA_ACCESS.size :]
        try:
            if command == wire.DMA_READ:
                if count > VFIO_USER_MESSAGE_BYTES_MAX - 32:
                    return wire.error_reply(message_id, command, errno.E2BIG)
                return wire.reply(message_id, command, head + self._memory.read(addr, count))
            if len(data) != count:
                return wire.error_reply(message_id, command, errno.EINVAL)
            self._memory.write(addr, data)
            return wire.reply(message_id, command, head)
        except MemoryFault:
            return wire.error_reply(message_id, command, errno.EFAULT)

    def _drop_fds(self) -> None:
        wire.close_all(self._fds)
        self._fds = []

    def _gone(self, error: OSError | None) -> LinkError:
        why = f" ({error.strerror})" if error else ""
        return LinkError(f"{self.path}: the server closed the connection{why}")

    def _broken(self, what: str) -> LinkError:
        return LinkError(f"{self.path}: the server does not speak vfio-user: it sent {what}")


class VfioUserLink:
    """A `HostLink` to the server that listens on `path`, with `size` bytes of shared memory.

    `mapped` uses mapped doorbells where the server offers them. `pump` is called while waiting
    instead of sleeping, for a server in this very thread. Raises LinkError.
    """

    def __init__(
        self,
        path: str,
        *,
        size: int = 64 << 20,
        mapped: bool = True,
        pump: Callable[[], None] | None = None,
    ) -> None:
        self.name = f"vfio-user server {os.path.basename(path)}"
        self.storage: Storage | None = None
        self.vectors = 0
        self.memory = GuestMemory()
        self._pump = pump
        self._ram_fd = os.memfd_create("nvmelab-host", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self._ram_fd, size)
        fcntl.fcntl(self._ram_fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._ram = mmap.mmap(self._ram_fd, size)
        self.memory.map(_RAM_AT, memoryview(self._ram))
        self._next, self._end = _RAM_AT, _RAM_AT + size
        self._eventfds: list[int] = []
        self._counts: list[int] = []
        self._doorbells: tuple[int, int, memoryview] | None = None
        self._closed = False
        try:
            self._connection = Connection(path, self.memory, pump)
        except LinkError:
            os.close(self._ram_fd)
            raise
        try:
            self._set_up(path, size, mapped)
        except BaseException:
            self.close()
            raise

    # Setting up.

    def _set_up(self, path: str, size: int, mapped: bool) -> None:
        """In the order in which QEMU does it."""
        ask = self._connection.ask
        self._negotiate()
        body = wire.DMA_MAP_BODY.pack(32, _READABLE | _WRITEABLE, 0, _RAM_AT, size)
        ask(wire.DMA_MAP, body, [self._ram_fd])
        info = self._reply(ask(wire.DEVICE_GET_INFO, wire.DEVICE_INFO.pack(16, 0, 0, 0)))
        _, flags, _, _ = self._unpack(wire.DEVICE_INFO, info, "DEVICE_GET_INFO")
        if not flags & _PCI:
            raise LinkError(f"{path}: the server's device is no PCI device")
        config = self._region(_CONFIG_REGION)
        bar0 = self._region(0)
        for region in (config, bar0):
            if region.fd >= 0 and (region is config or not mapped):
                os.close(region.fd)
        if config.size < 256 or bar0.size < 2 * DOORBELLS:
            raise LinkError(
                f"{path} is no NVMe controller: BAR0 has {bar0.size:#x} bytes and configuration "
                f"space {config.size:#x}"
            )
        require_nvme(self, path)
        if mapped and bar0.fd >= 0:
            self._map_doorbells(bar0)
        enable_function(self)
        self._set_up_interrupts()

    def _negotiate(self) -> None:
        proposal = {
            "capabilities": {
                "max_msg_fds": MESSAGE_FDS_MAX,
                "max_data_xfer_size": VFIO_USER_MESSAGE_BYTES_MAX - 32,
                "pgsizes": _PAGE,
            }
        }
        body = wire.VERSION_HEAD.pack(0, 1) + json.dumps(proposal).encode() + b"\0"
        reply = self._reply(self._connection.ask(wire.VERSION, body))
        major, _ = self._unpack(wire.VERSION_HEAD, reply, "VERSION")
        if major:
            raise LinkError(f"{self._connection.path}: the server speaks vfio-user {major}, not 0")
        text = reply[wire.VERSION_HEAD.size :].rstrip(b"\0")
        try:
            found = json.loads(text) if text else {}
            limit = found.get("capabilities", {}).get("max_msg_fds", 1)
            self._connection.fds_max = max(1, min(int(limit), MESSAGE_FDS_MAX))
        except (ValueError, AttributeError, TypeError):
            raise LinkError(
                f"{self._connection.path}: the server's VERSION has capabilities that are no JSON"
            ) from None

    @staticmethod
    def _reply(answer: tuple[bytes, list[int]]) -> bytes:
        """The payload of a reply that has no descriptors."""
        wire.close_all(answer[1])
        return answer[0]

    def _unpack(self, layout: struct.Struct, body: bytes, name: str) -> tuple[int, ...]:
        if len(body) < layout.size:
            raise LinkError(
                f"{self._connection.path}: the server's {name} has {len(body)} bytes, "
                f"not {layout.size}"
            )
        return layout.unpack_from(body)

    def _region(self, index: int) -> _Region:
        """One region. What comes with more capabilities than asked for is asked for again."""
        argsz = wire.REGION_INFO.size
        for _ in range(2):
            body, fds = self._connection.ask(
                wire.DEVICE_GET_REGION_INFO, wire.REGION_INFO.pack(argsz, 0, index, 0, 0, 0)
            )
            fd = fds.pop(0) if fds else -1
            wire.close_all(fds)
            try:
                needed, flags, _, at, size, offset = self._unpack(
                    wire.REGION_INFO, body, "DEVICE_GET_REGION_INFO"
                )
                if needed <= argsz or argsz > wire.REGION_INFO.size:
                    areas = self._areas(body, at) if flags & _CAPABILITIES else ()
                    return _Region(size, flags, areas or ((0, size),), offset, fd)
            except LinkError:
                wire.close_all([fd] if fd >= 0 else [])
                raise
            wire.close_all([fd] if fd >= 0 else [])
            argsz = min(needed, VFIO_USER_MESSAGE_BYTES_MAX - 16)
        raise AssertionError

    def _areas(self, body: bytes, at: int) -> tuple[tuple[int, int], ...]:
        """The areas of the sparse mmap capability, if there is one."""
        for _ in range(16):
            if not at or at + _CAPABILITY.size + _AREAS.size > len(body):
                break
            kind, _, following = _CAPABILITY.unpack_from(body, at)
            if kind == _SPARSE_MMAP_ID:
                at += _CAPABILITY.size
                count, _ = _AREAS.unpack_from(body, at)
                data = body[at + _AREAS.size :][: count * _AREA.size]
                return tuple(_AREA.iter_unpack(data[: len(data) // _AREA.size * _AREA.size]))
            at = following
        return ()

    def _map_doorbells(self, bar0: _Region) -> None:
        """Map the area that holds the first doorbell, if it may be written."""
        try:
            for offset, size in bar0.areas:
                inside = offset <= DOORBELLS < offset + size <= bar0.size
                if inside and bar0.flags & _MMAP and bar0.flags & _WRITEABLE:
                    start = bar0.file_offset + offset
                    view = memoryview(mmap.mmap(bar0.fd, size, offset=start))
                    self._doorbells = (offset, offset + size, view.cast("I"))
                    return
        except (OSError, ValueError, OverflowError, TypeError) as error:
            raise LinkError(
                f"{self._connection.path}: the server's doorbells cannot be mapped: {error}"
            ) from None
        finally:
            os.close(bar0.fd)

    def _set_up_interrupts(self) -> None:
        """An eventfd for each MSI-X vector."""
        ask = self._connection.ask
        body = wire.IRQ_INFO.pack(16, 0, irq.MSIX, 0)
        reply = self._reply(ask(wire.DEVICE_GET_IRQ_INFO, body))
        _, _, _, count = self._unpack(wire.IRQ_INFO, reply, "DEVICE_GET_IRQ_INFO")
        self.vectors = min(count, 2048)
        self._counts = [0] * self.vectors
        self._eventfds = [
            os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(self.vectors)
        ]
        step = self._connection.fds_max
        for start in range(0, self.vectors, step):
            fds = self._eventfds[start : start + step]
            flags = irq.DATA_EVENTFD | irq.TRIGGER
            body = wire.SET_IRQS.pack(20, flags, irq.MSIX, start, len(fds))
            ask(wire.DEVICE_SET_IRQS, body, fds)

    # Registers and memory.

    def read(self, offset: int, size: int) -> int:
        return self._access_read(0, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if self._doorbells and size == 4:
            first, end, words = self._doorbells
            if first <= offset < end:
                words[(offset - first) >> 2] = value
                return
        self._access_write(0, offset, size, value)

    def config_read(self, offset: int, size: int) -> int:
        return self._access_read(_CONFIG_REGION, offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        self._access_write(_CONFIG_REGION, offset, size, value)

    def _access_read(self, region: int, offset: int, size: int) -> int:
        body = wire.ACCESS.pack(offset, region, size)
        reply = self._reply(self._connection.ask(wire.REGION_READ, body))
        if len(reply) != wire.ACCESS.size + size:
            raise LinkError(
                f"{self._connection.path}: the server answers a read of {size} bytes with "
                f"{len(reply) - wire.ACCESS.size}"
            )
        return int.from_bytes(reply[wire.ACCESS.size :], "little")

    def _access_write(self, region: int, offset: int, size: int, value: int) -> None:
        body = wire.ACCESS.pack(offset, region, size) + value.to_bytes(size, "little")
        self._reply(self._connection.ask(wire.REGION_WRITE, body))

    def allocate(self, size: int) -> int:
        addr, end = self._next, self._next + -(-size // _PAGE) * _PAGE
        if end > self._end:
            raise MemoryError(f"no {size} bytes left of the link's memory")
        self._next = end
        return addr

    def free_all(self) -> None:
        used = self._next - _RAM_AT
        self._ram[:used] = bytes(used)
        self._next = _RAM_AT

    def take_interrupts(self, vector: int) -> int:
        try:
            return os.eventfd_read(self._eventfds[vector])
        except BlockingIOError:
            return 0

    # Time.

    def wait(self, done: Callable[[], bool]) -> bool:
        return self._wait(done, VFIO_USER_REST_S)

    def settle(self) -> None:
        for _ in range(_SETTLE_READS):  # messages are served in order
            self.read(0, 4)
        self._wait(lambda: False, VFIO_USER_SETTLE_S)

    def _wait(self, done: Callable[[], bool], limit_s: float) -> bool:
        deadline = time.monotonic() + limit_s
        pause = 0.0
        while not done():
            if time.monotonic() > deadline:
                return False
            self._connection.look()
            if self._pump:
                self._pump()
            else:
                self._sleep(pause)
                pause = min(VFIO_USER_POLL_S, pause + VFIO_USER_POLL_S / 50)
        return True

    def _sleep(self, limit_s: float) -> None:
        """A short while, unless the server has something to say. What is waited for is mostly in
        memory, where nothing wakes us."""
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        poll.poll(limit_s * 1000)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._connection.close()
        wire.close_all(self._eventfds)
        os.close(self._ram_fd)
