"""The monitor on events as they happen: what a controller of ours emits to its bus.

Logs of QEMU's device have the same events, of which the reader takes the same fields: see
`trace.qemu_reader`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import itemgetter
from typing import Any

from nvmelab.check.monitor import Monitor
from nvmelab.limits import LIVE_EVENTS_KEPT

_TAKEN: dict[str, tuple[str, tuple[int, ...]]] = {
    **{
        name: (name, fields)
        for name, fields in {
            "mmio_doorbell_sq": (0, 1),
            "mmio_doorbell_cq": (0, 1),
            "update_sq_tail": (0, 1),
            "update_cq_head": (0, 1),
            "del_sq": (0,),
            "del_cq": (0,),
            "dbbuf_config": (),
            "err_cfs": (),
            "ub_db_wr_misaligned": (0,),
            "ub_db_wr_invalid_sq": (0,),
            "ub_db_wr_invalid_cq": (0,),
            "ub_db_wr_invalid_sqtail": (0, 1),
            "ub_db_wr_invalid_cqhead": (0, 1),
        }.items()
    },
    "io_cmd": ("command", (0, 2, 3)),
    "admin_cmd": ("command", (0, 1, 2)),
    "enqueue_req_completion": ("finished", (0, 1, 4)),
    "irq_msix": ("msix", (0,)),
    "irq_masked": ("interrupt", ()),
    "aer": ("parked", (0,)),
    "create_sq": ("create_sq", (1, 2, 3)),
    "create_cq": ("create_cq", (1, 2, 3)),
    "mmio_aqattr": ("aqattr", (0,)),
    "mmio_asqaddr": ("admin_base", ()),
    "mmio_asqaddr_hi": ("admin_base", ()),
    "mmio_acqaddr": ("admin_base", ()),
    "mmio_acqaddr_hi": ("admin_base", ()),
    "ub_mmiowr_intmask_with_msix": ("mask_with_msix", ()),
    "err_invalid_prp2_align": ("prp_offset", (0,)),
    "err_invalid_prplist_ent": ("prp_offset", (0,)),
    "err_startfail_asq_misaligned": ("admin_unaligned", (0,)),
    "err_startfail_acq_misaligned": ("admin_unaligned", (0,)),
    "err_startfail_asqent_sz_zero": ("admin_empty", ()),
    "err_startfail_acqent_sz_zero": ("admin_empty", ()),
    "err_startfail_page_too_large": ("page_size", (0, 1)),
    "mmio_start_success": ("started", ()),
    "mmio_stopped": ("stopped", ()),
    "pci_reset": ("reset", ()),
}
"""By event: the monitor's handler, and which of the event's values it takes."""

EVENTS = frozenset(_TAKEN)


class LiveMonitor:
    """A monitor of one controller. `emit` is an emitter for it; on a bus with other listeners this
    is one, for the events EVENTS. Events are numbered from 1."""

    def __init__(self) -> None:
        self.monitor = Monitor()
        self.events = 0
        self.recent: deque[tuple[int, str, tuple[Any, ...]]] = deque(maxlen=LIVE_EVENTS_KEPT)
        """The last events with their numbers: what the evidence of a verdict was."""
        self._handlers = {
            name: (self.monitor.handlers[handler], _picker(fields))
            for name, (handler, fields) in _TAKEN.items()
        }

    def emit(self, name: str, *values: Any) -> None:
        """Take an event; others than EVENTS are of no use here."""
        found = self._handlers.get(name)
        if found:
            number = self.events = self.events + 1
            self.recent.append((number, name, values))
            handler, pick = found
            handler(number, pick(values))

    def __call__(self, name: str, values: tuple[Any, ...]) -> None:
        self.emit(name, *values)


def _picker(fields: tuple[int, ...]) -> Callable[[tuple[Any, ...]], tuple[int, ...]]:
    """What takes these fields of an event's values."""
    if len(fields) > 1:
        return itemgetter(*fields)
    return lambda values: tuple([values[field] for field in fields])
