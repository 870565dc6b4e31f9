"""What a monitor holds against somebody, and what it does not because lines may be missing."""

from __future__ import annotations

from collections.abc import Iterable

from nvmelab.check.rule import Finding
from nvmelab.check.rules import CONTINUITY, RULES
from nvmelab.limits import FINDINGS_MAX, GAPS_MAX


class Accusations:
    """The findings. See `Monitor` for `waived` and `complete`."""

    def __init__(self, waived: Iterable[str], *, complete: bool) -> None:
        self.complete = complete
        """The source has all of its events: of no log can that be said."""
        self.unit = "event" if complete else "line"
        """What the numbers count."""
        self.waived = frozenset(waived)
        assert self.waived <= RULES.keys()
        self.findings: list[Finding] = []
        self.gap = 0
        """The first line since the last reset that cannot follow from those before it, if the
        source may lack lines; 0 if there is none."""
        self.gaps: dict[int, tuple[str, str]] = {}
        """Such lines, the first ones, with what they tell, and the rule that would be broken if
        none were missing."""
        self._counts: dict[str, int] = {}
        self._epoch = 0
        """How many findings there were at the last reset."""

    def find(self, rule: str, text: str, *evidence: int) -> None:
        """A rule is broken. Line 0 is none."""
        if rule in self.waived or (self.gap and rule in CONTINUITY):
            return
        count = self._counts[rule] = self._counts.get(rule, 0) + 1
        if count <= FINDINGS_MAX:
            kept = [line for line in evidence if line]
            said = RULES[rule]
            self.findings.append(Finding(rule, said.party, text, said.ref, said.severity, kept))

    def contradicts(self, rule: str, text: str, *evidence: int) -> None:
        """A rule is broken, or lines are missing: with those, nothing that was counted is known any
        more."""
        if self.complete:
            self.find(rule, text, *evidence)
        else:
            self.lacks(evidence[-1], text, rule)

    def lacks(self, at: int, text: str, rule: str = "") -> None:
        """Lines are missing before this one, or that rule is broken."""
        if self.gap or self.complete:
            return
        self.gap = at
        if len(self.gaps) < GAPS_MAX:
            self.gaps[at] = (text, rule)
        kept = [one for one in self.findings[self._epoch :] if one.rule not in CONTINUITY]
        self.findings[self._epoch :] = kept

    def trust(self) -> None:
        """The source turns out to be complete, and to count events: a capture."""
        self.complete, self.unit = True, "event"

    def go_on(self) -> None:
        """The controller was reset: what was missing before is of no matter to what follows."""
        self.gap = 0
        self._epoch = len(self.findings)
