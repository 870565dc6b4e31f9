"""The rules, for a terminal and as the page docs/rules.md."""

from __future__ import annotations

from nvmelab.check.rule import Rule
from nvmelab.check.rules import EXPLORED, PROGRESS, RULES, sources
from nvmelab.corpus.breaches import BREACHES
from nvmelab.corpus.faults import FAULTS, Fault
from nvmelab.report.paragraphs import paragraph, plain
from nvmelab.report.tried import OURS, QEMU, shown_by


def tests_of(name: str) -> list[str]:
    """The tests that trip a rule, each by its planted breach or fault."""
    breaches = [key for key, breach in BREACHES.items() if breach.rule == name]
    found = [f"tests/rules/test_breaches.py[{key}]" for key in breaches]
    faults = [key for key, fault in FAULTS.items() if (fault.rule or _progress(fault)) == name]
    found += [f"tests/explore/test_rules.py[{key}]" for key in faults]
    if name in EXPLORED:
        found.append("tests/explore/test_rules.py")
    if name == "progress.platform":
        found.append("tests/explore/test_rules.py::test_the_platform_has_a_ball_too")
    return found


def _progress(fault: Fault) -> str:
    return f"progress.{fault.party}"


def every_rule() -> dict[str, Rule]:
    """By name, the rules of progress last."""
    return {**RULES, **{f"progress.{party}": rule for party, rule in PROGRESS.items()}}


def seen_by(name: str) -> list[str]:
    """Where a breach of it shows."""
    if name in RULES:
        return sources(name)
    return ["explore", "QEMU's log", "our device"]


def rules_text(rules: dict[str, Rule]) -> str:
    """A paragraph for each rule."""
    lines = []
    for name, rule in rules.items():
        lines += [
            plain(f"{name} ({rule.party}, {rule.severity}): {rule.text}"),
            paragraph("", f"{rule.ref}; {rule.kind}; seen by {', '.join(seen_by(name))}"),
            *(paragraph("", test) for test in tests_of(name)),
        ]
    return "\n".join(lines)


def rules_page() -> str:
    """The whole of docs/rules.md."""
    rules = every_rule()
    alone = sum(sources(name) == ["explore"] for name in RULES)
    lines = [
        "# The rules",
        "",
        f"{len(rules)} rules, made by `nvmelab rules --page`. The party is who breaks it. An",
        "`error` decides a verdict, a `note` is told. `always`: an event breaks it; `eventually`:",
        "a run that is at rest does. `--waive NAME` leaves a rule out. Each is tripped by a driver",
        "or a device with one planted breach (`nvmelab rules NAME` lists the tests); the same pair",
        "without it breaks none.",
        "",
        "What `diagnose` and `run --check` say were tried are rules that their source can show:",
        f"QEMU's log {len(shown_by(QEMU))}, our device (a capture, a trace, a guest that is judged",
        f"live) {len(shown_by(OURS))}. {alone} others show to the explorer only, which is the",
        f"driver as well. The {len(PROGRESS)} of `progress` are what a verdict says itself of what",
        "stands still, and are not counted.",
        "",
        "| rule | party | says | source | severity | kind | seen by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, rule in rules.items():
        cells = (rule.party, rule.text, rule.ref, rule.severity, rule.kind)
        lines.append(f"| `{name}` | {' | '.join(cells)} | {', '.join(seen_by(name))} |")
    return "\n".join(lines) + "\n"
