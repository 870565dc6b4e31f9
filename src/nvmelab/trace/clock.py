"""The times of a log's lines."""

from __future__ import annotations

import re
from datetime import datetime

_STAMPS = (
    re.compile(rb"\d{1,20}@(\d{1,12})\.(\d{6}):"),
    re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{6}))?Z "),
)


class Clock:
    """Reads the time stamps of a log."""

    def __init__(self) -> None:
        self._begin: int | None = None

    def read(self, line: bytes) -> int | None:
        """Microseconds since the first line that has a time; None for a line without one."""
        for number, stamp in enumerate(_STAMPS):
            found = stamp.match(line)
            if not found:
                continue
            whole = int(found[1]) if number == 0 else _seconds(found[1])
            if whole is None:
                return None
            us = whole * 1_000_000 + int(found[2] or 0)
            if self._begin is None:
                self._begin = us
            return us - self._begin
        return None


def _seconds(text: bytes) -> int | None:
    try:
        return int(datetime.fromisoformat(text.decode() + "+00:00").timestamp())
    except ValueError:
        return None
