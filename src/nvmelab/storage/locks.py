"""Locks on an image, held in the way in which QEMU holds them, so that both respect each other.

QEMU gives each user of an image a set of permissions, and lets it say which of them it shares with
others. Each permission is a bit number, and stands for two bytes of the file: a read lock on byte
100 + bit says "I use this permission", a read lock on byte 200 + bit says "nobody else may use it".
Nothing is stored in these bytes, and they need not exist. Whoever opens an image first takes all
its locks, which cannot conflict as they are read locks, and then asks whether a write lock on the
opposite bytes would be possible. Two that do this at once may both fail; they never both succeed.

The locks belong to the open file ("open file description locks"): they go when its last descriptor
is closed, also when the process dies; a descriptor that was duplicated or inherited keeps them.
They are advice. A program that does not ask, such as `dd` or `losetup`, is not stopped.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct

_USES = 100
_REFUSES = 200

_CONSISTENT_READ = 0
_WRITE = 1
_RESIZE = 3

_OTHERS_MAY_NOT = (_WRITE, _RESIZE)
"""What QEMU's own NVMe device refuses to others, be it a writer or a reader itself."""

_FLOCK = struct.Struct("@hhqqi4x")
"""C's `struct flock` with 64-bit offsets: type, whence, start, length, pid."""


class LockConflict(Exception):
    """Another open file holds locks that ours would contradict.

    `writing` says that the other may change the image; otherwise it reads, and allows no change.
    `who` names the processes, as far as this user is allowed to see them.
    """

    def __init__(self, who: list[str], *, writing: bool) -> None:
        super().__init__("the image is in use by " + (", ".join(who) or "another process"))
        self.who = who
        self.writing = writing


def lock_fd(fd: int, *, write: bool) -> None:
    """Lock the image that is open as `fd`, for reading and also for writing if `write` says so.

    Nobody else may then write to it or resize it. The locks are released by closing `fd`, and by
    nothing else; after an error, close it. Raises LockConflict, and OSError where the file system
    has no locks.
    """
    uses = (_CONSISTENT_READ, _WRITE) if write else (_CONSISTENT_READ,)
    for byte in [_USES + bit for bit in uses] + [_REFUSES + bit for bit in _OTHERS_MAY_NOT]:
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _flock(fcntl.F_RDLCK, byte))
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            # Not QEMU: it never takes a write lock. Whoever does wants the image for itself.
            raise LockConflict(_holders(fd), writing=True) from None
    if any(_locked_by_another(fd, _USES + bit) for bit in _OTHERS_MAY_NOT):
        raise LockConflict(_holders(fd), writing=True)
    if any(_locked_by_another(fd, _REFUSES + bit) for bit in uses):
        raise LockConflict(_holders(fd), writing=False)


def _flock(kind: int, byte: int) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0)


def _locked_by_another(fd: int, byte: int) -> bool:
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, byte))
    return int(_FLOCK.unpack(answer)[0]) != fcntl.F_UNLCK


def _holders(fd: int) -> list[str]:
    """The processes that hold a lock on the file `fd`, such as "qemu-system-x86 (pid 123)".

    The kernel does not say it: such a lock belongs to no process, and its pid is given as -1. But
    /proc shows, for each descriptor of the processes that we may look into, the locks it holds.
    """
    image = os.fstat(fd)
    found: list[str] = []
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue
        for number in numbers:
            if pid == os.getpid() and int(number) == fd:
                continue
            if _holds_lock(pid, number, image):
                found.append(_process_name(pid))
                break
    return found


def _holds_lock(pid: int, number: str, image: os.stat_result) -> bool:
    try:
        if not os.path.samestat(os.stat(f"/proc/{pid}/fd/{number}"), image):
            return False
        with open(f"/proc/{pid}/fdinfo/{number}") as info:
            return any(line.startswith("lock:") for line in info)
    except OSError:
        return False  # the process or its descriptor is gone by now


def _process_name(pid: int) -> str:
    if pid == os.getpid():
        return f"this process (pid {pid})"
    try:
        with open(f"/proc/{pid}/comm", errors="replace") as comm:
            return f"{comm.read().strip()} (pid {pid})"
    except OSError:
        return f"pid {pid}"
