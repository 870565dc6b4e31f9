"""Telling a device how far a ring has got: by its doorbell, or by the shadow of it.

NVMe over PCIe Transport 1.2, 3.1.2 (doorbells); Base 2.2, 5.2.5 and Annex B.5 (shadow doorbells).
"""

from __future__ import annotations

from nvmelab.link.base import HostLink
from nvmelab.memory import fence
from nvmelab.spec.registers import DOORBELLS


class Doorbells:
    """The doorbells of one controller, whose stride is `4 << dstrd` bytes."""

    def __init__(self, link: HostLink, dstrd: int) -> None:
        self._link = link
        self._shift = 2 + dstrd
        self._shadow = 0
        self._event_index = 0
        self.writes = 0
        """Writes to the doorbell registers so far."""

    def use_shadow(self, shadow: int, event_index: int) -> None:
        """From now on, use the shadow doorbell and EventIdx buffers at these addresses."""
        self._shadow, self._event_index = shadow, event_index

    @property
    def pages(self) -> tuple[int, int]:
        """The addresses of the two buffers; 0 while they are not in use."""
        return self._shadow, self._event_index

    def begin(self, index: int) -> None:
        """The queue of this doorbell is about to be created: what its shadow and EventIdx say is
        of an older queue."""
        if self._shadow:
            at = index << self._shift
            self._link.memory.store_u32(self._shadow + at, 0)
            self._link.memory.store_u32(self._event_index + at, 0)

    def ring_tail(self, qid: int, old: int, new: int, entries: int) -> None:
        """The tail of SQ `qid`, of that many entries, has moved from `old` to `new`."""
        if self._shadow:
            self._ring(2 * qid, old, new, entries)
        else:
            self.write(2 * qid, new)

    def ring_head(self, qid: int, old: int, new: int, entries: int) -> None:
        """The head of CQ `qid` has moved."""
        if self._shadow:
            self._ring(2 * qid + 1, old, new, entries)
        else:
            self.write(2 * qid + 1, new)

    def _ring(self, index: int, old: int, new: int, entries: int) -> None:
        """Write the shadow, and the register if the device asks for it."""
        at = index << self._shift
        self._link.memory.store_u32(self._shadow + at, new)
        # Read after the store: a device that publishes its EventIdx and then looks at the shadow
        # once more sees this value, or we see its EventIdx.
        fence()
        event_index = self._link.memory.load_u32(self._event_index + at)
        # Only a value that passes EventIdx need be written (B.5.1); the example of B.5.2 also
        # writes one that reaches it, which would hide a device that waits for that.
        passes = 0 < (new - event_index) % entries <= (new - old) % entries
        # The admin queue's doorbell is always written as well: a device that looks at its shadow
        # only is as legal as one that does not look at all (drivers of the field leave it out).
        if index <= 1 or passes:
            self.write(index, new)

    def write(self, index: int, value: int) -> None:
        """Write the register: index 2y is the tail of SQ y, 2y + 1 the head of CQ y."""
        self.writes += 1
        self._link.write(DOORBELLS + (index << self._shift), 4, value)
