"""Enable, identify, queue pairs, shutdown; and what a driver says of a device that hangs."""

from __future__ import annotations

import struct

import pytest

from nvmelab.host.driver import CommandFailed, Driver
from nvmelab.host.queues import DeviceError, Qpair
from nvmelab.spec.admin import Identify
from nvmelab.spec.commands import Completion
from nvmelab.spec.nvm import Flush, Read
from nvmelab.spec.registers import DOORBELLS, OFFSET, Csts
from nvmelab.spec.status import Status
from tests.host.conftest import DISK, DeadLink, Rig, connect

SHAPES = [
    *((entries, entries) for entries in (*range(2, 10), 64)),
    *((2, 9), (3, 64), (5, 8), (9, 2), (64, 3), (8, 5)),
]
"""Entries of the submission and of the completion queue."""


def enabled(**config: int) -> Rig:
    rig = connect(None, **config)
    rig.driver.enable()
    return rig


# Life cycle.


@pytest.mark.parametrize("entries", [2, 3, 32, 4096])
def test_controller_is_ready_after_enable_with_admin_queues_of_any_size(entries: int) -> None:
    rig = connect()
    rig.driver.enable(admin_entries=entries)
    assert rig.controller.life.csts == Csts(rdy=1)
    assert rig.driver.identify_controller().cntrltype == 1


def test_enable_of_an_enabled_controller_starts_it_anew() -> None:
    rig = enabled()
    rig.driver.create_qpair(1, entries=4)
    rig.driver.enable()
    assert (list(rig.controller.sqs), list(rig.controller.cqs)) == ([0], [0])
    assert rig.driver.identify_controller().cntrltype == 1


def test_capabilities_are_read_at_once() -> None:
    assert connect(queue_entries=4).driver.cap.mqes == 4


def test_identify_tells_what_the_controller_is_made_with() -> None:
    driver = enabled(mdts=3).driver
    assert driver.identify_controller().mdts == 3
    assert driver.identify_namespace(1).nsze == DISK // 512


@pytest.mark.parametrize("queues", [1, 5])
def test_number_of_queues_is_a_count(queues: int) -> None:
    assert enabled(io_queues=queues).driver.set_number_of_queues(2) == queues


def test_number_of_queues_asked_for_is_0s_based_for_both_kinds() -> None:
    rig = enabled()
    asked: list[tuple[object, ...]] = []
    rig.controller.trace = lambda name, *values: asked.append((name, *values))
    rig.driver.set_number_of_queues(5)
    assert [event[-1] for event in asked if event[0] == "setfeat"] == [4 << 16 | 4]


def test_shutdown_ends_with_the_controller_shut_down() -> None:
    rig = enabled()
    rig.driver.shutdown()
    assert rig.controller.life.csts.shst == 2


def test_controller_can_be_enabled_after_a_shutdown() -> None:
    rig = enabled()
    rig.driver.shutdown()
    rig.driver.enable()
    assert rig.driver.identify_controller().cntrltype == 1


# Queue pairs.


@pytest.mark.parametrize(("sq_entries", "cq_entries"), SHAPES)
def test_full_queue_pair_of_any_shape_completes_everything_over_several_wraps(
    sq_entries: int, cq_entries: int
) -> None:
    driver = enabled().driver
    qpair = driver.create_qpair(1, entries=sq_entries, cq_entries=cq_entries)
    submitted = 0
    completed: list[int] = []
    wanted = 3 * sq_entries * cq_entries
    while len(completed) < wanted:
        while submitted < wanted and not qpair.full:
            qpair.submit(Flush(cid=submitted, nsid=1))
            submitted += 1
        completed += [done.cid for done in driver.wait(qpair)]
    assert sorted(completed) == list(range(wanted))
    assert qpair.outstanding == 0


def test_queue_pair_can_be_made_again_after_it_was_deleted() -> None:
    driver = enabled().driver
    first = driver.create_qpair(1, entries=4)
    driver.run(first, Flush(nsid=1))
    driver.delete_qpair(first)
    second = driver.create_qpair(1, entries=3)
    assert driver.run(second, Flush(nsid=1)).status == 0


def test_queue_pair_raises_the_vector_of_its_number() -> None:
    driver = enabled().driver
    qpair = driver.create_qpair(3, entries=4)
    driver.run(qpair, Flush(nsid=1))
    assert [driver.link.take_interrupts(vector) for vector in (1, 2, 3)] == [0, 0, 1]


# Commands that fail.


def test_failed_command_says_which_and_why() -> None:
    driver = enabled().driver
    with pytest.raises(CommandFailed, match=r"Identify\(.*nsid=9.*invalid namespace") as caught:
        driver.identify_namespace(9)
    assert caught.value.status == Status.INVALID_NAMESPACE_OR_FORMAT


def test_failed_io_command_raises_its_status() -> None:
    driver = enabled().driver
    qpair = driver.create_qpair(1, entries=4)
    with pytest.raises(CommandFailed) as caught:
        driver.run(qpair, Read(nsid=1, slba=1 << 63))
    assert caught.value.status == Status.LBA_OUT_OF_RANGE


def test_queue_larger_than_mqes_is_refused_by_the_device() -> None:
    driver = enabled(queue_entries=4).driver
    with pytest.raises(CommandFailed) as caught:
        driver.create_qpair(1, entries=5)
    assert caught.value.status == Status.INVALID_QUEUE_SIZE


# Waits that cannot be satisfied.


def test_wait_for_a_device_that_never_gets_ready_says_what_was_missing() -> None:
    link = DeadLink()
    with pytest.raises(DeviceError, match=r"nothing left to do.*CSTS.RDY 1.*rdy=0"):
        Driver(link).enable()
    assert link.turns <= 2


def test_wait_for_a_device_that_never_stops_says_what_was_missing() -> None:
    link = DeadLink()
    link.registers[OFFSET["csts"]] = 1
    with pytest.raises(DeviceError, match=r"CSTS.RDY 0.*rdy=1"):
        Driver(link).enable()


def test_shutdown_that_never_ends_says_what_was_missing() -> None:
    with pytest.raises(DeviceError, match=r"CSTS.SHST 2.*shst=0"):
        Driver(DeadLink()).shutdown()


def test_shutdown_asks_for_a_normal_one_and_leaves_the_rest_of_cc() -> None:
    link = DeadLink()
    link.registers[OFFSET["cc"]] = 0x0046_0001
    with pytest.raises(DeviceError):
        Driver(link).shutdown()
    assert link.written == [(OFFSET["cc"], 0x0046_4001)]


def test_fatal_status_ends_the_wait() -> None:
    with pytest.raises(DeviceError, match=r"CSTS.CFS is set while waiting for CSTS.RDY 1"):
        connect().driver.enable(admin_entries=1)


def test_wait_for_a_lost_completion_says_how_the_rings_stand() -> None:
    rig = enabled()
    qpair = rig.driver.create_qpair(2, entries=4)
    rig.function.config_write(4, b"\x02\x00")  # no bus mastering: nothing is fetched
    with pytest.raises(
        DeviceError, match=r"queue 2: SQ tail 1 of 4, CQ head 0 of 4.*1 outstanding"
    ):
        rig.driver.run(qpair, Flush(nsid=1))


def test_completion_that_comes_with_the_last_turn_is_found() -> None:
    rig = enabled()
    qpair = rig.driver.create_qpair(1, entries=4)
    qpair.submit(Flush(cid=9, nsid=1))
    rig.function.run()
    assert [done.cid for done in rig.driver.wait(qpair)] == [9]


# A queue pair by itself: the device's side is written by hand.


def post(link: DeadLink, qpair: Qpair, slot: int, cid: int, phase: int) -> None:
    entry = Completion(cid=cid, phase=phase).encode()
    link.memory.write(qpair.cq_base + 16 * slot, entry)


@pytest.mark.parametrize("entries", [2, 3, 64])
def test_queue_pair_is_full_with_one_command_less_than_its_entries(entries: int) -> None:
    qpair = Qpair(DeadLink(), 1, entries, entries)
    for cid in range(entries - 1):
        assert not qpair.full
        qpair.submit(Flush(cid=cid))
    assert qpair.full and qpair.outstanding == entries - 1


def test_submission_rings_the_new_tail_after_the_entry_is_written() -> None:
    link = DeadLink()
    qpair = Qpair(link, 2, 3, 3)
    qpair.submit(Flush(cid=5, nsid=1))
    assert link.written == [(DOORBELLS + 16, 1)]
    assert link.memory.read(qpair.sq_base, 8) == struct.pack("<II", 5 << 16, 1)


def test_tail_wraps_to_zero() -> None:
    link = DeadLink()
    qpair = Qpair(link, 1, 2, 4)
    for slot in range(2):
        qpair.submit(Flush(cid=slot))
        post(link, qpair, slot, slot, 1)
        qpair.reap()
    assert [value for offset, value in link.written if offset == DOORBELLS + 8] == [1, 0]


def test_entries_are_released_with_one_write_of_the_head() -> None:
    link = DeadLink()
    qpair = Qpair(link, 1, 8, 8)
    for cid in range(3):
        qpair.submit(Flush(cid=cid))
        post(link, qpair, cid, cid, 1)
    link.written.clear()
    assert [done.cid for done in qpair.reap()] == [0, 1, 2]
    assert link.written == [(DOORBELLS + 12, 3)]


def test_nothing_is_released_when_nothing_was_posted() -> None:
    link = DeadLink()
    assert (Qpair(link, 1, 4, 4).reap(), link.written) == ([], [])


def test_phase_inverts_when_the_ring_wraps() -> None:
    link = DeadLink()
    qpair = Qpair(link, 1, 4, 2)
    for turn, phase in enumerate((1, 1, 0, 0, 1)):
        qpair.submit(Flush(cid=turn))
        assert qpair.reap() == [], "the entry there is of the round before"
        post(link, qpair, turn % 2, turn, phase)
        assert [done.cid for done in qpair.reap()] == [turn]


def test_completion_of_a_cid_that_is_not_in_use_is_the_devices_error() -> None:
    link = DeadLink()
    qpair = Qpair(link, 7, 4, 4)
    qpair.submit(Flush(cid=1))
    post(link, qpair, 0, 2, 1)
    with pytest.raises(DeviceError, match="queue 7: completion of CID 2, not in use"):
        qpair.reap()


def test_second_completion_of_a_command_is_the_devices_error() -> None:
    link = DeadLink()
    qpair = Qpair(link, 1, 4, 4)
    qpair.submit(Flush(cid=1))
    post(link, qpair, 0, 1, 1)
    post(link, qpair, 1, 1, 1)
    with pytest.raises(DeviceError, match="CID 1, not in use"):
        qpair.reap()


def test_submission_to_a_full_queue_is_our_own_mistake() -> None:
    qpair = Qpair(DeadLink(), 1, 2, 2)
    qpair.submit(Flush(cid=1))
    with pytest.raises(AssertionError):
        qpair.submit(Flush(cid=2))


def test_cid_that_is_in_use_is_our_own_mistake() -> None:
    qpair = Qpair(DeadLink(), 1, 4, 4)
    qpair.submit(Flush(cid=1))
    with pytest.raises(AssertionError):
        qpair.submit(Identify(cid=1))
