"""A vfio-user server: a QEMU guest gets a `PciFunction` of ours as its device.

    loop = Loop()
    server = Server(function, "nvme.sock", loop)
    loop.add_worker(function.run)
    loop.run()

and QEMU, 10.1 or later, with its RAM in a shared file:

    -object memory-backend-memfd,id=mem0,size=1G,share=on -machine memory-backend=mem0
    -device '{"driver":"vfio-user-pci","socket":{"path":"nvme.sock","type":"unix"}}'

Register accesses take effect in the order in which they come, before the next message is looked
at. Nothing here waits: not for the peer, and not for the function, whose time-consuming steps the
loop runs as a worker.

One peer at a time: a second one is disconnected at once, with a line in the log, because a QEMU
that waits in the backlog says nothing but "timeout". When a peer is gone, the function is reset:
its queues were in memory that is gone with it, and the next peer is another machine, which expects
a device as after power-on. (The protocol document lets the device keep its state, for a client
that reconnects. QEMU never does.)

Everything wrong that a peer can send ends in an error reply or a closed connection, and one line
in the log `nvmelab.vfio_user`, of which repetitions are only counted.

Not implemented, and refused: DMA by message, migration, dirty tracking, REGION_WRITE_MULTI,
ioeventfds, INTx, configuration space beyond 256 bytes (so: no PCI Express), expansion ROM.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import socket
import struct
import time
from collections.abc import Callable

from nvmelab.limits import (
    LOG_LINES_MAX,
    LOG_WINDOW_S,
    MESSAGE_FDS_MAX,
    REGION_ACCESS_BYTES_MAX,
)
from nvmelab.link.base import PciFunction
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user import irq, wire
from nvmelab.link.vfio_user.dma import DmaRegions, RamUnreachable
from nvmelab.link.vfio_user.listener import ServerError, listen, unlisten
from nvmelab.link.vfio_user.wire import PeerGone, ProtocolError, Refused

__all__ = ["Server", "ServerError"]

_log = logging.getLogger("nvmelab.vfio_user")

CONFIG_REGION = wire.CONFIG_REGION
REGIONS = 9
CONFIG_BYTES = 256

DOORBELL_PAGE = 0x1000
"""Offset of the doorbell page in BAR0, and of its copy in the file that stands for it; its size
too."""

# QEMU takes a VERSION reply no longer than its own request, 214 bytes.
_CAPABILITIES_JSON = (
    json.dumps(
        {
            "capabilities": {
                "max_msg_fds": MESSAGE_FDS_MAX,
                "max_data_xfer_size": REGION_ACCESS_BYTES_MAX,
            }
        },
        separators=(",", ":"),
    ).encode()
    + b"\0"
)

# Data of a BAR access by its size; little-endian whatever the host is.
_WIDTHS = {size: struct.Struct("<" + code) for size, code in zip((1, 2, 4, 8), "BHIQ", strict=True)}

_Answer = tuple[bytes, tuple[int, ...]]
_NOTHING: _Answer = (b"", ())


class _Complaints:
    """Warnings of one kind, at most LOG_LINES_MAX in LOG_WINDOW_S; then they are counted."""

    def __init__(self, level: int) -> None:
        self._level = level
        self._since = -LOG_WINDOW_S
        self._lines = 0

    def __call__(self, text: str) -> None:
        now = time.monotonic()
        if now - self._since >= LOG_WINDOW_S:
            left_out = self._lines - LOG_LINES_MAX
            if left_out > 0:
                text += f" (and {left_out} lines before that were left out)"
            self._since, self._lines = now, 0
        self._lines += 1
        if self._lines <= LOG_LINES_MAX:
            _log.log(self._level, "%s", text)


class _Client:
    """One connection."""

    def __init__(self, sock: socket.socket, function: PciFunction) -> None:
        self.sock = sock
        self.frames = wire.FrameReader(sock)
        self.replies = wire.ReplyWriter(sock)
        self.negotiated = False
        self.writing = False
        self.told_of_ram = False
        # The process that called connect. 0 if it is in another PID namespace.
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        self.pid: int = struct.unpack("=iII", credentials)[0]
        self.dma = DmaRegions(function.memory, self.pid)

    def leaving(self) -> bool:
        """The peer has closed its end; what it sent before may still be unread."""
        poll = select.poll()
        poll.register(self.sock, select.POLLRDHUP)
        return bool(poll.poll(0))


class Server:
    """Listens on a UNIX socket and drives `function` as its peer says.

    `path` is created with mode 0600; a socket that a dead server left there is replaced.
    `doorbells` is a descriptor of a file (a memfd) of at least 0x2000 bytes. With it the page
    0x1000 to 0x1fff of BAR0 is mapped into the guest: a doorbell then gives no message, but a store
    into the file at the same offset, and whoever owns the file polls it. It must stay open as long
    as the server. Without it each doorbell is one message, in order.
    `on_disconnect` is called when a peer that had negotiated is gone, before anything is torn
    down: guest memory can still be read.

    Sets `function.interrupt` and `function.pending`. Does not call `function.run`: add that to the
    loop. Raises ServerError.
    """

    def __init__(
        self,
        function: PciFunction,
        path: str | os.PathLike[str],
        loop: Loop,
        *,
        doorbells: int | None = None,
        on_disconnect: Callable[[], None] | None = None,
    ) -> None:
        if doorbells is not None and os.fstat(doorbells).st_size < 2 * DOORBELL_PAGE:
            raise ServerError(f"the doorbell file is shorter than {2 * DOORBELL_PAGE:#x} bytes")
        self.path = os.fspath(path)
        self._function = function
        self._loop = loop
        self._doorbells = doorbells
        self._on_disconnect = on_disconnect
        self._client: _Client | None = None
        self.guests = 0
        """Peers that have negotiated since the server began."""
        self._interrupts = irq.Interrupts(function.vectors)
        function.interrupt = self._interrupts.raise_vector
        function.pending = self._interrupts.pending
        self._complain = _Complaints(logging.WARNING)
        self._complain_of_ram = _Complaints(logging.ERROR)
        self._complain_of_peers = _Complaints(logging.WARNING)
        self._handlers: dict[int, Callable[[_Client, bytes, list[int]], _Answer]] = {
            wire.VERSION: self._version,
            wire.DMA_MAP: self._dma_map,
            wire.DMA_UNMAP: self._dma_unmap,
            wire.DEVICE_GET_INFO: self._device_get_info,
            wire.DEVICE_GET_REGION_INFO: self._device_get_region_info,
            wire.DEVICE_GET_IRQ_INFO: self._device_get_irq_info,
            wire.DEVICE_SET_IRQS: self._device_set_irqs,
            wire.REGION_READ: self._region_read,
            wire.REGION_WRITE: self._region_write,
            wire.DEVICE_RESET: self._device_reset,
        }
        self._listener, self._identity = listen(self.path)
        loop.add(self._listener.fileno(), self._accept)

    @property
    def connected(self) -> bool:
        """A peer is connected and has negotiated."""
        return self._client is not None and self._client.negotiated

    def close(self) -> None:
        """Disconnect the peer, stop listening, remove the socket file. Safe to call twice."""
        if self._listener.fileno() < 0:
            return
        if self._client is not None:
            self._drop(self._client)
        self._loop.remove(self._listener.fileno())
        unlisten(self._listener, self.path, self._identity)

    def _accept(self, _events: int) -> None:
        if self._client is not None and self._client.leaving():
            # The old peer's last messages come first. The new one stays in the backlog meanwhile.
            return
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self._complain_of_peers(f"cannot accept a connection: {error.strerror}")
            return
        sock.setblocking(False)
        client = _Client(sock, self._function)
        if self._client is not None:
            sock.close()
            self._complain_of_peers(
                f"{self.path}: process {client.pid} refused, "
                f"process {self._client.pid} is connected: one guest at a time"
            )
            return
        self._client = client
        self._loop.add(sock.fileno(), self._ready)
        _log.debug("%s: process %d connected", self.path, client.pid)

    def _drop(self, client: _Client) -> None:
        if self._client is not client:
            return
        self._client = None
        self._loop.remove(client.sock.fileno())
        client.frames.close()
        client.sock.close()
        if client.negotiated:
            if self._on_disconnect is not None:
                self._on_disconnect()
            self._interrupts.clear()
            self._function.reset()
        client.dma.clear()

    def _ready(self, events: int) -> None:
        client = self._client
        assert client is not None
        try:
            if events & select.EPOLLOUT:
                client.replies.flush()
            if events & ~select.EPOLLOUT:
                self._serve(client)
            if client.writing != client.replies.waiting:
                client.writing = client.replies.waiting
                out = select.EPOLLOUT if client.writing else 0
                self._loop.modify(client.sock.fileno(), select.EPOLLIN | out)
        except PeerGone as why:
            _log.debug("%s: %s", self.path, why)
            self._drop(client)
        except ProtocolError as why:
            self._complain(f"{self.path}: disconnected: {why}")
            self._drop(client)

    def _serve(self, client: _Client) -> None:
        """Take what has arrived. Aligned accesses to a BAR are handled in place, for speed: they
        are what a guest sends all day. Everything else goes through `_handle`."""
        frames, buffer = client.frames, client.frames.buffer
        function, bars = self._function, self._function.bars
        frames.receive()
        for at, size, message_id, command, flags in frames.frames():
            if (
                (command == wire.REGION_WRITE or command == wire.REGION_READ)
                and size >= 32
                and not flags & ~wire.NO_REPLY
                and client.negotiated
                and not (frames.fds_waiting and frames.fds_before(at + size))
            ):
                access = wire.ACCESS.unpack_from(buffer, at + 16)
                offset, region, count = access
                width = _WIDTHS.get(count)
                if (
                    width is not None
                    and offset % count == 0
                    and offset + count <= bars.get(region, 0)
                ):
                    if command == wire.REGION_WRITE:
                        if size == 32 + count:
                            value = width.unpack_from(buffer, at + 32)[0]
                            function.bar_write(region, offset, count, value)
                            if not flags:
                                client.replies.send(wire.access_reply(message_id, command, access))
                            continue
                    elif size == 32 and not flags:
                        data = width.pack(function.bar_read(region, offset, count))
                        client.replies.send(wire.access_reply(message_id, command, access, data))
                        continue
            self._handle(client, at, size, message_id, command, flags)

    def _handle(
        self, client: _Client, at: int, size: int, message_id: int, command: int, flags: int
    ) -> None:
        """Any message: call its handler and send what it says."""
        if flags & wire.TYPE_MASK:
            raise ProtocolError(f"{wire.command_name(command)} with flags {flags:#x}: no command")
        payload = bytes(client.frames.buffer[at + 16 : at + size])
        fds = client.frames.take_fds(at + size) if client.frames.fds_waiting else []
        try:
            if flags & ~wire.NO_REPLY:
                raise Refused(errno.EINVAL, f"{wire.command_name(command)} with flags {flags:#x}")
            answer, answer_fds = self._answer(client, command, payload, fds)
            message = wire.reply(message_id, command, answer)
        except Refused as refusal:
            message, answer_fds = wire.error_reply(message_id, command, refusal.errno), ()
            if not client.negotiated:
                if not flags & wire.NO_REPLY:
                    client.replies.send(message)
                raise ProtocolError(str(refusal)) from None
            self._report(client, refusal)
        finally:
            wire.close_all(fds)
        if not flags & wire.NO_REPLY:
            client.replies.send(message, answer_fds)

    def _report(self, client: _Client, refusal: Refused) -> None:
        if not isinstance(refusal, RamUnreachable):
            self._complain(f"{self.path}: refused: {refusal}")
        elif not client.told_of_ram:
            # Once: it is the same for each region, and for the device.
            client.told_of_ram = True
            self._complain_of_ram(f"{self.path}: refused: {refusal}")

    def _answer(self, client: _Client, command: int, payload: bytes, fds: list[int]) -> _Answer:
        request = wire.REQUESTS.get(command)
        if request is None:
            raise Refused(errno.ENOTSUP, f"{wire.command_name(command)} is not supported")
        if client.negotiated == (command == wire.VERSION):
            when = "after" if client.negotiated else "before"
            raise Refused(errno.EINVAL, f"{request.name} {when} the version was agreed on")
        if len(payload) < request.payload_bytes_min:
            raise Refused(errno.EINVAL, f"{request.name} with {len(payload)} bytes of payload")
        if len(fds) > request.fds_max:
            raise Refused(errno.EINVAL, f"{request.name} with {len(fds)} descriptors")
        return self._handlers[command](client, payload, fds)

    def _version(self, client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        major, minor = wire.VERSION_HEAD.unpack_from(payload)
        if major != 0:
            raise Refused(errno.EINVAL, f"VERSION {major}.{minor}: only major 0 is supported")
        text = payload[wire.VERSION_HEAD.size :]
        if text:
            try:
                proposed = json.loads(text[:-1]) if text[-1] == 0 else None
            except (ValueError, RecursionError):
                proposed = None
            if not isinstance(proposed, dict):
                raise Refused(errno.EINVAL, "VERSION with capabilities that are no JSON object")
        client.negotiated = True
        self.guests += 1
        return wire.VERSION_HEAD.pack(0, 0) + _CAPABILITIES_JSON, ()

    def _dma_map(self, client: _Client, payload: bytes, fds: list[int]) -> _Answer:
        argsz, flags, offset, address, size = wire.DMA_MAP_BODY.unpack_from(payload)
        _check_argsz("DMA_MAP", argsz, wire.DMA_MAP_BODY)
        client.dma.map(flags, offset, address, size, fds[0] if fds else None)
        return _NOTHING

    def _dma_unmap(self, client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        argsz, flags, address, size = wire.DMA_UNMAP_BODY.unpack_from(payload)
        _check_argsz("DMA_UNMAP", argsz, wire.DMA_UNMAP_BODY)
        client.dma.unmap(flags, address, size)
        return payload[: wire.DMA_UNMAP_BODY.size], ()

    def _device_get_info(self, client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        _check_argsz("DEVICE_GET_INFO", wire.DEVICE_INFO.unpack_from(payload)[0], wire.DEVICE_INFO)
        # QEMU only logs a failed DMA_MAP, but gives up the device when this fails, and the user
        # sees it. It has mapped the guest's RAM by now.
        client.dma.check_ram()
        size = wire.DEVICE_INFO.size
        flags = wire.DEVICE_RESETS | wire.DEVICE_PCI
        return wire.DEVICE_INFO.pack(size, flags, REGIONS, irq.TYPES), ()

    def _device_get_region_info(self, _client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        argsz, _, index, _, _, _ = wire.REGION_INFO.unpack_from(payload)
        size = wire.REGION_INFO.size
        _check_argsz("DEVICE_GET_REGION_INFO", argsz, wire.REGION_INFO)
        if index >= REGIONS:
            raise Refused(errno.EINVAL, f"DEVICE_GET_REGION_INFO of region {index}")
        extent = CONFIG_BYTES if index == CONFIG_REGION else self._function.bars.get(index, 0)
        if index != 0 or self._doorbells is None:
            flags = wire.REGION_READ_WRITE if extent else 0
            return wire.REGION_INFO.pack(size, flags, index, 0, extent, 0), ()
        # The capability goes out only to who has room for it; who has not asks again with more.
        # Its place is told to both: QEMU 11.1 refuses a flag for it with a place of 0.
        needed = size + wire.CAPABILITY.size + wire.SPARSE_MMAP.size + wire.AREA.size
        flags = wire.REGION_READ_WRITE | wire.REGION_MMAP | wire.REGION_CAPABILITIES
        info = wire.REGION_INFO.pack(needed, flags, index, size, extent, 0)
        if argsz >= needed:
            info += wire.CAPABILITY.pack(wire.SPARSE_MMAP_ID, 1, 0) + wire.SPARSE_MMAP.pack(1, 0)
            info += wire.AREA.pack(DOORBELL_PAGE, DOORBELL_PAGE)
        return info, (self._doorbells,)

    def _device_get_irq_info(self, _client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        argsz, _, index, _ = wire.IRQ_INFO.unpack_from(payload)
        _check_argsz("DEVICE_GET_IRQ_INFO", argsz, wire.IRQ_INFO)
        return wire.IRQ_INFO.pack(wire.IRQ_INFO.size, *self._irq_info(index)), ()

    def _irq_info(self, index: int) -> tuple[int, int, int]:
        flags, count = self._interrupts.info(index)
        return flags, index, count

    def _device_set_irqs(self, _client: _Client, payload: bytes, fds: list[int]) -> _Answer:
        argsz, flags, index, start, count = wire.SET_IRQS.unpack_from(payload)
        _check_argsz("DEVICE_SET_IRQS", argsz, wire.SET_IRQS)
        self._interrupts.set(flags, index, start, count, fds)
        return _NOTHING

    def _region_read(self, _client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        offset, region, count = wire.ACCESS.unpack_from(payload)
        if region != CONFIG_REGION or not 0 < count <= CONFIG_BYTES - offset:
            raise Refused(errno.EINVAL, _bad_access("read", offset, region, count))
        data = self._function.config_read(offset, count)
        return payload[: wire.ACCESS.size] + data, ()

    def _region_write(self, _client: _Client, payload: bytes, _fds: list[int]) -> _Answer:
        offset, region, count = wire.ACCESS.unpack_from(payload)
        data = payload[wire.ACCESS.size :]
        if region != CONFIG_REGION or not 0 < count <= CONFIG_BYTES - offset or len(data) != count:
            raise Refused(errno.EINVAL, _bad_access("write", offset, region, count))
        self._function.config_write(offset, data)
        return payload[: wire.ACCESS.size], ()

    def _device_reset(self, _client: _Client, _payload: bytes, _fds: list[int]) -> _Answer:
        self._interrupts.forget_pending()
        self._function.reset()
        return _NOTHING


def _bad_access(verb: str, offset: int, region: int, count: int) -> str:
    return f"{verb} of {count} bytes at {offset:#x} of region {region}"


def _check_argsz(name: str, argsz: int, layout: struct.Struct) -> None:
    if argsz < layout.size:
        raise Refused(errno.EINVAL, f"{name} with argsz {argsz}")
