"""Every rule is tripped by a real driver on a real device, of which one was changed, and by nothing
else; the judge names the changed side or nobody at every rest."""

from __future__ import annotations

import functools

import pytest

from nvmelab.check.rules import RULES
from nvmelab.check.verdict import Verdict
from nvmelab.corpus.breaches import BREACHES
from nvmelab.corpus.breaches.breach import Breach
from nvmelab.pair import Pair, workload
from nvmelab.report import rules

ALSO = {
    # What a breach brings with it.
    "accepts-bad-cq": {"queues.cq-exists"},
    "accepts-late-number": {"queues.number-late"},
}
UNSEEN = {"sq.slot-in-use", "cq.taken-early", "cq.status", "data.late", "device.failed"}
"""What no device can see: the explorer has these."""


@functools.cache
def verdicts_on(name: str) -> tuple[Verdict, Verdict, list[Verdict]]:
    """While it runs, when it is at rest at the end, and at each rest before."""
    breach = BREACHES[name]
    pair = Pair(breach.device)
    pair.run(breach.act)
    return pair.verdict(rest=False), pair.verdict(rest=True), pair.rests


@pytest.mark.parametrize("breach", BREACHES.values(), ids=lambda breach: breach.name)
def test_a_breach_is_found_and_nothing_else(breach: Breach) -> None:
    verdict, at_rest, _rests = verdicts_on(breach.name)
    rule = RULES[breach.rule]
    if rule.kind == "eventually":
        assert at_rest.rule == rule.said and at_rest.verdict == breach.party
        assert verdict.findings == []
        return
    found = [finding for finding in verdict.findings if finding.rule == breach.rule]
    assert found and found[0].party == rule.party and found[0].severity == rule.severity
    assert {finding.rule for finding in verdict.findings} <= {
        breach.rule,
        *ALSO.get(breach.name, ()),
    }
    assert breach.rule in verdict.exercised
    if breach.party != "both":
        assert verdict.verdict == (breach.party if rule.severity == "error" else "clean")


@pytest.mark.parametrize("breach", BREACHES.values(), ids=lambda breach: breach.name)
def test_at_every_rest_the_changed_side_is_named_or_nobody_is(breach: Breach) -> None:
    verdict, at_rest, rests = verdicts_on(breach.name)
    parties = {"driver", "device"} if breach.party == "both" else {breach.party}
    for said in (verdict, at_rest, *rests):
        assert said.verdict in {*parties, "undecided", "clean"}, said


def test_the_sound_pair_breaks_no_rule_and_tries_nearly_all() -> None:
    pair = Pair()
    workload(pair.driver)
    pair.driver.link.settle()
    verdict = pair.verdict(rest=True)
    assert (verdict.verdict, verdict.findings, verdict.stuck) == ("clean", [], [])
    assert {said.verdict for said in pair.rests} == {"clean", "undecided"}
    assert set(RULES) - set(verdict.exercised) == UNSEEN | {"registers.read-only"}


def test_every_rule_has_tests_that_are_there() -> None:
    for name in rules.every_rule():
        assert rules.tests_of(name), name
    assert {breach.rule for breach in BREACHES.values()} <= RULES.keys()


@pytest.mark.parametrize("breach", BREACHES.values(), ids=lambda breach: breach.name)
def test_a_rule_that_is_waived_is_not_found(breach: Breach) -> None:
    pair = Pair(breach.device, waived=[breach.rule])
    pair.run(breach.act)
    assert breach.rule not in {finding.rule for finding in pair.verdict(rest=False).findings}
    assert breach.text.endswith(".")
