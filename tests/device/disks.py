"""A disk that notes what is done to it and fails on demand."""

from __future__ import annotations

from collections.abc import Sequence

from nvmelab.storage.ram import RamBackend


class Disk(RamBackend):
    """`calls` has every call with its byte range, in order; `errors` has the exceptions to raise
    instead of doing it, by the name of the call."""

    def __init__(
        self, size: int = 1 << 20, *, read_only: bool = False, write_cache: bool = True
    ) -> None:
        super().__init__(size, read_only=read_only)
        self.write_cache = write_cache
        self.calls: list[tuple[object, ...]] = []
        self.errors: dict[str, OSError] = {}

    def _called(self, name: str, *arguments: object) -> None:
        self.calls.append((name, *arguments))
        if name in self.errors:
            raise self.errors[name]

    def read(self, offset: int, views: Sequence[memoryview]) -> None:
        self._called("read", offset, sum(map(len, views)))
        super().read(offset, views)

    def write(self, offset: int, views: Sequence[memoryview]) -> None:
        self._called("write", offset, sum(map(len, views)))
        super().write(offset, views)

    def flush(self) -> None:
        self._called("flush")

    def discard(self, offset: int, length: int) -> None:
        # Deallocated blocks may read as before: what matters is which ones were named.
        self._called("discard", offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool) -> None:
        self._called("write_zeroes", offset, length, may_unmap)
        super().write_zeroes(offset, length, may_unmap=False)

    def contents(self, offset: int, length: int) -> bytes:
        view = memoryview(bytearray(length))
        super().read(offset, [view])
        return bytes(view)

    def fill(self, offset: int, data: bytes) -> None:
        super().write(offset, [memoryview(bytearray(data))])
