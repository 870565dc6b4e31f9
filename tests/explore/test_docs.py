"""docs/exploring.md says what the tables and the explorer say."""

from __future__ import annotations

from pathlib import Path

from nvmelab.check.rules import EXPLORED, RULES
from nvmelab.corpus.faults import FAULTS
from nvmelab.corpus.personas import PERSONAS
from nvmelab.explore.table import DEVICES, LIVE, cell
from nvmelab.report.table import table_lines

PAGE = (Path(__file__).parents[2] / "docs/exploring.md").read_text()


def test_the_table_of_sizes_is_what_the_demo_prints() -> None:
    cells = [cell(entries, device) for entries in LIVE for device in DEVICES]
    assert "\n".join(table_lines(cells)) in PAGE


def test_every_rule_is_there_with_its_source() -> None:
    for name in EXPLORED:
        rule = RULES[name]
        assert f"| `{name}` | {rule.party} | {rule.text} | {rule.ref} |" in PAGE


def test_every_fault_and_every_device_is_there() -> None:
    for fault in FAULTS.values():
        assert f"| `{fault.name}` | {fault.party} | {fault.text} |" in PAGE
    for name in PERSONAS:
        assert f"`{name}`" in PAGE
