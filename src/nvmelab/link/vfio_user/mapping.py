"""Files that the peer hands over, mapped into this process.

The peer is trusted in one respect. A file that it cuts short after the mapping turns the next
access into SIGBUS, which ends this process. Where the file can be sealed (a memfd), it is sealed
against that; QEMU's memfd is sealed by itself. Other files (a file on disk, hugetlbfs, a file
system that runs full) stay open to it.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat

from nvmelab.link.vfio_user.wire import Refused


def map_shared(fd: int, offset: int, size: int, *, writable: bool, what: str) -> memoryview:
    """A shared mapping of `size` bytes of the file. It ends when nobody refers to the view any
    more. (Python's mmap keeps a duplicate of the descriptor until then.) The descriptor stays the
    caller's. Raises Refused, whose text begins with `what`."""
    file = os.fstat(fd)
    if not stat.S_ISREG(file.st_mode):
        # The size of anything else says nothing about what may be touched.
        raise Refused(errno.EINVAL, f"{what} of a descriptor that is no regular file or memfd")
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    except OSError:
        pass  # No memfd, or sealed already, or not to be sealed. See the head of the file.
    length = os.fstat(fd).st_size  # only now: it cannot shrink any more
    if offset + size > length:
        raise Refused(
            errno.EINVAL, f"{what} of {size:#x} bytes from {offset:#x} of a file of {length:#x}"
        )
    # A mapping begins at a page of the file. Those of hugetlbfs are as large as its blocks, and
    # QEMU cuts RAM at 0xa0000 and 0xc0000 whatever they are.
    page = mmap.ALLOCATIONGRANULARITY
    before = offset % (file.st_blksize if file.st_blksize % page == 0 else page)
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        mapping = mmap.mmap(
            fd, before + size, flags=mmap.MAP_SHARED, prot=protection, offset=offset - before
        )
    except OSError as error:
        raise Refused(error.errno or errno.ENOMEM, f"{what}: mmap: {error.strerror}") from None
    except (ValueError, OverflowError) as error:
        raise Refused(errno.EINVAL, f"{what}: mmap: {error}") from None
    return memoryview(mapping)[before:]
