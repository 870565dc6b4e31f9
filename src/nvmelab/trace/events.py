"""The vocabulary of events: what can be seen of an NVMe device at work, and how QEMU's log says it.

An event is a name and its values, in the order of the table. Names, fields and the form of a line
are those of the trace events of QEMU's nvme device (there with `pci_nvme_` in front), as QEMU 11.1
logs them; the free words of error events are ours. A few events, at the end, are our controller's
own: what QEMU's log never shows.
"""

from __future__ import annotations

from typing import NamedTuple

QEMU_PREFIX = "pci_nvme_"


class Event(NamedTuple):
    """One kind of event."""

    name: str
    fields: tuple[tuple[str, str], ...]
    """(key, form): form `d` is decimal, `x` hexadecimal with 0x, `q` text in single quotes."""
    template: str
    """A str.format template for the values, which gives the text of the log line."""
    style: str
    """How the fields stand in it: S `key value`, E `key=value`, C the value behind a colon."""


_FORM = {"d": "{}", "x": "{:#x}", "q": "'{}'"}


def _event(name: str, fields: str = "", words: str = "", style: str = "S") -> Event:
    """`fields` as `key:form key:form`, printed after the words. Style S prints `key value`, E
    `key=value` with commas between, C the value alone behind a colon and a space, c without the
    space."""
    parsed = tuple((key, form) for key, form in (field.split(":") for field in fields.split()))
    if style == "S":
        text = " ".join(f"{key} {_FORM[form]}" for key, form in parsed)
    elif style == "E":
        text = ", ".join(f"{key}={_FORM[form]}" for key, form in parsed)
    else:
        assert style in "Cc" and len(parsed) == 1
        text = f"{words}:{' ' * (style == 'C')}{_FORM[parsed[0][1]]}"
        return Event(name, parsed, text, "C")
    return Event(name, parsed, " ".join(filter(None, (words, text))), style)


_TABLE = (
    # Registers, doorbells, life cycle.
    _event("mmio_read", "addr:x size:d"),
    _event("mmio_write", "addr:x data:x size:d"),
    _event("mmio_doorbell_sq", "sqid:d new_tail:d"),
    _event("mmio_doorbell_cq", "cqid:d new_head:d"),
    _event("mmio_cfg", "config:x", "wrote MMIO, config controller", "E"),
    _event("mmio_aqattr", "attributes:x", "wrote MMIO, admin queue", "E"),
    _event("mmio_asqaddr", "address:x", "wrote MMIO, admin submission queue", "E"),
    _event(
        "mmio_asqaddr_hi", "half:x new_address:x", "wrote MMIO, admin submission queue high", "E"
    ),
    _event("mmio_acqaddr", "address:x", "wrote MMIO, admin completion queue", "E"),
    _event(
        "mmio_acqaddr_hi", "half:x new_address:x", "wrote MMIO, admin completion queue high", "E"
    ),
    _event("mmio_intm_set", "data:x new_mask:x", "wrote MMIO, interrupt mask set,", "E"),
    _event("mmio_intm_clr", "data:x new_mask:x", "wrote MMIO, interrupt mask clear,", "E"),
    _event("mmio_start_success", "", "setting controller enable bit succeeded"),
    _event("mmio_stopped", "", "cleared controller enable bit"),
    _event("mmio_shutdown_set", "", "shutdown bit set"),
    _event("mmio_shutdown_cleared", "", "shutdown bit cleared"),
    _event("pci_reset", "", "PCI Function Level Reset"),
    # Queues.
    _event("create_sq", "addr:x sqid:d cqid:d qsize:d qflags:d", "create submission queue,", "E"),
    _event(
        "create_cq",
        "addr:x cqid:d vector:d qsize:d qflags:d ien:d",
        "create completion queue,",
        "E",
    ),
    _event("del_sq", "sqid:d", "deleting submission queue", "E"),
    _event("del_cq", "cqid:d", "deleted completion queue,", "E"),
    # Shadow doorbells.
    Event(
        "dbbuf_config",
        (("dbs_addr", "x"), ("eis_addr", "x")),
        "dbs_addr={:#x} eis_addr={:#x}",
        "E",
    ),
    _event("update_sq_tail", "sqid:d new_tail:d"),
    _event("update_cq_head", "cqid:d new_head:d"),
    _event("update_sq_eventidx", "sqid:d new_eventidx:d"),
    _event("update_cq_eventidx", "cqid:d new_eventidx:d"),
    # Commands.
    _event("admin_cmd", "cid:d sqid:d opc:x opname:q"),
    _event("io_cmd", "cid:d nsid:x sqid:d opc:x opname:q"),
    _event("read", "cid:d nsid:d nlb:d count:d lba:x"),
    _event("write", "cid:d opname:q nsid:d nlb:d count:d lba:x"),
    _event("flush_ns", "nsid:x"),
    _event("dsm", "nr:d attr:x"),
    _event("dsm_deallocate", "slba:d nlb:d"),
    _event("identify", "cid:d cns:x ctrlid:d csi:x"),
    _event("identify_ctrl", "", "identify controller"),
    _event("identify_ctrl_csi", "csi:x", "identify controller,", "E"),
    _event("identify_ns", "nsid:d"),
    _event("identify_ns_csi", "nsid:d csi:x", "", "E"),
    _event("identify_ns_descr_list", "nsid:d"),
    _event("identify_nslist", "nsid:d"),
    _event("get_log", "cid:d lid:x lsp:x rae:x len:d off:d"),
    _event("getfeat", "cid:d nsid:x fid:x sel:x cdw11:x"),
    _event("setfeat", "cid:d nsid:x fid:x save:x cdw11:x"),
    Event(
        "setfeat_numq",
        (("cq_count", "d"), ("sq_count", "d"), ("cq_count", "d"), ("sq_count", "d")),
        "requested cq_count={} sq_count={}, responding with cq_count={} sq_count={}",
        "E",
    ),
    # Completion and interrupt.
    _event("rw_cb", "cid:d blk:q"),
    _event("rw_complete_cb", "cid:d blk:q"),
    _event("misc_cb", "cid:d"),
    _event("enqueue_req_completion", "cid:d cqid:d dw0:x dw1:x status:x"),
    _event("irq_msix", "vector:d", "raising MSI-X IRQ"),
    _event("irq_masked", "", "IRQ is masked"),
    _event("irq_pin", "", "pulsing IRQ pin"),
    # Asynchronous events.
    _event("aer", "cid:d"),
    _event("aer_aerl_exceeded", "", "more Asynchronous Event Requests than AERL allows"),
    _event("enqueue_event", "type:x info:x lid:x"),
    _event("enqueue_event_noqueue", "queued:d"),
    _event("no_outstanding_aers", "", "an event waits for an Asynchronous Event Request"),
    _event("process_aers", "queued:d"),
    _event("aer_masked", "type:x mask:x"),
    _event("aer_post_cqe", "type:x info:x lid:x"),
    # Data.
    _event("map_prp", "trans_len:d len:d prp1:x prp2:x num_prps:d"),
    _event("map_addr", "addr:x len:d"),
    # Errors the device answers with a status, or with CFS.
    _event("err_req_status", "cid:d nsid:d status:x opc:x"),
    _event("err_addr_read", "addr:x"),
    _event("err_addr_write", "addr:x"),
    _event("err_cfs", "", "CSTS.CFS is set"),
    _event("err_aio", "cid:d err:q status:x"),
    _event("err_mdts", "len:d"),
    _event("err_invalid_prplist_ent", "entry:x", "PRP list entry is not page aligned", "C"),
    _event("err_invalid_prp2_align", "prp2:x", "PRP2 is not page aligned", "C"),
    _event("err_invalid_opc", "opcode:x", "unknown I/O command"),
    _event("err_invalid_admin_opc", "opcode:x", "unknown admin command"),
    _event("err_invalid_lba_range", "start:d len:d limit:d", "LBA out of range,", "E"),
    _event("err_invalid_identify_cns", "cns:x", "unknown Identify structure,", "E"),
    _event("err_invalid_log_page", "cid:d lid:x"),
    _event("err_invalid_create_sq_sqid", "sqid:d", "create I/O SQ: bad SQID,", "E"),
    _event("err_invalid_create_sq_cqid", "cqid:d", "create I/O SQ: no such CQ,", "E"),
    _event("err_invalid_create_sq_size", "qsize:d", "create I/O SQ: bad size,", "E"),
    _event("err_invalid_create_sq_addr", "addr:x", "create I/O SQ: bad address,", "E"),
    _event("err_invalid_create_sq_qflags", "qflags:d", "create I/O SQ: not contiguous,", "E"),
    _event("err_invalid_create_cq_cqid", "cqid:d", "create I/O CQ: bad CQID,", "E"),
    _event("err_invalid_create_cq_size", "size:d", "create I/O CQ: bad size,", "E"),
    _event("err_invalid_create_cq_addr", "addr:x", "create I/O CQ: bad address,", "E"),
    _event("err_invalid_create_cq_vector", "vector:d", "create I/O CQ: bad vector,", "E"),
    _event("err_invalid_create_cq_qflags", "qflags:d", "create I/O CQ: not contiguous,", "E"),
    _event("err_invalid_create_cq_entry_size", "iosqes:d iocqes:d"),
    _event("err_invalid_del_sq", "sid:d", "delete I/O SQ: no such SQ,", "E"),
    _event("err_invalid_del_cq_cqid", "cqid:d", "delete I/O CQ: no such CQ,", "E"),
    _event("err_invalid_del_cq_notempty", "cqid:d", "delete I/O CQ: an SQ is bound to it,", "E"),
    _event("err_startfail", "", "enabling failed"),
    _event("err_startfail_asq_misaligned", "asq:x", "ASQ is not page aligned", "C"),
    _event("err_startfail_acq_misaligned", "acq:x", "ACQ is not page aligned", "C"),
    _event("err_startfail_asqent_sz_zero", "", "AQA.ASQS is 0"),
    _event("err_startfail_acqent_sz_zero", "", "AQA.ACQS is 0"),
    _event("err_startfail_page_too_small", "log2size:d min:d", "CC.MPS is too small,", "E"),
    _event("err_startfail_page_too_large", "log2size:d max:d", "CC.MPS is too large,", "E"),
    _event("err_startfail_css", "css:d", "CC.CSS is not supported", "c"),
    # What the host must not do, and what is ignored.
    _event("ub_db_wr_misaligned", "offset:x", "doorbell write is not aligned,", "E"),
    _event("ub_db_wr_invalid_sq", "sqid:d", "tail doorbell of no SQ,", "E"),
    _event("ub_db_wr_invalid_sqtail", "sqid:d new_head:d", "tail outside the SQ,", "E"),
    _event("ub_db_wr_invalid_cq", "cqid:d", "head doorbell of no CQ,", "E"),
    _event("ub_db_wr_invalid_cqhead", "cqid:d new_head:d", "head outside the CQ,", "E"),
    _event("ub_mmiowr_misaligned32", "offset:x", "register write is not aligned,", "E"),
    _event("ub_mmiowr_toosmall", "offset:x size:d", "register write below 4 bytes,", "E"),
    _event("ub_mmiowr_intmask_with_msix", "", "INTMS or INTMC is written under MSI-X"),
    _event("ub_mmiowr_ro_csts", "", "write to a read-only bit of CSTS"),
    _event("ub_mmiowr_invalid", "offset:x data:x", "write to no writable register,", "E"),
    _event("ub_mmiord_misaligned32", "offset:x", "register read is not aligned,", "E"),
    _event("ub_mmiord_toosmall", "offset:x", "register read below 4 bytes,", "E"),
    # Our controller's own.
    _event("sqe", "sqid:d slot:d " + " ".join(f"dw{number}:x" for number in range(16))),
    _event("cqe", "cqid:d slot:d dw0:x dw1:x sqhd:d sqid:d cid:d phase:d status:x"),
    _event("csts", "value:x"),
    _event("offers", "mqes:d io_queues:d vectors:d mdts:d aerl:d acl:d"),
    _event("cq_not_cleared", "cqid:d slot:d"),
)

EVENTS: dict[str, Event] = {event.name: event for event in _TABLE}
assert len(EVENTS) == len(_TABLE)

OURS = {
    "sqe": "the submission queue entry that is fetched from this slot, as 16 dwords",
    "cqe": "the completion queue entry that is posted to this slot",
    "csts": "CSTS, which has changed",
    "offers": "what an enabled controller offers: entries (CAP.MQES), I/O queue pairs, MSI-X "
    "vectors, bytes of a transfer (MDTS; 0 is no limit), requests for events (AERL), aborts (ACL)",
    "cq_not_cleared": "a slot of a new completion queue whose phase tag is not 0",
}
"""The events that QEMU's log does not have, and what they say."""
