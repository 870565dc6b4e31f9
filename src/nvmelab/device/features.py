"""Set Features and Get Features. NVMe Base 2.2, 4.4, 5.1.11 and 5.1.25.

Values hold until the next reset; none can be saved. Interrupt coalescing, arbitration burst and
power state are stored and returned, and change nothing: all three are permitted to be without
effect on a controller like this one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from nvmelab.device.namespaces import flush
from nvmelab.device.queues import Request
from nvmelab.spec.admin import GetFeatures, SetFeatures
from nvmelab.spec.events import EventType, SmartEvent
from nvmelab.spec.features import Feature, Select
from nvmelab.spec.logpages import (
    COMPOSITE_K,
    COMPOSITE_WARNING_K,
    TEMPERATURE_WARNING,
    LogPage,
)
from nvmelab.spec.status import NvmeError, Status

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

_PLAIN = {
    # Bits of CDW11 that mean something, and the default value.
    Feature.ARBITRATION: (0xFFFF_FF07, 0b111),  # no limit on a burst
    Feature.POWER_MANAGEMENT: (0xFF, 0),
    Feature.INTERRUPT_COALESCING: (0xFFFF, 0),
    Feature.WRITE_ATOMICITY_NORMAL: (1, 0),
    Feature.ASYNC_EVENT_CONFIGURATION: (0xFFFF_FFFF, 0),
}
_SUPPORTED = _PLAIN.keys() | {
    Feature.TEMPERATURE_THRESHOLD,
    Feature.ERROR_RECOVERY,
    Feature.VOLATILE_WRITE_CACHE,
    Feature.NUMBER_OF_QUEUES,
    Feature.INTERRUPT_VECTOR_CONFIGURATION,
}
_UNDER = 1 << 4
"""Selector of the composite temperature's lower threshold; 0 is that of the upper one."""
_CHANGEABLE, _NAMESPACE_SPECIFIC = 1 << 2, 1 << 1


def _bad(cause: str) -> NvmeError:
    return NvmeError(Status.INVALID_FIELD_IN_COMMAND, cause)


class Features:
    """The current values of one controller's features."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.queues_created = False
        """An I/O queue was created since the last reset, even if it is gone again."""
        self._values: dict[tuple[int, int], int] = {}
        """By feature identifier and a selector within it (namespace, vector, sensor); those that
        are not here have their default."""

    def _selector(self, fid: int, nsid: int, cdw11: int) -> int:
        """Which of several values of one feature is meant. Raises NvmeError."""
        if fid == Feature.ERROR_RECOVERY:
            if nsid == 0 or nsid > max(self._controller.namespaces):
                raise NvmeError(Status.INVALID_NAMESPACE_OR_FORMAT, f"NSID {nsid:#x}")
            if nsid not in self._controller.namespaces:
                raise _bad(f"NSID {nsid} is not active")
            return nsid
        if fid == Feature.INTERRUPT_VECTOR_CONFIGURATION:
            vector = cdw11 & 0xFFFF
            if not any(cq.vector == vector for cq in self._controller.cqs.values()):
                raise _bad(f"vector {vector} belongs to no completion queue")
            return vector
        if fid == Feature.TEMPERATURE_THRESHOLD:
            sensor, kind = cdw11 >> 16 & 0xF, cdw11 >> 20 & 3
            if sensor > 8 or kind > 1:
                raise _bad(f"temperature threshold TMPSEL {sensor}, THSEL {kind}")
            return cdw11 >> 16 & 0x3F
        return 0

    def default(self, fid: int, selector: int) -> int:
        """The value before any Set Features."""
        if fid == Feature.TEMPERATURE_THRESHOLD:
            over, sensor = not selector >> 4, selector & 0xF
            return (0xFFFF if sensor else COMPOSITE_WARNING_K) if over else 0
        if fid == Feature.VOLATILE_WRITE_CACHE:
            backends = [space.backend for space in self._controller.namespaces.values()]
            return int(any(backend.write_cache for backend in backends))
        if fid == Feature.NUMBER_OF_QUEUES:
            return self._granted
        if fid == Feature.INTERRUPT_VECTOR_CONFIGURATION:
            return selector
        return _PLAIN[Feature(fid)][1] if fid in _PLAIN else 0

    @property
    def _granted(self) -> int:
        """NCQA and NSQA, both 0's based: always all there are, whatever was asked for."""
        queues = self._controller.config.io_queues - 1
        return queues << 16 | queues

    def get(self, command: GetFeatures) -> int:
        """Dword 0 of the completion. Raises NvmeError."""
        fid = command.fid
        if fid not in _SUPPORTED:
            raise _bad(f"feature {fid:#x}")
        if command.sel == Select.SUPPORTED_CAPABILITIES:
            return _CHANGEABLE | _NAMESPACE_SPECIFIC * (fid == Feature.ERROR_RECOVERY)
        if command.sel > Select.SUPPORTED_CAPABILITIES:
            raise _bad(f"SEL {command.sel}")
        selector = self._selector(fid, command.nsid, command.cdw11)
        default = self.default(fid, selector)
        if command.sel != Select.CURRENT:
            return default
        return self._values.get((fid, selector), default)

    def set(self, command: SetFeatures) -> int:
        """Dword 0 of the completion. Raises NvmeError."""
        fid, value = command.fid, command.value
        if fid not in _SUPPORTED:
            raise _bad(f"feature {fid:#x}")
        if command.sv:
            raise NvmeError(Status.FEATURE_IDENTIFIER_NOT_SAVEABLE, f"feature {fid:#x}")
        if fid != Feature.ERROR_RECOVERY and command.nsid in self._controller.namespaces:
            raise NvmeError(Status.FEATURE_NOT_NAMESPACE_SPECIFIC, f"feature {fid:#x}")
        if fid == Feature.ERROR_RECOVERY and command.nsid == 0xFFFF_FFFF:
            for nsid in self._controller.namespaces:
                self._values[fid, nsid] = value & 0x1_FFFF
            return 0
        if fid == Feature.TEMPERATURE_THRESHOLD and value >> 16 & 0x2F == 0x0F:
            return 0  # all implemented sensors: there are none
        selector = self._selector(fid, command.nsid, value)
        if fid in _PLAIN:
            value &= _PLAIN[Feature(fid)][0]
        if fid == Feature.POWER_MANAGEMENT and value & 0x1F:
            raise _bad(f"power state {value & 0x1F}")
        if fid == Feature.NUMBER_OF_QUEUES:
            return self._set_number_of_queues(value)
        if fid == Feature.VOLATILE_WRITE_CACHE:
            value &= 1
            for namespace in self._controller.namespaces.values():
                namespace.write_through = not value
        if fid == Feature.TEMPERATURE_THRESHOLD:
            value &= 0xFFFF
        self._values[fid, selector] = value
        if fid in (Feature.TEMPERATURE_THRESHOLD, Feature.ASYNC_EVENT_CONFIGURATION):
            self._report_temperature()
        return 0

    @property
    def temperature_alarm(self) -> bool:
        """The composite temperature, which never changes, is past a threshold."""
        fid = Feature.TEMPERATURE_THRESHOLD
        over = self._values.get((fid, 0), self.default(fid, 0))
        under = self._values.get((fid, _UNDER), self.default(fid, _UNDER))
        return not under < COMPOSITE_K < over

    def _report_temperature(self) -> None:
        """The host is told when it moves a threshold past the temperature, and when it asks to be
        told while it is past one (Base 2.2, 5.1.25.1.5)."""
        wanted = self._values.get((Feature.ASYNC_EVENT_CONFIGURATION, 0), 0)
        if self.temperature_alarm and wanted & TEMPERATURE_WARNING:
            self._controller.events.report(
                EventType.SMART, SmartEvent.TEMPERATURE_THRESHOLD, LogPage.SMART
            )

    def _set_number_of_queues(self, value: int) -> int:
        controller = self._controller
        if self.queues_created:
            raise NvmeError(Status.COMMAND_SEQUENCE_ERROR, "I/O queues were created")
        sqs, cqs = value & 0xFFFF, value >> 16
        if 0xFFFF in (sqs, cqs):
            raise _bad(f"NSQR {sqs:#x}, NCQR {cqs:#x}")
        if controller.trace:
            granted = controller.config.io_queues
            controller.trace("setfeat_numq", cqs + 1, sqs + 1, granted, granted)
        return self._granted


def get_features(controller: Controller, request: Request, command: GetFeatures) -> int:
    if controller.trace:
        controller.trace(
            "getfeat", request.cid, command.nsid, command.fid, command.sel, command.cdw11
        )
    return controller.features.get(command)


def set_features(controller: Controller, request: Request, command: SetFeatures) -> int | None:
    if controller.trace:
        controller.trace(
            "setfeat", request.cid, command.nsid, command.fid, command.sv, command.value
        )
    dw0 = controller.features.set(command)
    if command.fid != Feature.VOLATILE_WRITE_CACHE or command.value & 1:
        return dw0
    # With the cache off, what any command has written is durable: earlier ones too (5.1.25.1.4).
    work = partial(flush, controller.namespaces.values())
    return None if controller.later(request, work) else dw0
