"""CC.EN and CSTS.RDY, CC.SHN and CSTS.SHST, CSTS.CFS, resets, and bus mastering."""

from __future__ import annotations

import errno
import itertools
import json

import pytest

from nvmelab.device.controller import Step
from nvmelab.spec.admin import AsyncEventRequest, CreateIoSq, GetFeatures, GetLogPage, SetFeatures
from nvmelab.spec.features import Feature
from nvmelab.spec.logpages import LogPage
from nvmelab.spec.nvm import Flush, Read, Write
from nvmelab.storage.ram import RamBackend
from tests.device.conftest import NO_RAM, PAGE, RAM, Bench, HostSq, ManualWorker

AQA, ASQ, ACQ, INTMS = 0x24, 0x28, 0x30, 0x0C


class Cached(RamBackend):
    """A disk with a volatile write cache; `flushes` counts, `error` is raised instead."""

    __slots__ = ("error", "flushes")

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.write_cache = True
        self.flushes = 0
        self.error: OSError | None = None

    def flush(self) -> None:
        if self.error:
            raise self.error
        self.flushes += 1


def slow_bench(entries: int = 8) -> tuple[Bench, HostSq, ManualWorker]:
    """An enabled controller whose flushes take until `worker.finish_one`, and a queue pair."""
    worker = ManualWorker()
    bench = Bench(worker=worker)
    bench.enable()
    return bench, bench.create_pair(entries=entries), worker


# Enabling.


def test_controller_is_not_ready_before_it_is_enabled() -> None:
    bench = Bench()
    bench.settle()
    assert bench.register("csts") == 0 and bench.register("cc") == 0


def test_ready_follows_enable_in_a_step_of_its_own() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1)
    assert (bench.csts.rdy, bench.enabled()) == (0, [Step("rdy")])
    bench.step("rdy")
    assert (bench.csts.rdy, bench.enabled()) == (1, [])


def test_command_written_before_the_controller_is_ready_is_not_taken() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1)
    bench.admin.submit(GetFeatures(fid=1))
    bench.settle()
    assert bench.admin_cq.reap() == []


def test_ready_comes_without_bus_mastering() -> None:
    bench = Bench()
    bench.bus_master(False)
    bench.prepare()
    bench.write_cc(en=1)
    bench.settle()
    assert bench.csts.rdy == 1


@pytest.mark.parametrize(("sq", "cq"), [(2, 2), (2, 4096), (4096, 2), (4096, 4096), (3, 5)])
def test_admin_queue_may_have_2_to_4096_entries_whatever_cap_mqes_is(sq: int, cq: int) -> None:
    bench = Bench(queue_entries=2)
    bench.enable(sq, cq)
    assert [bench.execute(GetFeatures(fid=1)).status for _ in range(8)] == [0] * 8


@pytest.mark.parametrize("mps", range(5))
def test_every_page_size_up_to_mpsmax_can_be_selected(mps: int) -> None:
    bench = Bench()
    bench.prepare(align=PAGE << mps)
    bench.write_cc(en=1, mps=mps)
    bench.settle()
    assert bench.execute(GetFeatures(fid=1)).status == 0


@pytest.mark.parametrize(
    ("register", "value", "cc", "event"),
    [
        ("aqa", 0x001F_0000, {}, ("err_startfail_asqent_sz_zero", ())),
        ("aqa", 0x0000_001F, {}, ("err_startfail_acqent_sz_zero", ())),
        ("asq", RAM + PAGE, {"mps": 1}, ("err_startfail_asq_misaligned", (RAM + PAGE,))),
        ("acq", RAM + PAGE, {"mps": 1}, ("err_startfail_acq_misaligned", (RAM + PAGE,))),
        ("aqa", 0x001F_001F, {"mps": 5}, ("err_startfail_page_too_large", (17, 16))),
        ("aqa", 0x001F_001F, {"mps": 15}, ("err_startfail_page_too_large", (27, 16))),
        ("aqa", 0x001F_001F, {"css": 1}, ("err_startfail_css", (1,))),
        ("aqa", 0x001F_001F, {"css": 6}, ("err_startfail_css", (6,))),
        ("aqa", 0x001F_001F, {"css": 7}, ("err_startfail_css", (7,))),
    ],
)
def test_impossible_configuration_sets_cfs_and_never_ready(
    register: str, value: int, cc: dict[str, int], event: tuple[str, tuple[int, ...]]
) -> None:
    bench = Bench()
    bench.prepare(align=PAGE << 1)
    bench.write(
        {"aqa": AQA, "asq": ASQ, "acq": ACQ}[register], value, 4 if register == "aqa" else 8
    )
    bench.traced()
    bench.write_cc(en=1, **cc)
    bench.settle()
    assert bench.traced()[-3:] == [event, ("err_startfail", ()), ("err_cfs", ())]
    assert (bench.csts.rdy, bench.csts.cfs) == (0, 1)


def test_controller_can_be_enabled_after_an_impossible_configuration() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1, css=7)
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.cfs) == (0, 0)
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


# Fatal errors.


@pytest.mark.parametrize("register", [ASQ, ACQ])
def test_admin_queue_outside_of_memory_sets_cfs_at_its_first_use(register: int) -> None:
    bench = Bench()
    bench.prepare()
    bench.write(register, NO_RAM, 8)
    bench.write_cc(en=1)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.cfs) == (1, 0)
    bench.admin.submit(GetFeatures(fid=1))
    bench.settle()
    assert bench.csts.cfs == 1


def test_sqe_that_runs_out_of_memory_sets_cfs() -> None:
    bench = Bench(ram=1 << 20)
    bench.enable()
    pair = bench.create_pair()
    bench.memory.unmap(RAM, 1 << 20)
    pair.ring(1)
    bench.settle()
    assert bench.csts.cfs == 1
    assert bench.traced("err_addr_read") == [("err_addr_read", (pair.base,))]


def test_cqe_to_read_only_memory_sets_cfs() -> None:
    bench = Bench()
    bench.memory.map(NO_RAM, bytearray(PAGE), writable=False)
    bench.prepare()
    bench.write(ACQ, NO_RAM, 8)
    bench.write_cc(en=1)
    bench.settle()
    bench.admin.submit(GetFeatures(fid=1))
    bench.settle()
    assert bench.csts.cfs == 1
    assert bench.traced("err_addr_write") == [("err_addr_write", (NO_RAM,))]


def test_no_interrupt_is_raised_for_a_fatal_error() -> None:
    bench = Bench()
    bench.prepare()
    bench.write(ACQ, NO_RAM, 8)
    bench.write_cc(en=1)
    bench.settle()
    bench.admin.submit(GetFeatures(fid=1))
    bench.settle()
    assert bench.interrupts == []


def test_nothing_is_done_after_a_fatal_error() -> None:
    bench = Bench()
    bench.enable()
    good = bench.create_pair(1)
    bench.memory.map(NO_RAM, bytearray(PAGE))
    bench.execute(CreateIoSq(qid=2, qsize=4, prp1=NO_RAM, cqid=1))
    bench.memory.unmap(NO_RAM, PAGE)
    bench.write(0x1010, 1)
    bench.settle()
    good.submit(Flush(nsid=1))
    bench.settle()
    assert (bench.csts.cfs, good.cq.reap(), bench.enabled()) == (1, [], [])


def test_controller_works_again_after_a_fatal_error_and_a_reset() -> None:
    bench = Bench()
    bench.prepare()
    bench.write(ASQ, NO_RAM, 8)
    bench.write_cc(en=1)
    bench.settle()
    bench.admin.submit(GetFeatures(fid=1))
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


# Controller reset: CC.EN 1 to 0.


def test_ready_falls_in_a_step_after_disable() -> None:
    bench = Bench()
    bench.enable()
    bench.write_cc(en=0)
    assert (bench.csts.rdy, bench.enabled()) == (1, [Step("rdy")])
    bench.step("rdy")
    assert (bench.csts.rdy, bench.enabled()) == (0, [])


@pytest.mark.parametrize(
    "steps",
    [
        [],
        [("fetch", 1)],
        [("fetch", 1), ("execute", 1)],
        [("fetch", 1), ("execute", 1), ("post", 1)],
        [("fetch", 1), ("fetch", 1), ("execute", 1)],
    ],
    ids=json.dumps,
)
def test_reset_drops_commands_at_once_wherever_they_are(steps: list[tuple[str, int]]) -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    bench.interrupts.clear()
    pair.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1))
    for name, id in steps:
        bench.step(name, id)
    posted = pair.cq.reap(release=False)
    bench.write_cc(en=0)
    bench.settle()
    assert (pair.cq.reap(), bench.interrupts) == ([], [])
    assert len(posted) == [name for name, _ in steps].count("post")


def test_nothing_is_posted_between_disable_and_the_fall_of_ready() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.write_cc(en=0)
    worker.release()
    bench.step("finish")
    bench.settle()
    assert (bench.csts.rdy, pair.cq.reap()) == (0, [])


def test_write_that_was_not_begun_does_not_happen_after_a_reset() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    data = bench.allocate(PAGE)
    bench.memory.write(data, b"x" * 512)
    pair.submit(Write(nsid=1, prp1=data))
    bench.step("fetch", 1)
    bench.write_cc(en=0)
    bench.settle()
    sector = bytearray(512)
    bench.backends[0].read(0, [memoryview(sector)])
    assert sector == bytes(512)


def test_slow_work_delays_the_fall_of_ready() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1))
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    assert (bench.csts.rdy, bench.enabled()) == (1, [])
    worker.release()
    bench.settle()
    assert bench.csts.rdy == 1
    worker.release()
    bench.settle()
    assert bench.csts.rdy == 0


def test_slow_work_of_before_a_reset_completes_nothing_after_it() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    bench.write_cc(en=0)
    worker.release()
    bench.settle()
    bench.enable()
    again = bench.create_pair(entries=8)
    bench.settle()
    assert (again.cq.reap(), bench.admin_cq.reap()) == ([], [])


def test_enable_right_after_disable_still_resets_first() -> None:
    bench = Bench()
    bench.enable()
    bench.create_pair()
    bench.write_cc(en=0)
    bench.write_cc(en=1)
    bench.step("rdy")
    assert bench.csts.rdy == 0
    bench.step("rdy")
    assert (bench.csts.rdy, bench.csts.cfs, list(bench.controller.sqs)) == (1, 0, [0])


def test_disable_before_ready_was_seen_leaves_a_controller_that_can_be_enabled() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1)
    bench.write_cc(en=0)
    bench.settle()
    assert bench.csts.rdy == 0
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


def test_admin_queue_registers_survive_a_controller_reset() -> None:
    bench = Bench()
    bench.enable()
    before = [bench.read(AQA), bench.read(ASQ, 8), bench.read(ACQ, 8)]
    bench.write_cc(en=0)
    bench.settle()
    assert [bench.read(AQA), bench.read(ASQ, 8), bench.read(ACQ, 8)] == before


def test_interrupt_masks_are_reset_by_a_controller_reset() -> None:
    bench = Bench()
    bench.enable()
    bench.write(INTMS, 0xFF)
    bench.write_cc(en=0)
    bench.settle()
    assert (bench.read(INTMS), bench.register("intmc")) == (0, 0)


def test_queues_begin_again_at_zero_with_phase_one_after_a_reset() -> None:
    bench = Bench()
    bench.enable(4, 4)
    for _ in range(5):
        bench.execute(GetFeatures(fid=1))
    bench.write_cc(en=0)
    bench.settle()
    bench.enable(4, 4)
    done = bench.execute(GetFeatures(fid=1))
    assert (bench.admin_cq.head, done.phase, done.sqhd) == (1, 1, 1)


def test_feature_has_its_default_again_after_a_reset() -> None:
    bench = Bench()
    bench.enable()
    bench.execute(SetFeatures(fid=Feature.INTERRUPT_COALESCING, value=0x0214))
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    assert bench.execute(GetFeatures(fid=Feature.INTERRUPT_COALESCING)).dw0 == 0


def test_parked_event_requests_vanish_without_completion_at_a_reset() -> None:
    bench = Bench()
    bench.enable()
    bench.admin.submit(AsyncEventRequest(cid=1), AsyncEventRequest(cid=2))
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    bench.write(0x1008, 1)  # no such queue: an event, and nobody left to tell
    bench.settle()
    assert bench.admin_cq.reap() == []


def test_event_that_waits_is_dropped_by_a_reset() -> None:
    bench = Bench()
    bench.enable()
    bench.write(0x1008, 1)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    bench.admin.submit(AsyncEventRequest(cid=1))
    bench.settle()
    assert bench.admin_cq.reap() == []


def test_doorbell_written_while_ready_falls_is_no_event_after_the_reset() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    bench.write_cc(en=0)
    pair.ring(1)
    bench.settle()
    bench.enable()
    bench.admin.submit(AsyncEventRequest(cid=1))
    bench.settle()
    assert bench.admin_cq.reap() == []


def test_doorbells_are_ignored_while_disabled() -> None:
    bench = Bench()
    bench.prepare()
    bench.admin.submit(GetFeatures(fid=1))
    bench.write_cc(en=1)
    bench.settle()
    assert (bench.admin_cq.reap(), bench.csts.rdy, bench.csts.cfs) == ([], 1, 0)


def test_completed_writes_survive_a_reset() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    data = bench.allocate(PAGE)
    bench.memory.write(data, b"kept" * 128)
    assert bench.execute(Write(nsid=1, prp1=data), pair).status == 0
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    back = bench.allocate(PAGE)
    assert bench.execute(Read(nsid=1, prp1=back), bench.create_pair()).status == 0
    assert bench.memory.read(back, 512) == b"kept" * 128


def test_life_cycle_is_traced() -> None:
    bench = Bench()
    bench.prepare()
    bench.traced()
    bench.write_cc(en=1)
    bench.settle()
    bench.write_cc(en=1, shn=1)
    bench.write_cc(en=0)
    bench.settle()
    names = [name for name, _ in bench.traced() if name not in ("mmio_write", "mmio_read")]
    assert names[:5] == ["mmio_cfg", "mmio_start_success", "mmio_cfg", "mmio_shutdown_set",
                         "mmio_cfg"]  # fmt: skip
    assert "mmio_stopped" in names


# Shutdown.


@pytest.mark.parametrize("shn", [1, 2])
def test_shutdown_goes_on_and_then_is_complete(shn: int) -> None:
    bench = Bench()
    bench.enable()
    bench.write_cc(en=1, shn=shn)
    assert (bench.csts.shst, bench.enabled()) == (1, [Step("shutdown")])
    bench.step("shutdown")
    assert (bench.csts.shst, bench.csts.rdy, bench.csts.cfs) == (2, 1, 0)


def test_shutdown_makes_everything_durable() -> None:
    disk = Cached(1 << 16)
    bench = Bench(backends=[disk])
    bench.enable()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    assert (bench.csts.shst, disk.flushes) == (2, 1)


def test_shutdown_that_cannot_make_data_durable_is_fatal_and_not_complete() -> None:
    disk = Cached(1 << 16)
    bench = Bench(backends=[disk])
    bench.enable()
    disk.error = OSError(errno.EIO, "gone")
    bench.write_cc(en=1, shn=1)
    bench.settle()
    assert bench.csts.cfs == 1 and bench.csts.shst != 2


def test_shutdown_waits_for_slow_work() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(nsid=1))
    bench.settle()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    assert bench.csts.shst == 1
    worker.release()
    bench.settle()
    assert bench.csts.shst == 1
    worker.release()
    bench.settle()
    assert bench.csts.shst == 2


def test_shutdown_completes_though_a_completion_queue_is_full() -> None:
    bench, pair, worker = slow_bench(entries=2)
    pair.submit(Flush(cid=1, nsid=1))
    bench.settle()
    pair.submit(Flush(cid=2, nsid=1))
    bench.settle()
    worker.release()
    bench.settle()
    bench.write_cc(en=1, shn=1)
    worker.release()
    bench.settle()
    worker.release()
    bench.settle()
    assert bench.csts.shst == 2


@pytest.mark.parametrize("complete", [False, True])
def test_no_command_is_processed_once_shutdown_was_requested(complete: bool) -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    data = bench.allocate(PAGE)
    bench.memory.write(data, b"x" * 512)
    bench.write_cc(en=1, shn=1)
    if complete:
        bench.settle()
    pair.submit(Write(nsid=1, prp1=data))
    bench.settle()
    sector = bytearray(512)
    bench.backends[0].read(0, [memoryview(sector)])
    assert bytes(sector) == bytes(512)
    assert (pair.cq.reap(), bench.csts.shst) == ([], 2)


def test_reset_and_shutdown_in_one_write_both_happen() -> None:
    bench = Bench()
    bench.enable()
    bench.write_cc(en=0, shn=1)
    assert bench.csts.shst == 1
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (0, 2)


def test_shutdown_of_a_disabled_controller_is_complete() -> None:
    bench = Bench()
    bench.write_cc(en=0, shn=1)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (0, 2)


def test_reset_after_a_shutdown_clears_its_status() -> None:
    bench = Bench()
    bench.enable()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (0, 0)
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


def test_one_write_enables_a_controller_that_was_shut_down_while_disabled() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=0, shn=1)
    bench.settle()
    bench.write_cc(en=1, shn=0)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (1, 0)
    assert bench.execute(GetFeatures(fid=1)).status == 0


@pytest.mark.parametrize("complete", [False, True])
def test_ready_does_not_rise_while_a_shutdown_is_reported(complete: bool) -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=0, shn=1)
    if complete:
        bench.settle()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (0, 2)


def test_enable_and_shutdown_in_one_write_end_shut_down_and_not_ready() -> None:
    bench = Bench()
    bench.prepare()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (0, 2)


def test_reset_during_a_shutdown_leaves_a_controller_that_can_be_enabled() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(nsid=1))
    bench.settle()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    bench.write_cc(en=0)
    worker.release()
    bench.settle()
    assert bench.csts.rdy == 0
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


@pytest.mark.parametrize("how", ["controller reset", "pci reset"])
def test_flush_of_a_shutdown_that_fails_after_a_reset_is_not_fatal(how: str) -> None:
    disk, worker = Cached(1 << 16), ManualWorker()
    bench = Bench(backends=[disk], worker=worker)
    bench.enable()
    disk.error = OSError(errno.EIO, "gone")
    bench.write_cc(en=1, shn=1)
    bench.settle()
    if how == "pci reset":
        bench.function.reset()
        bench.bus_master(True)
    else:
        bench.write_cc(en=0)
    worker.release()
    bench.settle()
    assert (bench.csts.rdy, bench.csts.cfs) == (0, 0)
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


def test_flush_of_a_shutdown_delays_the_fall_of_ready() -> None:
    worker = ManualWorker()
    bench = Bench(worker=worker)
    bench.enable()
    bench.write_cc(en=1, shn=1)
    bench.settle()
    bench.write_cc(en=0)
    bench.settle()
    assert bench.csts.rdy == 1
    worker.release()
    bench.settle()
    assert (bench.csts.rdy, bench.csts.shst) == (0, 0)


# PCI reset and function level reset.


@pytest.mark.parametrize("how", ["reset", "flr"])
def test_pci_reset_is_as_power_on(how: str) -> None:
    bench = Bench()
    fresh = [bench.read(at, 8) for at in range(0, 0x40, 8)]
    bench.enable()
    bench.create_pair()
    bench.write(INTMS, 1)
    if how == "reset":
        bench.function.reset()
    else:
        bench.function.config_write(0x88, (1 << 15).to_bytes(2, "little"))
    assert [bench.read(at, 8) for at in range(0, 0x40, 8)] == fresh
    assert (bench.enabled(), bench.run()) == ([], False)
    assert (bench.controller.life.bus_master, bench.controller.msix_enabled) == (False, False)


def test_controller_can_be_enabled_after_a_pci_reset() -> None:
    bench = Bench()
    bench.enable()
    bench.function.reset()
    bench.bus_master(True)
    bench.msix(True)
    bench.enable()
    assert bench.execute(GetFeatures(fid=1)).status == 0


def test_ready_waits_for_slow_work_of_before_a_pci_reset() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(nsid=1))
    bench.settle()
    bench.function.reset()
    bench.bus_master(True)
    bench.prepare()
    bench.write_cc(en=1)
    bench.settle()
    assert bench.csts.rdy == 0
    worker.release()
    bench.settle()
    assert (bench.csts.rdy, bench.admin_cq.reap(), pair.cq.reap()) == (1, [], [])


def test_pci_reset_during_a_shutdown_takes_it_back() -> None:
    bench = Bench()
    bench.enable()
    bench.write_cc(en=1, shn=1)
    bench.function.reset()
    bench.settle()
    assert bench.register("csts") == 0


# Bus mastering.


def test_no_memory_is_touched_while_bus_mastering_is_off() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    bench.bus_master(False)
    before, bench.interrupts[:] = bytes(bench.ram), []
    pair.ring(3)
    bench.settle()
    assert (bytes(bench.ram) == before, bench.interrupts, bench.enabled()) == (True, [], [])


@pytest.mark.parametrize("taken", range(6))
def test_work_goes_on_without_loss_after_bus_mastering_was_off(taken: int) -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    bench.interrupts.clear()
    pair.submit(Flush(cid=1, nsid=1), Flush(cid=2, nsid=1))
    for step in [("fetch", 1), ("execute", 1), ("post", 1), ("interrupt", 1), ("fetch", 1)][:taken]:
        bench.step(*step)
    bench.bus_master(False)
    bench.settle()
    bench.bus_master(True)
    bench.settle()
    assert [done.cid for done in pair.cq.reap()] == [1, 2]
    assert bench.interrupts


def test_doorbells_rung_while_bus_mastering_is_off_count_later() -> None:
    bench = Bench()
    bench.enable()
    pair = bench.create_pair()
    bench.bus_master(False)
    pair.submit(Flush(cid=5, nsid=1))
    bench.bus_master(True)
    bench.settle()
    assert [done.cid for done in pair.cq.reap()] == [5]


def test_slow_work_that_finishes_while_bus_mastering_is_off_is_completed_later() -> None:
    bench, pair, worker = slow_bench()
    pair.submit(Flush(cid=5, nsid=1))
    bench.settle()
    bench.bus_master(False)
    worker.release()
    bench.settle()
    assert pair.cq.reap() == []
    bench.bus_master(True)
    bench.settle()
    assert [done.cid for done in pair.cq.reap()] == [5]


# Interleavings.

WRITES = ["en=1", "en=0", "shn=1", "shn=0", "reset", "bme=0", "bme=1"]


@pytest.mark.parametrize("order", list(itertools.permutations(WRITES, 3)), ids=" ".join)
def test_any_order_of_life_cycle_events_comes_to_rest_and_can_be_enabled(
    order: tuple[str, ...],
) -> None:
    bench = Bench(trace=False, ram=1 << 16)
    bench.enable(2, 2)
    cc = {"en": 1, "shn": 0}
    for event in order:
        name, _, value = event.partition("=")
        if name == "reset":
            bench.function.reset()
            cc = {"en": 0, "shn": 0}
        elif name == "bme":
            bench.bus_master(value == "1")
        else:
            cc[name] = int(value)
            bench.write_cc(**cc)
    bench.settle()
    assert bench.enabled() == []
    bench.bus_master(True)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable(2, 2)
    assert bench.execute(GetFeatures(fid=1)).status == 0


def test_log_page_is_read_after_any_number_of_resets() -> None:
    bench = Bench()
    for _ in range(5):
        bench.enable()
        page = bench.allocate(PAGE)
        done = bench.execute(GetLogPage(lid=LogPage.SMART, numd=128, prp1=page))
        assert done.status == 0
        bench.write_cc(en=0)
        bench.settle()
