"""`nvmelab rules`, and the page that it makes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvmelab.check.rules import PROGRESS, RULES
from nvmelab.report.tried import OURS, QEMU, shown_by
from tests.cli.conftest import Invoke, error_of

PAGE = Path(__file__).parents[2] / "docs/rules.md"


def test_the_page_is_what_the_verb_makes(nvmelab: Invoke) -> None:
    assert nvmelab("rules", "--page").stdout == PAGE.read_text()


def test_one_form_at_a_time(nvmelab: Invoke) -> None:
    assert "say one form" in error_of(nvmelab("rules", "--page", "--json"), 2)


def test_one_rule_with_all_that_is_known_of_it(nvmelab: Invoke) -> None:
    said = " ".join(nvmelab("rules", "queues.size", "progress.driver").stdout.split())
    assert said.startswith("queues.size (driver, error): a new queue has at least 2 entries")
    assert "3.1.4.1 (CAP.MQES); always; seen by QEMU's log, our device tests/rules/" in said
    assert "progress.driver (driver, error): " in said and "cq.head (" not in said
    every = json.loads(nvmelab("rules", "cq.head", "--json").stdout)
    assert list(every) == ["cq.head"]
    assert "leave out cq.head" in error_of(nvmelab("rules", "cq.head", "--page"), 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("cq.haed", "there is no rule 'cq.haed'; is it cq.head or "),
        ("head", "there is no rule 'head'; is it cq.head?"),
        ("progress.devise", "is it progress.device"),
        ("nope", "there is no rule 'nope'; nvmelab rules lists them"),
    ],
)
def test_a_rule_that_is_none_is_told_what_it_could_be(
    nvmelab: Invoke, name: str, said: str
) -> None:
    assert said in error_of(nvmelab("rules", name), 2)


def test_the_page_counts_what_a_log_can_show(nvmelab: Invoke) -> None:
    page = " ".join(nvmelab("rules", "--page").stdout.split())
    assert f"QEMU's log {len(shown_by(QEMU))}, our device" in page
    alone = set(RULES) - set(shown_by(OURS))
    assert f"live) {len(shown_by(OURS))}. {len(alone)} others show to the explorer only" in page


def test_every_rule_is_listed(nvmelab: Invoke) -> None:
    said = " ".join(nvmelab("rules").stdout.split())
    for name, rule in RULES.items():
        assert f"{name} ({rule.party}, {rule.severity}): {rule.text}" in said
    every = json.loads(nvmelab("rules", "--json").stdout)
    assert len(every) == len(RULES) + len(PROGRESS)
    assert every["sq.tail"]["party"] == "driver"
