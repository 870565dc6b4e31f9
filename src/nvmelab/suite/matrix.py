"""The hang matrix: which devices forget a rung submission queue, at which queue sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec

from nvmelab.host.driver import Controller
from nvmelab.host.errors import DeviceError
from nvmelab.link.base import HostLink, LinkError
from nvmelab.suite.overcommit import overcommit

SQ_ENTRIES = (2, 3, 4, 5, 6, 7, 8, 16, 32, 64)
CQ_ENTRIES = 16
"""Size of the completion queue where it is not that of the submission queue. QEMU's device before
the fix was woken by the release of an entry of a full completion queue, so a small one hides more
than a large one."""


class Cell(msgspec.Struct, frozen=True):
    """One device at one queue size."""

    result: Literal["hang", "ok", "skipped"]
    seed: int | None
    """The seed that hung; for `ok`, the last one tried; None if skipped."""
    seen: str = ""
    """The rings where it hung, or why it was skipped."""


class Row(msgspec.Struct, frozen=True):
    """All devices at one queue size."""

    entries: int
    cq_entries: int
    targets: dict[str, Cell]


def sizes(entries: Sequence[int] = SQ_ENTRIES) -> list[tuple[int, int]]:
    """(SQ entries, CQ entries) of each row: with a CQ as large as the SQ, and with CQ_ENTRIES."""
    return [(size, cq) for size in entries for cq in sorted({size, CQ_ENTRIES})]


class Column:
    """One device. Its link is opened when it is needed, and again after a hang."""

    def __init__(self, open_link: Callable[[], HostLink], seeds: Sequence[int]) -> None:
        self._open = open_link
        self._seeds = seeds
        self._link: HostLink | None = None

    def cell(self, entries: int, cq_entries: int) -> Cell:
        """The device with these queues, under one seed after the other until it hangs. Raises
        LinkError and DeviceError."""
        for seed in self._seeds:
            link = self._link = self._link or self._open()
            nvme = Controller(link)
            if max(entries, cq_entries) > nvme.cap.mqes:
                return Cell("skipped", None, f"CAP.MQES allows {nvme.cap.mqes} entries")
            if link.storage is None:
                return Cell("skipped", None, "the link cannot hold completions back")
            nvme.start()
            run = overcommit(nvme, entries=entries, cq_entries=cq_entries, seed=seed)
            if run.hang:
                self.close()
                return Cell("hang", seed, run.state)
        return Cell("ok", self._seeds[-1])

    def close(self) -> None:
        """Close the link, if it is open."""
        if self._link:
            link, self._link = self._link, None
            link.close()


def matrix(
    targets: Mapping[str, Callable[[], HostLink]],
    *,
    entries: Sequence[int] = SQ_ENTRIES,
    seeds: Sequence[int],
    progress: Callable[[str], None],
) -> list[Row]:
    """Every cell, one device after the other. `progress` is told of each before it begins. Raises
    LinkError and DeviceError, whose text names the device."""
    wanted = sizes(entries)
    cells: dict[tuple[str, int, int], Cell] = {}
    for name, open_link in targets.items():
        column = Column(open_link, seeds)
        try:
            for sq, cq in wanted:
                progress(f"{name}: SQ {sq}, CQ {cq}")
                cells[name, sq, cq] = column.cell(sq, cq)
        except LinkError as error:
            raise LinkError(f"{name}: {error}") from None
        except DeviceError as error:
            raise DeviceError(f"{name}: SQ {sq}, CQ {cq}: {error}", ref=error.ref) from None
        finally:
            column.close()
    return [Row(sq, cq, {name: cells[name, sq, cq] for name in targets}) for sq, cq in wanted]
