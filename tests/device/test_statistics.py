"""Counters of completed commands, and the median that is taken from buckets."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelab.device.statistics import Counter, Statistics
from nvmelab.spec.admin import Identify
from nvmelab.spec.commands import AdminOpcode, NvmOpcode
from nvmelab.spec.nvm import Flush, Read, Write
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import NO_RAM, PAGE, Bench, ManualWorker

BOUND = 0.07
"""What `median_ns` promises."""


def counted(*latencies: int) -> Counter:
    counter = Counter()
    for latency in latencies:
        counter.posted(0, 0, latency)
    return counter


@given(st.lists(st.integers(0, 1 << 50), min_size=1, max_size=200))
def test_median_is_within_its_bound_of_the_lower_median(latencies: list[int]) -> None:
    true = statistics.median_low(latencies)
    assert abs(counted(*latencies).median_ns - true) <= BOUND * true


@given(st.integers(0, 1 << 60))
def test_median_of_one_latency_is_never_above_it(latency: int) -> None:
    assert (1 - BOUND) * latency <= counted(latency).median_ns <= latency


@pytest.mark.parametrize("latency", range(17))
def test_latencies_below_16_ns_have_buckets_of_their_own(latency: int) -> None:
    assert counted(latency).median_ns == latency


@given(st.lists(st.integers(0, 1 << 50), min_size=2, max_size=50))
def test_buckets_are_in_the_order_of_their_latencies(latencies: list[int]) -> None:
    buckets = [next(iter(counted(latency).latency)) for latency in sorted(latencies)]
    assert buckets == sorted(buckets)


@given(st.lists(st.integers(0, 1 << 50), max_size=50))
def test_worst_is_the_largest(latencies: list[int]) -> None:
    assert counted(*latencies).worst_ns == max(latencies, default=0)


def test_nothing_counted_has_a_median_of_zero() -> None:
    assert (Counter().median_ns, Counter().commands) == (0, 0)


def test_buckets_stay_few_whatever_the_latencies() -> None:
    counter = counted(*(7**n % (1 << 40) for n in range(2000)))
    assert len(counter.latency) <= 8 * 40
    assert sum(counter.latency.values()) == 2000


def test_completions_are_counted_with_their_bytes_and_errors() -> None:
    counter = Counter()
    counter.posted(0, 512, 1)
    counter.posted(0x4080, 0, 1)
    counter.posted(0x4080, 0, 1)
    assert (counter.commands, counter.nbytes, counter.errors) == (3, 512, {0x4080: 2})


def test_admin_and_io_commands_of_one_opcode_are_counted_apart() -> None:
    counters = Statistics()
    counters.counter(0, 2).posted(0, 1, 1)
    counters.counter(7, 2).posted(0, 2, 1)
    assert (counters.admin[2].nbytes, counters.io[2].nbytes) == (1, 2)


def test_rows_are_io_commands_then_admin_commands_by_opcode() -> None:
    counters = Statistics()
    for sqid, opcode in ((1, 0x81), (1, 2), (0, 0x0A), (1, 0), (0, 6)):
        counters.counter(sqid, opcode)
    names = [name for name, _ in counters.rows()]
    assert names == ["flush", "read", "0x81", "identify", "get features"]


# What the controller counts.


def test_latency_is_from_the_fetch_to_the_posting() -> None:
    worker = ManualWorker()
    bench = Bench(worker=worker)
    bench.enable()
    sq = bench.create_pair()
    now = 1000
    bench.controller.clock = lambda: now
    sq.submit(Flush(nsid=1))
    now = 2000
    bench.settle()
    now = 5000
    worker.release()
    bench.settle()
    assert bench.controller.statistics.io[NvmOpcode.FLUSH].worst_ns == 3000


def test_bytes_of_reads_and_writes_are_counted() -> None:
    bench = Bench()
    bench.enable()
    sq = bench.create_pair()
    bench.execute(Write(nsid=1, prp1=bench.allocate(PAGE), nlb=8), sq)
    bench.execute(Read(nsid=1, prp1=bench.allocate(PAGE), nlb=3), sq)
    io = bench.controller.statistics.io
    assert (io[NvmOpcode.WRITE].nbytes, io[NvmOpcode.READ].nbytes) == (4096, 1536)


def test_refused_command_is_counted_with_its_status_and_no_bytes() -> None:
    bench = Bench()
    bench.enable()
    bench.execute(Read(nsid=1, prp1=NO_RAM), bench.create_pair())
    counter = bench.controller.statistics.io[NvmOpcode.READ]
    assert (counter.commands, counter.nbytes) == (1, 0)
    assert list(counter.errors) == [Status.DATA_TRANSFER_ERROR]


def test_unknown_opcode_is_counted_under_its_number() -> None:
    bench = Bench()
    bench.enable()
    bench.execute(bytes([0xC1]).ljust(64, b"\0"))
    assert bench.controller.statistics.admin[0xC1].errors == {
        Status.INVALID_COMMAND_OPCODE | DNR: 1
    }


def test_completion_that_cannot_be_posted_is_not_counted_yet() -> None:
    bench = Bench()
    bench.enable()
    sq = bench.create_sq(1, entries=8, cq=bench.create_cq(1, entries=2))
    sq.submit(*(Flush(cid=cid, nsid=1) for cid in range(3)))
    bench.settle()
    assert bench.controller.statistics.io[NvmOpcode.FLUSH].commands == 1


def test_interrupts_are_counted_as_they_are_raised() -> None:
    bench = Bench()
    bench.enable()
    before = len(bench.interrupts)
    bench.execute(Identify(cns=1, prp1=bench.allocate(PAGE)))
    assert bench.controller.statistics.interrupts == len(bench.interrupts) == before + 1


def test_counters_live_longer_than_resets() -> None:
    bench = Bench()
    bench.enable()
    bench.execute(Identify(cns=1, prp1=bench.allocate(PAGE)))
    bench.function.reset()
    assert bench.controller.statistics.admin[AdminOpcode.IDENTIFY].commands == 1
