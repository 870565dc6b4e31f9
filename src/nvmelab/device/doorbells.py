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

    def __init__(self, page: memoryview) -> None:
        """`page` is the 4 KiB of shared memory."""
        assert page.nbytes == self.SIZE
        self._bytes = page.cast("B")
        self._words = self._bytes.cast("I")
        self._seen = bytearray(self._bytes)
        self._seen_words = memoryview(self._seen).cast("I")
        self._rung = False

    def changed(self) -> Iterator[tuple[int, int]]:
        """(index, value) of each doorbell whose value is not the one seen last. Index 2y is the
        tail of SQ y, 2y + 1 the head of CQ y."""
        if self._bytes == self._seen:
            return
        self._rung = True
        for index, old in enumerate(self._seen_words):
            value = self._words[index]
            if value != old:
                self._seen_words[index] = value
                yield index, value

    def take_rung(self) -> bool:
        """Whether any doorbell changed since this was last asked."""
        rung, self._rung = self._rung, False
        return rung

    def zero(self, index: int) -> None:
        """Make one doorbell 0, as it must be when its queue begins."""
        self._words[index] = 0
        self._seen_words[index] = 0

    def zero_all(self) -> None:
        """Make all doorbells 0, as they must be when the controller is reset."""
        for index in range(self.SIZE // 4):
            self.zero(index)
