"""Linux's own trace of its nvme driver, read: the tracepoints `nvme:*` as ftrace prints them.

Read is what `trace`, `trace_pipe`, `trace-cmd report`, `perf script` and a dump to the console
print, of Linux 4.17 and later. The forms differ: at first admin commands had a tracepoint of their
own and no controller was named; numbers are decimal or hexadecimal; and since 5.10 the upper bits
of a command identifier count how often its tag was used, which the completion has only since 6.0.
Lines of something else are counted and left alone.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Protocol

from nvmelab.limits import LOG_LOOK_BYTES
from nvmelab.trace.qemu_reader import Counts, lines_of
from nvmelab.trace.taken import SLOTS_MAX

_EVENT = re.compile(
    rb"(?:nvme:)?nvme_(setup_cmd|setup_nvm_cmd|setup_admin_cmd|complete_rq|sq|async_event):[ \t]+"
)
_TIME = re.compile(rb"(?:\b(\d{1,12})\.(\d{6})(?:\d{3})?|\b(\d{1,18})us ?[!+#*@$]?) ?:[ \t]+$")
_CONTROLLER = re.compile(rb"nvme(\d{1,5}): ")
_FIELD = re.compile(rb"\b(\w+)=(?:0x([0-9a-f]{1,16})|(\d{1,20}))\b")
_COMMAND = re.compile(rb"cmd=\((\S+)(?: ([^)]*))?\)?")
_HEADER = re.compile(rb"^# entries-in-buffer/entries-written: (\d{1,20})/(\d{1,20})")
_LOST = re.compile(rb"\bCPU:\d+ \[(?:LOST )?\d+ EVENTS(?: DROPPED)?\]|\bLOST \d+ events")
_QEMU = b"pci_nvme_"


class Listener(Protocol):
    """Who is told of the trace, line by line. `us` is the time in microseconds, None if the line
    has none; `controller` is `nvme0`, or empty in traces that do not say it."""

    def set_up(
        self, at: int, us: int | None, controller: str, qid: int, cid: int, name: str, words: str
    ) -> None:
        """The driver has made a command: its name, such as `nvme_cmd_read`, and what is said of
        its fields."""

    def completed(
        self, at: int, us: int | None, controller: str, qid: int, cid: int, status: int, flags: int
    ) -> None:
        """The driver is done with a command, whoever has ended it."""

    def position(self, at: int, controller: str, qid: int, head: int, tail: int) -> None:
        """A completion is taken: the SQHD in it, and the driver's own tail."""

    def begins(self, at: int, kept: int, written: int) -> None:
        """A header: so many events of so many are in the trace that follows."""

    def lost(self, at: int) -> None:
        """The trace has lost events here."""


def told_apart(chunks: Iterator[bytes]) -> tuple[bool, Iterator[bytes]]:
    """Whether this is Linux's trace, by the first line of either kind; and the same chunks again.
    Where QEMU's lines and a guest's trace are in one log, it is QEMU's."""
    kept: list[bytes] = []
    size = 0
    found = False
    for chunk in chunks:
        kept.append(chunk)
        size += len(chunk)
        if _QEMU in chunk:
            break
        if _EVENT.search(chunk):
            found = True
            break
        if size >= LOG_LOOK_BYTES:
            break
    return found, itertools.chain(kept, chunks)


def read_ftrace(chunks: Iterable[bytes], listener: Listener) -> Counts:
    """Tell the listener of each event, in the order of the lines."""
    counts = Counts()
    counts.of = "Linux's nvme driver"
    for number, line in enumerate(lines_of(chunks, counts), 1):
        counts.lines = number
        found = _EVENT.search(line) if b"nvme_" in line else None
        if found:
            counts.events += 1
            if not _tell(listener, number, line, found) and len(counts.damaged) < 100:
                counts.damaged.append(number)
        elif line.startswith(b"# entries"):
            header = _HEADER.match(line)
            if header:
                listener.begins(number, int(header[1]), int(header[2]))
        elif (b"LOST " in line or b" DROPPED]" in line) and _LOST.search(line):
            listener.lost(number)
    return counts


def _tell(listener: Listener, at: int, line: bytes, found: re.Match[bytes]) -> bool:
    """False for a line whose fields are missing or cannot be."""
    kind, text = found[1], line[found.end() :]
    if kind == b"async_event":
        return True  # its command has no tracepoint
    us = _time(line[: found.start()])
    named = _CONTROLLER.match(text)
    controller = f"nvme{int(named[1])}" if named else ""
    command = _COMMAND.search(text)
    before = text[: command.start()] if command else text
    fields = {
        key: int(hexadecimal, 16) if hexadecimal else int(decimal)
        for key, hexadecimal, decimal in _FIELD.findall(before)
    }
    if kind == b"setup_admin_cmd":
        fields.setdefault(b"qid", 0)
    wanted = _WANTED[kind]
    values = [fields.get(key, -1) for key in wanted]
    if not all(0 <= value <= SLOTS_MAX for value in values):
        return False
    if kind == b"sq":
        listener.position(at, controller, *values)
    elif kind == b"complete_rq":
        listener.completed(at, us, controller, *values)
    elif command is None:
        return False
    else:
        name, words = (part.decode(errors="replace") for part in (command[1], command[2] or b""))
        qid, cid = values
        listener.set_up(at, us, controller, qid, cid, name.rstrip(")"), words)
    return True


_WANTED = {
    **dict.fromkeys((b"setup_cmd", b"setup_nvm_cmd", b"setup_admin_cmd"), (b"qid", b"cmdid")),
    b"complete_rq": (b"qid", b"cmdid", b"status", b"flags"),
    b"sq": (b"qid", b"head", b"tail"),
}


def _time(before: bytes) -> int | None:
    """The time that stands before an event, in microseconds."""
    found = _TIME.search(before)
    if found is None:
        return None
    if found[3]:
        return int(found[3])
    return int(found[1]) * 1_000_000 + int(found[2])
