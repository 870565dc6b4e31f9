"""Paragraphs for a terminal."""

from __future__ import annotations

import shutil
import textwrap

_WIDTH = 100


def _columns() -> int:
    return max(40, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns))


def plain(text: str) -> str:
    """A paragraph, as wide as the terminal allows."""
    return textwrap.fill(text, _columns())


def paragraph(name: str, text: str) -> str:
    """A paragraph with its name before it."""
    return textwrap.fill(
        text,
        _columns(),
        initial_indent=f"{name:<9}",
        subsequent_indent=" " * 9,
        break_on_hyphens=False,  # --options stay whole
    )


def cut_to_width(text: str) -> str:
    """One line, cut where the terminal ends."""
    width = _columns()
    return text if len(text) <= width else f"{text[: width - 3]}..."
