"""`nvmelab rules`, and the page that it makes."""

from __future__ import annotations

import json
from pathlib import Path

from nvmelab.check.rules import PROGRESS, RULES
from tests.cli.conftest import Invoke, error_of

PAGE = Path(__file__).parents[2] / "docs/rules.md"


def test_the_page_is_what_the_verb_makes(nvmelab: Invoke) -> None:
    assert nvmelab("rules", "--page").stdout == PAGE.read_text()


def test_one_form_at_a_time(nvmelab: Invoke) -> None:
    assert "say one form" in error_of(nvmelab("rules", "--page", "--json"), 2)


def test_every_rule_is_listed(nvmelab: Invoke) -> None:
    said = " ".join(nvmelab("rules").stdout.split())
    for name, rule in RULES.items():
        assert f"{name} ({rule.party}, {rule.severity}): {rule.text}" in said
    every = json.loads(nvmelab("rules", "--json").stdout)
    assert len(every) == len(RULES) + len(PROGRESS)
    assert every["sq.tail"]["party"] == "driver"
