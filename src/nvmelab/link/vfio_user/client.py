"""A vfio-user client: a `HostLink` to any vfio-user NVMe server.

    nvmelab serve disk.img --socket nvme.sock
    link = VfioUserLink("nvme.sock")

The memory that both sides share is a memfd, given to the server by DMA_MAP; it gets at nothing
else of ours. Interrupts are eventfds. Where the server offers to map doorbells they are plain
stores; every other access is a message. All of them wait for their reply, although the protocol
can post writes (NO_REPLY): a posted write that the server refuses is lost without a word, which
nobody wants of a test, and a doorbell with its reply costs about 11 us.

The device is another process, and nothing says when it is at rest. So `wait` gives up after a
time, and `settle` is a hint: see `HostLink`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import select
import time
from collections.abc import Callable

from nvmelab.limits import (
    MESSAGE_FDS_MAX,
    VFIO_USER_POLL_S,
    VFIO_USER_REST_S,
    VFIO_USER_SETTLE_S,
    VFIO_USER_SPIN_S,
)
from nvmelab.link.base import LinkError, Storage
from nvmelab.link.pages import PAGE, Pages
from nvmelab.link.pci import enable_function, require_nvme
from nvmelab.link.vfio_user import discovery, irq, wire
from nvmelab.link.vfio_user.connection import Connection
from nvmelab.link.vfio_user.dma import READABLE, WRITEABLE
from nvmelab.link.vfio_user.mapping import map_shared
from nvmelab.link.vfio_user.wire import Refused
from nvmelab.memory import GuestMemory
from nvmelab.spec.registers import DOORBELLS

_BASE = 0x1000_0000
"""Bus address of the shared memory: nothing is special about it, but 0 would hide mistakes."""
_BAR0 = 0
_CONFIG_BYTES_MIN = 256
_EPOLL_S = 0.001
"""Shortest sleep that epoll knows: it counts in milliseconds."""
_SETTLE_READS = 4
"""Register reads of `settle`. A server handles messages in order, and most devices get a turn in
between."""


class VfioUserLink:
    """A `HostLink` to the server that listens on `path`, with `size` bytes of memory between them.

    `mapped` uses mapped doorbells where the server offers them. `rest_s` is how long `wait` waits.
    `pump` is called instead of sleeping, for a server in this very thread; `clock` says what time
    it is, in seconds. The device is reset if it can be. Raises LinkError.
    """

    def __init__(
        self,
        path: str,
        *,
        size: int = 64 << 20,
        mapped: bool = True,
        rest_s: float = VFIO_USER_REST_S,
        pump: Callable[[], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if size <= 0 or size % PAGE:
            raise ValueError(f"{size} bytes of memory are no whole pages of {PAGE}")
        self.name = f"vfio-user server {os.path.basename(path)}"
        self.memory = GuestMemory()
        self.storage: Storage | None = None
        self.step: Callable[[Callable[[int], int]], bool] | None = None
        self.vectors = 0
        self._rest_s = rest_s
        self._pump = pump
        self._clock = clock
        self._pages = Pages(self.memory, _BASE, _BASE)
        self._eventfds: list[int] = []
        self._doorbells: tuple[int, int, memoryview] | None = None
        """Offset of the first that is mapped, the offset behind the last, and they themselves."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            try:
                self._set_up(path, size, mapped, stack)
            except OSError as error:
                raise LinkError(f"no link to {path}: {error.strerror}; see ulimit -a") from None
            self._stack = stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def _forget(self) -> None:
        """Let go of what is mapped. Reads of `memory` raise MemoryFault from now on."""
        self.memory.clear()
        self._eventfds.clear()
        self._pages = Pages(self.memory, _BASE, _BASE)
        self._doorbells = None

    # Setting up, in QEMU's order.

    def _set_up(self, path: str, size: int, mapped: bool, stack: contextlib.ExitStack) -> None:
        self._connection = Connection(path, self.memory, pump=self._pump, clock=self._clock)
        stack.callback(self._connection.close)
        # The socket wakes a sleeper as long as there is something to read, an eventfd once for
        # each interrupt: its count may stay, if nobody takes it.
        self._events = select.epoll()
        stack.callback(self._events.close)
        self._events.register(self._connection, select.EPOLLIN)
        takes = discovery.negotiate(self._connection)
        self._share_memory(size)
        flags = discovery.device_flags(self._connection)
        with contextlib.ExitStack() as fds:
            bar0 = self._find_regions(fds)
            require_nvme(self, path)
            if mapped:
                self._map_doorbells(bar0)
        if flags & wire.DEVICE_RESETS:
            # A server keeps its device's state when a client leaves: ours begins at power-on.
            self._connection.ask(wire.DEVICE_RESET)
        msix = enable_function(self)
        if msix:
            self.vectors = min(msix.vectors, discovery.msix_count(self._connection))
            self._set_up_interrupts(takes.max_msg_fds, stack)

    def _share_memory(self, size: int) -> None:
        fd = os.memfd_create("nvmelab-host", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, size)
            # Its size stays: a server that could cut it short could end us with SIGBUS.
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
            self.memory.map(_BASE, memoryview(mmap.mmap(fd, size)))
            body = wire.DMA_MAP_BODY
            request = body.pack(body.size, READABLE | WRITEABLE, 0, _BASE, size)
            self._connection.ask(wire.DMA_MAP, request, [fd])
        finally:
            os.close(fd)
        self._pages = Pages(self.memory, _BASE, _BASE + size)

    def _find_regions(self, fds: contextlib.ExitStack) -> discovery.Region:
        """BAR0. The others are asked for as well, as every client does, and left alone. `fds`
        closes their descriptors."""
        found: dict[int, discovery.Region] = {}
        for index in (*range(6), wire.CONFIG_REGION):
            found[index] = discovery.region(self._connection, index)
            fds.callback(found[index].close)
        bar0, config = found[_BAR0], found[wire.CONFIG_REGION]
        if bar0.size < DOORBELLS + 8 or config.size < _CONFIG_BYTES_MIN:
            raise LinkError(
                f"{self._connection.path} is no NVMe controller: its BAR0 has {bar0.size:#x} "
                f"bytes and its configuration space {config.size:#x}"
            )
        return bar0

    def _map_doorbells(self, bar0: discovery.Region) -> None:
        """Map the part of BAR0 that has the first doorbell, if there is one. Registers in front
        of it are not mapped: the device has to see an access to them."""
        for start, size in bar0.areas:
            if bar0.writable and start <= DOORBELLS < start + size:
                at, size = bar0.file_offset + DOORBELLS, start + size - DOORBELLS
                try:
                    view = map_shared(bar0.fd, at, size, writable=True, what="the mapping")
                except Refused as why:
                    raise self._connection.fail(f"doorbells that cannot be mapped: {why}") from None
                self._doorbells = (DOORBELLS, DOORBELLS + size, view.cast("I"))

    def _set_up_interrupts(self, fds_max: int, stack: contextlib.ExitStack) -> None:
        """An eventfd for each vector, as many with one message as the server takes."""
        for _ in range(self.vectors):
            fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            stack.callback(os.close, fd)
            self._eventfds.append(fd)
            self._events.register(fd, select.EPOLLIN | select.EPOLLET)
        step = min(fds_max, MESSAGE_FDS_MAX)
        for start in range(0, self.vectors, step):
            fds = self._eventfds[start : start + step]
            flags, layout = irq.DATA_EVENTFD | irq.TRIGGER, wire.SET_IRQS
            request = layout.pack(layout.size, flags, irq.MSIX, start, len(fds))
            self._connection.ask(wire.DEVICE_SET_IRQS, request, fds)

    # Registers.

    def read(self, offset: int, size: int) -> int:
        return self._read(_BAR0, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        if self._doorbells and size == 4:
            first, end, words = self._doorbells
            if first <= offset < end and offset % 4 == 0:
                words[(offset - first) >> 2] = value
                return
        self._write(_BAR0, offset, size, value)

    def config_read(self, offset: int, size: int) -> int:
        return self._read(wire.CONFIG_REGION, offset, size)

    def config_write(self, offset: int, size: int, value: int) -> None:
        self._write(wire.CONFIG_REGION, offset, size, value)

    def _read(self, region: int, offset: int, size: int) -> int:
        access = wire.ACCESS.pack(offset, region, size)
        length = len(access) + size
        reply = self._connection.ask(wire.REGION_READ, access, least=length, most=length)
        if reply[: len(access)] != access:
            raise self._connection.fail(
                f"something else than the {size} bytes at {offset:#x} of region {region}"
            )
        return int.from_bytes(reply[len(access) :], "little")

    def _write(self, region: int, offset: int, size: int, value: int) -> None:
        access = wire.ACCESS.pack(offset, region, size)
        data = value.to_bytes(size, "little")
        self._connection.ask(wire.REGION_WRITE, access + data)

    # Memory and interrupts.

    def allocate(self, size: int) -> int:
        return self._pages.allocate(size)

    def free_all(self) -> None:
        self._pages.free_all()

    def take_interrupts(self, vector: int) -> int:
        try:
            return os.eventfd_read(self._eventfds[vector])
        except BlockingIOError:
            return 0

    # Time.

    def wait(self, done: Callable[[], bool]) -> bool:
        """See `HostLink`. Nothing tells whether the device has done something, so the limit counts
        from the call."""
        return self._wait(done, self._rest_s)

    def settle(self) -> None:
        for _ in range(_SETTLE_READS):
            self.read(0, 4)
        self._wait(lambda: False, VFIO_USER_SETTLE_S)

    def _wait(self, done: Callable[[], bool], limit_s: float) -> bool:
        start = self._clock()
        while not done():
            self._connection.look()
            spent = self._clock() - start
            if spent > limit_s:
                return done()
            if self._pump:
                self._pump()
            elif spent > VFIO_USER_SPIN_S:
                self._sleep(min(spent / 4, VFIO_USER_POLL_S))
        return True

    def _sleep(self, pause_s: float) -> None:
        """Until an interrupt or a message comes, or the pause is over. What is waited for is often
        in memory, where nothing wakes us: so a pause is part of the time that was waited already,
        and what came meanwhile is not seen much later."""
        if pause_s < _EPOLL_S:
            time.sleep(pause_s)
        else:
            self._events.poll(pause_s)
