"""The results of a suite: for a terminal, for a program, and as JUnit XML."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from xml.etree import ElementTree

import msgspec

from nvmelab.check.verdict import Verdict
from nvmelab.report.diagnosis import verdict_json
from nvmelab.suite.base import Check
from nvmelab.suite.runner import Result

_WORDS = {"pass": "pass", "finding": "FINDING", "skipped": "skipped", "error": "ERROR"}
_WIDTH = 100


def result_lines(result: Result) -> str:
    """One check: a line if it passed, a paragraph if it did not."""
    word = "known" if result.known else _WORDS[result.result]
    head = f"{word:<8} {result.id:<30}"
    if result.result == "pass":
        return f"{head} {result.ref.partition(' (derived')[0]}"
    if result.result == "skipped":
        return f"{head} {result.seen}"
    rows = [("expected", result.expected), ("seen", result.seen), ("rule", result.ref)]
    if result.verdict:
        rows.append(("judge", _judged(result.verdict)))
    if result.known:
        rows.append(("known", result.known))
    return "\n".join([head.rstrip(), *(_row(name, text) for name, text in rows)])


def _judged(verdict: Verdict) -> str:
    waits = "; ".join(part.said for part in verdict.stuck)
    return f"{verdict.verdict}: {waits}"


def results_json(
    target: str, device: str, seed: int, results: Sequence[Result]
) -> dict[str, object]:
    """One object."""
    checks = [
        msgspec.structs.asdict(result)
        | {"verdict": verdict_json(result.verdict) if result.verdict else None}
        for result in results
    ]
    return {"target": target, "device": device, "seed": seed, "checks": checks}


def _row(name: str, text: str) -> str:
    indent = " " * 18
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns)
    return textwrap.fill(
        text, width, initial_indent=f"         {name:<9}", subsequent_indent=indent
    )


def summary_line(target: str, name: str, seed: int, results: Sequence[Result]) -> str:
    """What came of it all."""
    counts = dict.fromkeys(("pass", "finding", "known", "skipped", "error"), 0)
    for result in results:
        counts["known" if result.known else result.result] += 1
    parts = [
        f"{count} {word}"
        for count, word in (
            (counts["pass"], "passed"),
            (counts["finding"], "with findings"),
            (counts["known"], "known"),
            (counts["skipped"], "skipped"),
            (counts["error"], "could not be run"),
        )
        if count or word == "passed"
    ]
    return f"\n{target} ({name}), seed {seed}: {', '.join(parts)}"


def check_table(checks: Sequence[Check]) -> str:
    """The checks themselves, for --list."""
    return "\n".join(f"{check.id}\n    {check.what}\n    {check.ref}" for check in checks)


def junit_xml(target: str, seed: int, results: Sequence[Result]) -> bytes:
    """The results as JUnit XML, which CI systems show. A known finding counts as passed."""
    suite = ElementTree.Element("testsuite", name=f"nvmelab test {_xml(target)}")
    new = [result for result in results if not result.known]
    for name, outcome in (("failures", "finding"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(name, str(sum(result.result == outcome for result in new)))
    suite.set("tests", str(len(results)))
    properties = ElementTree.SubElement(suite, "properties")
    ElementTree.SubElement(properties, "property", name="seed", value=str(seed))
    for result in results:
        group, _, name = result.id.partition(".")
        case = ElementTree.SubElement(suite, "testcase", classname=group, name=name)
        if result.result == "skipped":
            ElementTree.SubElement(case, "skipped", message=_xml(result.seen))
        elif result.known:
            text = f"known: {result.known}\nseen: {result.seen}"
            ElementTree.SubElement(case, "system-out").text = _xml(text)
        elif result.result != "pass":
            kind = "failure" if result.result == "finding" else "error"
            text = f"expected: {result.expected}\nseen: {result.seen}\nrule: {result.ref}"
            if result.verdict:
                text += f"\njudge: {_judged(result.verdict)}"
            ElementTree.SubElement(case, kind, message=_xml(result.seen)).text = _xml(text)
    ElementTree.indent(suite)
    xml: str = ElementTree.tostring(suite, encoding="unicode")
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + xml.encode() + b"\n"


def _xml(text: str) -> str:
    """Without the characters that XML cannot hold."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)
