"""The lines of a log that its page shows: the last ones, and older ones that a verdict rests on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec

from nvmelab.limits import PAGE_KEPT_MAX, PAGE_LINE_BYTES_MAX, PAGE_LINES_MAX, PAGE_OTHERS_MAX
from nvmelab.trace.clock import Clock

OTHER, UNUSED = -2, -1
"""Kinds of lines that tell the judge nothing: of something else, and of the nvme device."""


class Line(msgspec.Struct, gc=False):
    """One line, or one event of a capture."""

    number: int
    text: bytes
    us: int | None
    """Its time in microseconds since the first one that has a time."""
    kind: int
    """OTHER, UNUSED, or what it tells of: a place in `recorder.KINDS`."""
    queues: tuple[int, ...] = ()
    """The submission queues that it concerns, its own first."""
    values: tuple[int, ...] = ()


class Lines:
    """A window over the lines as they are read. `wanted` says of a line that leaves the window
    whether it is still evidence of something: then it is kept by itself."""

    def __init__(self, wanted: Callable[[Line], bool]) -> None:
        self.rows: deque[Line] = deque()
        self.kept: list[Line] = []
        """Lines before the window that are evidence, as far as there is room."""
        self.left_out = 0
        """The number of the last line before the window."""
        self._wanted = wanted
        self._clock = Clock()
        self._others = 0

    def add(self, number: int, text: bytes, us: int | None = None) -> None:
        """The next line; `us` is its time, if that is not in the line itself. Of a long stretch of
        something else only the first lines are shown, and of empty ones none."""
        if b"pci_nvme_" in text or us is not None:
            self._others, kind = 0, UNUSED
        elif b"nvme_" in text:
            kind = OTHER  # or a line of the reporter's, of which `tells` follows
        elif not text.strip() or self._others == PAGE_OTHERS_MAX:
            return
        else:
            self._others += 1
            kind = OTHER
        if us is None and not text.startswith((b"pci_", b"nvme_")):
            us = self._clock.read(text)
        self.rows.append(Line(number, text[:PAGE_LINE_BYTES_MAX], us, kind))
        if len(self.rows) > PAGE_LINES_MAX:
            gone = self.rows.popleft()
            self.left_out = gone.number
            if len(self.kept) < PAGE_KEPT_MAX and self._wanted(gone):
                self.kept.append(gone)

    def tells(
        self, number: int, kind: int, queues: tuple[int, ...], values: tuple[int, ...]
    ) -> None:
        """The last line is an event."""
        row = self.rows[-1]
        assert row.number == number
        row.kind, row.queues, row.values = kind, queues, values
