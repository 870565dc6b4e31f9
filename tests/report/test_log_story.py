"""The end of a log as a story: what is on the page of a hang."""

from __future__ import annotations

import re

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.explore.story import Story
from nvmelab.limits import LOG_MOMENTS_MAX
from nvmelab.report.log_story import TooLarge, log_story
from nvmelab.trace.qemu_reader import read_log
from tests.check.test_diagnosis import EXCERPT, HANG
from tests.check.test_monitor import IRQ, START, STARTED, fetch, finish, release, ring


def story_of(log: bytes, sq_entries: int | None = None) -> Story:
    monitor = Monitor(sq_entries)
    read_log([log], monitor.handlers)
    verdict = judge(monitor, rest=True)
    return log_story([log], verdict, verdict.stuck[0], monitor)


def test_the_excerpt_line_by_line() -> None:
    told = story_of(EXCERPT, 4)
    assert [(moment.line, moment.actor, moment.text) for moment in told.moments[1:]] == [
        (1, "driver", "rings tail 1: entry 1"),
        (4, "device", "fetches 1 (CID 0x4, opcode 0x1)"),
        (9, "driver", "rings head 1"),
        (12, "driver", "rings tail 2: entry 2"),
        (13, "device", "looks at SQ 1: no request is free"),
        (16, "storage", "finishes CID 0x2"),
        (17, "device", "posts an entry: a request is free"),
        (20, "driver", "rings head 2"),
        (22, "driver", "rings tail 3: entry 3"),
    ]
    last = told.moments[-1]
    assert [slot.state for slot in last.sq.slots] == ["fetched", "rung", "rung", "free"]
    assert last.outstanding == ["2", "3", "1"]
    # What the log cannot show is not made up.
    assert (last.wakeups, last.pool.size, last.cq.tail, last.sq.known_head) == (None,) * 4
    assert "line 17 freed one, and nothing was fetched after it" in told.why


def test_a_whole_log_ends_with_the_entry_that_is_forgotten() -> None:
    told = story_of(HANG)
    last = told.moments[-1]
    assert [slot.state for slot in last.sq.slots].count("rung") == 1
    assert len(last.outstanding) == 1 and last.pool.in_flight == []
    assert last.pool.size == 4 and last.cq.tail == last.cq.head
    lines = HANG.splitlines()
    for moment in told.moments[1:]:
        assert moment.line
        word = {"driver": b"doorbell", "storage": b"enqueue", "device": b""}[moment.actor]
        assert word in lines[moment.line - 1]


@pytest.mark.parametrize("rounds", [1, 300])
def test_only_the_end_is_kept(rounds: int) -> None:
    text, tail, head = START, 0, 0
    for _ in range(rounds):
        tail, head = (tail + 1) % 4, (head + 1) % 4
        text += ring(tail) + fetch(7) + finish(7) + IRQ + release(head)
    told = story_of((text + ring((tail + 1) % 4)).encode())
    assert len(told.moments) == min(5 * rounds + 1, LOG_MOMENTS_MAX) + 1
    assert [moment.number for moment in told.moments] == list(range(len(told.moments)))
    assert told.moments[-1].outstanding == [str(rounds + 1)]
    dropped = re.match(r"[\d,]+", str(told.parameters["left out"]))
    assert bool(dropped) == (rounds == 300)


def test_a_large_queue_has_fewer_moments_and_a_huge_one_none() -> None:
    def log(entries: int) -> bytes:
        text = START.replace("qsize=3", f"qsize={entries - 1}")
        for tail in range(1, 101):
            text += ring(tail) + fetch(tail)
        return text.encode()

    assert len(story_of(log(1024)).moments) == 100_000 // 2048 + 1
    with pytest.raises(TooLarge, match="at most 2048 entries, not 4096"):
        story_of(log(4096))


def test_a_damaged_line_is_no_moment() -> None:
    damaged = fetch(10**9) + finish(10**9) + ring(10**9)
    log = START + ring(1) + fetch(7) + ring(2) + damaged
    assert story_of(log.encode()).moments[-1].line == STARTED + 3
