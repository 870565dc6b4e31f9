"""How many rules were tried, of those that the source can show."""

from __future__ import annotations

import pytest

from nvmelab.report.tried import OURS, QEMU, shown_by, tried_text

ONLY_OURS = sorted(set(shown_by(OURS)) - set(shown_by(QEMU)))


@pytest.mark.parametrize(
    ("exercised", "unit", "source"),
    [
        (["sq.tail"], "line", QEMU),
        (["sq.tail", ONLY_OURS[0]], "line", OURS),
        (["sq.tail"], "event", OURS),
        (shown_by(QEMU), "line", QEMU),
        (shown_by(OURS), "line", OURS),
    ],
)
def test_the_count_is_of_what_the_source_can_show(
    exercised: list[str], unit: str, source: str
) -> None:
    said = tried_text(exercised, unit)
    assert said.startswith(f"{len(exercised)} of the {len(shown_by(source))} that {source} can")


def test_a_source_that_shows_no_rule_has_tried_none() -> None:
    assert tried_text([], "line") == "none was tried"
