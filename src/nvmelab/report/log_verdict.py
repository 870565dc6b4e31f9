"""The head of the page of a log: the verdict, what must be known to read it, the lines that prove
it, and what could not be seen.

Links go to `#line=N`, which the script of the page follows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from nvmelab.check.monitor import Monitor
from nvmelab.check.rule import Finding
from nvmelab.check.rules import RULES
from nvmelab.check.verdict import Verdict
from nvmelab.report.diagnosis import log_text
from nvmelab.report.log_lines import Line
from nvmelab.report.log_words import (
    GLOSSARY,
    breach,
    breaches_of,
    commands,
    heading,
    known_bug,
    proof,
)
from nvmelab.report.markup import escape, tag
from nvmelab.report.tried import tried_text
from nvmelab.trace.qemu_reader import Counts

_SHOWN = 2
"""Findings that are shown at once, the first ones; the others are folded away."""
_STEPS, _STEPS_KNOWN = 4, 6
"""Lines of a proof that are shown, and of one that a known bug puts in order."""
_FOLDED = 200


def page_heading(verdict: Verdict, monitor: Monitor, unit: str, *, hung: bool) -> str:
    """The verdict in one sentence. Nothing is simply well where the host gave something up, or
    where lines are missing."""
    back = monitor.taken_back[-1] if monitor.taken_back else None
    if verdict.verdict == "clean" and back:
        were = "was" if back.count == 1 else "were"
        said = f"No rule is broken, but {commands(back.count)} {were} outstanding"
        return f"{said} where {unit} {back.at} {back.how}"
    if verdict.verdict == "undecided" and monitor.gaps and not breach(verdict):
        still = "It stands still, and whose fault that is does not show"
        return f"{still if verdict.stuck else 'Nothing is decided'}: this log lacks lines"
    return heading(verdict, hung=hung)


def verdict_html(
    verdict: Verdict,
    monitor: Monitor,
    counts: Counts,
    rows: Sequence[Line],
    blind: Sequence[str],
    *,
    name: str,
    hung: bool,
) -> str:
    """All of it. `rows` are the lines that the page has."""
    texts = {row.number: row.text for row in rows}
    head = _Head(counts.unit, texts)
    colour = "clean-but" if verdict.verdict == "clean" and monitor.taken_back else verdict.verdict
    title = tag(
        "h1",
        tag("span", escape(verdict.verdict), class_=f"badge {colour}"),
        escape(f" {page_heading(verdict, monitor, counts.unit, hung=hung)} "),
        tag("small", escape(name)),
    )
    columns = [column for column in (head.proof(verdict), head.owed(verdict, hung=hung)) if column]
    parts = [title, head.hints(verdict, hung=hung), tag("div", *columns, class_="columns")]
    return "".join(parts) + head.folded(verdict, counts, blind)


class _Head:
    def __init__(self, unit: str, texts: dict[int, bytes]) -> None:
        self._unit = unit
        self._texts = texts

    def link(self, line: int) -> str:
        """To a line, if the page has it."""
        words = f"{self._unit} {line}"
        if line not in self._texts:
            return tag("span", escape(words), class_="gone", title="left out of this page")
        return tag("a", escape(words), href=f"#line={line}")

    def links(self, lines: Iterable[int]) -> str:
        return ", ".join(self.link(line) for line in sorted(set(lines)))

    def _linked(self, text: str) -> str:
        """A text, with links where it names a line."""
        parts = re.split(r"\b(?:line|event) (\d+)\b", text, flags=re.IGNORECASE)
        return "".join(
            self.link(int(part)) if number % 2 else escape(part)
            for number, part in enumerate(parts)
        )

    def hints(self, verdict: Verdict, *, hung: bool) -> str:
        """What must be known before the rest is read."""
        notes = list(verdict.notes)
        if not hung and verdict.in_flight:
            one = verdict.in_flight == 1
            said = f"{commands(verdict.in_flight)} {'is' if one else 'are'} under way where it ends"
            declare = "" if verdict.pattern else "; if it hangs here, say so with --hung"
            notes.append(said + declare)
        items = [tag("li", self._linked(f"{note[0].upper()}{note[1:]}.")) for note in notes]
        return tag("ul", *items, class_="hints") if items else ""

    def proof(self, verdict: Verdict) -> str:
        """The lines of a hang as a list, and what broke a rule: what came first before the rest."""
        steps, errors, first = proof(verdict), breaches_of(verdict), breach(verdict)
        if first:
            errors.remove(first)
            errors.insert(0, first)
        items = [
            tag("li", self.link(line), " ", escape(text), self._quoted(line))
            for line, text in steps[: _STEPS_KNOWN if verdict.pattern else _STEPS]
        ]
        parts = []
        if items:
            title = "How it came about" if verdict.pattern else "Where it stands"
            if first or not verdict.stuck:
                title = "What stands still since" if first else "How it may have come about"
            parts.append(tag("h2", title) + tag("ol", *items, class_="proof"))
        if errors:
            items = [self._finding(finding, quoted=True) for finding in errors[:_SHOWN]]
            title = "What came first" if first and parts else "Rules that were broken"
            found = tag("h2", title) + tag("ul", *items, class_="findings")
            parts.insert(0 if first else len(parts), found)
        return tag("div", *parts) if parts else ""

    def _quoted(self, line: int) -> str:
        text = self._texts.get(line)
        if text is None:
            return ""
        return tag("code", escape(_event_of(text)))

    def _finding(self, finding: Finding, *, quoted: bool = False) -> str:
        return tag(
            "li",
            tag("b", escape(finding.party), class_=finding.party),
            escape(f": {finding.text} "),
            f"({self.links(finding.evidence)}). ",
            tag("span", escape(f"Rule {finding.rule}: "), escape(RULES[finding.rule].text)),
            escape(f" ({finding.ref})"),
            self._quoted(finding.evidence[-1]) if quoted and finding.evidence else "",
            class_=finding.severity,
        )

    def owed(self, verdict: Verdict, *, hung: bool) -> str:
        """What should happen next, or should have, the rule, the known bug."""
        rows = [
            (
                "Due then" if verdict.taken_back else "Next",
                escape(f"{part.where}; ")
                + tag("b", escape(part.who), class_=_party(part.ball))
                + escape(f": {part.owed}. ")
                + f"({self.links(part.evidence)}{', …' * (part.count > len(part.evidence))})",
            )
            for part in verdict.stuck
        ]
        if verdict.rule:
            rows.append(("Rule", escape(verdict.rule)))
        if verdict.pattern:
            rows.append(("Known bug", escape(known_bug(verdict))))
        if not rows:
            tried = tried_text(verdict.exercised, self._unit)
            tried += ", and none is broken" * (not breaches_of(verdict))
            rows.append(("Rules", escape(tried)))
        return tag("dl", *(tag("dt", escape(term)) + tag("dd", text) for term, text in rows))

    def folded(self, verdict: Verdict, counts: Counts, blind: Sequence[str]) -> str:
        """What not everybody needs."""
        errors = breaches_of(verdict)
        notes = [finding for finding in verdict.findings if finding.severity != "error"]
        found = ""
        for title, findings in (("more finding", errors[_SHOWN:]), ("note", notes)):
            if findings:
                items = "".join(map(self._finding, findings[:_FOLDED]))
                named = f"{len(findings)} {title}{'s' * (len(findings) != 1)}"
                found += _details(named, tag("ul", items, class_="findings"))
        unseen = tag("ul", *(tag("li", escape(text)) for text in blind))
        words = "".join(
            tag("dt", escape(word)) + tag("dd", escape(text)) for word, text in GLOSSARY
        )
        untried = [name for name in RULES if name not in verdict.exercised]
        tried = tag("p", escape(f"Tried: {', '.join(verdict.exercised) or 'none'}.")) + tag(
            "p", escape(f"Not tried, as nothing here could break them: {', '.join(untried)}.")
        )
        return tag(
            "div",
            found,
            _details("What this log cannot show", unseen),
            _details(f"Rules: {tried_text(verdict.exercised, self._unit)}", tried),
            _details("Words", tag("dl", words)),
            tag("span", escape(log_text(counts)), class_="soft"),
            class_="folded",
        )


def _details(title: str, content: str) -> str:
    return tag("details", tag("summary", escape(title)), tag("div", content))


def _party(ball: Sequence[str]) -> str:
    return ball[0] if len(ball) == 1 else "undecided"


def _event_of(text: bytes) -> str:
    """A line without what stands before its event."""
    at = text.find(b"nvme_")
    at -= 4 * (text[at - 4 : at] == b"pci_")
    return text[max(at, 0) :].decode(errors="replace").strip()
