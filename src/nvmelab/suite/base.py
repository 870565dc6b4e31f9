"""What a check of a device is, and how one says what it found.

    @check("queues.wrap", ref="Base 2.2, 3.3.1.2", expected="every command completes once")
    def wrap(bench: Bench) -> None:
        qpair = bench.nvme.create_qpair(entries=4)
        ...
        bench.expect(seen == wanted, f"SQHD {seen}")

A check drives a started controller, raises nothing when all is well, and judges nothing that the
specification leaves open. It runs on every link; what a link cannot show or force, it skips with
the reason.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple, NoReturn

from nvmelab.host.driver import Controller
from nvmelab.link.base import Storage


class Finding(Exception):
    """The device breaks a rule. The text is what was seen; the other two replace what the check
    itself says, where it has several rules."""

    def __init__(self, seen: str, *, expected: str = "", ref: str = "") -> None:
        super().__init__(seen)
        self.expected = expected
        self.ref = ref


class Skip(Exception):
    """The check does not apply to this device or link; the text says why."""


class Bench:
    """What a check works with: a started controller, and a source of choices."""

    def __init__(self, nvme: Controller, check_id: str, seed: int) -> None:
        self.nvme = nvme
        self.link = nvme.link
        self.seed = seed
        self.random = random.Random(f"{seed}/{check_id}")

    def expect(self, met: object, seen: str, *, expected: str = "", ref: str = "") -> None:
        """Raise Finding unless the condition is met."""
        if not met:
            raise Finding(seen, expected=expected, ref=ref)

    def skip(self, why: str) -> NoReturn:
        """End the check: it does not apply."""
        raise Skip(why)

    def storage(self) -> Storage:
        """The hand on the device's storage. Skips where the link has none."""
        if self.link.storage is None:
            self.skip("this link cannot hold completions back")
        return self.link.storage


class Check(NamedTuple):
    """One check."""

    id: str
    """`group.name`; stable, because users keep it in files."""
    what: str
    """What it does, one line."""
    expected: str
    ref: str
    """Document, revision and section of the rule."""
    run: Callable[[Bench], None]

    @property
    def group(self) -> str:
        return self.id.partition(".")[0]


CHECKS: dict[str, Check] = {}
"""Every check, in the order in which they run."""

Function = Callable[[Bench], None]


def check(id: str, *, ref: str, expected: str) -> Callable[[Function], Function]:
    """Decorator that makes a function a check. The first line of its docstring says what it
    does."""

    def declare(function: Function) -> Function:
        assert id not in CHECKS and id.count(".") == 1
        assert function.__doc__, f"{id} needs a docstring"
        first = function.__doc__.strip().splitlines()[0]
        assert first.endswith("."), f"{id}: the docstring's first line is no sentence"
        what = first.rstrip(".")
        CHECKS[id] = Check(id, what, expected, ref, function)
        return function

    return declare
