"""Commands that the host ended before they were done: by a reset, a deletion, a shutdown."""

from __future__ import annotations

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import Verdict, judge
from nvmelab.trace.qemu_reader import read_log
from tests.check.test_monitor import IRQ, ROUND, START, STARTED, fetch, finish, ring

STOPPED = "pci_nvme_mmio_stopped cleared controller enable bit\n"
ENDS = {
    "reset": STOPPED,
    "pci-reset": "pci_nvme_pci_reset PCI Function Level Reset\n",
    "shutdown": "pci_nvme_mmio_shutdown_set shutdown bit set\n",
    "deletion": (
        ring(4, 0)
        + "pci_nvme_admin_cmd cid 3 sqid 0 opc 0x0 opname 'x'\n"
        + "pci_nvme_del_sq deleting submission queue sqid=1\n"
        + "pci_nvme_enqueue_req_completion cid 3 cqid 0 dw0 0x0 dw1 0x0 status 0x0\n"
        + IRQ
        + "pci_nvme_mmio_doorbell_cq cqid 0 new_head 4\n"
    ),
}
HANG = START + ROUND + ring(3)


def verdict_on(text: str, seconds: float | None, *, rest: bool) -> Verdict:
    """As if each line of the end came so much later than the line before it."""
    monitor = Monitor()
    read_log([text.encode()], monitor.handlers)

    def time_of(line: int) -> float | None:
        return None if seconds is None else seconds * (line > HANG.count("\n"))

    return judge(monitor, rest=rest, time_of=time_of)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("rest", [True, False])
def test_what_had_waited_for_long_is_judged_as_it_was(end: str, rest: bool) -> None:
    verdict = verdict_on(HANG + ENDS[end], 30.0, rest=rest)
    assert verdict.verdict == "device" and verdict.taken_back
    assert [(part.sqid, part.state, part.count) for part in verdict.stuck] == [(1, "rung", 2)]
    assert verdict.stuck[0].evidence[0] == STARTED + ROUND.count("\n") + 1
    assert "after 30.0 s" in verdict.notes[0]


@pytest.mark.parametrize("end", ["reset", "pci-reset"])
def test_what_waited_for_a_moment_is_no_hang(end: str) -> None:
    verdict = verdict_on(HANG + ENDS[end], 0.25, rest=False)
    assert (verdict.verdict, verdict.stuck, verdict.taken_back) == ("clean", [], None)
    went_on = verdict_on(HANG + ENDS[end] + START + ROUND, 0.25, rest=True)
    assert (went_on.verdict, went_on.stuck) == ("clean", [])
    assert "2 commands were outstanding" in verdict.notes[0] and "0.2 s" in verdict.notes[0]


@pytest.mark.parametrize(
    ("end", "seconds"), [("reset", None), ("pci-reset", None), ("pci-reset", 0.25)]
)
def test_the_reset_that_ends_a_hung_log_came_of_the_hang(end: str, seconds: float | None) -> None:
    verdict = verdict_on(HANG + ENDS[end], seconds, rest=True)
    assert verdict.verdict == "device" and verdict.taken_back == HANG.count("\n") + 1
    undeclared = verdict_on(HANG + ENDS[end], None, rest=False)
    assert undeclared.verdict == "clean" and "2 commands were outstanding" in undeclared.notes[0]


def test_without_times_a_controller_that_went_on_is_undecided() -> None:
    verdict = verdict_on(HANG + STOPPED + START + ROUND, None, rest=True)
    assert (verdict.verdict, verdict.stuck) == ("undecided", [])
    assert "-msg timestamp=on" in verdict.notes[0]


def test_a_hang_before_a_reset_is_told_although_all_went_on() -> None:
    verdict = verdict_on(HANG + STOPPED + START + ROUND, 31.0, rest=False)
    assert verdict.verdict == "device" and verdict.taken_back == HANG.count("\n") + 1


def test_what_waits_now_comes_first() -> None:
    verdict = verdict_on(HANG + STOPPED + START + ROUND + ring(2) + fetch(5), 31.0, rest=True)
    assert verdict.taken_back is None and [part.state for part in verdict.stuck] == ["fetched"]


def test_a_driver_that_releases_late_has_left_nothing_undone() -> None:
    text = START + ring(1) + fetch(7) + finish(7) + IRQ + STOPPED
    monitor = Monitor()
    read_log([text.encode()], monitor.handlers)
    assert judge(monitor, rest=False, time_of=lambda line: 60.0 * line).verdict == "clean"
    waits = text.replace(IRQ, "")  # nobody has told it
    monitor = Monitor()
    read_log([waits.encode()], monitor.handlers)
    assert judge(monitor, rest=False, time_of=lambda line: 60.0 * line).verdict == "device"


def test_a_parked_request_is_not_taken_back() -> None:
    text = START + ring(4, 0) + "pci_nvme_admin_cmd cid 9 sqid 0 opc 0xc opname 'x'\n"
    verdict = verdict_on(text + "pci_nvme_aer cid 9\n" + STOPPED, 60.0, rest=True)
    assert (verdict.verdict, verdict.taken_back) == ("clean", None)


def test_who_had_the_ball_is_named() -> None:
    full = START + "".join(ring(n) + fetch(n) + finish(n) + IRQ for n in (1, 2, 3))
    verdict = verdict_on(full + ring(0) + STOPPED, 30.0, rest=True)  # one waits for room
    assert verdict.verdict == "undecided"
    assert {(part.state, *part.ball) for part in verdict.stuck} == {
        ("posted", "driver", "platform"),
        ("rung", "driver", "platform"),
    }


def test_the_pattern_of_a_known_bug_is_kept() -> None:
    """Three commands at a queue of four entries, a fourth that finds no request, one that ends."""
    dry = START + ring(3) + "".join(fetch(cid) for cid in (1, 2, 3)) + ring(0) + fetch(4) + ring(1)
    text = dry + finish(1) + IRQ + "pci_nvme_mmio_doorbell_cq cqid 1 new_head 1\n" + STOPPED
    monitor = Monitor()
    read_log([text.encode()], monitor.handlers)
    assert monitor.taken_back[0].pattern
    verdict = judge(monitor, rest=False)
    assert verdict.verdict == "undecided" and verdict.pattern
    assert judge(monitor, rest=False, time_of=lambda line: line / 1e6).verdict == "clean"
