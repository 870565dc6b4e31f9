"""Disks that firmware can boot from or read: a boot sector, and a FAT file system."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

SECTOR = 512
BOOTED = b"BOOT-SECTOR-OK\n"


def boot_disk(size: int, reads: int = 1) -> bytes:
    """A disk whose boot sector reads 16 more sectors through the BIOS, `reads` times, prints what
    stands at their end on the serial port, and powers the machine off."""
    code = bytes.fromhex(
        "fa 31c0 8ed8 8ec0 8ed0 bc007c"  # no interrupts; all segments 0; a stack
        f"bf{reads:02x}00"  # so often:
        "be407c b442 cd13"  # int 13h, extended read, by the packet at 7C40
        "7215"  # carry: to the end
        "4f 75f4"  # once more
        "bef09f"  # 9FF0: the last 16 bytes of what was read to 8000
        "ac 84c0 740b"  # a byte; 0 ends
        "baf803 ee ebf5"  # to the serial port; on
        "9090909090"
        "ba0406 b80020 ef"  # ACPI: power off
        "f4 ebfd"  # halt
    )
    packet = struct.pack("<BBHHHQ", 16, 0, 16, 0x8000, 0, 1)
    sector = code.ljust(0x40, b"\0") + packet
    data = b"x" * (16 * SECTOR - 16) + BOOTED.ljust(16, b"\0")
    return (sector.ljust(510, b"\0") + b"\x55\xaa" + data).ljust(size, b"\0")


class Fat:
    """A FAT16 file system on a whole disk, whose clusters have 4 sectors."""

    _CLUSTER = 4 * SECTOR
    _ROOTS = 512

    def __init__(self) -> None:
        self._table = [0xFFF8, 0xFFFF]
        self._contents = b""

    def _store(self, data: bytes) -> int:
        """The first cluster of what was stored."""
        count = max(1, -(-len(data) // self._CLUSTER))
        first = len(self._table)
        self._table += [*range(first + 1, first + count), 0xFFFF]
        self._contents += data.ljust(count * self._CLUSTER, b"\0")
        return first

    @staticmethod
    def _entry(name: str, attribute: int, first: int, size: int) -> bytes:
        stem, _, end = name.partition(".")
        words = struct.pack("<B14xHI", attribute, first, size)
        return f"{stem:8}{end:3}".encode() + words

    def file(self, name: str, data: bytes) -> bytes:
        """The entry of a file with an 8.3 name."""
        return self._entry(name, 0x20, self._store(data), len(data))

    def folder(self, name: str, *entries: bytes) -> bytes:
        """The entry of a folder that has these."""
        return self._entry(name, 0x10, self._store(b"".join(entries)), 0)

    def disk(self, *roots: bytes, clusters: int = 16_000) -> bytes:
        """The whole disk, with these entries in its root."""
        table_sectors = -(-2 * (clusters + 2) // SECTOR)
        total = 1 + 2 * table_sectors + self._ROOTS * 32 // SECTOR + clusters * 4
        boot = struct.pack(
            "<3s8sHBHBHHBHHHII",
            b"\xeb\x3c\x90",
            b"nvmelab ",
            *(SECTOR, 4, 1, 2, self._ROOTS, 0, 0xF8, table_sectors, 32, 8, 0, total),
        )
        boot += struct.pack("<BBBI11s8s", 0x80, 0, 0x29, 0x2388, b"NVMELAB    ", b"FAT16   ")
        table = struct.pack(f"<{len(self._table)}H", *self._table)
        head = boot.ljust(510, b"\0") + b"\x55\xaa" + 2 * table.ljust(table_sectors * SECTOR, b"\0")
        root = b"".join(roots).ljust(self._ROOTS * 32, b"\0")
        return (head + root + self._contents).ljust(total * SECTOR, b"\0")


EFI_SOURCE = Path(__file__).parent / "efi.c"
EFI_BLOCK = 70_000
"""Where the blocks begin that it reads: behind the file system."""


def efi_disk(
    lab: Path, folder: Path, payload: bytes = b"", *, bursts: int = 0, commands: int = 1
) -> bytes:
    """A disk whose UEFI program checks the payload that it has in it, reads blocks without waiting
    for each, in bursts of so many commands, and powers the machine off. The lab's compiler makes
    it."""
    fat = Fat()
    defined = {"SIZE": len(payload), "SUM": sum(payload), "FIRST": EFI_BLOCK}
    program = _efi_program(lab, folder, payload, defined | {"BURSTS": bursts, "COMMANDS": commands})
    boot = fat.folder("BOOT", fat.file("BOOTX64.EFI", program))
    disk = fat.disk(fat.folder("EFI", boot)).ljust(EFI_BLOCK * SECTOR, b"\0")
    numbers = range(EFI_BLOCK, EFI_BLOCK + 1024 + commands)
    return disk + b"".join(struct.pack("<Q", number) * (SECTOR // 8) for number in numbers)


def _efi_program(lab: Path, folder: Path, payload: bytes, defined: dict[str, int]) -> bytes:
    (folder / "payload.bin").write_bytes(payload)
    words = [f"-D{name}={value}" for name, value in defined.items()]
    words += ["-O1", "-Wall", "-Werror", "-ffreestanding", "-fno-ident", "-mno-red-zone"]
    words += ["-fno-stack-protector", "-fPIC", "-fvisibility=hidden", "-c", "-o", "app.o"]
    subprocess.run([lab / "bin/gcc", *words, EFI_SOURCE], cwd=folder, check=True)
    # The compiler's own way to the linker is for ELF programs.
    words = ["-m", "i386pep", "--subsystem", "10", "-e", "efi_main", "app.o", "-o", "app.efi"]
    environment = os.environ | {"LAB_GCC": str(lab / "spin")}
    subprocess.run([lab / "spin/tools/ld", *words], cwd=folder, env=environment, check=True)
    return (folder / "app.efi").read_bytes()
