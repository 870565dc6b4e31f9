"""Commands of every kind whose end is in a tester's hand."""

from __future__ import annotations

import errno

import pytest

from nvmelab.spec.admin import Abort, DeleteIoSq, GetFeatures
from nvmelab.spec.commands import Command, NvmOpcode
from nvmelab.spec.nvm import DatasetManagement, Flush, Range, Read, Write, WriteZeroes
from nvmelab.spec.status import DNR, Status
from nvmelab.storage.held import HeldWorker
from tests.device.conftest import NO_RAM, RAM, Bench, HostSq
from tests.device.disks import Disk

DATA = RAM + (5 << 20)
"""Where commands have their data, behind all that a test allocates."""
OTHER = RAM + (6 << 20)
RANGE = RAM + (4 << 20)

COMMANDS = [
    pytest.param(Read(nsid=1, prp1=DATA), "read", id="read"),
    pytest.param(Write(nsid=1, prp1=DATA), "write", id="write"),
    pytest.param(Write(nsid=1, prp1=DATA, fua=1), "flush", id="write with FUA"),
    pytest.param(Flush(nsid=1), "flush", id="flush"),
    pytest.param(WriteZeroes(nsid=1), "write_zeroes", id="write zeroes"),
    pytest.param(
        DatasetManagement(nsid=1, prp1=RANGE, attributes=1 << 2), "discard", id="deallocate"
    ),
]
"""Commands with the last call they make."""


class Rig:
    """A controller with one queue pair whose storage waits for `worker.release`."""

    def __init__(self, *, entries: int = 16, hold: bool = True) -> None:
        self.disk = Disk()
        self.worker = HeldWorker()
        self.bench = Bench(backends=[self.disk], worker=self.worker)
        self.bench.memory.write(RANGE, Range(slba=0, nlb=8).encode())
        self.bench.enable()
        self.sq: HostSq = self.bench.create_pair(1, entries=entries)
        self.worker.hold = hold

    def submit(self, *commands: Command) -> None:
        self.sq.submit(*commands)
        self.bench.settle()

    def release(self, index: int = 0) -> None:
        self.worker.release(index)
        self.bench.settle()

    def reaped(self) -> list[int]:
        return [done.cid for done in self.sq.cq.reap()]


# One command.


@pytest.mark.parametrize(("command", "last"), COMMANDS)
def test_held_command_reaches_the_disk_and_completes_when_it_is_released(
    command: Command, last: str
) -> None:
    rig = Rig()
    rig.submit(command)
    assert (rig.sq.cq.reap(), rig.disk.calls) == ([], [])
    rig.release()
    assert [done.status for done in rig.sq.cq.reap()] == [Status.SUCCESS]
    assert rig.disk.calls[-1][0] == last


@pytest.mark.parametrize(("command", "last"), COMMANDS)
def test_command_completes_by_itself_while_nothing_is_held(command: Command, last: str) -> None:
    rig = Rig(hold=False)
    assert rig.bench.execute(command, rig.sq).status == Status.SUCCESS
    assert rig.disk.calls[-1][0] == last


def test_released_command_is_finished_by_a_step_of_the_controller() -> None:
    rig = Rig()
    rig.submit(Read(cid=7, nsid=1, prp1=DATA))
    rig.worker.release()
    assert rig.reaped() == []
    rig.bench.step("finish")
    rig.bench.step("post", 1)
    assert rig.reaped() == [7]


def test_read_fills_host_memory_before_its_completion_is_posted() -> None:
    rig = Rig()
    rig.disk.fill(0, b"x" * 512)
    rig.submit(Read(nsid=1, prp1=DATA))
    assert rig.bench.memory.read(DATA, 512) == bytes(512)
    rig.worker.release()
    assert rig.bench.memory.read(DATA, 512) == b"x" * 512
    assert rig.reaped() == []


def test_write_takes_from_host_memory_when_it_is_released() -> None:
    rig = Rig()
    rig.bench.memory.write(DATA, b"early".ljust(512))
    rig.submit(Write(nsid=1, prp1=DATA))
    rig.bench.memory.write(DATA, b"late".ljust(512))
    rig.release()
    assert rig.disk.contents(0, 512) == b"late".ljust(512)


def test_bad_command_is_refused_without_waiting() -> None:
    rig = Rig()
    rig.submit(Read(nsid=1, prp1=DATA, slba=1 << 40))
    assert [done.status for done in rig.sq.cq.reap()] == [Status.LBA_OUT_OF_RANGE | DNR]
    assert rig.worker.held() == 0


def test_command_whose_data_is_nowhere_is_refused_without_waiting() -> None:
    rig = Rig()
    rig.submit(Read(nsid=1, prp1=NO_RAM))
    assert [done.status for done in rig.sq.cq.reap()] == [Status.DATA_TRANSFER_ERROR]


@pytest.mark.parametrize(
    ("command", "call", "number", "wanted"),
    [
        (Read(nsid=1, prp1=DATA), "read", errno.EIO, Status.UNRECOVERED_READ_ERROR),
        (Write(nsid=1, prp1=DATA), "write", errno.EIO, Status.WRITE_FAULT),
        (Write(nsid=1, prp1=DATA), "write", errno.ENOSPC, Status.CAPACITY_EXCEEDED),
        (Write(nsid=1, prp1=DATA, fua=1), "flush", errno.EIO, Status.WRITE_FAULT),
    ],
)
def test_error_of_the_storage_becomes_the_status(
    command: Command, call: str, number: int, wanted: Status
) -> None:
    rig = Rig()
    rig.disk.errors[call] = OSError(number, "planted")
    rig.submit(command)
    rig.release()
    assert [done.status for done in rig.sq.cq.reap()] == [wanted]


def test_bytes_count_when_the_command_has_succeeded() -> None:
    rig = Rig()
    rig.submit(Read(cid=1, nsid=1, prp1=DATA), Read(cid=2, nsid=1, prp1=OTHER, nlb=2))
    rig.release()
    rig.disk.errors["read"] = OSError(errno.EIO, "planted")
    rig.release()
    counter = rig.bench.controller.statistics.io[NvmOpcode.READ]
    assert (counter.commands, counter.nbytes, counter.errors) == (2, 512, {0x281: 1})


def test_events_of_a_transfer_are_traced_when_it_finishes() -> None:
    rig = Rig()
    rig.bench.traced()
    rig.submit(Read(cid=9, nsid=1, prp1=DATA))
    names = ("read", "rw_cb", "rw_complete_cb", "misc_cb", "enqueue_req_completion")
    assert [name for name, _ in rig.bench.traced(*names)] == ["read"]
    rig.release()
    assert [name for name, _ in rig.bench.traced(*names)] == [
        "rw_cb",
        "rw_complete_cb",
        "enqueue_req_completion",
    ]


def test_failed_transfer_has_no_event_of_success() -> None:
    rig = Rig()
    rig.disk.errors["read"] = OSError(errno.EIO, "planted")
    rig.submit(Read(cid=9, nsid=1, prp1=DATA))
    rig.bench.traced()
    rig.release()
    assert [name for name, _ in rig.bench.traced("rw_cb", "rw_complete_cb", "err_aio")] == [
        "err_aio"
    ]


# Several commands.


def test_commands_of_one_queue_complete_in_the_order_of_their_release() -> None:
    rig = Rig()
    rig.submit(*(Read(cid=cid, nsid=1, prp1=DATA) for cid in range(4)))
    for index in (3, 0, 1, 0):  # of those that are left
        rig.release(index)
    assert rig.reaped() == [3, 0, 2, 1]


def test_sqhd_of_a_late_completion_is_the_head_when_it_is_posted() -> None:
    rig = Rig()
    rig.submit(Read(cid=1, nsid=1, prp1=DATA), Read(cid=2, nsid=1, prp1=DATA))
    rig.submit(Read(cid=3, nsid=1, prp1=DATA))
    rig.release(2)
    rig.release(0)
    assert [(done.cid, done.sqhd) for done in rig.sq.cq.reap()] == [(3, 3), (1, 3)]


def test_held_commands_keep_their_places_in_the_queue() -> None:
    rig = Rig(entries=2)
    for cid in range(3):
        rig.submit(Read(cid=cid, nsid=1, prp1=DATA))
    assert rig.worker.held() == 2, "as many as the queue has entries"
    rig.release(1)
    assert (rig.reaped(), rig.worker.held()) == ([1], 2)


def test_released_commands_wait_for_room_in_the_completion_queue() -> None:
    rig = Rig()
    sq = rig.bench.create_sq(2, entries=8, cq=rig.bench.create_cq(2, entries=2))
    sq.submit(*(Read(cid=cid, nsid=1, prp1=DATA) for cid in range(3)))
    rig.bench.settle()
    rig.worker.release_all()
    rig.bench.settle()
    found: list[list[int]] = []
    for _ in range(3):
        found.append([done.cid for done in sq.cq.reap()])
        rig.bench.settle()
    assert found == [[0], [1], [2]]


def test_admin_commands_are_carried_out_while_io_is_held() -> None:
    rig = Rig()
    rig.submit(Read(nsid=1, prp1=DATA))
    assert rig.bench.execute(GetFeatures(fid=1)).status == Status.SUCCESS


def test_abort_of_a_held_command_says_not_aborted() -> None:
    rig = Rig()
    rig.submit(Read(cid=5, nsid=1, prp1=DATA))
    assert rig.bench.execute(Abort(sqid=1, aborted_cid=5)).dw0 == 1
    rig.release()
    assert rig.reaped() == [5]


# The ends of a queue.


def test_reset_is_complete_when_the_held_commands_are_released() -> None:
    rig = Rig()
    rig.submit(Read(cid=1, nsid=1, prp1=DATA), Write(cid=2, nsid=1, prp1=DATA))
    rig.bench.write_cc(en=0)
    rig.bench.settle()
    assert rig.bench.csts.rdy == 1
    rig.worker.release_all()
    rig.bench.settle()
    assert (rig.bench.csts.rdy, rig.reaped()) == (0, [])


@pytest.mark.parametrize("command", [Read(nsid=1, prp1=DATA), Write(nsid=1, prp1=DATA)])
def test_command_that_a_reset_has_dropped_moves_no_data(command: Command) -> None:
    rig = Rig()
    rig.disk.fill(0, b"disk".ljust(512))
    rig.submit(command)
    rig.bench.function.reset()
    rig.bench.memory.write(DATA, b"next user".ljust(512))
    rig.worker.release_all()
    rig.bench.settle()
    assert rig.bench.memory.read(DATA, 512) == b"next user".ljust(512)
    assert rig.disk.contents(0, 512) == b"disk".ljust(512)


def test_command_that_a_reset_has_dropped_is_in_no_event() -> None:
    rig = Rig()
    rig.submit(Read(nsid=1, prp1=DATA))
    rig.bench.write_cc(en=0)
    rig.bench.traced()
    rig.worker.release_all()
    rig.bench.settle()
    assert rig.bench.traced() == []


def test_deletion_of_a_queue_waits_for_its_held_commands() -> None:
    rig = Rig()
    rig.submit(Read(cid=1, nsid=1, prp1=DATA), Read(cid=2, nsid=1, prp1=DATA))
    rig.bench.admin.submit(DeleteIoSq(cid=8, qid=1))
    rig.bench.settle()
    rig.release(1)
    assert rig.bench.admin_cq.reap() == []
    rig.release()
    assert [(done.cid, done.status) for done in rig.bench.admin_cq.reap()] == [(8, 0)]


def test_shutdown_waits_for_held_commands_and_for_its_own_flush() -> None:
    rig = Rig()
    rig.submit(Read(nsid=1, prp1=DATA))
    rig.bench.write_cc(en=1, shn=1)
    rig.release()
    assert (rig.bench.csts.shst, rig.worker.held()) == (1, 1)
    rig.release()
    assert (rig.bench.csts.shst, rig.disk.calls[-1]) == (2, ("flush",))
