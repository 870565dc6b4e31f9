"""The expected formats are what `qemu-img info` of QEMU 7.2 and 11.1 said of the same bytes."""

from __future__ import annotations

import pytest

from nvmelab.storage.probe import PROBE_BYTES, format_of

CLOOP = b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\n"
BOCHS = b"Bochs Virtual HD Image".ljust(32, b"\0") + b"Redolog".ljust(16, b"\0")
BOCHS_GROWING = BOCHS + b"Growing".ljust(16, b"\0")

FORMATS = {
    "raw": [
        b"",
        b"QFI\xfb",
        b"QFI\xfb\0\0\0\0",
        b"KDM",
        b"QEDx",
        b"\0" * 64 + b"\xbe\xda\x10\x7f",
        b"LUKS\xba\xbe\0\2",
        b"WithoutFreeSpace\1\0\0\0",
        b"WithouFreSpacExt\3\0\0\0",
        b"# Disk DescriptorFile\n",
        b"# Disk DescriptorFile\nversion=4\n",
        b"# Disk DescriptorFile\nCID=1\nversion=1\n",
        b"\nversion=1\n",
        b"\t\nversion=1\n",
        b" version=1\n",
        b"version=1",
        b"version=10\n",
        b"VERSION=1\n",
        BOCHS_GROWING + b"\0\0\3\0",
        BOCHS + b"Undoable".ljust(16, b"\0") + b"\0\0\2\0",
        CLOOP[:-1],
    ],
    "qcow": [b"QFI\xfb\0\0\0\1"],
    "qcow2": [b"QFI\xfb\0\0\0\2", b"QFI\xfb\0\0\0\3", b"QFI\xfb\0\0\0\x09"],
    "vmdk": [
        b"KDMV",
        b"COWD\1\0\0\0",
        b"# Disk DescriptorFile\nversion=1\n",
        b"# Disk DescriptorFile\nversion=3\r\n",
        b"# one\r\n   \n \r\n# two\nversion=2\n",
        b"version=1\n",
    ],
    "vdi": [b"\0" * 64 + b"\x7f\x10\xda\xbe"],
    "vhdx": [b"vhdxfile"],
    "vpc": [b"conectix"],
    "qed": [b"QED\0"],
    "luks": [b"LUKS\xba\xbe\0\1"],
    "parallels": [b"WithoutFreeSpace\2\0\0\0", b"WithouFreSpacExt\2\0\0\0"],
    "bochs": [BOCHS_GROWING + b"\0\0\1\0", BOCHS_GROWING + b"\0\0\2\0"],
    "cloop": [CLOOP],
}


@pytest.mark.parametrize(
    ("expected", "head"), [(name, head) for name, heads in FORMATS.items() for head in heads]
)
@pytest.mark.parametrize("length", [0, PROBE_BYTES])
def test_head_has_the_format_that_qemu_says(expected: str, head: bytes, length: int) -> None:
    assert format_of(head.ljust(length, b"\0")) == expected


def test_dmg_is_known_by_its_name() -> None:
    assert format_of(bytes(PROBE_BYTES), "disk.dmg") == "dmg"


def test_vhd_of_fixed_size_is_raw_because_its_mark_is_at_the_end() -> None:
    disk = bytes(4096) + b"conectix" + bytes(504)
    assert format_of(disk[:PROBE_BYTES], "disk.vhd") == "raw"
