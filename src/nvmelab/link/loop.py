"""The event loop: file descriptors that become ready, and workers that take steps in between.

One `Loop` drives any number of links in one process: their sockets, a child process to watch
(its pidfd), a timer (a timerfd). Each turn calls the callbacks of the descriptors that are ready,
then every worker once. A worker is a device's `run`: it takes one fair turn of steps and says
whether it left any. While one did, the next turn does not wait.

It does not do: threads (everything but `stop` belongs to the thread that runs the loop), timers of
its own, priorities.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable

Callback = Callable[[int], None]
"""Called with the epoll events that are set (`select.EPOLLIN` and others)."""

Worker = Callable[[], bool]
"""Takes some steps; True if there are more."""


class Loop:
    """Callbacks for descriptors and workers, one turn after the other.

    A turn sleeps until a descriptor is ready, unless somebody has something to poll that no
    descriptor announces, such as a doorbell page mapped into a guest: see `limit_sleep`.
    """

    def __init__(self) -> None:
        self._sleep_limits: dict[object, float] = {}
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._workers: tuple[Worker, ...] = ()
        self._busy = False
        self._stopped = False
        # A flag alone would be seen only after the next event: Python repeats an interrupted
        # epoll_wait once a signal handler has returned.
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._callbacks[self._wake] = self._woken

    def add(self, fd: int, callback: Callback, events: int = select.EPOLLIN) -> None:
        """Call `callback` whenever `fd` is ready (level-triggered). Raises ValueError if `fd` was
        added before, OSError if it cannot be waited for.

        A callback may add and remove any descriptor, its own too. When one is removed and its
        number used again within one turn, the new callback may be called once too early: callbacks
        must not block when there is nothing to read.
        """
        if fd in self._callbacks:
            raise ValueError(f"descriptor {fd} is in the loop already")
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def modify(self, fd: int, events: int) -> None:
        """Wait for other events on `fd`, which was added before."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget `fd`, which must still be open. Raises KeyError if it was never added."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def add_worker(self, worker: Worker) -> None:
        """Call `worker` once in each turn. Workers run in the order in which they were added."""
        self._workers = (*self._workers, worker)
        self._busy = True

    def remove_worker(self, worker: Worker) -> None:
        """Forget `worker`. Raises ValueError if it was never added."""
        workers = list(self._workers)
        workers.remove(worker)
        self._workers = tuple(workers)

    def limit_sleep(self, owner: object, limit_s: float | None) -> None:
        """No turn sleeps longer than `limit_s` seconds, for `owner`, until that is changed or
        taken back with None. epoll counts in milliseconds: between 0 and 1 ms it becomes 1 ms."""
        if limit_s is None:
            self._sleep_limits.pop(owner, None)
        else:
            self._sleep_limits[owner] = limit_s

    def turn(self, timeout_s: float | None = None) -> bool:
        """Wait at most `timeout_s` (None: until something is ready; nothing at all while a worker
        has work left), call what is ready, then each worker once. True if work is left."""
        for fd, events in self._epoll.poll(0 if self._busy else timeout_s):
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback(events)
        busy = False
        for worker in self._workers:
            if worker():
                busy = True
        self._busy = busy
        return busy

    def run(self) -> None:
        """Take turns until `stop`. An exception of a callback or worker ends it and comes out."""
        while not self._stopped:
            self.turn(min(self._sleep_limits.values(), default=None))
        self._stopped = False

    def stop(self) -> None:
        """Make `run` return after the turn under way, or the next `run` at once. May be called
        from a signal handler or another thread."""
        self._stopped = True
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give back the loop's own descriptors. Those that were added stay open."""
        self._epoll.close()
        os.close(self._wake)

    def _woken(self, _events: int) -> None:
        try:
            os.eventfd_read(self._wake)
        except BlockingIOError:
            pass
