"""Who does what a controller asks of its storage and does not wait for.

`Worker` is a thread for operations that may take long, such as a flush: the controller must answer
register reads meanwhile, because QEMU gives up on a device that does not answer for five seconds.
`delayed.DelayedWorker` makes them all take a while, `held.HeldWorker` leaves it to a tester.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol


class StorageWorker(Protocol):
    """Takes operations and says when they are done."""

    carries_data: bool
    """Reads and writes go to it too; without, only what may take long."""
    finished: deque[tuple[object, Exception | None]]
    """(token, error or None) of the operations that are done. An error that is no OSError is a bug
    of ours: whoever takes it raises it."""

    def submit(self, token: object, work: Callable[[], None]) -> None:
        """Have `work` done."""
        ...


def attempt(work: Callable[[], None]) -> Exception | None:
    """Do it; the error it ended with."""
    try:
        work()
    except Exception as failure:
        return failure
    return None


class Worker:
    """One thread that takes operations in order.

    `fd` is an eventfd that becomes readable when `finished` has grown. The thread touches nothing
    else of the caller's.
    """

    carries_data = False

    def __init__(self) -> None:
        self.finished: deque[tuple[object, Exception | None]] = deque()
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._work: queue.SimpleQueue[tuple[object, Callable[[], None]] | None]
        self._work = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._loop, name="nvmelab-storage", daemon=True)
        self._thread.start()

    def submit(self, token: object, work: Callable[[], None]) -> None:
        """Have `work` done."""
        self._work.put((token, work))

    def acknowledge(self) -> None:
        """Make `fd` unreadable again; call it before looking at `finished`."""
        try:
            os.eventfd_read(self.fd)
        except BlockingIOError:
            pass

    def close(self) -> None:
        """End the thread, after what was submitted, and close the descriptor."""
        self._end()
        self._thread.join()
        os.close(self.fd)

    def _end(self) -> None:
        self._work.put(None)

    def _loop(self) -> None:
        while (item := self._work.get()) is not None:
            token, work = item
            self._finish(token, attempt(work))

    def _finish(self, token: object, error: Exception | None) -> None:
        self.finished.append((token, error))
        os.eventfd_write(self.fd, 1)
