"""Logs that lack lines, by a filter or a cut: they accuse nobody of what does not show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import Verdict, judge
from nvmelab.trace.qemu_reader import read_log
from tests.check.test_monitor import IRQ, ROUND, START, STARTED, fetch, finish, release, ring

HEALTHY = (Path(__file__).parents[1] / "data/qemu-11.1-same-steps.log").read_text()
KINDS = sorted(set(re.findall(r"(pci_nvme_\w+)", HEALTHY)))


def verdict_on(text: str, sq_entries: int | None = None) -> Verdict:
    monitor = Monitor(sq_entries)
    read_log([text.encode()], monitor.handlers)
    return judge(monitor, rest=True)


def accused(verdict: Verdict) -> bool:
    errors = [finding for finding in verdict.findings if finding.severity == "error"]
    return bool(errors) or verdict.verdict in ("driver", "device", "platform")


def test_the_whole_log_is_healthy() -> None:
    assert verdict_on(HEALTHY).verdict == "clean"


@pytest.mark.parametrize("kind", KINDS)
def test_without_one_kind_of_event_nobody_is_accused(kind: str) -> None:
    lines = HEALTHY.splitlines(keepends=True)
    verdict = verdict_on("".join(line for line in lines if not line.startswith(f"{kind} ")))
    assert not accused(verdict), verdict


@pytest.mark.parametrize(
    "kept",
    [
        *("doorbell", "_cmd", "enqueue_req", "irq", "io_cmd|doorbell", "io_cmd|enqueue"),
        *("doorbell|io_cmd|enqueue", "doorbell|_cmd|enqueue", "[sc]qid 1", "sqid"),
    ],
)
def test_with_a_few_kinds_of_events_nobody_is_accused(kept: str) -> None:
    lines = HEALTHY.splitlines(keepends=True)
    verdict = verdict_on("".join(line for line in lines if re.search(kept, line)))
    assert not accused(verdict), verdict


def is_a_hang(verdict: Verdict, later: str) -> bool:
    """The cut took away all that ever came of the last command of a queue: a device that had left
    it there would have logged the same."""
    waits = {part.sqid for part in verdict.stuck}
    return verdict.verdict == "device" and not any(
        re.search(rf"\b[sc]qid {sqid}\b", later) for sqid in waits
    )


@pytest.mark.parametrize("length", [1, 2, 3, 5, 10, 40])
def test_wherever_lines_are_cut_out_nobody_is_accused(length: int) -> None:
    lines = HEALTHY.splitlines(keepends=True)
    wrong = []
    for begin in range(len(lines) - length):
        verdict = verdict_on("".join(lines[:begin] + lines[begin + length :]))
        if accused(verdict) and not is_a_hang(verdict, "".join(lines[begin + length :])):
            wrong.append((begin + 1, verdict.verdict, [f.rule for f in verdict.findings]))
    assert wrong == []


@pytest.mark.parametrize("count", range(1, HEALTHY.count("\n"), 7))
def test_the_end_of_a_log_alone_accuses_nobody(count: int) -> None:
    verdict = verdict_on("".join(HEALTHY.splitlines(keepends=True)[-count:]))
    assert not accused(verdict), verdict


@pytest.mark.parametrize("length", [1, 5, 20, 60])
def test_lines_that_stand_twice_accuse_nobody(length: int) -> None:
    lines = HEALTHY.splitlines(keepends=True)
    for begin in range(0, len(lines) - length, 3):
        piece = lines[begin : begin + length]
        if any("start_success" in line for line in piece):
            continue  # that looks like two devices, and is refused
        verdict = verdict_on("".join(lines[:begin] + piece + lines[begin:]))
        assert not accused(verdict), (begin, verdict)


def test_what_the_gap_is_is_said() -> None:
    verdict = verdict_on(START + ring(2) + fetch(7) + finish(8))
    assert verdict.verdict == "undecided" and verdict.findings == []
    (note,) = (note for note in verdict.notes if "some are missing" in note)
    assert f"line {STARTED + 3} " in note


def test_a_gap_before_a_reset_is_none_after_it() -> None:
    gap = START + ring(2) + fetch(7) + finish(8)
    reset = "pci_nvme_mmio_stopped cleared controller enable bit\n"
    verdict = verdict_on(gap + reset + START + ROUND + ring(2))
    assert verdict.verdict == "device" and [part.state for part in verdict.stuck] == ["rung"]


def test_the_size_of_queues_that_the_log_does_not_tell_is_asked_for() -> None:
    laps = "".join(
        ring((slot + 1) % 4) + fetch(slot) + finish(slot) + IRQ + release((slot + 1) % 4)
        for slot in range(4)
    )
    verdict = verdict_on(5 * laps + ring(1) + fetch(9))
    assert [(part.state, part.count) for part in verdict.stuck] == [("fetched", 1)]
    assert "--sq-entries 4" in " ".join(verdict.notes)
    assert "--sq-entries" not in " ".join(verdict_on(laps + ring(1) + fetch(9), 4).notes)
