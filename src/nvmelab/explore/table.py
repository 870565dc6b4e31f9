"""Queue sizes against rules for the pool of requests: where does a rung queue get forgotten?"""

from __future__ import annotations

import msgspec

from nvmelab.explore.explore import Plan, Progress, Result, explore
from nvmelab.explore.setting import Setting

DEVICES = ("qemu-9.0", "qemu-9.0+1", "qemu-9.0+2", "qemu-fix-v1", "qemu-9.1.2", "nvmelab")
HEADINGS = {
    "qemu-9.0": "QEMU 9.0",
    "qemu-9.0+1": "pool + 1",
    "qemu-9.0+2": "pool + 2",
    "qemu-fix-v1": "first patch",
    "qemu-9.1.2": "fix (9.1.2)",
    "nvmelab": "nvmelab",
}
LIVE = (2, 3, 4)
FULL = (2, 3, 4, 5, 6, 7, 8, 16, 64)
_SEARCHED_MAX = 5
"""Entries up to which everything is searched; larger queues are sampled, in `_RUNS` runs."""
_RUNS = 1000


class Cell(msgspec.Struct, frozen=True):
    """One size on one device."""

    entries: int
    device: str
    result: str
    """As of `Result`."""
    steps: int | None
    """Of the shortest hang, or of the shortest that was found."""
    shortest: bool
    """No shorter one exists."""
    effort: int
    """States, or runs where it was sampled."""

    @property
    def text(self) -> str:
        """What the table says."""
        if self.steps is not None:
            return f"hang {'' if self.shortest else '<='}{self.steps}"
        return "proved" if self.result == "proved" else f"none in {self.effort:,}"


def cell(entries: int, device: str, progress: Progress | None = None) -> Cell:
    """Explore one size on one device."""
    searched = entries <= _SEARCHED_MAX
    plan = Plan() if searched else Plan(strategy="pct", seed=1, runs=_RUNS)
    return cell_of(explore(Setting(entries=entries, device=device), plan, progress))


def cell_of(result: Result) -> Cell:
    """The cell of what was explored anyway."""
    replay = result.replay
    return Cell(
        entries=result.setting.entries,
        device=result.setting.device,
        result=result.result,
        steps=len(replay.labels) if replay else None,
        shortest=replay is not None and replay.shortest,
        effort=result.states or result.runs,
    )
