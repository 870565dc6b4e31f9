"""The rules, for a terminal and as the page docs/rules.md."""

from __future__ import annotations

from nvmelab.check.rules import PROGRESS, RULES, SEEN_BY_EXPLORER, SEEN_IN_LOGS, Rule
from nvmelab.report.explore import paragraph, plain


def _sources(name: str) -> str:
    seen = [("explore", SEEN_BY_EXPLORER), ("run --check, diagnose", SEEN_IN_LOGS)]
    return ", ".join(word for word, names in seen if name in names)


def _every() -> list[tuple[str, Rule, str]]:
    """Name, rule, and who can see it broken."""
    rows = [(name, rule, _sources(name)) for name, rule in RULES.items()]
    everywhere = "explore, run --check, diagnose"
    return rows + [(f"progress.{party}", rule, everywhere) for party, rule in PROGRESS.items()]


def rules_text() -> str:
    """A paragraph for each rule."""
    lines = []
    for name, rule, seen in _every():
        lines += [
            plain(f"{name} ({rule.party}): {rule.text}"),
            paragraph("", f"{rule.ref}; {rule.kind}; seen by {seen}"),
        ]
    return "\n".join(lines)


def rules_page() -> str:
    """The whole of docs/rules.md."""
    lines = [
        "# The rules",
        "",
        f"{len(_every())} rules, made by `nvmelab rules --page`. The party is who breaks it.",
        "`always`: an event breaks it; `eventually`: a run that is at rest does. Each has tests",
        "that trip it and that do not: `tests/check/test_monitor.py` for what logs show,",
        "`tests/explore/test_rules.py` for the explorer.",
        "",
        "| rule | party | says | source | kind | seen by |",
        "|---|---|---|---|---|---|",
    ]
    for name, rule, seen in _every():
        lines.append(
            f"| `{name}` | {rule.party} | {rule.text} | {rule.ref} | {rule.kind} | {seen} |"
        )
    return "\n".join(lines) + "\n"
