"""What a namespace needs from whatever keeps its blocks.

This is an interface and one exception. It knows nothing of logical blocks, of commands or of
statuses: the controller turns an OSError that comes out of here into an NVMe status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class ImageError(Exception):
    """The image cannot be served. The message is one line for the user: it names the file, says
    what is wrong with it and what to do next.

    Usual causes: the file is missing, empty, locked by another process, not raw, or not writable.
    """


class Backend(Protocol):
    """A flat array of `size` bytes.

    All calls are synchronous and complete in full, or raise OSError; after an error any part of
    the range may have been transferred. Offsets and lengths are bytes within `size`, and nothing is
    written to a read-only back end (the caller has checked: anything else is an assertion).

    `views` are pieces of memory (memoryviews of plain bytes, format "B"), of any length and at any
    address, which are read or filled in turn; they may be guest memory, which the guest changes at
    any moment, so nothing is concluded from their contents, and none is kept after the call.

    Several threads may call at once, except for `close`, which comes after all other calls. A byte
    that concurrent calls both store is left as one of them stores it.
    """

    size: int
    """In bytes, fixed while open, and not necessarily a multiple of any block size."""
    read_only: bool
    name: str
    """What a message calls it, such as the path of the image."""
    write_cache: bool
    """Written data may be lost in a power failure until `flush`. Where this is False, data is
    durable when `write` or `write_zeroes` returns."""

    def read(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill `views` from byte `offset` on. Raises OSError."""
        ...

    def write(self, offset: int, views: Sequence[memoryview]) -> None:
        """Store the contents of `views` from byte `offset` on. Raises OSError."""
        ...

    def flush(self) -> None:
        """Everything written before the call is durable when it returns. Raises OSError, and may
        raise it again on every later call: what was lost once cannot be flushed any more."""
        ...

    def discard(self, offset: int, length: int) -> None:
        """The `length` bytes at `offset` are not needed any more. Each reads as zero afterwards, or
        as before. It is a hint: that it is not supported is no error. Raises OSError."""
        ...

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool) -> None:
        """The `length` bytes at `offset` read as zeroes. `may_unmap` permits a hole, which may need
        new space when it is written next. Raises OSError."""
        ...

    def close(self) -> None:
        """Release the file and its locks. Safe to call twice. It does not flush."""
        ...
