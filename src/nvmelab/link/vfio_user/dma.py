"""Guest memory over vfio-user: DMA_MAP and DMA_UNMAP to mappings in a GuestMemory.

A region that comes with a descriptor is mapped shared and placed into the GuestMemory. A region
without one is remembered, so that it can be unmapped, and cannot be reached: DMA by message is not
implemented.

Two ways to start QEMU leave a server without the guest's RAM, and neither shows as an error in the
protocol. Both are refused here, with RamUnreachable:

* a memory backend with share=off: the descriptor comes, but QEMU itself has mapped it privately,
  so what the guest writes is not in the file;
* anonymous RAM: no descriptor comes.

The peer is trusted in one respect: see `mapping.py`.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right

from nvmelab.limits import DMA_REGIONS_MAX
from nvmelab.link.vfio_user.mapping import map_shared
from nvmelab.link.vfio_user.wire import Refused
from nvmelab.memory import GuestMemory

# Flags of DMA_MAP. The last two came with QEMU 11.1's document: how the descriptor may be used.
READABLE, WRITEABLE, BY_MMAP, BY_FILE_IO = 0x1, 0x2, 0x4, 0x8
_FLAGS = READABLE | WRITEABLE | BY_MMAP | BY_FILE_IO

# Flag of DMA_UNMAP.
UNMAP_ALL = 0x2

_PAGE = 4096
_ADDRESSES = 1 << 64

ADVICE = (
    "start QEMU with -object memory-backend-memfd,id=mem0,size=...,share=on "
    "-machine memory-backend=mem0"
)


class RamUnreachable(Refused):
    """The guest's RAM cannot be shared with us, because of the way QEMU was started."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EINVAL, f"{why}: {ADVICE}")


class _Mapping:
    """What one DMA_MAP gave."""

    __slots__ = ("end", "reachable", "start", "writable")

    def __init__(self, start: int, size: int, writable: bool, reachable: bool) -> None:
        self.start = start
        self.end = start + size
        self.writable = writable
        self.reachable = reachable


class DmaRegions:
    """The regions one peer has mapped. `peer_pid` is 0 where it is not known."""

    def __init__(self, memory: GuestMemory, peer_pid: int) -> None:
        self._memory = memory
        self._peer_pid = peer_pid
        self._starts: list[int] = []
        self._mappings: list[_Mapping] = []
        self._known_shared: set[tuple[int, int]] = set()
        self._private_ram = False

    def check_ram(self) -> None:
        """Raises RamUnreachable if what was mapped so far leaves the guest's RAM out. Regions
        without a descriptor beside others that have one are normal (a display's memory)."""
        if self._private_ram:
            raise RamUnreachable("guest RAM is private (share=off)")
        without = any(m.writable and not m.reachable for m in self._mappings)
        if without and not any(m.reachable for m in self._mappings):
            raise RamUnreachable("guest RAM is not shared (it has no file behind it)")

    def map(self, flags: int, offset: int, address: int, size: int, fd: int | None) -> None:
        """Map `size` bytes of `fd` from `offset` at bus address `address`. The descriptor stays
        the caller's. Raises Refused, and RamUnreachable for a private one."""
        writable = bool(flags & WRITEABLE)
        at = self._place(flags, offset, address, size)
        private = False
        if fd is not None:
            if flags & (BY_MMAP | BY_FILE_IO) == BY_FILE_IO:
                raise Refused(errno.ENOTSUP, "DMA_MAP of a file that must not be mapped")
            private = self._is_private(fd)
            if not private:
                buffer = map_shared(fd, offset, size, writable=writable, what="DMA_MAP")
                self._memory.map(address, buffer, writable=writable)
        self._starts.insert(at, address)
        reachable = fd is not None and not private
        self._mappings.insert(at, _Mapping(address, size, writable, reachable))
        if private:
            # Refused, and remembered all the same: QEMU takes no notice of the refusal of one map
            # of several, and unmaps it later.
            self._private_ram = True
            raise RamUnreachable("guest RAM is private (share=off)")

    def unmap(self, flags: int, address: int, size: int) -> None:
        """Forget the region that was mapped with just this address and size, or with UNMAP_ALL
        (address and size 0) all of them. Raises Refused."""
        if flags == UNMAP_ALL and address == size == 0:
            self.clear()
            return
        if flags:
            raise Refused(errno.EINVAL, f"DMA_UNMAP with flags {flags:#x}")
        at = bisect_right(self._starts, address) - 1
        if at < 0 or self._starts[at] != address or self._mappings[at].end != address + size:
            raise Refused(errno.ENOENT, f"DMA_UNMAP of {size:#x} bytes at {address:#x}: not mapped")
        if self._mappings[at].reachable:
            self._memory.unmap(address, size)
        del self._starts[at], self._mappings[at]

    def clear(self) -> None:
        """Unmap everything."""
        self._starts.clear()
        self._mappings.clear()
        self._memory.clear()

    def _place(self, flags: int, offset: int, address: int, size: int) -> int:
        """Where the region belongs in the sorted list. Raises Refused if it may not be there."""
        what = f"DMA_MAP of {size:#x} bytes at {address:#x}"
        if flags & ~_FLAGS or not flags & (READABLE | WRITEABLE):
            raise Refused(errno.EINVAL, f"{what}: flags {flags:#x}")
        if size == 0 or (address | size | offset) % _PAGE or address + size > _ADDRESSES:
            raise Refused(errno.EINVAL, f"{what}, file offset {offset:#x}: not whole pages")
        if len(self._mappings) >= DMA_REGIONS_MAX:
            raise Refused(errno.ENOSPC, f"{what}: more than {DMA_REGIONS_MAX} regions")
        at = bisect_right(self._starts, address)
        before = self._mappings[at - 1].end if at else 0
        after = self._starts[at] if at < len(self._starts) else _ADDRESSES
        if address < before or address + size > after:
            raise Refused(errno.EEXIST, f"{what}: overlaps a mapped region")
        return at

    def _is_private(self, fd: int) -> bool:
        """The peer has the file mapped privately."""
        file = os.fstat(fd)
        key = (file.st_dev, file.st_ino)
        if key in self._known_shared:
            return False
        if _mapped_privately(self._peer_pid, file):
            return True
        self._known_shared.add(key)
        return False


def _mapped_privately(pid: int, file: os.stat_result) -> bool:
    """The process has writable mappings of the file that are private, and none that is shared.

    False where that cannot be found out: no pid (the peer is in another PID namespace), no right
    to read its maps, or a file system whose device number in there is another one than stat's.
    """
    device = b"%02x:%02x" % (os.major(file.st_dev), os.minor(file.st_dev))
    inode = b"%d" % file.st_ino
    private = False
    try:
        with open(f"/proc/{pid}/maps", "rb") as lines:
            for line in lines:
                _, access, _, its_device, its_inode = line.split(None, 5)[:5]
                if its_device == device and its_inode == inode:
                    if access.endswith(b"s"):
                        return False
                    private |= b"w" in access
    except OSError:
        return False
    return private
