"""The two sides of a link: what a device offers to it, and what a driver gets from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nvmelab.memory import GuestMemory


class LinkError(Exception):
    """There is no device at the other end, or it is gone. One line for the user: what, and what to
    do next."""


class PciFunction(Protocol):
    """A PCI function that somebody else places on a bus: all that a link knows of a device.

    The function has MSI-X only: no INTx, no MSI, no expansion ROM.
    """

    memory: GuestMemory
    """Where the function's DMA goes. The link maps and unmaps the guest's RAM here."""

    bars: dict[int, int]
    """Size in bytes of each BAR that exists, by its index."""

    vectors: int
    """Number of MSI-X vectors."""

    interrupt: Callable[[int], None]
    """The link's own: the function calls it with a vector to raise that MSI-X vector once."""

    pending: Callable[[int], bool]
    """The link's own: the function calls it with a vector that was raised while the link had no
    way to deliver it, and has not been delivered yet (the bit of the PBA)."""

    def config_read(self, offset: int, length: int) -> bytes:
        """`length` bytes of configuration space. The range lies within its 256 bytes."""
        ...

    def config_write(self, offset: int, data: bytes) -> None:
        """Write to configuration space. The range lies within its 256 bytes."""
        ...

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """A read of 1, 2, 4 or 8 bytes, within the BAR. Takes effect at once."""
        ...

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """A write of 1, 2, 4 or 8 bytes, within the BAR. Takes effect at once."""
        ...

    def reset(self) -> None:
        """PCI reset: everything as at power-on, memory mappings excepted."""
        ...

    def run(self) -> bool:
        """Take the steps that are enabled, up to one fair turn. True if some are left."""
        ...

    def step(self, choose: Callable[[int], int]) -> bool:
        """Take one step: of `n` that are enabled, that of number `choose(n)`. False if there is
        none."""
        ...


class HostMemory(Protocol):
    """Memory that driver and device share, at the device's bus addresses. `GuestMemory` is one."""

    def read(self, addr: int, length: int) -> bytes:
        """A copy of `length` bytes."""
        ...

    def write(self, addr: int, data: bytes) -> None: ...

    def load_u32(self, addr: int) -> int:
        """One aligned 4-byte load."""
        ...

    def store_u32(self, addr: int, value: int) -> None:
        """One aligned 4-byte store."""
        ...


class Storage(Protocol):
    """The storage behind a device, whose completions a tester may hold back.

    While `hold` is False, everything that the device asks of it ends by itself. While it is True,
    each operation waits until it is released, in any order; other traffic goes on.
    """

    hold: bool

    def held(self) -> int:
        """How many operations wait to be released."""
        ...

    def release(self, index: int = 0) -> None:
        """Let one of them be done, counted from the oldest. Raises IndexError."""
        ...

    def let_go(self) -> None:
        """Hold nothing back any more: `hold` is False, and what waits is done, oldest first."""
        ...


class HostLink(Protocol):
    """How a driver reaches a device: BAR0, configuration space, shared memory, interrupts, time.

    Bus mastering is on and MSI-X is enabled, every vector unmasked. All methods raise LinkError
    when the device is gone.
    """

    name: str
    """What is at the other end, such as `QEMU 5.2.0`."""

    @property
    def memory(self) -> HostMemory:
        """Memory that both sides can reach."""
        ...

    vectors: int
    """Number of MSI-X vectors."""

    storage: Storage | None
    """None where the link has no hand on it."""

    step: Callable[[Callable[[int], int]], bool] | None
    """As `PciFunction.step`, where the device can be stepped; else None."""

    def read(self, offset: int, size: int) -> int:
        """A read of 4 or 8 bytes of BAR0."""
        ...

    def write(self, offset: int, size: int, value: int) -> None:
        """A write of 4 or 8 bytes of BAR0. The device need not have seen it on return."""
        ...

    def config_read(self, offset: int, size: int) -> int:
        """A read of 1, 2 or 4 bytes of the function's configuration space."""
        ...

    def config_write(self, offset: int, size: int, value: int) -> None: ...

    def allocate(self, size: int) -> int:
        """The bus address of `size` bytes of zeroed memory, aligned to 4 KiB. Raises MemoryError
        if there is no more."""
        ...

    def free_all(self) -> None:
        """Take back everything that was allocated. The device must not use it any more."""
        ...

    def wait(self, done: Callable[[], bool]) -> bool:
        """Let the device go on until `done()`. False if it came to rest before: nothing is left
        that could change what it does, as far as the link can know, or the link's own limit of
        time has passed without any change."""
        ...

    def settle(self) -> None:
        """Let the device do everything that it can do now. Where nothing says that it is at rest,
        this is a good while: that something has not happened afterwards is a hint, not a proof."""
        ...

    def take_interrupts(self, vector: int) -> int:
        """How often the MSI-X vector was raised since this was last asked; where a link cannot
        count, 1 if at all."""
        ...

    def close(self) -> None:
        """End the connection, and whatever the link has started; memory that it mapped is given
        back, and reads of `memory` raise MemoryFault then. Safe to call twice."""
        ...
