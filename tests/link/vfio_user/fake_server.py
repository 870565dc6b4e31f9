"""A vfio-user server that says what a test tells it to, in the thread of its client.

Left alone it is an NVMe function without a brain: registers are plain memory, and everything is
accepted. A test replaces the answer to any command.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user import wire
from nvmelab.link.vfio_user.client import VfioUserLink
from tests.link.vfio_user.conftest import BAR_BYTES, config_space, open_fds

PAGE = 4096
SIZE = 16 * PAGE
BASE = 0x1000_0000


class Ticks:
    """A clock that goes on by itself, 10 ms each time somebody looks at it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.01
        return self.now


class Said(NamedTuple):
    """A message of the client."""

    message_id: int
    command: int
    flags: int
    error: int
    payload: bytes
    fds: list[int]


Part = bytes | tuple[bytes, Sequence[int]]
"""What goes out with one sendmsg: bytes, and descriptors with them."""
Answer = Callable[[Said], Iterable[Part]]


def good(payload: bytes = b"") -> Answer:
    """A good reply, always with this payload."""
    return lambda said: [wire.reply(said.message_id, said.command, payload)]


def with_fds(payload: bytes, fds: Sequence[int]) -> Answer:
    return lambda said: [(wire.reply(said.message_id, said.command, payload), fds)]


def refused(error: int) -> Answer:
    return lambda said: [wire.error_reply(said.message_id, said.command, error)]


def nothing(_said: Said) -> Iterable[Part]:
    return []


def command(message_id: int, number: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A command of the server's own."""
    return wire.HEADER.pack(message_id, number, 16 + len(payload), flags, 0) + payload


def version(capabilities: object = None, major: int = 0) -> bytes:
    text = b"" if capabilities is None else json.dumps({"capabilities": capabilities}).encode()
    return wire.VERSION_HEAD.pack(major, 0) + text + b"\0"


def region_info(
    index: int = 0,
    *,
    argsz: int = 32,
    flags: int = wire.REGION_READ_WRITE,
    at: int = 0,
    size: int = BAR_BYTES,
    offset: int = 0,
) -> bytes:
    return wire.REGION_INFO.pack(argsz, flags, index, at, size, offset)


class FakeServer:
    """Listens on `path`. `said` has what the client sent, in order; `answers` what is said to
    it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.vectors = 3
        self.said: list[Said] = []
        self.config = config_space(self.vectors)
        self.registers = bytearray(BAR_BYTES)
        self.answers: dict[int, Answer] = {
            wire.VERSION: good(version({"max_msg_fds": 2, "max_data_xfer_size": 4096})),
            wire.DMA_MAP: good(),
            wire.DEVICE_GET_INFO: good(wire.DEVICE_INFO.pack(16, wire.DEVICE_PCI, 9, 5)),
            wire.DEVICE_GET_REGION_INFO: self._region_info,
            wire.DEVICE_GET_IRQ_INFO: good(wire.IRQ_INFO.pack(16, 1, 2, self.vectors)),
            wire.DEVICE_SET_IRQS: good(),
            wire.DEVICE_RESET: good(),
            wire.REGION_READ: self._read,
            wire.REGION_WRITE: self._write,
        }
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen()
        self._listener.setblocking(False)
        self._sock: socket.socket | None = None
        self._kept: list[int] = []

    # The client's side.

    def link(self, **options: object) -> VfioUserLink:
        """A link whose server this is."""
        settings: dict[str, object] = {"size": SIZE, "pump": self.pump, "clock": Ticks()}
        return VfioUserLink(self.path, **{**settings, **options})  # type: ignore[arg-type]

    def error_of_link(self, **options: object) -> str:
        """What is wrong with a link to this server, in one line. Nothing is left open."""
        before = open_fds()
        try:
            self.link(**options).close()
        except LinkError as error:
            text = str(error)
        else:
            raise AssertionError("the link was made")
        self.hang_up()
        assert open_fds() == before
        assert self.path in text and "\n" not in text
        return text

    def commands(self) -> list[str]:
        return [wire.command_name(said.command) for said in self.said if not said.flags]

    # The server's side.

    def pump(self) -> None:
        """Take what the client has sent, and answer it."""
        if self._sock is None:
            try:
                self._sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            self._sock.setblocking(False)
            self._frames = wire.FrameReader(self._sock, 1 << 21, 1 << 22)
        sock = self._sock
        try:
            self._frames.receive()
            for at, size, message_id, number, flags in self._frames.frames():
                error = wire.HEADER.unpack_from(self._frames.buffer, at)[4]
                payload = bytes(self._frames.buffer[at + 16 : at + size])
                fds = self._frames.take_fds(at + size)
                said = Said(message_id, number, flags, error, payload, fds)
                self.said.append(said)
                if not flags & wire.TYPE_MASK:
                    for part in self.answers[number](said):
                        self.send(part)
                if self._sock is not sock:
                    return
        except wire.PeerGone:
            self.hang_up()

    def send(self, part: Part) -> None:
        data, fds = part if isinstance(part, tuple) else (part, ())
        assert self._sock
        while data:
            sent = socket.send_fds(self._sock, [data], list(fds))
            data, fds = data[sent:], ()

    def hang_up(self) -> None:
        """Close the connection, and every descriptor that came with it."""
        if self._sock is not None:
            self._frames.close()
            self._sock.close()
            self._sock = None
        for said in self.said:
            wire.close_all(said.fds)
            said.fds.clear()

    def keep(self, fd: int) -> None:
        """Close this descriptor when the server ends."""
        self._kept.append(fd)

    def close(self) -> None:
        self.hang_up()
        self._listener.close()
        wire.close_all(self._kept)

    def _region_info(self, said: Said) -> Iterable[Part]:
        index = wire.REGION_INFO.unpack_from(said.payload)[2]
        size = {0: BAR_BYTES, wire.CONFIG_REGION: 256}.get(index, 0)
        return [wire.reply(said.message_id, said.command, region_info(index, size=size))]

    def _space(self, region: int) -> bytearray:
        return self.config if region == wire.CONFIG_REGION else self.registers

    def _read(self, said: Said) -> Iterable[Part]:
        offset, region, count = wire.ACCESS.unpack_from(said.payload)
        data = bytes(self._space(region)[offset : offset + count])
        return [wire.reply(said.message_id, said.command, said.payload + data)]

    def _write(self, said: Said) -> Iterable[Part]:
        offset, region, count = wire.ACCESS.unpack_from(said.payload)
        self._space(region)[offset : offset + count] = said.payload[16:]
        return [wire.reply(said.message_id, said.command, said.payload[:16])]


def file_of(size: int) -> int:
    """A memfd that can be cut short, unless somebody seals it."""
    fd = os.memfd_create("fake", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    return fd


def mapped_bar0(fake: FakeServer, areas: Sequence[tuple[int, int]] | None) -> mmap.mmap:
    """Have the server offer these parts of its BAR0 for mapping (None: all of it, without a list).
    What they are mapped to."""
    fd = file_of(BAR_BYTES)
    page = mmap.mmap(fd, BAR_BYTES)
    others = fake.answers[wire.DEVICE_GET_REGION_INFO]
    flags, tail = wire.REGION_READ_WRITE | wire.REGION_MMAP, b""
    if areas is not None:
        flags |= wire.REGION_CAPABILITIES
        tail = wire.CAPABILITY.pack(wire.SPARSE_MMAP_ID, 1, 0)
        tail += wire.SPARSE_MMAP.pack(len(areas), 0)
        tail += b"".join(wire.AREA.pack(*area) for area in areas)

    def answer(said: Said) -> Iterable[Part]:
        argsz, _, index, *_ = wire.REGION_INFO.unpack(said.payload)
        if index:
            return others(said)
        needed = wire.REGION_INFO.size + len(tail)
        whole = argsz >= needed
        info = region_info(argsz=needed, flags=flags, at=32 if tail and whole else 0)
        reply = wire.reply(said.message_id, said.command, info + tail if whole else info)
        return [(reply, [fd])]

    fake.answers[wire.DEVICE_GET_REGION_INFO] = answer
    fake.keep(fd)
    return page


def words_of(value: object) -> str:
    """What names a case: its message, not its bytes."""
    return value if isinstance(value, str) else ""
