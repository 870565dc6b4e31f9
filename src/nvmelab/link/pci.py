"""What an operating system does to a PCI function before its driver sees it.

PCI Local Bus 3.0, 6.2.2 (Command register), 6.7 (list of capabilities) and 6.8.2 (MSI-X).
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from nvmelab.link.base import LinkError

NVME_CLASS = 0x010802
"""Mass storage, non-volatile memory, NVM Express I/O controller."""

COMMAND, CLASS, CAPABILITIES = 0x04, 0x09, 0x34
_MEMORY_AND_BUS_MASTER = 0b110
_MSIX_ID = 0x11
_MSIX_ENABLE = 1 << 15


class ConfigSpace(Protocol):
    """The part of a link that reaches configuration space."""

    def config_read(self, offset: int, size: int) -> int: ...

    def config_write(self, offset: int, size: int, value: int) -> None: ...


class Msix(NamedTuple):
    """What the MSI-X capability says."""

    capability: int
    """Its offset in configuration space."""
    vectors: int
    table_bar: int
    table_offset: int


def find_msix(space: ConfigSpace) -> Msix | None:
    """The MSI-X capability, if there is one."""
    at = space.config_read(CAPABILITIES, 1)
    for _ in range(48):  # no more fit into 192 bytes: a list in a circle must not hold us
        if not at:
            return None
        if space.config_read(at, 1) == _MSIX_ID:
            control, table = space.config_read(at + 2, 2), space.config_read(at + 4, 4)
            return Msix(at, (control & 0x7FF) + 1, table & 7, table & ~7)
        at = space.config_read(at + 1, 1)
    return None


def class_code(space: ConfigSpace) -> int:
    """Base class, subclass and programming interface, in 24 bits."""
    return space.config_read(CLASS, 1) | space.config_read(CLASS + 1, 2) << 8


def require_nvme(space: ConfigSpace, what: str) -> None:
    """Raise LinkError if the function is no NVMe I/O controller."""
    found = class_code(space)
    if found != NVME_CLASS:
        raise LinkError(
            f"{what} is no NVMe controller: its PCI class is {found:06x}, not {NVME_CLASS:06x}"
        )


def enable_function(space: ConfigSpace) -> Msix | None:
    """Switch on memory space and bus mastering, and MSI-X if there is such a capability."""
    command = space.config_read(COMMAND, 2)
    space.config_write(COMMAND, 2, command | _MEMORY_AND_BUS_MASTER)
    msix = find_msix(space)
    if msix:
        control = space.config_read(msix.capability + 2, 2)
        space.config_write(msix.capability + 2, 2, control | _MSIX_ENABLE)
    return msix
