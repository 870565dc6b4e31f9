"""A disk in memory, for tests and for guests whose data nobody needs.

The memory is anonymous and private: it starts as zeroes, takes up room only where it was written,
and is gone at `close`. It has no write cache to lose, no delay and no errors; those are layers.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

from nvmelab.limits import ZERO_PIECE_BYTES

_PAGE = mmap.PAGESIZE


def _whole_pages(start: int, end: int) -> tuple[int, int]:
    """Where the whole pages between `start` and `end` start and end; if there is none, at `end`."""
    first = -(-start // _PAGE) * _PAGE
    last = end // _PAGE * _PAGE
    return (first, last) if first < last else (end, end)


class RamBackend:
    """`size` bytes of memory. A read-only one reads as zeroes for ever.

    Raises ValueError if `size` is not positive, and OSError if the host has no room for it.
    """

    __slots__ = ("_map", "_view", "name", "read_only", "size", "write_cache")

    def __init__(self, size: int, *, name: str = "ram", read_only: bool = False) -> None:
        if size <= 0:
            raise ValueError(f"a RAM disk of {size} bytes: give it a size of at least 1 byte")
        self.size = size
        self.name = name
        self.read_only = read_only
        self.write_cache = False
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._view = memoryview(self._map)

    def read(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill `views` from byte `offset` on."""
        for view in views:
            end = offset + len(view)
            assert 0 <= offset <= end <= self.size
            view[:] = self._view[offset:end]
            offset = end

    def write(self, offset: int, views: Sequence[memoryview]) -> None:
        """Store the contents of `views` from byte `offset` on."""
        assert not self.read_only
        for view in views:
            end = offset + len(view)
            assert 0 <= offset <= end <= self.size
            self._view[offset:end] = view
            offset = end

    def flush(self) -> None:
        """Nothing to do: memory has nowhere to flush to."""

    def discard(self, offset: int, length: int) -> None:
        """Give the whole pages of the range back to the host; they read as zeroes. The parts of
        pages at its ends stay as they are."""
        assert not self.read_only
        assert 0 <= offset <= offset + length <= self.size
        first, last = _whole_pages(offset, offset + length)
        if first < last:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool) -> None:
        """The range reads as zeroes, and with `may_unmap` its whole pages take up no memory."""
        assert not self.read_only
        end = offset + length
        assert 0 <= offset <= end <= self.size
        first, last = end, end
        if may_unmap:
            self.discard(offset, length)
            first, last = _whole_pages(offset, end)
        self._fill_with_zeroes(offset, first)
        self._fill_with_zeroes(last, end)

    def _fill_with_zeroes(self, at: int, end: int) -> None:
        zeroes = bytes(min(end - at, ZERO_PIECE_BYTES))
        while at < end:
            piece = min(end - at, len(zeroes))
            self._view[at : at + piece] = zeroes[:piece]
            at += piece

    def close(self) -> None:
        """Free the memory. Safe to call twice."""
        self._view.release()
        self._map.close()
