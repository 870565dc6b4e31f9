"""What a rule and a finding are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

Party = Literal["driver", "device", "platform"]
Severity = Literal["error", "note"]


class Rule(msgspec.Struct, frozen=True):
    """What a party must do or not do. The rules are in `rules`, by name."""

    party: Party
    """Who breaks it."""
    text: str
    ref: str
    """Document, revision, section, and `derived` where it is not said in so many words."""
    needs: tuple[str, ...] = ()
    """Events (as `trace.taken` calls them) that try it: without one of them in a run it is not
    exercised."""
    severity: Severity = "error"
    """`note` for what the specification only advises, or the field knowingly bends: it is told, and
    decides nothing."""
    kind: Literal["always", "eventually"] = "always"
    """`always` is broken by an event; `eventually` by a run that is at rest."""

    @property
    def said(self) -> str:
        return f"{self.text} ({self.ref})"


class Finding(msgspec.Struct, frozen=True):
    """A rule that was broken. `evidence` are numbers of lines or events."""

    rule: str
    party: Party
    text: str
    ref: str
    severity: Severity
    evidence: list[int]

    @property
    def said(self) -> str:
        """All but the evidence, in one line."""
        return f"{self.party}: {self.text} ({self.rule}, {self.ref})"


def errors_of(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are no mere notes."""
    return [finding for finding in findings if finding.severity == "error"]
