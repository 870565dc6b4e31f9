"""What a judge takes of the events: a table that the reader of logs and the live monitor share.

Several events may be one to the judge: a renamed one, or errors that break the same rule.
"""

from __future__ import annotations

from typing import NamedTuple

from nvmelab.trace.events import EVENTS

SLOTS_MAX = 0xFFFF
"""Largest queue identifier, CID, pointer of a queue, vector and status."""
WORDS_MAX = (1 << 64) - 1
"""Largest value of any other field."""
_SLOTS = frozenset(
    (
        *("sqid", "cqid", "cid", "new_tail", "new_head", "new_eventidx", "qsize", "vector", "opc"),
        *("status", "slot", "sqhd", "phase"),
    )
)


class Taken(NamedTuple):
    """What is taken of one event."""

    handler: str
    """Who is called with it."""
    fields: tuple[int, ...]
    """The numbers of the fields that it gets, in rising order."""

    def bounds(self, event: str) -> tuple[int, ...]:
        """The largest value of each field that can be."""
        keys = (EVENTS[event].fields[number][0] for number in self.fields)
        return tuple(SLOTS_MAX if key in _SLOTS else WORDS_MAX for key in keys)


def _taken(event: str, handler: str, keys: str = "") -> tuple[str, Taken]:
    """`keys` in the order of the event's table entry; `*` is all."""
    names = [key for key, _form in EVENTS[event].fields]
    if keys == "*":
        return event, Taken(handler, tuple(range(len(names))))
    fields: list[int] = []
    for key in keys.split():  # a key may stand twice
        fields.append(names.index(key, fields[-1] + 1 if fields else 0))
    return event, Taken(handler, tuple(fields))


TAKEN: dict[str, Taken] = dict(
    (
        # Registers and life cycle.
        _taken("mmio_write", "write", "*"),
        _taken("mmio_cfg", "cc", "config"),
        _taken("mmio_aqattr", "aqattr", "attributes"),
        _taken("mmio_asqaddr", "asq", "address"),
        _taken("mmio_asqaddr_hi", "asq", "new_address"),
        _taken("mmio_acqaddr", "acq", "address"),
        _taken("mmio_acqaddr_hi", "acq", "new_address"),
        _taken("mmio_start_success", "started"),
        _taken("mmio_stopped", "stopped"),
        _taken("mmio_shutdown_set", "shutdown_set"),
        _taken("mmio_shutdown_cleared", "shutdown_cleared"),
        _taken("pci_reset", "reset"),
        _taken("err_cfs", "err_cfs"),
        _taken("err_startfail", "start_failed"),
        _taken("csts", "csts", "value"),
        _taken("offers", "offers", "*"),
        _taken("ub_mmiowr_misaligned32", "access_misaligned", "offset"),
        _taken("ub_mmiord_misaligned32", "access_misaligned", "offset"),
        _taken("ub_mmiowr_toosmall", "access_small", "offset"),
        _taken("ub_mmiord_toosmall", "access_small", "offset"),
        _taken("ub_mmiowr_ro_csts", "csts_written"),
        _taken("ub_mmiowr_invalid", "no_register", "offset"),
        _taken("ub_mmiowr_intmask_with_msix", "mask_with_msix"),
        _taken("err_startfail_css", "unsupported_css", "css"),
        _taken("err_startfail_asq_misaligned", "admin_unaligned", "asq"),
        _taken("err_startfail_acq_misaligned", "admin_unaligned", "acq"),
        _taken("err_startfail_asqent_sz_zero", "admin_empty"),
        _taken("err_startfail_acqent_sz_zero", "admin_empty"),
        _taken("err_startfail_page_too_large", "page_size", "*"),
        _taken("err_startfail_page_too_small", "page_size", "*"),
        # Doorbells.
        _taken("mmio_doorbell_sq", "mmio_doorbell_sq", "*"),
        _taken("mmio_doorbell_cq", "mmio_doorbell_cq", "*"),
        _taken("update_sq_tail", "update_sq_tail", "*"),
        _taken("update_cq_head", "update_cq_head", "*"),
        _taken("ub_db_wr_misaligned", "ub_db_wr_misaligned", "offset"),
        _taken("ub_db_wr_invalid_sq", "ub_db_wr_invalid_sq", "sqid"),
        _taken("ub_db_wr_invalid_cq", "ub_db_wr_invalid_cq", "cqid"),
        _taken("ub_db_wr_invalid_sqtail", "ub_db_wr_invalid_sqtail", "*"),
        _taken("ub_db_wr_invalid_cqhead", "ub_db_wr_invalid_cqhead", "*"),
        # Queues.
        _taken("create_sq", "create_sq", "*"),
        _taken("create_cq", "create_cq", "*"),
        _taken("del_sq", "del_sq", "*"),
        _taken("del_cq", "del_cq", "*"),
        _taken("dbbuf_config", "dbbuf_config", "*"),
        _taken("setfeat", "set_feature", "fid cdw11"),
        _taken("setfeat_numq", "number_of_queues", "*"),
        _taken("cq_not_cleared", "cq_not_cleared", "*"),
        # Commands.
        _taken("sqe", "sqe", "*"),
        _taken("io_cmd", "command", "cid sqid opc"),
        _taken("admin_cmd", "command", "cid sqid opc"),
        _taken("aer", "parked", "cid"),
        _taken("aer_post_cqe", "event_told"),
        _taken("err_invalid_lba_range", "lba_range", "*"),
        _taken("err_mdts", "too_much", "len"),
        _taken("enqueue_req_completion", "finished", "cid cqid status"),
        _taken("cqe", "cqe", "*"),
        _taken("irq_msix", "msix", "vector"),
        _taken("irq_masked", "interrupt"),
        _taken("irq_pin", "interrupt"),
        # Data.
        _taken("map_prp", "map_prp", "len prp1 prp2"),
        _taken("map_addr", "map_addr", "*"),
        _taken("err_addr_read", "no_memory", "addr"),
        _taken("err_addr_write", "no_memory", "addr"),
        _taken("err_invalid_prplist_ent", "prp_offset", "entry"),
        _taken("err_invalid_prp2_align", "prp_offset", "prp2"),
    )
)
"""By event."""
