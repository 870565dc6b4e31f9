"""What is owed on the queues of a log: the same whether it is counted or looked up."""

from __future__ import annotations

import pytest

from nvmelab.check.ball import owed
from nvmelab.check.chain import Handler
from nvmelab.check.model import Values
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.trace.qemu_reader import read_log
from tests.check.scrambled import scrambled
from tests.check.test_monitor import START, fetch, finish, ring, seen


def recounted(monitor: Monitor) -> dict[int, dict[str, int]]:
    """How many commands each queue has in each state, one by one."""
    found = {}
    for sqid, sq in monitor.sqs.items():
        assert sq.cq
        counts = {
            "rung": len(sq.rung),
            "fetched": sum(not command.parked for command in sq.flight.values()),
            "finished": sum(command.sq is sq for command in sq.cq.finished),
            "posted": sum(command.sq is sq for command in sq.cq.posted),
        }
        found[sqid] = {state: count for state, count in counts.items() if count}
    return found


@pytest.mark.parametrize("seed", range(12))
def test_commands_are_counted_where_they_are(seed: int) -> None:
    monitor = Monitor()
    compared = 0

    def compare(name: str) -> Handler:
        def handler(at: int, values: Values) -> None:
            nonlocal compared
            monitor.handlers[name](at, values)
            for sqid, counts in recounted(monitor).items():
                rows = owed(monitor.standing(monitor.sqs[sqid]))
                assert {row.stage: row.number for row in rows} == counts, (at, sqid)
                compared += bool(counts)

        return handler

    read_log([scrambled(seed)], {name: compare(name) for name in monitor.handlers})
    assert compared > 100


def test_the_verdict_says_the_same_with_the_lines() -> None:
    monitor = seen(ring(3) + fetch(7) + fetch(8) + finish(7))
    rows = owed(monitor.standing(monitor.sqs[1]))
    assert rows == [
        (part.state, part.count, tuple(part.ball), part.owed)
        for part in judge(monitor, rest=True).stuck
    ]
    assert len(rows) == 3


def test_a_deep_queue_has_its_first_lines_as_evidence() -> None:
    deep = START.replace("qsize=3", "qsize=65535")
    monitor = seen(ring(60_000) + "".join(map(fetch, range(59_000))), start=deep)
    fetched, rung = judge(monitor, rest=True).stuck
    assert (rung.count, fetched.count) == (1000, 59_000)
    assert len(rung.evidence) == len(fetched.evidence) == 8
