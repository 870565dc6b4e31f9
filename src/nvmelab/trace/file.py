"""A trace file: the events of one controller, as QEMU's log prints them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TextIO

from nvmelab.trace.bus import Bus
from nvmelab.trace.qemu_log import QemuLogWriter, select

_log = logging.getLogger("nvmelab.trace")


class TraceError(Exception):
    """The trace cannot be written. The message is one line for the user."""


class TraceFile:
    """Chosen events in a file, which is overwritten by `open` and not before.

    A file that cannot be written any more, on a full disk for example, ends the trace with a line
    in the log: the guest goes on. Raises PatternError for a pattern that selects nothing.
    """

    def __init__(self, patterns: tuple[str, ...], path: str) -> None:
        self._names = select(patterns)
        self.path = path
        self.bus = Bus()
        self._file: TextIO | None = None

    def open(self) -> None:
        """Begin. Raises TraceError."""
        try:
            self._file = Path(self.path).open("w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise TraceError(
                f"--trace-file {self.path}: {error.strerror}; name a file that can be written"
            ) from None
        self._writer = QemuLogWriter(self._file)
        self.bus.subscribe(self._listen, self._names)

    def _listen(self, name: str, values: tuple[object, ...]) -> None:
        if self._file:
            try:
                self._writer(name, values)
            except OSError as error:
                self._give_up(error)

    def flush(self) -> None:
        """Let others see what was written: somebody may be watching the file of a hang."""
        if self._file:
            try:
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Safe to call twice."""
        self.flush()
        if self._file:
            self._file.close()
            self._file = None

    def _give_up(self, error: OSError) -> None:
        file, self._file = self._file, None
        _log.error("%s: %s; the trace ends here", self.path, error.strerror)
        if file:
            try:
                file.close()
            except OSError:
                pass  # what it still held cannot be written either
