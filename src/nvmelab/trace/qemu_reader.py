"""QEMU's trace log, read: which events of the nvme device stand in which lines.

All three forms of a line are read: bare, `tid@seconds.micros:event ...`, and ISO time before the
event. So are renamed events, other versions' fields, and the extra lines of the reporter of issue
2388. Lines of something else are counted and left alone. The field order is a fact of the logs; see
`events` for the vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from nvmelab.limits import LOG_CHUNK_BYTES, LOG_LINE_BYTES_MAX

_SLOTS_MAX = 0xFFFF
"""Largest queue identifier, CID, pointer of a queue, vector and status."""

Values = tuple[int, ...]
Handler = Callable[[int, Values], None]
"""Called with the number of the line, from 1, and the values of the event."""


class Form(NamedTuple):
    """How one event stands in a log."""

    event: str
    """Its name in our vocabulary: a renamed event has the newer name."""
    match: Callable[[bytes], re.Match[bytes] | None]
    """Of the text behind the name: the fields, each a group."""
    bases: tuple[int, ...]
    """The base of each field."""
    largest: int
    """Largest value of a field. A line with a larger one is damaged."""


def _form(event: str, pattern: str, letters: str = "") -> Form:
    """`letters` has one for each group: d, x, or, for what may be an address, a."""
    bases = tuple(10 if letter == "d" else 16 for letter in letters)
    largest = (1 << 64) - 1 if "a" in letters else _SLOTS_MAX
    return Form(event, re.compile(pattern.encode()).match, bases, largest)


_N, _X = r"(\d{1,20})", r"0x([0-9a-f]+)"  # int refuses thousands of decimal digits
_COMMAND = rf"cid {_N} (?:nsid \S+ )?sqid {_N} opc {_X}"

FORMS: dict[bytes, Form] = {
    f"pci_nvme_{name}".encode(): form
    for name, form in {
        "mmio_doorbell_sq": _form("mmio_doorbell_sq", rf"sqid {_N} new_tail {_N}", "dd"),
        "mmio_doorbell_cq": _form("mmio_doorbell_cq", rf"cqid {_N} new_head {_N}", "dd"),
        "update_sq_tail": _form("update_sq_tail", rf"sqid {_N} new_tail {_N}", "dd"),
        "update_cq_head": _form("update_cq_head", rf"cqid {_N} new_head {_N}", "dd"),
        # 7.2's names of the same two.
        "shadow_doorbell_sq": _form("update_sq_tail", rf"sqid {_N} new_shadow_doorbell {_N}", "dd"),
        "shadow_doorbell_cq": _form("update_cq_head", rf"cqid {_N} new_shadow_doorbell {_N}", "dd"),
        "admin_cmd": _form("command", _COMMAND, "ddx"),
        "io_cmd": _form("command", _COMMAND, "ddx"),
        "enqueue_req_completion": _form(
            "finished", rf"cid {_N} cqid {_N} (?:dw0 \S+ dw1 \S+ )?status {_X}", "ddx"
        ),
        "irq_msix": _form("msix", rf".*?vector {_N}", "d"),
        "irq_pin": _form("interrupt", r""),
        "irq_masked": _form("interrupt", r""),
        "aer": _form("parked", rf"cid {_N}", "d"),
        "create_sq": _form("create_sq", rf".*?sqid={_N}, cqid={_N}, qsize={_N}", "ddd"),
        "create_cq": _form("create_cq", rf".*?cqid={_N}, vector={_N}, qsize={_N}", "ddd"),
        "del_sq": _form("del_sq", rf".*?sqid={_N}", "d"),
        "del_cq": _form("del_cq", rf".*?cqid={_N}", "d"),
        "dbbuf_config": _form("dbbuf_config", r""),
        "mmio_aqattr": _form("aqattr", rf".*?attributes={_X}", "a"),
        "mmio_start_success": _form("started", r""),
        "mmio_stopped": _form("stopped", r""),
        "pci_reset": _form("reset", r""),
        "err_cfs": _form("err_cfs", r""),
        "ub_db_wr_misaligned": _form("ub_db_wr_misaligned", rf".*?offset={_X}", "a"),
        "ub_db_wr_invalid_sq": _form("ub_db_wr_invalid_sq", rf".*?sqid={_N}", "d"),
        "ub_db_wr_invalid_cq": _form("ub_db_wr_invalid_cq", rf".*?cqid={_N}", "d"),
        "ub_db_wr_invalid_sqtail": _form(
            "ub_db_wr_invalid_sqtail", rf".*?sqid={_N}, new_head={_N}", "dd"
        ),
        "ub_db_wr_invalid_cqhead": _form(
            "ub_db_wr_invalid_cqhead", rf".*?cqid={_N}, new_head={_N}", "dd"
        ),
        "mmio_asqaddr": _form("admin_base", r""),
        "mmio_asqaddr_hi": _form("admin_base", r""),
        "mmio_acqaddr": _form("admin_base", r""),
        "mmio_acqaddr_hi": _form("admin_base", r""),
        "ub_mmiowr_intmask_with_msix": _form("mask_with_msix", r""),
        "err_invalid_prp2_align": _form("prp_offset", rf".*?: *{_X}", "a"),
        "err_invalid_prplist_ent": _form("prp_offset", rf".*?: *{_X}", "a"),
        "err_startfail_asq_misaligned": _form("admin_unaligned", rf".*?: *{_X}", "a"),
        "err_startfail_acq_misaligned": _form("admin_unaligned", rf".*?: *{_X}", "a"),
        "err_startfail_asqent_sz_zero": _form("admin_empty", r""),
        "err_startfail_acqent_sz_zero": _form("admin_empty", r""),
        "err_startfail_page_too_small": _form("page_size", rf".*?log2size={_N}, min={_N}", "dd"),
        "err_startfail_page_too_large": _form("page_size", rf".*?log2size={_N}, max={_N}", "dd"),
        # The reporter's own.
        "inc_sq_head": _form("fetched_to", rf"new_head {_N}", "d"),
        "process_sq": _form("fetching_ends", r"sq \(([01])\) OR sq->req_list \(([01])\)", "dd"),
    }.items()
} | {
    b"nvme_process_sq": _form("pool_after_fetch", r"sq->req_list is empty ([01])", "d"),
    b"nvme_post_cqes": _form("pool_at_post", r"sq->req_list is empty ([01])", "d"),
}


class Counts:
    """What was in a log."""

    def __init__(self) -> None:
        self.lines = 0
        self.events = 0
        """Lines of the nvme device, whether or not anybody wanted them."""
        self.damaged: list[int] = []
        """Lines with an event's name whose fields are missing or cannot be: the first hundred."""
        self.overlong = 0
        """Lines that are too long for a log, and were left out."""


def read_log(chunks: Iterable[bytes], handlers: dict[str, Handler]) -> Counts:
    """Call the handler of each event that has one, in order."""
    counts = Counts()
    wanted = {
        name: (form.match, form.bases, form.largest, handlers[form.event])
        for name, form in FORMS.items()
        if form.event in handlers
    }
    find = wanted.get
    events = 0
    number = 0
    for line in lines_of(chunks, counts):
        number += 1
        at = 0 if line.startswith(b"pci_nvme_") else line.find(b"nvme_")
        if at < 0:
            continue
        if line[at - 4 : at] == b"pci_":
            at -= 4
        events += 1
        name, _space, text = line[at:].partition(b" ")
        form = find(name.rstrip())
        if form is None:
            continue
        match, bases, largest, handler = form
        fields = match(text)
        values = tuple(map(int, fields.groups(), bases)) if fields else None
        if values is None or (values and max(values) > largest):
            # With -d guest_errors, `ub_` events have a second line of words.
            if not text.startswith(b"in ") and len(counts.damaged) < 100:
                counts.damaged.append(number)
            continue
        handler(number, values)
    counts.lines = number
    counts.events = events
    return counts


def lines_of(chunks: Iterable[bytes], counts: Counts) -> Iterator[bytes]:
    """The lines without their ends. A line of more than LOG_LINE_BYTES_MAX is empty."""
    rest = b""
    skipping = False
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if skipping and lines:
            lines[0], skipping = b"", False
        yield from lines
        if len(rest) > LOG_LINE_BYTES_MAX:
            counts.overlong += not skipping
            rest, skipping = b"", True
    if rest and not skipping:
        yield rest


def chunks_of(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What `read(size)` gives, until it gives nothing."""
    while chunk := read(LOG_CHUNK_BYTES):
        yield chunk
