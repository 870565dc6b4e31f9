"""Which format a disk image seems to have, judged by its first bytes as QEMU judges it.

nvmelab serves raw images only. An image in another format would look to the guest like a small disk
full of nonsense, and its first write would destroy it, so the format is looked at first.

The answers are those that `qemu-img info` gave (QEMU 7.2 and 11.1) for headers made for the
purpose. Some may surprise: a VHD file of fixed size has its mark in the last 512 bytes, where QEMU
does not look, so it counts as raw (and can be used so); a .dmg file is known by its name alone; a
VMDK descriptor needs its version in the first line that is neither a comment nor made of spaces.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

PROBE_BYTES = 512
"""How much of an image's start is looked at: no mark stands further in."""

_VMDK_DESCRIPTOR = re.compile(rb"(?:#[^\n]*\n| +\r?\n)*version=[123]\r?\n")
_CLOOP_SCRIPT = (
    b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
)
_BOCHS = (
    b"Bochs Virtual HD Image".ljust(32, b"\0")
    + b"Redolog".ljust(16, b"\0")
    + b"Growing".ljust(16, b"\0")
)


def _number(code: str, head: bytes, at: int) -> int:
    """The number at byte `at`, coded as `struct` says; -1 where the image ends before it."""
    size = struct.calcsize(code)
    return int(struct.unpack_from(code, head, at)[0]) if len(head) >= at + size else -1


_MARKS: dict[str, Callable[[bytes], bool]] = {
    "qcow": lambda head: head[:4] == b"QFI\xfb" and _number(">I", head, 4) == 1,
    "qcow2": lambda head: head[:4] == b"QFI\xfb" and _number(">I", head, 4) >= 2,
    "vmdk": lambda head: head[:4] in (b"KDMV", b"COWD") or _VMDK_DESCRIPTOR.match(head) is not None,
    "vdi": lambda head: _number("<I", head, 64) == 0xBEDA107F,
    "vhdx": lambda head: head[:8] == b"vhdxfile",
    "vpc": lambda head: head[:8] == b"conectix",
    "qed": lambda head: head[:4] == b"QED\0",
    "luks": lambda head: head[:6] == b"LUKS\xba\xbe" and _number(">H", head, 6) == 1,
    "parallels": lambda head: (
        head[:16] in (b"WithoutFreeSpace", b"WithouFreSpacExt") and _number("<I", head, 16) == 2
    ),
    "bochs": lambda head: head.startswith(_BOCHS) and _number("<I", head, 64) in (0x10000, 0x20000),
    "cloop": lambda head: head.startswith(_CLOOP_SCRIPT),
}


def format_of(head: bytes, name: str = "") -> str:
    """QEMU's name of the format of an image that begins with `head` (its first PROBE_BYTES bytes,
    or all it has) and is called `name`; "raw" when nothing else fits."""
    for found, fits in _MARKS.items():
        if fits(head):
            return found
    return "dmg" if name.endswith(".dmg") else "raw"
