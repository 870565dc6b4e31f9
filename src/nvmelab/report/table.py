"""The table of queue sizes against rules for the pool of requests, as text."""

from __future__ import annotations

from collections.abc import Sequence

from nvmelab.explore.table import DEVICES, HEADINGS, Cell

_WIDTH = 15


def table_lines(cells: Sequence[Cell]) -> list[str]:
    """A heading, and a line for each size."""
    found = {(cell.entries, cell.device): cell.text for cell in cells}
    sizes = sorted({cell.entries for cell in cells})
    lines = ["entries  " + "".join(f"{HEADINGS[device]:<{_WIDTH}}" for device in DEVICES)]
    for entries in sizes:
        row = "".join(f"{found[entries, device]:<{_WIDTH}}" for device in DEVICES)
        lines.append(f"{entries:>7}  {row}")
    return [line.rstrip() for line in lines]


def legend(cells: Sequence[Cell]) -> str:
    """What the words of the table mean."""
    text = "hang N: the shortest run that hangs has N steps. proved: no run does, with any number "
    text += "of commands."
    if any(cell.steps is not None and not cell.shortest for cell in cells):
        text += " <=N: the shortest that was found, in random runs."
    if any(cell.steps is None and cell.result != "proved" for cell in cells):
        text += " none in N: not found in so many random runs, which proves nothing."
    return text
