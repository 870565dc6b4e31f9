"""Get Log Page. NVMe Base 2.2, 5.1.12."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

from nvmelab.device.queues import Request
from nvmelab.device.transfer import check_length, to_host
from nvmelab.spec.admin import GetLogPage
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.logpages import COMPOSITE_K, TEMPERATURE_WARNING, FirmwareSlot, LogPage, Smart
from nvmelab.spec.status import NvmeError, Status

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

EFFECTS_OF: tuple[Mapping[int, object], Mapping[int, object]] = ({}, {})
"""Opcodes the controller carries out, admin and I/O: filled in by `dispatch`, which has them."""

_SUPPORTED, _CONTENT_CHANGES = 1, 1 << 1
_CHANGES_BLOCKS = {NvmOpcode.WRITE, NvmOpcode.WRITE_ZEROES, NvmOpcode.DATASET_MANAGEMENT}


def _smart(controller: Controller) -> bytes:
    io = controller.statistics.io
    read, write = io.get(NvmOpcode.READ), io.get(NvmOpcode.WRITE)
    unit = 512 * 1000
    return Smart(
        critical_warning=TEMPERATURE_WARNING if controller.features.temperature_alarm else 0,
        composite_temperature=COMPOSITE_K,
        available_spare=100,
        available_spare_threshold=10,
        data_units_read=-(-read.nbytes // unit) if read else 0,
        data_units_written=-(-write.nbytes // unit) if write else 0,
        host_read_commands=read.commands if read else 0,
        host_write_commands=write.commands if write else 0,
        power_cycles=1,
        error_log_entries=controller.statistics.error_events,
    ).encode()


def _effects(controller: Controller) -> bytes:
    page = bytearray(4096)
    admin, io = EFFECTS_OF
    for opcode in admin:
        if opcode == AdminOpcode.DOORBELL_BUFFER_CONFIG and not controller.shadows.offered:
            continue
        struct.pack_into("<I", page, 4 * opcode, _SUPPORTED)
    for opcode in io:
        effect = _SUPPORTED | (_CONTENT_CHANGES if opcode in _CHANGES_BLOCKS else 0)
        struct.pack_into("<I", page, 1024 + 4 * opcode, effect)
    return bytes(page)


def _page(controller: Controller, command: GetLogPage) -> bytes:
    """The whole log page. Raises NvmeError."""
    if command.lid == LogPage.ERROR_INFORMATION:
        return controller.events.error_log()
    if command.lid == LogPage.SMART:
        return _smart(controller)
    if command.lid == LogPage.FIRMWARE_SLOT:
        return FirmwareSlot(afi=1, frs1=controller.config.firmware).encode()
    if command.lid == LogPage.CHANGED_NAMESPACES:
        return bytes(4096)
    if command.lid == LogPage.COMMANDS_AND_EFFECTS:
        return _effects(controller)
    if controller.trace:
        controller.trace("err_invalid_log_page", command.cid, command.lid)
    raise NvmeError(Status.INVALID_LOG_PAGE, f"log page {command.lid:#x}")


def get_log_page(controller: Controller, request: Request, command: GetLogPage) -> int:
    length = 4 * command.numd
    if controller.trace:
        controller.trace(
            "get_log", request.cid, command.lid, command.lsp, command.rae, length, command.lpo
        )
    page = _page(controller, command)
    check_length(controller, length)
    if command.nsid not in (0, 0xFFFF_FFFF):
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, "the log page is the controller's")
    if command.lpo > len(page) or command.lpo % 4 or command.ot:
        raise NvmeError(Status.INVALID_FIELD_IN_COMMAND, f"offset {command.lpo}")
    # What lies behind the page's end is undefined: it is left as it was.
    if data := page[command.lpo : command.lpo + length]:
        to_host(controller, command, data)
    if not command.rae:
        controller.events.read(command.lid)
    return 0
