"""A namespace: a backend, cut into logical blocks. NVM Command Set 1.2, section 2.1."""

from __future__ import annotations

import uuid
from collections.abc import Iterable

from nvmelab.storage.base import Backend

_IDENTITY = uuid.UUID("8f3f8d6c-6f5c-4b0e-9a4c-0a1f6b7d2e51")
"""Names derived from a serial number live in this name space, so that they are the same in each
run."""


def identity(serial: str, what: str) -> uuid.UUID:
    """A UUID for `what` of the controller with that serial number."""
    return uuid.uuid5(_IDENTITY, f"{serial}/{what}")


class Namespace:
    """One namespace of a controller."""

    def __init__(
        self, nsid: int, backend: Backend, serial: str, *, block: int = 512, physical: int = 512
    ) -> None:
        """`block` and `physical` are the logical and physical block sizes in bytes, powers of two.
        The size of the backend must be a multiple of `block`."""
        assert nsid >= 1 and block & block - 1 == 0 and backend.size % block == 0
        self.nsid = nsid
        self.backend = backend
        self.shift = block.bit_length() - 1
        self.physical = max(block, physical)
        self.nsze = backend.size >> self.shift
        """Size in logical blocks."""
        self.label = "".join(c if c.isprintable() and c != "'" else "?" for c in backend.name)
        """The backend's name as a trace line can hold it."""
        self.uuid = identity(serial, f"namespace {nsid}")
        self.write_through = not backend.write_cache
        """The host has switched the volatile write cache off, or there is none."""


def flush(namespaces: Iterable[Namespace]) -> None:
    """Everything written to them is durable when this returns. Raises OSError."""
    for namespace in namespaces:
        if not namespace.backend.read_only:
            namespace.backend.flush()
