"""What is said of a log: the reporter's excerpt, and logs of real QEMUs in the same steps."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import Verdict, judge
from nvmelab.trace.qemu_reader import read_log

DATA = Path(__file__).parents[1] / "data"
EXCERPT = (DATA / "issue-2388-excerpt.log").read_bytes()
HANG = (DATA / "qemu-5.2-hang-4.log").read_bytes()
SOUND = (DATA / "qemu-11.1-same-steps.log").read_bytes()


def verdict_on(log: bytes, *, rest: bool, sq_entries: int | None = None) -> Verdict:
    monitor = Monitor(sq_entries)
    read_log([log], monitor.handlers)
    return judge(monitor, rest=rest)


def states(verdict: Verdict) -> list[tuple[str, int, str, list[int]]]:
    return [(part.state, part.count, part.who, part.evidence) for part in verdict.stuck]


@pytest.mark.parametrize("sq_entries", [4, None])
def test_the_excerpt_declared_hung_is_the_devices_fault(sq_entries: int | None) -> None:
    verdict = verdict_on(EXCERPT, rest=True, sq_entries=sq_entries)
    assert verdict.verdict == "device"
    assert states(verdict) == [
        ("fetched", 1, "device", [4]),
        ("rung", 2, "device", [12, 22]),
    ]
    assert "3.3.1.2" in verdict.rule


@pytest.mark.parametrize("rest", [True, False])
def test_the_excerpt_has_the_pattern_with_its_lines(rest: bool) -> None:
    pattern = verdict_on(EXCERPT, rest=rest).pattern
    assert pattern
    assert (pattern.rung, pattern.dry, pattern.freed, pattern.last_rung) == (12, 13, 17, 22)


def test_the_excerpt_alone_decides_nothing() -> None:
    verdict = verdict_on(EXCERPT, rest=False)
    assert (verdict.verdict, verdict.stuck, verdict.in_flight) == ("undecided", [], 3)
    assert "a healthy run whose log is cut here would look the same" in verdict.notes[0]


def test_a_hang_of_a_real_qemu() -> None:
    verdict = verdict_on(HANG, rest=True)
    (stuck,) = verdict.stuck
    assert (verdict.verdict, stuck.state, stuck.sqid, stuck.entries) == ("device", "rung", 1, 4)
    assert verdict.pattern and verdict.findings == []
    line = HANG.splitlines()[stuck.evidence[0] - 1]
    assert b"mmio_doorbell_sq sqid 1" in line


@pytest.mark.parametrize("rest", [True, False])
def test_the_same_steps_on_a_repaired_qemu(rest: bool) -> None:
    verdict = verdict_on(SOUND, rest=rest)
    assert (verdict.verdict, verdict.findings, verdict.pattern) == ("clean", [], None)
    assert verdict.in_flight == 0


def test_no_prefix_of_a_healthy_log_has_a_finding() -> None:
    lines = SOUND.splitlines(keepends=True)
    for count in range(len(lines)):
        verdict = verdict_on(b"".join(lines[:count]), rest=False)
        assert verdict.findings == [] and verdict.verdict in ("clean", "undecided")
        assert (verdict.verdict == "undecided") == (verdict.pattern is not None)


def test_no_suffix_of_a_healthy_log_has_a_finding() -> None:
    lines = SOUND.splitlines(keepends=True)
    for count in range(len(lines)):
        for rest in (True, False):
            verdict = verdict_on(b"".join(lines[count:]), rest=rest)
            assert verdict.findings == [] and verdict.verdict == "clean", (count, rest)


FORMS = {
    "bare": lambda line: line,
    "thread": lambda line: b"5876@1795357333.866919:" + line,
    "iso": lambda line: b"2026-11-22T14:22:14.341616Z " + line,
    "iso-whole-second": lambda line: b"2026-11-22T14:22:14Z " + line,
}


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_line_is_read(form: str, ends: bytes) -> None:
    bare = [re.sub(rb"^\d+@[\d.]+:", b"", line) for line in HANG.splitlines()]
    log = ends.join(FORMS[form](line) for line in bare) + ends
    assert verdict_on(log, rest=True) == verdict_on(HANG, rest=True)


def test_lines_of_something_else_change_nothing_but_the_numbers() -> None:
    lines = HANG.splitlines(keepends=True)
    noise = b"vfio_user_region_write  (x) region 0\nqemu-system: warning: pci_nvme\n\xff\xfe\x00\n"
    verdict = verdict_on(b"".join(line + noise for line in lines), rest=True)
    plain = verdict_on(HANG, rest=True)
    assert [part.count for part in verdict.stuck] == [part.count for part in plain.stuck]
    assert [4 * (line - 1) + 1 for line in plain.stuck[0].evidence] == verdict.stuck[0].evidence


def test_a_cut_last_line_is_damaged_and_no_more() -> None:
    monitor = Monitor()
    counts = read_log([HANG[:-25]], monitor.handlers)
    assert len(counts.damaged) <= 1
    assert judge(monitor, rest=False).findings == []


@pytest.mark.parametrize("size", [1, 7, 100, 1 << 20])
def test_chunks_may_end_anywhere(size: int) -> None:
    monitor = Monitor()
    chunks = [HANG[at : at + size] for at in range(0, len(HANG), size)]
    assert read_log(chunks, monitor.handlers).lines == HANG.count(b"\n")
    assert judge(monitor, rest=True) == verdict_on(HANG, rest=True)


def test_a_line_without_end_is_left_out_and_the_next_one_is_read() -> None:
    monitor = Monitor()
    chunks = [b"x" * (1 << 20)] * 10 + [b"y\n", EXCERPT]
    counts = read_log(chunks, monitor.handlers)
    assert (counts.overlong, counts.lines) == (1, 23)
    assert judge(monitor, rest=True).verdict == "device"
