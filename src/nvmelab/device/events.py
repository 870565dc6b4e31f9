"""Asynchronous events: requests that are parked, and events that wait for one.

NVMe Base 2.2, 5.1.2. An event type that was reported is masked until the host reads its log page.
"""

from __future__ import annotations

import struct
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from nvmelab.device.queues import Request
from nvmelab.limits import ASYNC_EVENT_REQUESTS_MAX, ASYNC_EVENTS_QUEUED_MAX, ERROR_LOG_ENTRIES
from nvmelab.spec.admin import AsyncEventRequest
from nvmelab.spec.events import EventType
from nvmelab.spec.logpages import ERROR_ENTRY_SIZE, LogPage
from nvmelab.spec.status import NvmeError, Status

if TYPE_CHECKING:
    from nvmelab.device.controller import Controller

_LOG_OF = {
    LogPage.ERROR_INFORMATION: EventType.ERROR,
    LogPage.SMART: EventType.SMART,
    LogPage.CHANGED_NAMESPACES: EventType.NOTICE,
}


class AsyncEvent(NamedTuple):
    type: int
    info: int
    lid: int


class AsyncEvents:
    """The asynchronous events of one controller since its last reset."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self.parked: deque[Request] = deque()
        """Asynchronous Event Requests that have no event yet."""
        self.waiting: deque[AsyncEvent] = deque()
        """Events that have no request yet, or whose type is masked."""
        self.masked: set[int] = set()
        self._errors: deque[bytes] = deque(maxlen=ERROR_LOG_ENTRIES)

    def park(self, request: Request) -> None:
        """Hold an Asynchronous Event Request until there is an event. Raises NvmeError."""
        trace = self._controller.trace
        if len(self.parked) >= ASYNC_EVENT_REQUESTS_MAX:
            if trace:
                trace("aer_aerl_exceeded")
            raise NvmeError(Status.ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED, "AERL")
        if trace:
            trace("aer", request.cid)
        self.parked.append(request)
        request.sq.outstanding -= 1  # it may stay for ever, so it takes nobody's place
        self._match()

    def report(self, type: int, info: int, lid: int, *, sqid: int = 0xFFFF) -> None:
        """An event has happened. An error event also becomes an entry of the error log."""
        controller = self._controller
        if controller.trace:
            controller.trace("enqueue_event", type, info, lid)
        if type == EventType.ERROR:
            count = controller.statistics.error_events = controller.statistics.error_events + 1
            # Count, SQID, no CID, status 0, no parameter location, no LBA, NSID 0.
            entry = struct.pack("<QHHHHQI", count, sqid, 0xFFFF, 0, 0xFFFF, 0, 0)
            self._errors.appendleft(entry.ljust(ERROR_ENTRY_SIZE, b"\0"))
        event = AsyncEvent(type, info, lid)
        if event in self.waiting:
            return  # one is as good as many
        if len(self.waiting) >= ASYNC_EVENTS_QUEUED_MAX:
            if controller.trace:
                controller.trace("enqueue_event_noqueue", len(self.waiting))
            return
        self.waiting.append(event)
        self._match()

    def read(self, lid: int) -> None:
        """The host has read a log page: events of its type are told again. Those that wait
        were told by the page."""
        type = _LOG_OF.get(LogPage(lid))
        if type is not None:
            self.masked.discard(type)
            self.waiting = deque(event for event in self.waiting if event.type != type)

    def abort(self, cid: int) -> bool:
        """Abort the parked request with that CID. False if there is none."""
        for request in self.parked:
            if request.cid == cid:
                self.parked.remove(request)
                self._complete(request, 0, Status.COMMAND_ABORT_REQUESTED)
                return True
        return False

    def error_log(self) -> bytes:
        """The error information log page, newest entry first."""
        return b"".join(self._errors).ljust(ERROR_LOG_ENTRIES * ERROR_ENTRY_SIZE, b"\0")

    def _match(self) -> None:
        """Complete parked requests with waiting events."""
        trace = self._controller.trace
        if trace and self.waiting:
            trace("process_aers", len(self.waiting))
        for event in tuple(self.waiting):
            if not self.parked:
                if trace:
                    trace("no_outstanding_aers")
                return
            if event.type in self.masked:
                if trace:
                    trace("aer_masked", event.type, sum(1 << type for type in self.masked))
                continue
            self.waiting.remove(event)
            self.masked.add(event.type)
            if trace:
                trace("aer_post_cqe", event.type, event.info, event.lid)
            dw0 = event.type | event.info << 8 | event.lid << 16
            self._complete(self.parked.popleft(), dw0, Status.SUCCESS)

    def _complete(self, request: Request, dw0: int, status: Status) -> None:
        request.sq.outstanding += 1
        request.dw0 = dw0
        request.started = self._controller.clock()  # its wait is nobody's latency
        self._controller.finish(request, status)


def async_event_request(
    controller: Controller, request: Request, command: AsyncEventRequest
) -> None:
    controller.events.park(request)
