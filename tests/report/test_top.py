"""What `nvmelab top` shows of fixed snapshots."""

from __future__ import annotations

import msgspec
import pytest

from nvmelab.check.ball import Ball
from nvmelab.report.top import frame
from nvmelab.snapshot import Check, ControllerState, Cq, Oldest, Snapshot, Sq, Totals

HANG = Ball(["device"], "2 commands are rung, not fetched: fetch them (4 requests are free)")


def sq(number: int, **changes: object) -> Sq:
    idle = Sq(
        id=number, cq=number, entries=4, head=0, tail=0, limit=4, outstanding=0, written=0, rung=0,
        fetched=0, finished=0, total=0, oldest=None, ball=None, still_ns=0, stuck=False,
    )  # fmt: skip
    return msgspec.structs.replace(idle, **changes)


def cq(number: int, **changes: object) -> Cq:
    idle = Cq(
        id=number, entries=4, head=0, tail=0, phase=1, posted=0, finished=0, full=False,
        vector=number, ball=None, still_ns=0, stuck=False,
    )  # fmt: skip
    return msgspec.structs.replace(idle, **changes)


def snapshot(sqs: list[Sq], cqs: list[Cq] | None = None, **changes: object) -> Snapshot:
    made = Snapshot(
        version=1,
        time_ns=5_000_000_000,
        image="disk.img",
        serial="deadbeef",
        device="nvmelab",
        guest=True,
        controller=ControllerState(
            enabled=True, ready=True, shutdown="none", failed=False, bus_master=True
        ),
        sqs=sqs,
        cqs=[cq(queue.id) for queue in sqs] if cqs is None else cqs,
        sqs_left_out=0,
        totals=Totals(
            commands=1000, bytes=4096000, errors=3, doorbells=1500, interrupts=700,
            error_events=0, by_command=[],
        ),
        check=None,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def text_of(now: Snapshot, before: Snapshot | None = None, **size: int) -> str:
    return "\n".join(line.text for line in frame(now, before, **size))


def test_a_queue_that_is_stuck_stands_out_and_says_whose_turn_it_is() -> None:
    before = snapshot([sq(0), sq(1), sq(2)])
    stuck = sq(
        1, head=2, rung=2, total=46, stuck=True, ball=HANG, still_ns=2_500_000_000,
        oldest=Oldest(10, "read", "rung", None),
    )  # fmt: skip
    busy = sq(
        2, head=3, tail=3, outstanding=3, fetched=3, total=2003,
        ball=Ball(["device"], "3 commands are fetched, not finished: finish them"),
        oldest=Oldest(7, "write", "fetched", 1_230_000),
    )  # fmt: skip
    totals = msgspec.structs.replace(
        before.totals, commands=3000, bytes=12288000, doorbells=1502, interrupts=700
    )
    now = snapshot(
        [sq(0), stuck, busy],
        [cq(0), cq(1, vector=None), cq(2, tail=3, phase=0, finished=1)],
        time_ns=7_000_000_000,
        device="qemu-9.0",
        totals=totals,
        check=Check("device", 617, 0, "SQ 1, 2 commands: rung, not fetched"),
    )
    lines = frame(now, before)
    assert "\n".join(line.text for line in lines) == (
        "STUCK  device must act for SQ 1 (seen for 2.5 s)\n"
        "image  disk.img: serial deadbeef, device qemu-9.0; a guest is connected\n"
        "state  ready\n"
        "rates  1,000 commands/s, 3.9 MiB/s, 1 doorbells/s, 0 interrupts/s\n"
        "total  3,000 commands, 11.7 MiB, 3 errors, 1,502 doorbells, 700 interrupts\n"
        "check  judge: device must act (SQ 1, 2 commands: rung, not fetched); 617 events\n"
        "\n"
        "   SQ  size  head  tail  rung   out/limit    CQ  head  tail ph  done  vec cmd/s\n"
        "    1     4     2     0     2         0/4     1     0     0  1     0    -    23\n"
        "       STUCK (seen for 2.5 s): device: 2 commands are rung, not fetched: fetch\n"
        "         them (4 requests are free)\n"
        "       oldest: read, CID 10: rung, not fetched\n"
        "    0     4     0     0     0         0/4     0     0     0  1     0    0     0\n"
        "    2     4     3     3     0         3/4     2     0     3  0     1    2  1002\n"
        "       oldest: write, CID 7: fetched 1.23 ms ago, not finished; ball: device"
    )
    assert [line.alert for line in lines] == [True] + [False] * 7 + [True] * 4 + [False] * 3


def test_without_an_earlier_snapshot_there_are_no_rates() -> None:
    shown = text_of(snapshot([sq(1)]))
    assert "rates  with the next snapshot" in shown
    assert shown.splitlines()[-1].endswith("    1     -")


def test_a_queue_that_was_created_again_has_no_rate() -> None:
    before, now = snapshot([sq(1, total=500)]), snapshot([sq(1, total=2)], time_ns=6 * 10**9)
    assert text_of(now, before).splitlines()[-1].endswith(" -")


def test_a_cq_that_nobody_empties_is_told_of_once() -> None:
    ball = Ball(["driver", "platform"], "3 completions are posted, not released")
    full = cq(1, tail=3, posted=3, full=True, ball=ball, stuck=True, still_ns=3_000_000_000)
    shown = text_of(snapshot([sq(1), sq(2, cq=1)], [full]))
    said = "STUCK (seen for 3 s): CQ 1 is full: driver or platform: 3 completions"
    assert shown.count(said) == 1


@pytest.mark.parametrize(("party", "lines"), [("driver", 2), ("device", 3)])
def test_a_full_cq_is_told_of_once_where_a_queue_waits_for_room(party: str, lines: int) -> None:
    full = cq(1, tail=3, posted=3, full=True, stuck=True, ball=Ball(["driver"], "release"))
    ball = Ball([party], "act")  # type: ignore[list-item]
    waiting = sq(1, finished=1, outstanding=1, stuck=True, ball=ball)
    assert text_of(snapshot([waiting], [full])).count("STUCK") == lines


def test_a_driver_may_release_late_while_its_cq_is_not_full() -> None:
    ball = Ball(["driver", "platform"], "1 completion is posted, not released")
    part = cq(1, tail=1, posted=1, ball=ball, stuck=True, still_ns=3_000_000_000)
    lines = frame(snapshot([sq(1)], [part]), None)
    assert lines[-2].text.startswith("       STUCK? (seen for 3 s): CQ 1: driver or platform")
    assert "or it releases late" in lines[-2].text + lines[-1].text and lines[-1].alert


def test_where_nobody_can_tell_it_says_so() -> None:
    state = ControllerState(
        enabled=True, ready=True, shutdown="none", failed=True, bus_master=True
    )  # fmt: skip
    shown = text_of(snapshot([sq(1, rung=1, tail=1, stuck=True)], controller=state))
    assert "STUCK: nobody can tell who must act" in shown
    assert "state  failed (CSTS.CFS)" in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"enabled": False, "ready": False}, "disabled (CC.EN 0)"),
        ({"enabled": False}, "being reset (CC.EN 0, CSTS.RDY 1)"),
        ({"ready": False}, "being enabled (CC.EN 1, CSTS.RDY 0)"),
        ({"shutdown": "complete"}, "shut down"),
        ({"shutdown": "going on"}, "shutdown is going on"),
        ({"bus_master": False}, "ready, but no bus master"),
    ],
)
def test_the_controllers_state_in_words(changes: dict[str, object], said: str) -> None:
    now = snapshot([])
    state = msgspec.structs.replace(now.controller, **changes)
    now = msgspec.structs.replace(now, controller=state, guest=False)
    assert f"state  {said}" in text_of(now) and "no guest is connected" in text_of(now)


def test_of_64_queues_those_that_wait_come_first_and_the_rest_is_counted() -> None:
    sqs = [sq(number) for number in range(65)]
    sqs[63] = sq(63, rung=1, tail=1, stuck=True, ball=HANG)
    sqs[30] = sq(30, outstanding=1, fetched=1, oldest=Oldest(1, "read", "fetched", 10))
    lines = text_of(snapshot(sqs), rows=15).splitlines()
    assert len(lines) == 15
    assert [line.split()[0] for line in lines[6:]] == [
        *("SQ", "63", "STUCK:", "are", "30", "oldest:", "0", "1", "61"),
    ]
    assert lines[-1] == "61 further queues, with nothing waiting"


def test_queues_that_wait_and_do_not_fit_are_counted_as_such() -> None:
    sqs = [sq(number, rung=1, tail=1) for number in range(65)]
    lines = text_of(snapshot(sqs, sqs_left_out=7), rows=12).splitlines()
    assert len(lines) == 12 and "rates" not in " ".join(lines)
    assert lines[-1] == "64 further queues, with commands waiting on 57"


@pytest.mark.parametrize("rows", range(3, 14))
def test_a_queue_that_is_stuck_is_in_the_smallest_window(rows: int) -> None:
    stuck = sq(
        1, rung=1, tail=1, stuck=True, ball=HANG, oldest=Oldest(10, "read", "rung", None)
    )  # fmt: skip
    check = Check("device", 617, 0, "SQ 1: rung; device: fetch them")
    now = snapshot([sq(0), stuck, *(sq(number) for number in range(2, 9))], check=check)
    lines = frame(now, None, width=60, rows=rows)
    assert len(lines) <= rows
    said = [line.text.split()[0] for line in lines if line.text]
    assert said[0] == "STUCK" and "1" in said
    if rows >= 6:
        assert said[said.index("1") + 1] == "STUCK:"
    if rows >= 8:
        assert "oldest:" in said


def test_the_headline_names_who_must_act_for_which_queues() -> None:
    ball = Ball(["driver", "platform"], "3 entries are posted and not released")
    full = cq(1, tail=3, posted=3, full=True, ball=ball, stuck=True, still_ns=3_000_000_000)
    sqs = [sq(1), *(sq(n, rung=1, tail=1, stuck=True, ball=HANG) for n in range(2, 7))]
    first = frame(snapshot(sqs, [full, *(cq(n) for n in range(2, 7))]), None, width=110)[0]
    assert first.text == (
        "STUCK  driver or platform must act for CQ 1; device must act for SQ 2, SQ 3, SQ 4 and 2 "
        "more (seen for 3 s)"
    )
    assert first.alert


def test_a_guest_that_was_stopped_is_not_ready_for_anything() -> None:
    check = Check("driver", 40, 1, "driver: SQ 1: tail rung twice (sq.tail, Base 2.2)")
    now = snapshot([sq(1, rung=1, tail=1, stuck=True, ball=HANG)], check=check, stopped=True)
    lines = frame(now, None, width=96)
    assert lines[0] == (
        "STOP   --check=stop has stopped the guest at the first finding: driver: SQ 1: tail rung "
        "twice",
        True,
    )
    assert "check  judge: driver, 1 finding in 40 events: driver: " in text_of(now)
    other = msgspec.structs.replace(now, check=Check("clean", 40, 0, ""))
    assert text_of(other).startswith(
        "STOP   --check=stop has stopped the guest because of another device of it\n"
    )


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (Check("clean", 7, 0, ""), "judge: nothing is wrong in 7 events"),
        (Check("undecided", 7, 0, ""), "judge: undecided; 7 events"),
        (Check("driver", 7, 2, "driver: x"), "judge: driver, 2 findings in 7 events: driver: x"),
    ],
)
def test_what_the_judge_says(check: Check, said: str) -> None:
    assert f"check  {said}" in text_of(snapshot([], check=check)).splitlines()


def test_counts_make_room_for_a_few_queues_even_if_nothing_waits() -> None:
    lines = text_of(snapshot([sq(0), sq(1)]), rows=6).splitlines()
    assert [line.split()[0] for line in lines if line] == ["image", "state", "SQ", "0", "1"]


def test_what_fits_keeps_its_place() -> None:
    sqs = [sq(0), sq(1), sq(2, outstanding=1, fetched=1), sq(3)]
    lines = text_of(snapshot(sqs)).splitlines()
    assert [line.split()[0] for line in lines[6:]] == ["0", "1", "2", "3"]


@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    wide = sq(
        65535, cq=65535, entries=65536, head=65535, tail=65535, limit=65536, outstanding=65536,
        fetched=65536, total=10**8 - 1, stuck=True, ball=HANG, still_ns=10**12,
        oldest=Oldest(65535, "0xee", "fetched", 10**12),
    )  # fmt: skip
    now = snapshot(
        [wide],
        [cq(65535, head=65535, tail=65534, finished=65535, vector=2047)],
        time_ns=6 * 10**9,
        check=Check("undecided", 10**9, 20, "x" * 300),
    )
    before = snapshot([sq(65535)])
    for line in frame(now, before, width=width):
        assert len(line.text) <= width, line


def test_nothing_of_another_process_reaches_the_terminal_as_an_order() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\n\r"
    now = snapshot(
        [sq(1, rung=1, stuck=True, ball=Ball(["device"], evil),
            oldest=Oldest(1, evil, "rung", None))],
        image=evil, serial=evil, device=evil, check=Check(evil, 1, 1, evil),
    )  # fmt: skip
    assert all(line.text.isprintable() for line in frame(now, None))
