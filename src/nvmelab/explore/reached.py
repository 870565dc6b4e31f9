"""What must be the case in some state: a search that never saw it has shown less than it seems.

A proof about full queues, wraps and an empty pool is empty if none of them was ever reached.
"""

from __future__ import annotations

from collections.abc import Callable

from nvmelab.explore.system import System

Sometimes = tuple[str, Callable[[System], bool]]


def _sq_full(system: System) -> bool:
    return (system.host_sq.tail + 1) % system.entries == system.host_sq.head


def _cq_full(system: System) -> bool:
    return system.cq.full


def _pool_empty(system: System) -> bool:
    sq = system.sq
    return sq.outstanding == sq.limit and sq.head != sq.tail


def _over_committed(system: System) -> bool:
    return system.outstanding >= system.entries


def _sq_wrapped(system: System) -> bool:
    return system.submitted > system.entries


def _cq_wrapped(system: System) -> bool:
    return system.host_cq.phase == 0


SOMETIMES: dict[str, Sometimes] = {
    "sq-full": ("the submission queue is full, as far as the driver knows", _sq_full),
    "sq-wrapped": ("the submission queue has wrapped", _sq_wrapped),
    "over-committed": ("more commands are outstanding than its ring can hold", _over_committed),
    "pool-empty": ("an entry waits because no request is free", _pool_empty),
    "cq-full": ("the completion queue is full", _cq_full),
    "cq-wrapped": ("the completion queue has wrapped: the phase is 0", _cq_wrapped),
}
"""By name: what it is in words, and whether it is the case."""
