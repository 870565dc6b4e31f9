"""The workload ends well on a good device, also on an odd one, and with an error on a bad one."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence

import pytest

from nvmelab.device.controller import Controller
from nvmelab.device.queues import CompletionQueue, Request
from nvmelab.host.errors import CommandFailed, DeviceError
from nvmelab.host.workload import Report, Workload
from nvmelab.spec.commands import NvmOpcode
from nvmelab.storage.ram import RamBackend
from tests.host.conftest import DISK, Rig, connect

WRITES = 120
Finish = Callable[[Request, int], None]


class BadDisk(RamBackend):
    """`bad_write` and `bad_read` get the number of a call and its pieces, before it is done (write)
    or after (read), and return whether the call may be done."""

    def __init__(self) -> None:
        super().__init__(DISK)
        self.writes = self.reads = 0
        self.bad_write: Callable[[int, Sequence[memoryview]], bool] = lambda number, views: True
        self.bad_read: Callable[[int, Sequence[memoryview]], None] = lambda number, views: None

    def write(self, offset: int, views: Sequence[memoryview]) -> None:
        self.writes += 1
        if self.bad_write(self.writes, views):
            super().write(offset, views)

    def read(self, offset: int, views: Sequence[memoryview]) -> None:
        self.reads += 1
        super().read(offset, views)
        self.bad_read(self.reads, views)


def workload(
    rig: Rig, shapes: Sequence[tuple[int, int]] = ((4, 4), (4, 4)), *, seed: int = 1
) -> Workload:
    """Over queue pairs of those submission and completion entries. The disk has few blocks, so
    that many are written more than once."""
    rig.driver.start()
    qpairs = [
        rig.driver.create_qpair(entries=entries, cq_entries=cq_entries)
        for entries, cq_entries in shapes
    ]
    return Workload(rig.driver, qpairs, chunk=4096, writes=WRITES, seed=seed)


def run(rig: Rig, shapes: Sequence[tuple[int, int]] = ((4, 4), (4, 4))) -> Report:
    return workload(rig, shapes).run()


def wrap_finish(
    monkeypatch: pytest.MonkeyPatch,
    controller: Controller,
    instead: Callable[[int, Request, int, Finish], None],
) -> None:
    """Call `instead(number, request, status, finish)` for each I/O command that finishes."""
    finish = controller.finish
    count = 0

    def wrapped(request: Request, status: int = 0) -> None:
        nonlocal count
        count += request.sq.id > 0
        if request.sq.id:
            instead(count, request, status, finish)
        else:
            finish(request, status)

    monkeypatch.setattr(controller, "finish", wrapped)


# Good devices.


@pytest.mark.parametrize(
    "shape", [(2, 2), (3, 3), (4, 4), (5, 5), (9, 9), (64, 64), (2, 8), (8, 2)]
)
@pytest.mark.parametrize("pairs", [1, 3])
def test_everything_written_is_read_back_through_queues_of_any_shape(
    shape: tuple[int, int], pairs: int
) -> None:
    report = run(connect(), [shape] * pairs)
    assert report.written == WRITES * 4096
    assert report.verified % 4096 == 0 and 0 < report.verified <= 512 * 512
    assert report.commands == WRITES + pairs + report.verified // 4096


def test_queues_are_kept_as_full_as_they_may_be() -> None:
    assert run(connect(), [(4, 4), (6, 6)]).most_outstanding == 3 + 5


def test_device_does_what_the_report_says() -> None:
    rig = connect()
    report = run(rig)
    io = rig.controller.statistics.io
    assert io[NvmOpcode.WRITE].nbytes == report.written
    assert io[NvmOpcode.READ].nbytes == report.verified
    assert sum(counter.commands for counter in io.values()) == report.commands


def test_same_seed_does_the_same_work_and_another_one_other_work() -> None:
    disks = [RamBackend(DISK) for _ in range(3)]
    for disk, seed in zip(disks, (1, 1, 2), strict=True):
        workload(connect(disk), seed=seed).run()
    views = [memoryview(bytearray(DISK)) for _ in disks]
    for disk, view in zip(disks, views, strict=True):
        disk.read(0, [view])
    assert views[0] == views[1] != views[2]


def test_nothing_is_left_outstanding_at_the_end() -> None:
    rig = connect()
    run(rig)
    assert [sq.outstanding for sq in rig.controller.sqs.values()] == [0, 0, 0]


def test_completions_out_of_order_are_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = connect()
    post = rig.controller._post

    def post_last(cq: CompletionQueue) -> None:
        cq.finished.rotate(1)
        post(cq)

    monkeypatch.setattr(rig.controller, "_post", post_last)
    assert run(rig, [(9, 9)]).written == WRITES * 4096


# Bad devices.


@pytest.mark.parametrize("at", [0, 2048, 4095])
def test_one_wrong_bit_in_what_is_read_is_found(at: int) -> None:
    disk = BadDisk()

    def flip(number: int, views: Sequence[memoryview]) -> None:
        views[0][at] ^= number == 7

    disk.bad_read = flip
    with pytest.raises(DeviceError, match=r"LBA 0x[0-9a-f]+: other data than was written"):
        run(connect(disk))


def test_write_that_was_not_done_is_found() -> None:
    disk = BadDisk()
    disk.bad_write = lambda number, views: number != WRITES
    with pytest.raises(DeviceError, match="other data than was written"):
        run(connect(disk))


def test_read_that_was_not_done_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = BadDisk()
    monkeypatch.setattr(RamBackend, "read", lambda self, offset, views: None)
    with pytest.raises(DeviceError, match="other data than was written"):
        run(connect(disk))


@pytest.mark.parametrize("lost", [1, 50, WRITES + 1, WRITES + 20])
def test_lost_completion_is_found_and_the_rings_are_shown(
    lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = connect()

    def lose(number: int, request: Request, status: int, finish: Finish) -> None:
        if number != lost:
            finish(request, status)

    wrap_finish(monkeypatch, rig.controller, lose)
    with pytest.raises(DeviceError, match=r"never came: .* [1-3] outstanding"):
        run(rig)


def test_completion_with_a_cid_that_is_not_in_use_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = connect()

    def forge(number: int, request: Request, status: int, finish: Finish) -> None:
        request.cid ^= 0x8000 * (number == 50)
        finish(request, status)

    wrap_finish(monkeypatch, rig.controller, forge)
    with pytest.raises(DeviceError, match=r"no outstanding command with the CID 0x[0-9a-f]+"):
        run(rig)


def test_completion_told_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = connect()

    def repeat(number: int, request: Request, status: int, finish: Finish) -> None:
        for _ in range(1 + (number == 50)):
            finish(request, status)

    wrap_finish(monkeypatch, rig.controller, repeat)
    with pytest.raises(DeviceError, match="no outstanding command"):
        run(rig, [(4, 4)])


@pytest.mark.parametrize("number", [1, WRITES])
def test_failed_write_names_the_command_and_its_status(number: int) -> None:
    disk = BadDisk()

    def fail(count: int, views: Sequence[memoryview]) -> bool:
        if count == number:
            raise OSError(errno.EIO, "planted")
        return True

    disk.bad_write = fail
    with pytest.raises(CommandFailed, match=r"Write\(.*\): write fault"):
        run(connect(disk))


def test_failed_read_names_the_command_and_its_status() -> None:
    disk = BadDisk()

    def fail(count: int, views: Sequence[memoryview]) -> None:
        raise OSError(errno.EIO, "planted")

    disk.bad_read = fail
    with pytest.raises(CommandFailed, match=r"Read\(.*\): unrecovered read error"):
        run(connect(disk))


def test_device_that_stops_in_the_middle_is_found() -> None:
    disk = BadDisk()
    rig = connect(disk)

    def pull_the_plug(count: int, views: Sequence[memoryview]) -> bool:
        rig.controller.life.bus_master = count < 30
        return True

    disk.bad_write = pull_the_plug
    with pytest.raises(DeviceError, match="is at rest"):
        run(rig)
