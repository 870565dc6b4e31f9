"""Asynchronous events. NVMe Base 2.2, 5.1.2.1."""

from __future__ import annotations

from nvmelab.spec.layout import OpenEnum


class EventType(OpenEnum):
    ERROR = 0
    SMART = 1
    NOTICE = 2


class ErrorEvent(OpenEnum):
    """Event information of an error event."""

    INVALID_DOORBELL_REGISTER = 0
    INVALID_DOORBELL_VALUE = 1


class SmartEvent(OpenEnum):
    """Event information of a SMART / health event."""

    TEMPERATURE_THRESHOLD = 1
