"""A link that somebody watches: what crosses it is told, and the link works as before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nvmelab.link.base import HostLink, HostMemory, Storage


class Watcher(Protocol):
    """Who is told of what crosses a link."""

    def writes(self, offset: int, size: int, value: int) -> None:
        """The driver is about to write to BAR0."""
        ...

    def has_read(self, offset: int, size: int, value: int) -> None:
        """The driver has read that value from BAR0."""
        ...

    def configures(self) -> None:
        """The driver is about to write to configuration space."""
        ...

    def looks(self, memory: HostMemory, raised: Callable[[int], bool]) -> None:
        """The device may have done something. `raised` says whether an MSI-X vector was, since it
        was last asked."""
        ...


class WatchedLink:
    """`link`, with `watcher` beside it. Interrupts are taken as soon as they are seen, and kept for
    the driver."""

    def __init__(self, link: HostLink, watcher: Watcher) -> None:
        self._link = link
        self._watcher = watcher
        self._taken = [0] * link.vectors
        self.name = link.name
        self.memory: HostMemory = link.memory
        self.vectors = link.vectors
        self.storage: Storage | None = link.storage
        self.step = link.step
        self.at_rest = False
        """The last wait ended because the device is at rest, and nobody has done anything since."""

    def _look(self) -> None:
        self._watcher.looks(self.memory, self._raised)

    def _raised(self, vector: int) -> bool:
        if vector >= self.vectors:
            return False
        count = self._link.take_interrupts(vector)
        self._taken[vector] += count
        return count > 0

    def read(self, offset: int, size: int) -> int:
        value = self._link.read(offset, size)
        self._watcher.has_read(offset, size, value)
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        self.at_rest = False
        self._look()
        self._watcher.writes(offset, size, value)
        self._link.write(offset, size, value)

    def config_read(self, offset: int, size: int) -> int:
        return self._link.config_read(offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        self._watcher.configures()
        self._link.config_write(offset, size, value)

    def allocate(self, size: int) -> int:
        return self._link.allocate(size)

    def free_all(self) -> None:
        self._link.free_all()

    def wait(self, done: Callable[[], bool]) -> bool:
        def look() -> bool:
            self._look()
            return done()

        came = self._link.wait(look)
        self.at_rest = not came and not (self.storage and self.storage.held())
        return came

    def settle(self) -> None:
        self._link.settle()
        self._look()

    def take_interrupts(self, vector: int) -> int:
        self._look()
        count = self._link.take_interrupts(vector) + self._taken[vector]
        self._taken[vector] = 0
        return count

    def close(self) -> None:
        self._link.close()
