"""The two sides of a link: what a device offers to it, and what a driver gets from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from nvmelab.memory import GuestMemory


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


class HostLink(Protocol):
    """How a driver reaches a device: registers of BAR0, memory both can see, interrupts, time."""

    memory: GuestMemory
    """Memory that the device can reach, at its bus addresses."""

    def read32(self, offset: int) -> int: ...

    def read64(self, offset: int) -> int: ...

    def write32(self, offset: int, value: int) -> None: ...

    def write64(self, offset: int, value: int) -> None: ...

    def allocate(self, size: int) -> int:
        """The bus address of `size` bytes of zeroed memory, aligned to 4 KiB. Raises MemoryError
        if there is no more."""
        ...

    def progress(self) -> bool:
        """Let the device go on for a while. False if it has nothing left to do: waiting longer
        would be in vain."""
        ...

    def take_interrupts(self, vector: int) -> int:
        """How often the MSI-X vector was raised since this was last asked."""
        ...
