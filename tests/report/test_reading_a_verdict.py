"""What docs/reading-a-verdict.md says of the hang that it goes through."""

from __future__ import annotations

import re
from pathlib import Path

from nvmelab.check.verdict import Verdict
from tests.check.test_diagnosis import HANG, SOUND, verdict_on
from tests.report.test_log_page import states_of

PAGE = Path(__file__).parents[2] / "docs/reading-a-verdict.md"
LINES = HANG.splitlines(keepends=True)


def hung(lines: list[bytes]) -> Verdict:
    return verdict_on(b"".join(lines), rest=True)


def test_its_table_is_what_the_judge_knows_at_those_lines() -> None:
    rows = re.findall(
        r"^\| ([\d, to*]+) \| .* \| \**(\d+)\** \| \**(\d+)\b", PAGE.read_text(), re.MULTILINE
    )
    states = states_of(HANG)
    assert len(rows) == 7
    for lines, rung, at_the_device in rows:
        last = int(re.findall(r"\d+", lines)[-1])
        state = states[last]["1"]
        assert (state["rung"], state["taken"]) == (int(rung), int(at_the_device)), lines


def test_what_would_make_it_another_verdict() -> None:
    assert hung(LINES).verdict == "device"
    assert verdict_on(HANG, rest=False).verdict == "undecided"
    # Completions that are not released, from line 106 on.
    kept = [line for line in LINES[105:] if b"doorbell_cq cqid 1" not in line]
    unreleased = hung(LINES[:105] + kept)
    assert unreleased.verdict == "undecided"
    assert any("this source shows neither what the host reads" in note for note in unreleased.notes)
    # A tail outside of the queue, and another rule that the driver breaks before.
    outside = b"pci_nvme_ub_db_wr_invalid_sqtail tail outside the SQ, sqid=1, new_head=9\n"
    assert hung([*LINES, outside]).verdict == "driver"
    unaligned = b"pci_nvme_ub_db_wr_misaligned doorbell write is not aligned, offset=0x1001\n"
    assert hung([*LINES[:100], unaligned, *LINES[100:]]).verdict == "undecided"
    assert verdict_on(SOUND, rest=True).verdict == "clean"
