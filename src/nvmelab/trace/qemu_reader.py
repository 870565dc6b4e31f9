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
from nvmelab.trace.events import EVENTS, QEMU_PREFIX
from nvmelab.trace.taken import SLOTS_MAX, TAKEN

Values = tuple[int, ...]
Handler = Callable[[int, Values], None]
"""Called with the number of the line, from 1, and the values of the event."""


class Form(NamedTuple):
    """How one event stands in a log."""

    handler: str
    """Who is called with it."""
    match: Callable[[bytes], re.Match[bytes] | None]
    """Of the text behind the name: the fields, each a group."""
    bases: tuple[int, ...]
    """The base of each field."""
    largest: tuple[int, ...]
    """Largest value of each field, or nothing if none has a bound but its digits. A line with a
    larger one is damaged."""


_NUMBER = {"d": r"(\d{1,19})", "x": r"0x([0-9a-f]{1,16})"}
"""No number is larger than 64 bits, and `int` refuses thousands of digits."""
_BASE = {"d": 10, "x": 16}


def _form(event: str, renamed: dict[str, str] | None = None) -> Form:
    """As the table of events has it, with other keys. Versions differ in the words, and in the
    fields that are not taken."""
    _name, fields, template, style = EVENTS[event]
    taken = TAKEN[event]
    pattern = (
        ".*?" if style == "S" and not template.startswith(fields[0][0] if fields else "") else ""
    )
    for number, (key, form) in enumerate(fields[: taken.fields[-1] + 1] if taken.fields else ()):
        key = (renamed or {}).get(key, key)
        wanted = number in taken.fields
        if style == "S" and wanted:
            pattern += f"{key} {_NUMBER[form]} ?"
        elif style == "S":
            pattern += rf"(?:{key} \S+ )?"
        elif wanted:
            pattern += f".*?{key}={_NUMBER[form]}" if style == "E" else f".*?: *{_NUMBER[form]}"
    bases = tuple(_BASE[fields[number][1]] for number in taken.fields)
    match = re.compile(pattern.encode()).match
    bounds = taken.bounds(event)
    return Form(taken.handler, match, bases, bounds if SLOTS_MAX in bounds else ())


def _reporters(handler: str, pattern: str, largest: int, count: int) -> Form:
    """A line of the reporter's own: `count` decimal fields."""
    return Form(handler, re.compile(pattern.encode()).match, (10,) * count, (largest,) * count)


FORMS: dict[bytes, Form] = {
    **{f"{QEMU_PREFIX}{event}".encode(): _form(event) for event in TAKEN},
    # 7.2's names.
    b"pci_nvme_shadow_doorbell_sq": _form("update_sq_tail", {"new_tail": "new_shadow_doorbell"}),
    b"pci_nvme_shadow_doorbell_cq": _form("update_cq_head", {"new_head": "new_shadow_doorbell"}),
    b"pci_nvme_inc_sq_head": _reporters("fetched_to", r"new_head (\d{1,5})", SLOTS_MAX, 1),
    b"pci_nvme_process_sq": _reporters(
        "fetching_ends", r"sq \(([01])\) OR sq->req_list \(([01])\)", 1, 2
    ),
    b"nvme_process_sq": _reporters("pool_after_fetch", r"sq->req_list is empty ([01])", 1, 1),
    b"nvme_post_cqes": _reporters("pool_at_post", r"sq->req_list is empty ([01])", 1, 1),
}


class Counts:
    """What was in a log, or in a capture."""

    def __init__(self) -> None:
        self.unit = "line"
        """What the numbers of the events count: `line`, or `event` in a capture."""
        self.cut = ""
        """How a capture or a compressed log ends, if not by its end: in words."""
        self.broken = False
        """It ends so because it is damaged or cut there, and not where the run ended."""
        self.lines = 0
        self.events = 0
        """Lines of the nvme device, whether or not anybody wanted them."""
        self.of = "the nvme device"
        """What those lines are of."""
        self.damaged: list[int] = []
        """Lines with an event's name whose fields are missing or cannot be: the first hundred."""
        self.overlong = 0
        """Lines that are too long for a log, and were left out."""


def read_log(
    chunks: Iterable[bytes],
    handlers: dict[str, Handler],
    on_line: Callable[[int, bytes], None] | None = None,
) -> Counts:
    """Call the handler of each event that has one, in order, and `on_line` with every line and its
    number, before that. A handler may put another one in its place."""
    counts = Counts()
    wanted = {
        name: (form.match, form.bases, form.largest, form.handler)
        for name, form in FORMS.items()
        if form.handler in handlers
    }
    find = wanted.get
    events = 0
    number = 0
    for line in lines_of(chunks, counts):
        number += 1
        if on_line:
            on_line(number, line)
        at = 0 if line.startswith(b"pci_nvme_") else line.find(b"nvme_")
        if at < 0:
            continue
        if line[at - 4 : at] == b"pci_":
            at -= 4
        name, _space, text = line[at:].partition(b" ")
        form = find(name.rstrip())
        if form is None:
            events += name.startswith(b"pci_nvme_")  # not so a guest's nvme_core
            continue
        events += 1
        match, bases, largest, handler = form
        fields = match(text)
        values = tuple(map(int, fields.groups(), bases)) if fields else None
        if values is None or (largest and max(values) > SLOTS_MAX and not _fits(values, largest)):
            # With -d guest_errors, `ub_` events have a second line of words; QEMU 5.2 says of a
            # write no size.
            known = text.startswith(b"in ") or handler == "write"
            if not known and len(counts.damaged) < 100:
                counts.damaged.append(number)
            continue
        handlers[handler](number, values)
    counts.lines = number
    counts.events = events
    return counts


def _fits(values: Values, largest: tuple[int, ...]) -> bool:
    return all(value <= most for value, most in zip(values, largest, strict=True))


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
    if rest or skipping:
        yield rest


def chunks_of(read: Callable[[int], bytes]) -> Iterator[bytes]:
    """What `read(size)` gives, until it gives nothing."""
    while chunk := read(LOG_CHUNK_BYTES):
        yield chunk
