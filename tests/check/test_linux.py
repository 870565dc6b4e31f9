"""What is said of Linux's own traces: real ones of several kernels, and what may befall one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nvmelab.check.linux import LinuxMonitor, TooMany, judge_linux
from nvmelab.check.verdict import Verdict
from nvmelab.limits import TRACE_FLIGHT_MAX
from nvmelab.trace.ftrace_reader import read_ftrace

DATA = Path(__file__).parents[1] / "data"
KERNELS = ("linux-5.10", "linux-7")


def verdict_on(text: bytes, *, rest: bool = True) -> Verdict:
    monitor = LinuxMonitor()
    read_ftrace([text], monitor)
    return judge_linux(monitor, rest=rest)


def trace(kernel: str, kind: str = "outstanding") -> bytes:
    return (DATA / f"{kernel}-{kind}.trace").read_bytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_command_that_is_outstanding_is_named_and_nobody_accused(kernel: str) -> None:
    text = trace(kernel)
    verdict = verdict_on(text)
    (part,) = verdict.stuck
    assert (verdict.verdict, part.state, part.count) == ("undecided", "set up", 1)
    assert (part.controller, part.entries) == ("nvme0", 1024)
    assert part.ball == ["device", "platform", "driver"]
    assert b"slba=800," in text.splitlines()[part.evidence[0] - 1]
    assert "nvme_cmd_read slba=800" in verdict.notes[0]
    assert any("record the device's log" in note for note in verdict.notes)
    early = verdict_on(text, rest=False)
    assert (early.verdict, early.stuck, early.in_flight) == ("clean", [], 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_all_but_the_last_command_is_clean(kernel: str) -> None:
    lines = trace(kernel).splitlines(keepends=True)
    verdict = verdict_on(b"".join(lines[:-1]))
    assert (verdict.verdict, verdict.stuck, verdict.in_flight) == ("clean", [], 0)
    assert "no command is outstanding" in verdict.notes[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_part_of_a_trace_has_no_more_outstanding_than_it_must(kernel: str) -> None:
    """These machines had one command at a time."""
    lines = trace(kernel).splitlines(keepends=True)
    for begin in range(len(lines)):
        for end in range(begin, len(lines), 7):
            verdict = verdict_on(b"".join(lines[begin:end]))
            assert verdict.in_flight <= 1 and len(verdict.stuck) == verdict.in_flight


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_command_that_linux_did_not_wait_for_is_named(kernel: str) -> None:
    """An Abort, then the reset of the controller, and the command once more."""
    text = trace(kernel, "given-up")
    lines = text.splitlines()
    verdict = verdict_on(text, rest=False)
    (part,) = verdict.stuck
    assert (verdict.verdict, part.state, part.count) == ("undecided", "given up", 1)
    assert b"slba=800," in lines[part.evidence[0] - 1]
    assert re.search(
        r"^nvme0 SQ \d: line \d\d, given up in line \d\d after 1\.\d s, is CID 0x\w+, "
        r"nvme_cmd_read slba=800, .*; nothing was completed on this queue after it$",
        verdict.notes[0],
    ), verdict.notes[0]
    assert any("Linux has ended commands itself" in note for note in verdict.notes)
    hung = verdict_on(text)
    assert [part.state for part in hung.stuck] == ["given up", "set up"]
    assert hung.stuck[1].evidence == [len(lines)]


def set_up(
    cid: int, us: int = 0, qid: int = 1, what: str = "nvme_cmd_read slba=0", n: int = 0
) -> str:
    stamp = f"{us // 10**6}.{us % 10**6:06}"
    return (
        f"dd-1 [000] ..... {stamp}: nvme_setup_cmd: nvme{n}: qid={qid}, cmdid={cid}, nsid=1, "
        f"flags=0x0, meta=0x0, cmd=({what})\n"
    )


def completed(
    cid: int, us: int = 0, qid: int = 1, status: int = 0, flags: int = 0, n: int = 0
) -> str:
    stamp = f"{us // 10**6}.{us % 10**6:06}"
    return (
        f"dd-1 [000] d.h1. {stamp}: nvme_complete_rq: nvme{n}: qid={qid}, cmdid={cid}, res=0x0, "
        f"retries=0, flags={flags:#x}, status={status:#x}\n"
    )


def position(head: int, tail: int, us: int = 0) -> str:
    stamp = f"{us // 10**6}.{us % 10**6:06}"
    return f"dd-1 [000] d.h1. {stamp}: nvme_sq: nvme0: qid=1, head={head}, tail={tail}\n"


CREATED = set_up(1, qid=0, what="nvme_admin_create_sq sqid=1, qsize=63, sq_flags=0x1, cqid=1")
CREATED += completed(1, qid=0)


def said(text: str, *, rest: bool = True) -> Verdict:
    return verdict_on(text.encode(), rest=rest)


def test_queues_of_several_controllers_are_told_apart() -> None:
    verdict = said(set_up(5, n=0) + set_up(5, n=1) + set_up(6, n=1) + completed(5, n=0))
    assert [(part.controller, part.count) for part in verdict.stuck] == [("nvme1", 2)]


@pytest.mark.parametrize("done", [0x2005, 5])
def test_a_completion_by_identifier_or_by_tag_is_the_commands(done: int) -> None:
    assert said(set_up(0x2005) + completed(done)).in_flight == 0
    assert said(set_up(0x2005) + completed(0x1005)).in_flight == 1


def test_long_queues_have_no_counts_in_their_identifiers() -> None:
    created = CREATED.replace("qsize=63", "qsize=8191")
    assert said(created + set_up(5) + set_up(0x1005)).in_flight == 2


def test_a_tag_that_is_set_up_again_is_one_command() -> None:
    verdict = said(set_up(0x1005) + set_up(0x2005) + completed(0x2005))
    assert (verdict.verdict, verdict.in_flight) == ("clean", 0)
    assert "set up again without a completion (line 2)" in verdict.notes[-1]


def abort(cid: int, us: int) -> str:
    words = f"nvme_admin_abort_cmd cdw10=01 00 {cid & 0xFF:02x} {cid >> 8:02x} 00 00 00 00"
    return set_up(9, us=us, qid=0, what=words)


def test_what_linux_has_aborted_is_given_up_whether_or_not_it_hangs_yet() -> None:
    text = set_up(0x2005, us=100) + set_up(6, us=200) + abort(0x2005, 30_000_100)
    for rest in (False, True):
        verdict = said(text, rest=rest)
        assert verdict.verdict == "undecided"
        part = verdict.stuck[-1 if not rest else -1 - (verdict.stuck[-1].state == "set up")]
        assert (part.state, part.count, part.evidence) == ("given up", 1, [1])
    for cid, qid in ((0x2005, 1), (6, 1), (9, 0)):
        text += completed(cid, us=31_000_000, qid=qid)
    late = said(text)
    assert (late.verdict, late.in_flight) == ("undecided", 0)


@pytest.mark.parametrize(("waited", "verdict"), [(30_000_000, "undecided"), (1_000, "clean")])
@pytest.mark.parametrize(("status", "flags"), [(0x371, 0), (7, 1)])
def test_what_linux_ends_itself_after_a_while_is_given_up(
    waited: int, verdict: str, status: int, flags: int
) -> None:
    text = set_up(5) + completed(5, us=waited, status=status, flags=flags)
    told = said(text, rest=False)
    assert told.verdict == verdict and "Linux has ended commands itself (line 2)" in told.notes[-1]


def test_how_far_the_device_was_is_told() -> None:
    went_on = set_up(5) + set_up(6) + position(2, 2) + completed(6)
    assert "by line 3 the device had fetched all" in said(went_on).notes[0]
    behind = set_up(5) + set_up(6) + set_up(7) + position(2, 3) + completed(6)
    assert "had fetched up to slot 2, and the driver had written up to 3" in said(behind).notes[0]
    assert "nothing was completed on this queue after it" in said(set_up(5)).notes[0]


def test_lost_events_are_told_where_something_seems_stuck() -> None:
    for text in (
        "CPU:1 [LOST 12 EVENTS]\n" + set_up(5),
        "# entries-in-buffer/entries-written: 1/100   #P:2\n" + set_up(5),
    ):
        assert any("the trace has lost events" in note for note in said(text).notes)
    assert not any("lost" in note for note in said(set_up(5)).notes)


def test_a_second_trace_forgets_the_first() -> None:
    header = "# entries-in-buffer/entries-written: 2/2   #P:2\n"
    first = header + set_up(5, us=10)
    again = said(first + header + set_up(5, us=10) + completed(5, us=20))
    assert (again.verdict, again.in_flight) == ("clean", 0)
    assert "another trace begins in line 3" in again.notes[-1]
    rebooted = said(set_up(5, us=10**9) + set_up(6, us=10) + completed(6, us=20))
    assert (rebooted.verdict, rebooted.in_flight) == ("clean", 0)


def test_a_completion_that_is_seen_too_early_is_the_commands() -> None:
    """Two processors' clocks differ a little; a queue that was seen from its creation on cannot
    have a completion of anything else."""
    assert said(CREATED + completed(5, us=100) + set_up(5, us=150)).in_flight == 0
    assert said(CREATED + completed(5, us=100) + set_up(5, us=900_000)).in_flight == 1
    assert said(completed(5, us=100) + set_up(5, us=150)).in_flight == 1  # of one before the trace


def test_completions_of_nothing_are_noted_and_nobody_accused() -> None:
    verdict = said(CREATED + set_up(5) + completed(5) + completed(5))
    assert (verdict.verdict, verdict.findings) == ("clean", [])
    assert "completions of commands that were not set up" in verdict.notes[-1]


def test_traces_of_no_machine_are_refused() -> None:
    monitor = LinuxMonitor()
    with pytest.raises(TooMany):
        for number in range(TRACE_FLIGHT_MAX + 1):
            monitor.set_up(1, None, f"nvme{number >> 12}", 1, number & 0xFFF, "x", "")
