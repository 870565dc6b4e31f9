"""What a vfio-user server says of itself and its device, read by a client that trusts none of it.

Everything here raises LinkError for an answer that makes no sense.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator

import msgspec

from nvmelab.limits import (
    MESSAGE_FDS_MAX,
    VFIO_USER_REGION_INFO_BYTES_MAX,
    VFIO_USER_TRANSFER_BYTES_MAX,
    VFIO_USER_VERSION_BYTES_MAX,
)
from nvmelab.link.base import LinkError
from nvmelab.link.vfio_user import irq, wire
from nvmelab.link.vfio_user.connection import Connection

_ACCESS_BYTES = 8
"""The largest access of ours to a region."""
_PAGE = 4096


class Capabilities(msgspec.Struct, frozen=True):
    """What the server takes. The defaults are the protocol's."""

    max_msg_fds: int = 1
    max_data_xfer_size: int = 1 << 20


class _Version(msgspec.Struct, frozen=True):
    capabilities: Capabilities = Capabilities()


class Region:
    """One region of the device, and how it can be mapped. `fd` is -1 if it cannot."""

    def __init__(self, size: int, writable: bool) -> None:
        self.size = size
        self.writable = writable
        self.areas: list[tuple[int, int]] = []
        """Offset in the region, and size, of each part that can be mapped."""
        self.file_offset = 0
        """Where the region begins in the file."""
        self.fd = -1

    def close(self) -> None:
        """Close the descriptor. Safe to call twice."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


def negotiate(connection: Connection) -> Capabilities:
    """Agree on the version: 0, as there is no other."""
    ours = {
        "capabilities": {
            "max_msg_fds": MESSAGE_FDS_MAX,
            "max_data_xfer_size": VFIO_USER_TRANSFER_BYTES_MAX,
            "pgsizes": _PAGE,
        }
    }
    head, path = wire.VERSION_HEAD, connection.path
    reply = connection.ask(
        wire.VERSION,
        head.pack(0, 1) + json.dumps(ours).encode() + b"\0",
        least=head.size,
        most=VFIO_USER_VERSION_BYTES_MAX,
    )
    major, minor = head.unpack_from(reply)
    if major != 0:
        raise LinkError(f"{path}: the server speaks vfio-user {major}.{minor}; we speak 0.1")
    text = reply[head.size :].removesuffix(b"\0")
    try:
        found = msgspec.json.decode(text, type=_Version) if text else _Version()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise connection.fail(f"capabilities that are no such JSON ({error})") from None
    theirs = found.capabilities
    if theirs.max_msg_fds < 1 or theirs.max_data_xfer_size < _ACCESS_BYTES:
        raise LinkError(
            f"{path}: the server takes {theirs.max_msg_fds} descriptors and "
            f"{theirs.max_data_xfer_size} bytes with a message; an NVMe device needs 1 and "
            f"{_ACCESS_BYTES}"
        )
    return theirs


def device_flags(connection: Connection) -> int:
    """The flags of a PCI device with the usual regions."""
    layout = wire.DEVICE_INFO
    reply = connection.ask(
        wire.DEVICE_GET_INFO, layout.pack(layout.size, 0, 0, 0), least=layout.size
    )
    _, flags, regions, _ = layout.unpack_from(reply)
    if not flags & wire.DEVICE_PCI or regions <= wire.CONFIG_REGION:
        raise LinkError(
            f"{connection.path}: the server's device is no PCI device "
            f"(flags {flags:#x}, {regions} regions)"
        )
    return int(flags)


def region(connection: Connection, index: int) -> Region:
    """A region. Its descriptor, if there is one, is the caller's."""
    # The first answer says how long the whole one is.
    needed, found = _region(connection, index, wire.REGION_INFO.size)
    if needed > wire.REGION_INFO.size:
        found.close()
        if needed > VFIO_USER_REGION_INFO_BYTES_MAX:
            raise connection.fail(f"{needed} bytes of information on region {index}")
        again, found = _region(connection, index, needed)
        if again > needed:
            found.close()
            raise connection.fail(f"another length of the information on region {index} each time")
    return found


def _region(connection: Connection, index: int, argsz: int) -> tuple[int, Region]:
    """How long the information on a region is, and as much as fits into `argsz` bytes of it."""
    layout = wire.REGION_INFO
    reply, fds = connection.ask_for_fds(
        wire.DEVICE_GET_REGION_INFO,
        layout.pack(argsz, 0, index, 0, 0, 0),
        least=layout.size,
        most=argsz,
    )
    with contextlib.ExitStack() as stack:
        stack.callback(wire.close_all, fds)
        needed, flags, its_index, at, size, offset = layout.unpack_from(reply)
        if its_index != index or needed < layout.size or len(fds) > 1:
            raise connection.fail(
                f"information on region {its_index} with argsz {needed} and {len(fds)} "
                f"descriptors, when asked for region {index}"
            )
        found = Region(size, bool(flags & wire.REGION_WRITEABLE))
        if needed <= argsz and flags & wire.REGION_MMAP and fds:
            found.areas = [(0, size)]
            if flags & wire.REGION_CAPABILITIES:
                found.areas = _sparse_areas(connection, reply, at) or found.areas
            for start, length in found.areas:
                if start + length > size or (start | length | offset) % _PAGE:
                    raise connection.fail(
                        f"a mappable area of {length:#x} bytes at {start:#x} of region {index}, "
                        f"which has {size:#x}, from {offset:#x} of its file"
                    )
            found.file_offset, found.fd = offset, fds[0]
            stack.pop_all()
    return needed, found


def _sparse_areas(connection: Connection, reply: bytes, at: int) -> list[tuple[int, int]]:
    """The areas of the sparse mmap capability, [] if there is none."""
    for start in _capabilities(connection, reply, at):
        kind, _, _ = wire.CAPABILITY.unpack_from(reply, start)
        if kind == wire.SPARSE_MMAP_ID:
            try:
                start += wire.CAPABILITY.size
                count, _ = wire.SPARSE_MMAP.unpack_from(reply, start)
                start += wire.SPARSE_MMAP.size
                if count * wire.AREA.size <= len(reply) - start:
                    return [
                        wire.AREA.unpack_from(reply, start + number * wire.AREA.size)
                        for number in range(count)
                    ]
            except struct.error:
                pass
            raise connection.fail("a list of mappable areas that is cut short")
    return []


def _capabilities(connection: Connection, reply: bytes, at: int) -> Iterator[int]:
    """Where each capability of a region begins. They must come in the order of their places: a
    list in a circle would never end."""
    last = wire.REGION_INFO.size - 1
    while at:
        if at <= last or at + wire.CAPABILITY.size > len(reply):
            raise connection.fail(f"a list of capabilities that leads to {at} of {len(reply)}")
        yield at
        last, at = at, wire.CAPABILITY.unpack_from(reply, at)[2]


def msix_count(connection: Connection) -> int:
    """How many MSI-X vectors the server can be given eventfds for."""
    layout = wire.IRQ_INFO
    reply = connection.ask(
        wire.DEVICE_GET_IRQ_INFO, layout.pack(layout.size, 0, irq.MSIX, 0), least=layout.size
    )
    _, flags, _, count = layout.unpack_from(reply)
    return int(count) if flags & irq.INFO_EVENTFD else 0
