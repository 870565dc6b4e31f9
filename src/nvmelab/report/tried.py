"""How many of the rules something has tried, among those that it can show."""

from __future__ import annotations

from nvmelab.check.rules import RULES, sources

QEMU, OURS = "QEMU's log", "our device"
"""Of the sources of `sources`, those that a judge reads."""


def shown_by(source: str) -> list[str]:
    """The rules whose breach shows there. Those of progress are not among them: they are what a
    verdict says itself of what stands still."""
    return [name for name in RULES if source in sources(name)]


def tried_text(exercised: list[str], unit: str) -> str:
    """The count, in words. `unit` is `event` for a capture and a guest that is judged live; lines
    of our device are known by rules that QEMU's do not show."""
    if not exercised:
        return "none was tried"
    source = OURS if unit == "event" or not set(exercised) <= set(shown_by(QEMU)) else QEMU
    shown = len(shown_by(source))
    return f"{len(exercised)} of the {shown} that {source} can show were tried"
