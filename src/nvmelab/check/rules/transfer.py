"""Rules about where the data of a command is: PRP entries."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Callable
from typing import TYPE_CHECKING

from nvmelab.check.model import Values
from nvmelab.check.rule import Rule
from nvmelab.spec.commands import TO_HOST

if TYPE_CHECKING:
    from nvmelab.check.monitor import Monitor

RULES: dict[str, Rule] = {
    "transfer.prp-offset": Rule(
        "driver",
        "a PRP entry that is not the first one of its command has no offset in its page",
        "Base 2.2, 4.3.1 (PRP entry, PBAO)",
        ("map_prp", "prp_offset"),
    ),
    "transfer.prp1-dword": Rule(
        "driver",
        "the offset of PRP1 is a multiple of 4",
        "Base 2.2, 4.3.1 (PRP entry, PBAO)",
        ("map_prp",),
    ),
    "transfer.list-aligned": Rule(
        "driver",
        "the pointer to a PRP list is a multiple of 8",
        "Base 2.2, 4.3.1 (PRP list)",
        ("map_prp",),
    ),
    "transfer.prp2-reserved": Rule(
        "driver",
        "PRP2 is 0 where the data fits in the page of PRP1",
        "Base 2.2, 4.1.1 (PRP2: reserved)",
        ("map_prp",),
        "note",
    ),
    "transfer.memory": Rule(
        "driver",
        "the addresses of a command are memory",
        "Base 2.2, 4.2.3.1 (Data Transfer Error)",
        ("map_prp", "no_memory"),
    ),
    "transfer.queue-memory": Rule(
        "driver",
        "data is not asked for in the memory of a queue",
        "Base 2.2, 3.3.1.2 (derived: entries are written by one side only)",
        ("map_addr",),
    ),
    "data.late": Rule(
        "device",
        "the data of a Read is in host memory when its completion is posted",
        "NVM Command Set 1.2, 3.3.4 (derived: completion says that the data was transferred)",
    ),
}


class Transfer:
    """Looks at the PRPs of commands."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._queues: list[tuple[str, int, int]] = []
        """What `_starts` and `_reach` are of."""
        self._starts: list[int] = []
        """Where the memory of a queue begins, in rising order; and, for each, the address behind
        the last one of it and those before it."""
        self._reach: list[int] = []
        self.handlers: dict[str, Callable[[int, Values], None]] = {
            "map_prp": self._map_prp,
            "map_addr": self._map_addr,
            "no_memory": self._no_memory,
            "prp_offset": self._prp_offset,
        }

    def _line(self) -> int:
        return self._monitor.last.fetched if self._monitor.last else 0

    def _map_prp(self, at: int, values: Values) -> None:
        length, prp1, prp2 = values
        find, page = self._monitor.find, self._monitor.page_size
        if prp1 & 3:
            find("transfer.prp1-dword", f"PRP1 is {prp1:#x}", self._line(), at)
        if page is None:
            return
        rest = length - (page - prp1 % page)
        if rest <= 0:
            if prp2:
                text = f"PRP2 is {prp2:#x} for {length} bytes at {prp1:#x}"
                find("transfer.prp2-reserved", text, self._line(), at)
        elif rest > page and prp2 & 7:
            find("transfer.list-aligned", f"PRP2 is {prp2:#x}, a list", self._line(), at)

    def _map_addr(self, at: int, values: Values) -> None:
        last = self._monitor.last
        if not last or last.opcode & 3 != TO_HOST:
            return
        addr, length = values
        queues = self._monitor.memory_of_queues()
        if queues is not self._queues:
            self._sort(queues)
        before = bisect_left(self._starts, addr + length)
        if not before or self._reach[before - 1] <= addr:
            return  # a long transfer has many pages, so this is looked up often
        for name, start, end in queues:
            if addr < end and start < addr + length:
                text = f"{length} bytes of data at {addr:#x}, which is in {name}"
                self._monitor.find("transfer.queue-memory", text, last.fetched, at)

    def _sort(self, queues: list[tuple[str, int, int]]) -> None:
        spans = sorted((start, end) for _name, start, end in queues)
        self._queues = queues
        self._starts = [start for start, _end in spans]
        self._reach = list(itertools.accumulate((end for _start, end in spans), max))

    def _no_memory(self, at: int, values: Values) -> None:
        text = f"{values[0]:#x} is no memory that the device can reach"
        self._monitor.find("transfer.memory", text, self._line(), at)

    def _prp_offset(self, at: int, values: Values) -> None:
        text = f"a PRP entry that is not the first is {values[0]:#x}"
        self._monitor.find("transfer.prp-offset", text, self._line(), at)
