"""Which command identifier a command gets. Base 2.2, 4.1: any value that no outstanding command of
the same submission queue has."""

from __future__ import annotations

import random
from collections.abc import Callable, Container

CidPolicy = Callable[[Container[int]], int]
"""Called with the identifiers in use; gives one that is not."""

CIDS = 1 << 16


def dense() -> CidPolicy:
    """The smallest that is free."""

    def choose(used: Container[int]) -> int:
        cid = 0
        while cid in used:
            cid += 1
        return cid

    return choose


def sparse() -> CidPolicy:
    """A generation in the high bits, as Linux has it, so that all 16 bits are used soon."""
    number = 0

    def choose(used: Container[int]) -> int:
        nonlocal number
        while True:
            number += 1
            cid = (number * 0x1001 + 0xF000) % CIDS
            if cid not in used:
                return cid

    return choose


def drawn(seed: int) -> CidPolicy:
    """Any, drawn from a seed."""
    source = random.Random(seed)

    def choose(used: Container[int]) -> int:
        while True:
            cid = source.randrange(CIDS)
            if cid not in used:
                return cid

    return choose
