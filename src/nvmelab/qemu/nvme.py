"""`-device nvme` of a QEMU command line: its properties, and the `vfio-user-pci` in its place.

Names, defaults and ranges are QEMU's. A property that we do not have is refused, never ignored.
Not here: more than one namespace in a controller (`nvme-ns`), subsystems, SR-IOV, CMB and PMR.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from nvmelab.limits import (
    QEMU_BLOCK_SIZE_MAX,
    QEMU_IO_QUEUE_PAIRS_MAX,
    QEMU_MSIX_VECTORS_MAX,
    QEMU_SERIAL_MAX,
)
from nvmelab.qemu.disks import Image
from nvmelab.qemu.options import CommandLineError, read_bool, read_integer, read_size


class NvmeDevice(msgspec.Struct, frozen=True, kw_only=True):
    """One `-device nvme`: what our controller must be to stand in for it."""

    serial: str
    id: str | None
    """QEMU's id of the device, if it has one."""
    image: Image
    mqes: int | None
    """CAP.MQES, 0's based: a queue has at most one entry more. None: not given, QEMU has 2047."""
    max_ioqpairs: int
    msix_qsize: int
    """MSI-X vectors."""
    mdts: int
    """The power of two, in pages of 4 KiB, of the largest transfer; 0: no limit."""
    logical_block_size: int
    """Bytes."""
    physical_block_size: int
    """Bytes."""
    placement: dict[str, object]
    """Properties that stay QEMU's, as `vfio-user-pci` takes them: id, bus, addr, bootindex..."""

    def vfio_user(self, socket: str) -> str:
        """The value of the `-device` that takes this one's place, connected to that socket."""
        address = {"path": socket, "type": "unix"}
        properties = {"driver": "vfio-user-pci", "socket": address, **self.placement}
        return json.dumps(properties, separators=(",", ":"))


class NvmeProperties(NamedTuple):
    """A `-device nvme` as read, before its drive was looked up."""

    drive: str
    fields: dict[str, object]
    """The fields of NvmeDevice but `image`."""


class _Number(NamedTuple):
    low: int
    high: int
    default: int | None


_NUMBERS = {
    "mqes": _Number(1, 0xFFFF, None),
    "max_ioqpairs": _Number(1, QEMU_IO_QUEUE_PAIRS_MAX, 64),
    "msix_qsize": _Number(1, QEMU_MSIX_VECTORS_MAX, 65),
    "mdts": _Number(0, 0xFF, 7),
}
_PLACEMENT_NUMBERS = {
    "bootindex": _Number(-(1 << 31), (1 << 31) - 1, None),
    "acpi-index": _Number(0, (1 << 32) - 1, None),
}
_BLOCK_SIZES = ("logical_block_size", "physical_block_size")
_BLOCK_SIZE_DEFAULT = 512
_UNDERSTOOD = (
    *("serial", "drive", "id", "bus", "addr", *_PLACEMENT_NUMBERS, "multifunction"),
    *_NUMBERS,
    *_BLOCK_SIZES,
)


def read_properties(table: Mapping[str, object]) -> NvmeProperties:
    """Judge the properties of one `-device nvme`. Raises CommandLineError without saying which."""
    if "subsys" in table:
        raise CommandLineError(
            "subsys= is not served: a controller has one namespace, given by drive="
        )
    for key in table:
        if key not in _UNDERSTOOD and key != "driver":
            raise CommandLineError(
                f"property {key!r} is not served; understood: {', '.join(_UNDERSTOOD)}"
            )
    serial = _string(table, "serial")
    if serial is None:
        raise CommandLineError("serial= is required, as in QEMU")
    if len(serial) > QEMU_SERIAL_MAX or not serial.isascii() or not serial.isprintable():
        raise CommandLineError(f"serial= takes at most {QEMU_SERIAL_MAX} ASCII characters")
    drive = _string(table, "drive")
    if drive is None:
        raise CommandLineError("drive= is required: the controller's one namespace is that drive")
    fields: dict[str, object] = {"serial": serial, "id": _string(table, "id")}
    for key, number in _NUMBERS.items():
        fields[key] = _number(table, key, number)
    fields.update(_block_sizes(table))
    fields["placement"] = _placement(table)
    return NvmeProperties(drive, fields)


def _string(table: Mapping[str, object], key: str) -> str | None:
    value = table.get(key)
    if value is None or isinstance(value, str):
        return value
    raise CommandLineError(f"{key}={value} is not a string")


def _number(table: Mapping[str, object], key: str, number: _Number) -> int | None:
    if key not in table:
        return number.default
    try:
        value = read_integer(table[key])
    except CommandLineError as error:
        raise CommandLineError(f"{key}: {error}") from None
    if not number.low <= value <= number.high:
        raise CommandLineError(f"{key}={value} is not between {number.low} and {number.high}")
    return value


def _block_sizes(table: Mapping[str, object]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for key in _BLOCK_SIZES:
        try:
            # Zero is QEMU's own default for "not set".
            size = read_size(table.get(key, 0)) or _BLOCK_SIZE_DEFAULT
        except CommandLineError as error:
            raise CommandLineError(f"{key}: {error}") from None
        if size & (size - 1) or not _BLOCK_SIZE_DEFAULT <= size <= QEMU_BLOCK_SIZE_MAX:
            raise CommandLineError(
                f"{key}={size} is not a power of two between {_BLOCK_SIZE_DEFAULT} and "
                f"{QEMU_BLOCK_SIZE_MAX}"
            )
        sizes[key] = size
    if sizes["logical_block_size"] > sizes["physical_block_size"]:
        raise CommandLineError(
            f"logical_block_size={sizes['logical_block_size']} is larger than "
            f"physical_block_size={sizes['physical_block_size']}; set both"
        )
    return sizes


def _placement(table: Mapping[str, object]) -> dict[str, object]:
    """What goes on to `vfio-user-pci`, which is JSON and wants exact types."""
    placement: dict[str, object] = {}
    for key in ("id", "bus", "addr"):
        # A JSON `addr` may be a number, and then means device and function in one.
        if key in table:
            placement[key] = table[key] if key == "addr" else _string(table, key)
    for key, number in _PLACEMENT_NUMBERS.items():
        if key in table:
            placement[key] = _number(table, key, number)
    if "multifunction" in table:
        try:
            placement["multifunction"] = read_bool(table["multifunction"])
        except CommandLineError as error:
            raise CommandLineError(f"multifunction: {error}") from None
    return placement
