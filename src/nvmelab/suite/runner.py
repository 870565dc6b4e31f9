"""Runs checks on a target, one after the other, each on a controller that was just started.

A check that does not pass may leave a device behind that is stuck, or gone: the next one gets a
link of its own. The others share one, because starting a QEMU costs more than most checks.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from nvmelab.check.rules import RULES
from nvmelab.check.verdict import Verdict
from nvmelab.check.witness import Witness
from nvmelab.host.driver import Controller
from nvmelab.host.errors import DeviceError, NotOffered
from nvmelab.link.base import HostLink, LinkError
from nvmelab.link.watched import WatchedLink
from nvmelab.suite.base import Bench, Check, Finding, Skip

Outcome = Literal["pass", "finding", "skipped", "error"]
Open = Callable[[], HostLink]
"""Opens the target anew. Raises LinkError."""


class Result(msgspec.Struct, frozen=True):
    """What became of one check."""

    id: str
    result: Outcome
    expected: str
    seen: str
    ref: str
    known: str = ""
    """Why this finding is expected of this device, from an expectations file."""
    verdict: Verdict | None = None
    """Of the judge, who saw what crossed the link; only of a finding that left something waiting
    while everything was at rest."""


def select(checks: Iterable[Check], patterns: Sequence[str]) -> list[Check]:
    """The checks that any of the patterns names: a group, an id, or a wildcard over ids. Raises
    LookupError with a pattern that names none."""
    checks = list(checks)
    chosen: set[str] = set()
    for pattern in patterns:
        found = {
            check.id
            for check in checks
            if check.group == pattern or fnmatch.fnmatchcase(check.id, pattern)
        }
        if not found:
            raise LookupError(pattern)
        chosen |= found
    return [check for check in checks if not patterns or check.id in chosen]


class Runner:
    """Runs checks. `name` is what the link calls the device, once it was opened."""

    def __init__(self, open_link: Open, *, seed: int) -> None:
        self._open = open_link
        self._seed = seed
        self._link: HostLink | None = None
        self.name = ""

    def probe(self) -> None:
        """See whether the device can be worked with at all. Raises LinkError with the reason."""
        link = self._connect()
        try:
            nvme = Controller(link)
            nvme.start()
            namespaces = nvme.active_namespaces()
        except DeviceError as error:
            self._drop()
            raise LinkError(f"{link.name} cannot be started: {error}") from None
        except LinkError:
            self._drop()
            raise
        if 1 not in namespaces:
            self._drop()
            raise LinkError(
                f"{link.name} has no namespace 1, which the checks read and write; give it one, "
                "in QEMU with drive=d0"
            )

    def run(self, checks: Iterable[Check]) -> Iterator[Result]:
        """Each check's result, as it comes. Raises LinkError if the target cannot be opened, or
        not again after a check that has upset it."""
        try:
            for check in checks:
                self._connect()
                yield self._run(check)
        finally:
            self._drop()

    def _connect(self) -> HostLink:
        if self._link is None:
            self._link = self._open()
            self.name = self._link.name
        return self._link

    def _drop(self) -> None:
        if self._link:
            link, self._link = self._link, None
            link.close()

    def _run(self, check: Check) -> Result:
        inner = self._connect()
        witness = Witness(inner.memory)
        link = WatchedLink(inner, witness)
        result = self._tried(check, link)
        if result.result in ("pass", "skipped") and (breaches := witness.breaches()):
            first = breaches[0]
            result = msgspec.structs.replace(
                result,
                result="finding",
                expected=RULES[first.rule].text,
                seen=f"{first.text} ({first.rule}; the judge sees it, the check does not)",
                ref=first.ref,
            )
        elif result.result == "finding" and link.at_rest:
            verdict = witness.verdict()
            if verdict and verdict.stuck:
                result = msgspec.structs.replace(result, verdict=verdict)
        if result.result in ("finding", "error"):
            self._drop()
        return result

    def _tried(self, check: Check, link: HostLink) -> Result:
        """What the check itself finds."""
        outcome: Outcome = "pass"
        expected, seen, ref = check.expected, "as expected", check.ref
        try:
            nvme = Controller(link)
            nvme.start()
            check.run(Bench(nvme, check.id, self._seed))
        except Finding as finding:
            outcome, seen = "finding", str(finding)
            expected, ref = finding.expected or expected, finding.ref or ref
        except DeviceError as error:
            outcome, seen, ref = "finding", str(error), error.ref or ref
        except Skip as skip:
            outcome, seen = "skipped", str(skip)
        except NotOffered as missing:
            outcome, seen = "skipped", f"the device does not offer {missing}"
        except LinkError as error:
            outcome, seen = "error", str(error)
        except (
            ArithmeticError,
            AssertionError,
            LookupError,
            MemoryError,
            TypeError,
            ValueError,
        ) as bug:
            words = f"{type(bug).__name__}: {bug}".strip(": ")
            outcome, seen = "error", f"a bug of nvmelab, please report it: {words}"
        return Result(check.id, outcome, expected, seen, ref)
