"""Log page identifiers and structures. NVMe Base 2.2, 5.1.12.1."""

from __future__ import annotations

from typing import Annotated

from nvmelab.spec.layout import Bytes, OpenEnum, Structure, structure

ERROR_ENTRY_SIZE = 64
"""Bytes of an entry of the error information log (Base 2.2, 5.1.12.1.2)."""
COMPOSITE_K = 323
"""Composite temperature a healthy virtual controller reports, in kelvin."""
COMPOSITE_WARNING_K = 343
COMPOSITE_CRITICAL_K = 373
TEMPERATURE_WARNING = 1 << 1
"""Bit of the critical warning, and of the Asynchronous Event Configuration that asks for it."""


class LogPage(OpenEnum):
    SUPPORTED_LOG_PAGES = 0x00
    ERROR_INFORMATION = 0x01
    SMART = 0x02
    FIRMWARE_SLOT = 0x03
    CHANGED_NAMESPACES = 0x04
    COMMANDS_AND_EFFECTS = 0x05


@structure(512, ref="Base 2.2, 5.1.12.1.3")
class Smart(Structure, frozen=True):
    """SMART / Health Information."""

    critical_warning: Annotated[int, Bytes(0, 0)] = 0
    composite_temperature: Annotated[int, Bytes(1, 2)] = 0
    """Kelvin."""
    available_spare: Annotated[int, Bytes(3, 3)] = 0
    """Percent."""
    available_spare_threshold: Annotated[int, Bytes(4, 4)] = 0
    percentage_used: Annotated[int, Bytes(5, 5)] = 0
    data_units_read: Annotated[int, Bytes(32, 47)] = 0
    """Thousands of 512-byte units, rounded up."""
    data_units_written: Annotated[int, Bytes(48, 63)] = 0
    host_read_commands: Annotated[int, Bytes(64, 79)] = 0
    host_write_commands: Annotated[int, Bytes(80, 95)] = 0
    power_cycles: Annotated[int, Bytes(112, 127)] = 0
    media_errors: Annotated[int, Bytes(160, 175)] = 0
    error_log_entries: Annotated[int, Bytes(176, 191)] = 0


@structure(512, ref="Base 2.2, 5.1.12.1.4")
class FirmwareSlot(Structure, frozen=True):
    afi: Annotated[int, Bytes(0, 0)] = 0
    """Bits 2:0: the active slot."""
    frs1: Annotated[str, Bytes(8, 15)] = ""
