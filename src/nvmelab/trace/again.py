"""A log or a capture read once more, for a few of its lines or events: what they say, and when."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable

from nvmelab.trace.capture import CaptureError, CaptureReader
from nvmelab.trace.capture import told_apart as capture_told_apart
from nvmelab.trace.clock import Clock
from nvmelab.trace.opening import LogError, open_log
from nvmelab.trace.qemu_log import event_text
from nvmelab.trace.qemu_reader import Counts, chunks_of, lines_of


class Again:
    """The lines of the log at `path`. Standard input cannot be read again: nothing is known of its
    lines then. So it is with a log that is gone, or is not what it was."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._texts: dict[int, str] = {}
        self._times: dict[int, float] = {}

    def look(self, numbers: Iterable[int]) -> None:
        """Read these lines, from 1, as far as they were not read before."""
        wanted = set(numbers) - self._texts.keys()
        if not wanted or self._path == "-":
            return
        with contextlib.suppress(LogError, CaptureError), open_log(self._path) as stream:
            is_capture, chunks = capture_told_apart(chunks_of(stream.read))
            if is_capture:
                self._events(CaptureReader(chunks), wanted)
            else:
                self._lines(chunks, wanted)

    def _lines(self, chunks: Iterable[bytes], wanted: set[int]) -> None:
        clock, last = Clock(), max(wanted)
        for number, line in enumerate(itertools.islice(lines_of(chunks, Counts()), last), 1):
            if number in wanted:
                self._texts[number] = line.decode(errors="replace").strip()
                us = clock.read(line)
                if us is not None:
                    self._times[number] = us / 1e6

    def _events(self, capture: CaptureReader, wanted: set[int]) -> None:
        last = max(wanted)
        for number, ns, name, values in capture:
            if number in wanted:
                self._texts[number] = event_text(name, values)
                self._times[number] = ns / 1e9
            if number >= last:
                return

    def time_of(self, number: int) -> float | None:
        """In seconds since some time; None if the line has none."""
        self.look([number])
        return self._times.get(number)

    def text_of(self, number: int) -> str:
        """Without white space around it; empty if it is not known."""
        self.look([number])
        return self._texts.get(number, "")
