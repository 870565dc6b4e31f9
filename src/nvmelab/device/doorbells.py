"""A doorbell page that the host writes directly: the writes give no message, so it is polled.

See the design of `serve --doorbells mapped`: one page of shared memory stands for BAR0 offsets
0x1000 to 0x1fff. Two writes to one doorbell between two polls are seen as one, so this page is for
speed, not for judging the order of events.
"""

from __future__ import annotations

from collections.abc import Iterator


class DoorbellPage:
    """The page, and what was seen on it last."""

    SIZE = 0x1000

    def __init__(self, page: memoryview, queues: int = SIZE // 8) -> None:
        """`page` is the 4 KiB of shared memory. Only the doorbells of the first `queues` queue
        identifiers are looked at."""
        assert page.nbytes == self.SIZE and queues <= self.SIZE // 8
        self._watched = page.cast("B")[: 8 * queues]
        self._words = page.cast("B").cast("I")
        self._seen = bytes(self._watched)
        self._rung = False

    def changed(self) -> Iterator[tuple[int, int]]:
        """(index, value) of each doorbell whose value is not the one seen last. Index 2y is the
        tail of SQ y, 2y + 1 the head of CQ y."""
        now = bytes(self._watched)  # one copy, then judged: the guest writes all the while
        if now == self._seen:
            return
        old, new = memoryview(self._seen).cast("I"), memoryview(now).cast("I")
        self._seen = now
        self._rung = True
        for index, value in enumerate(new):
            if value != old[index]:
                yield index, value

    def take_rung(self) -> bool:
        """Whether any doorbell changed since this was last asked."""
        rung, self._rung = self._rung, False
        return rung

    def zero(self, index: int) -> None:
        """Make one doorbell 0, as it must be when its queue begins."""
        self._words[index] = 0
        at = 4 * index
        self._seen = self._seen[:at] + bytes(4) + self._seen[at + 4 :]

    def zero_all(self) -> None:
        """Make all doorbells 0, as they must be when the controller is reset."""
        for index in range(len(self._seen) // 4):
            self._words[index] = 0
        self._seen = bytes(len(self._seen))
