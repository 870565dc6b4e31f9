"""Flush, FUA, the write cache, errors of the host, and storage that takes its time."""

from __future__ import annotations

import errno

import pytest

from nvmelab.device.namespaces import Namespace
from nvmelab.spec.admin import DeleteIoSq, GetFeatures, SetFeatures
from nvmelab.spec.commands import Command, NvmOpcode
from nvmelab.spec.features import Feature
from nvmelab.spec.nvm import DatasetManagement, Flush, Range, Read, Write, WriteZeroes
from nvmelab.spec.registers import OFFSET
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import PAGE, RAM, Bench, HostSq, ManualWorker
from tests.device.disks import Disk

RANGE = RAM + (4 << 20)
"""Where the one range of DEALLOCATE stands, far behind everything that a test allocates."""
READ = Read(nsid=1, prp1=RAM + (5 << 20))
WRITE = Write(nsid=1, prp1=RAM + (5 << 20))
DURABLE_WRITE = Write(nsid=1, prp1=RAM + (5 << 20), fua=1)
FLUSH = Flush(nsid=1)
ZEROES = WriteZeroes(nsid=1)
DURABLE_ZEROES = WriteZeroes(nsid=1, fua=1)
DEALLOCATE = DatasetManagement(nsid=1, prp1=RANGE, attributes=1 << 2)

SLOW = [
    pytest.param(FLUSH, "flush", id="flush"),
    pytest.param(DURABLE_WRITE, "flush", id="write with FUA"),
    pytest.param(ZEROES, "write_zeroes", id="write zeroes"),
    pytest.param(DURABLE_ZEROES, "flush", id="write zeroes with FUA"),
    pytest.param(DEALLOCATE, "discard", id="deallocate"),
]
"""Commands that go to the worker, each with the last call they make."""


def rig(disk: Disk, worker: ManualWorker | None = None) -> tuple[Bench, HostSq]:
    bench = Bench(backends=[disk], worker=worker)
    bench.memory.write(RANGE, Range(slba=0, nlb=8).encode())
    bench.enable()
    return bench, bench.create_pair(1, entries=16)


def set_cache(bench: Bench, wce: int) -> int:
    return bench.execute(SetFeatures(fid=Feature.VOLATILE_WRITE_CACHE, value=wce)).status


# Flush.


@pytest.mark.parametrize("nsid", [1, 0xFFFF_FFFF])
def test_flush_of_the_namespace_or_of_all_flushes_the_disk(nsid: int) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    assert bench.execute(Flush(nsid=nsid), sq).status == Status.SUCCESS
    assert disk.calls == [("flush",)]


def test_flush_of_all_flushes_every_disk() -> None:
    first, second = Disk(), Disk()
    bench, sq = rig(first)
    bench.controller.namespaces[2] = Namespace(2, second, "test")
    bench.execute(Flush(nsid=0xFFFF_FFFF), sq)
    assert (first.calls, second.calls) == ([("flush",)], [("flush",)])


@pytest.mark.parametrize("nsid", [0, 2, 0xFFFF_FFFE])
def test_flush_of_an_invalid_namespace_is_refused(nsid: int) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    done = bench.execute(Flush(nsid=nsid), sq)
    assert done.status == Status.INVALID_NAMESPACE_OR_FORMAT | DNR
    assert disk.calls == []


# FUA and the write cache.


def test_write_leaves_the_cache_alone() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    bench.execute(WRITE, sq)
    assert disk.calls == [("write", 0, 512)]


def test_write_with_fua_is_flushed_before_it_completes() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    bench.execute(DURABLE_WRITE, sq)
    assert disk.calls == [("write", 0, 512), ("flush",)]


def test_write_zeroes_with_fua_is_flushed_before_it_completes() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    bench.execute(DURABLE_ZEROES, sq)
    assert disk.calls == [("write_zeroes", 0, 512, False), ("flush",)]


def test_write_with_fua_on_a_disk_without_a_cache_is_not_flushed() -> None:
    disk = Disk(write_cache=False)
    bench, sq = rig(disk)
    bench.execute(DURABLE_WRITE, sq)
    assert disk.calls == [("write", 0, 512)]


@pytest.mark.parametrize("command", [WRITE, ZEROES])
def test_each_write_is_flushed_while_the_cache_is_off(command: Command) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    set_cache(bench, 0)
    disk.calls.clear()
    bench.execute(command, sq)
    bench.execute(command, sq)
    assert [call[0] for call in disk.calls[1::2]] == ["flush", "flush"]


def test_writes_are_cached_again_after_the_cache_is_switched_on() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    set_cache(bench, 0)
    set_cache(bench, 1)
    disk.calls.clear()
    bench.execute(WRITE, sq)
    assert disk.calls == [("write", 0, 512)]


def test_writes_are_cached_again_after_a_reset() -> None:
    disk = Disk()
    bench, _ = rig(disk)
    set_cache(bench, 0)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    sq = bench.create_pair()
    disk.calls.clear()
    bench.execute(WRITE, sq)
    assert disk.calls == [("write", 0, 512)]
    assert bench.execute(GetFeatures(fid=Feature.VOLATILE_WRITE_CACHE)).dw0 == 1


def test_switching_the_cache_off_makes_earlier_writes_durable() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    bench.execute(WRITE, sq)
    assert set_cache(bench, 0) == Status.SUCCESS
    assert disk.calls == [("write", 0, 512), ("flush",)]


def test_switching_the_cache_off_waits_for_slow_storage() -> None:
    disk, worker = Disk(), ManualWorker()
    bench, _ = rig(disk, worker)
    bench.admin.submit(SetFeatures(cid=5, fid=Feature.VOLATILE_WRITE_CACHE, value=0))
    bench.settle()
    assert bench.admin_cq.reap() == []
    worker.release()
    bench.settle()
    assert [(done.cid, done.status) for done in bench.admin_cq.reap()] == [(5, 0)]


def test_flush_that_fails_when_the_cache_is_switched_off_fails_the_command() -> None:
    disk = Disk()
    bench, _ = rig(disk)
    disk.errors["flush"] = OSError(errno.EIO, "planted")
    assert set_cache(bench, 0) == Status.INTERNAL_ERROR


# Errors of the host.

FAILURES = [
    (READ, "read", errno.EIO, Status.UNRECOVERED_READ_ERROR),
    (WRITE, "write", errno.EIO, Status.WRITE_FAULT),
    (FLUSH, "flush", errno.EIO, Status.WRITE_FAULT),
    (ZEROES, "write_zeroes", errno.EIO, Status.WRITE_FAULT),
    (DURABLE_WRITE, "flush", errno.EIO, Status.WRITE_FAULT),
    (DEALLOCATE, "discard", errno.EIO, Status.INTERNAL_ERROR),
    (WRITE, "write", errno.ENOSPC, Status.CAPACITY_EXCEEDED),
    (WRITE, "write", errno.EDQUOT, Status.CAPACITY_EXCEEDED),
    (ZEROES, "write_zeroes", errno.ENOSPC, Status.CAPACITY_EXCEEDED),
    (FLUSH, "flush", errno.ENOSPC, Status.CAPACITY_EXCEEDED),
]


@pytest.mark.parametrize(("command", "call", "number", "wanted"), FAILURES)
def test_error_of_the_host_becomes_a_status_that_may_be_retried(
    command: Command, call: str, number: int, wanted: Status
) -> None:
    disk = Disk()
    bench, sq = rig(disk)
    disk.errors[call] = OSError(number, "planted")
    assert bench.execute(command, sq).status == wanted


@pytest.mark.parametrize(
    ("command", "call", "number", "wanted"),
    [failure for failure in FAILURES if failure[0] not in (READ, WRITE)],
)
def test_error_in_slow_storage_becomes_the_same_status(
    command: Command, call: str, number: int, wanted: Status
) -> None:
    disk, worker = Disk(), ManualWorker()
    bench, sq = rig(disk, worker)
    disk.errors[call] = OSError(number, "planted")
    sq.submit(command)
    bench.settle()
    worker.release()
    bench.settle()
    assert [done.status for done in sq.cq.reap()] == [wanted]


def test_error_of_the_host_without_a_number_is_a_status_too() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    disk.errors["read"] = OSError("no number")
    assert bench.execute(READ, sq).status == Status.UNRECOVERED_READ_ERROR


def test_command_after_a_failed_one_succeeds() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    disk.errors["write"] = OSError(errno.EIO, "planted")
    bench.execute(WRITE, sq)
    disk.errors.clear()
    assert bench.execute(WRITE, sq).status == Status.SUCCESS


def test_failed_transfer_is_counted_without_bytes() -> None:
    disk = Disk()
    bench, sq = rig(disk)
    disk.errors["flush"] = OSError(errno.EIO, "planted")
    bench.execute(DURABLE_WRITE, sq)
    counter = bench.controller.statistics.io[NvmOpcode.WRITE]
    assert (counter.commands, counter.nbytes, counter.errors) == (1, 0, {0x280: 1})


# Storage that takes its time.


@pytest.mark.parametrize(("command", "last"), SLOW)
def test_slow_command_completes_when_the_storage_has_finished(command: Command, last: str) -> None:
    disk, worker = Disk(), ManualWorker()
    bench, sq = rig(disk, worker)
    sq.submit(command)
    bench.settle()
    assert sq.cq.reap() == []
    worker.release()
    assert sq.cq.reap() == []
    bench.settle()
    assert [done.status for done in sq.cq.reap()] == [Status.SUCCESS]
    assert disk.calls[-1][0] == last


def test_commands_behind_a_slow_one_overtake_it() -> None:
    worker = ManualWorker()
    bench, sq = rig(Disk(), worker)
    sq.submit(Flush(cid=1, nsid=1), Read(cid=2, nsid=1, prp1=bench.allocate(PAGE)))
    bench.settle()
    assert [done.cid for done in sq.cq.reap()] == [2]
    worker.release()
    bench.settle()
    assert [done.cid for done in sq.cq.reap()] == [1]


def test_slow_commands_hold_their_places_in_the_queue() -> None:
    worker = ManualWorker()
    bench, _ = rig(Disk(), worker)
    sq = bench.create_sq(2, entries=2, cq=bench.create_cq(2, entries=8))
    for cid in range(3):
        sq.submit(Flush(cid=cid, nsid=1))
        bench.settle()
    assert len(worker.waiting) == 2, "as many as the queue has entries"
    worker.release()
    bench.settle()
    assert [done.cid for done in sq.cq.reap()] == [0]
    assert len(worker.waiting) == 2


def test_reset_drops_slow_commands_and_waits_for_the_storage() -> None:
    worker = ManualWorker()
    bench, sq = rig(Disk(), worker)
    sq.submit(FLUSH)
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    assert bench.csts.rdy == 1, "what the storage still does must not outlive the reset"
    worker.release()
    bench.settle()
    assert bench.csts.rdy == 0
    assert sq.cq.reap() == []


def test_queue_made_after_a_reset_sees_no_completion_of_the_old_one() -> None:
    worker = ManualWorker()
    bench, sq = rig(Disk(), worker)
    sq.submit(Flush(cid=9, nsid=1))
    bench.settle()
    bench.write_cc(en=0)
    worker.release()
    bench.settle()
    bench.enable()
    again = bench.create_pair()
    done = bench.execute(Read(cid=4, nsid=1, prp1=bench.allocate(PAGE)), again)
    assert done.cid == 4


def test_function_level_reset_waits_for_the_storage_before_it_can_be_enabled() -> None:
    worker = ManualWorker()
    bench, sq = rig(Disk(), worker)
    sq.submit(FLUSH)
    bench.settle()
    bench.function.reset()
    bench.bus_master(True)
    bench.prepare()
    bench.write_cc(en=1)
    bench.settle()
    assert bench.csts.rdy == 0
    worker.release()
    bench.settle()
    assert bench.csts.rdy == 1


def test_deletion_of_a_queue_waits_for_its_slow_commands() -> None:
    worker = ManualWorker()
    bench, sq = rig(Disk(), worker)
    sq.submit(FLUSH)
    bench.settle()
    bench.admin.submit(DeleteIoSq(cid=8, qid=1))
    bench.settle()
    assert bench.admin_cq.reap() == []
    worker.release()
    bench.settle()
    assert [(done.cid, done.status) for done in bench.admin_cq.reap()] == [(8, 0)]


def test_slow_command_that_outlives_a_shutdown_request_delays_it() -> None:
    disk, worker = Disk(), ManualWorker()
    bench, sq = rig(disk, worker)
    sq.submit(FLUSH)
    bench.settle()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    assert bench.csts.shst == 1
    worker.release()
    bench.settle()
    assert bench.csts.shst == 1, "the flush of the shutdown itself is slow too"
    worker.release()
    bench.settle()
    assert bench.csts.shst == 2


def test_registers_answer_while_the_storage_is_busy() -> None:
    bench, sq = rig(Disk(), ManualWorker())
    sq.submit(FLUSH)
    bench.settle()
    assert bench.read(OFFSET["vs"]) == bench.controller.life.registers["vs"]


def test_shutdown_that_waited_for_the_storage_comes_in_the_turn_that_finishes_it() -> None:
    disk, worker = Disk(), ManualWorker()
    bench, _ = rig(disk, worker)
    sq = bench.create_sq(2, entries=4, cq=bench.create_cq(2, entries=2))
    sq.submit(Flush(cid=1, nsid=1), Read(cid=2, nsid=1, prp1=bench.allocate(PAGE)))
    bench.settle()
    bench.write_cc(en=1, shn=1)
    worker.release()
    assert not bench.run(), "CQ 2 is full, so there is nothing left to post"
    worker.release()
    assert not bench.run()
    assert bench.csts.shst == 2
