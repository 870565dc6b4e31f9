"""MSI-X over vfio-user: one eventfd for each vector, given and taken by the peer.

The peer emulates the MSI-X table; masks and messages never come here. A vector that is raised
while the peer has given no eventfd for it stays pending and fires when one arrives.

Interrupt types other than MSI-X: the error interrupt (AER) is accepted and never raised, because
QEMU prints a warning about a device that has none; INTx, MSI and the request interrupt do not
exist.
"""

from __future__ import annotations

import errno
import os
import sys

from nvmelab.link.vfio_user.wire import Refused, close_all

# Interrupt types.
INTX, MSI, MSIX, ERR, REQ = range(5)
TYPES = 5

# Flags of GET_IRQ_INFO. NORESIZE is never set: QEMU would disable and enable all vectors whenever
# a new one is used, and lose what is raised in between.
INFO_EVENTFD = 0x1

# Flags of SET_IRQS: kind of data, and action.
DATA_NONE = 0x01
DATA_EVENTFD = 0x04
TRIGGER = 0x20

_ONE = (1).to_bytes(8, sys.byteorder)
_NONE = -1


class Interrupts:
    """The eventfds of one function with `vectors` MSI-X vectors."""

    def __init__(self, vectors: int) -> None:
        self._counts = {INTX: 0, MSI: 0, MSIX: vectors, ERR: 1, REQ: 0}
        self._fds = [_NONE] * vectors
        self._pending = bytearray(vectors)

    def raise_vector(self, vector: int) -> None:
        """Raise an MSI-X vector once: at once, or when its eventfd arrives."""
        fd = self._fds[vector]
        if fd < 0:
            self._pending[vector] = 1
            return
        try:
            os.write(fd, _ONE)
        except BlockingIOError:
            # The counter is full: the peer has 2^64 - 2 interrupts to see, one more says no more.
            pass

    def pending(self, vector: int) -> bool:
        """The vector was raised and waits for an eventfd."""
        return bool(self._pending[vector])

    def info(self, index: int) -> tuple[int, int]:
        """Flags and number of interrupts of a type. Raises Refused."""
        if index not in self._counts:
            raise Refused(errno.EINVAL, f"no interrupt type {index}")
        count = self._counts[index]
        return (INFO_EVENTFD if count else 0), count

    def set(self, flags: int, index: int, start: int, count: int, fds: list[int]) -> None:
        """What SET_IRQS asks: give `count` vectors from `start` eventfds, or none, or disable all.
        Takes descriptors out of `fds`; what is left in it is the caller's. Raises Refused."""
        _, available = self.info(index)
        if start + count > available:
            raise Refused(
                errno.EINVAL,
                f"interrupts {start} to {start + count} of type {index}, which has {available}",
            )
        if flags == DATA_NONE | TRIGGER and count == 0 and not fds:
            if index == MSIX:
                self.clear()
        elif flags == DATA_EVENTFD | TRIGGER and count and len(fds) in (0, count):
            self._assign(index, start, count, fds)
        else:
            raise Refused(
                errno.ENOTSUP,
                f"interrupt type {index}: flags {flags:#x}, count {count}, {len(fds)} descriptors",
            )

    def clear(self) -> None:
        """Close all eventfds and forget what is pending: a function whose MSI-X is disabled holds
        no message back, and who enables it again must not see one from before."""
        close_all([fd for fd in self._fds if fd >= 0])
        self._fds = [_NONE] * len(self._fds)
        self.forget_pending()

    def forget_pending(self) -> None:
        """The function was reset: nothing is pending. The eventfds stay."""
        self._pending = bytearray(len(self._fds))

    def _assign(self, index: int, start: int, count: int, fds: list[int]) -> None:
        for fd in fds:
            _check_eventfd(fd)
        if index != MSIX:
            # The error interrupt: never raised, so its descriptor is of no use.
            return
        new = list(fds) or [_NONE] * count
        fds.clear()
        close_all([fd for fd in self._fds[start : start + count] if fd >= 0])
        self._fds[start : start + count] = new
        for vector in range(start, start + count):
            if self._pending[vector] and self._fds[vector] >= 0:
                self._pending[vector] = 0
                self.raise_vector(vector)


def _check_eventfd(fd: int) -> None:
    """Refuse a descriptor that is no eventfd: a write to a pipe or a file could block us or end
    the process. Also makes it non-blocking. Raises Refused."""
    try:
        what = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        what = "anon_inode:[eventfd]"  # without /proc there is nothing to check with
    if what != "anon_inode:[eventfd]":
        raise Refused(errno.EINVAL, "a descriptor given for an interrupt is no eventfd")
    os.set_blocking(fd, False)
