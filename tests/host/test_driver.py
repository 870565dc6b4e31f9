"""Enable, identify, queues, shutdown; and what a driver says of a device that hangs."""

from __future__ import annotations

from typing import Any

import pytest

from nvmelab.host.driver import Controller as Driver
from nvmelab.host.errors import CommandFailed, DeviceError, NotOffered, Stuck
from nvmelab.spec.features import Feature
from nvmelab.spec.nvm import Read
from nvmelab.spec.registers import OFFSET, Csts
from nvmelab.spec.status import Status
from tests.host.conftest import DISK, DeadLink, Rig, connect

SHAPES = [
    *((entries, entries) for entries in (*range(2, 10), 64)),
    *((2, 9), (3, 64), (5, 8), (9, 2), (64, 3), (8, 5)),
]
"""Entries of the submission and of the completion queue."""


def started(**config: Any) -> Rig:
    rig = connect(**config)
    rig.driver.start()
    return rig


# Life cycle.


@pytest.mark.parametrize("entries", [2, 3, 32, 4096])
def test_controller_is_ready_after_enable_with_admin_queues_of_any_size(entries: int) -> None:
    rig = connect()
    rig.driver.enable(sq_entries=entries, cq_entries=entries)
    assert rig.controller.life.csts == Csts(rdy=1)
    assert rig.driver.identify().cntrltype == 1


def test_enable_of_an_enabled_controller_starts_it_anew() -> None:
    rig = started()
    rig.driver.create_qpair(entries=4)
    rig.driver.enable()
    assert (list(rig.controller.sqs), list(rig.controller.cqs)) == ([0], [0])
    assert (rig.driver.sqs, rig.driver.cqs) == ({}, {})
    assert rig.driver.identify().cntrltype == 1


def test_memory_is_given_back_at_a_reset() -> None:
    rig = connect()
    for _ in range(40):
        rig.driver.enable()
        rig.driver.buffer(1 << 20)


def test_capabilities_are_read_at_once() -> None:
    assert connect(queue_entries=4).driver.cap.mqes == 4


def test_registers_are_reached_by_name_and_by_offset() -> None:
    driver = connect().driver
    driver["aqa"] = 0x0003_0001
    assert driver["aqa"] == driver[0x24] == 0x0003_0001
    driver[0x28] = 0x4000
    assert driver["asq"] == 0x4000
    assert driver["cap"] >> 32 == driver[4]


def test_identify_tells_what_the_controller_is_made_with() -> None:
    driver = started(mdts=3).driver
    assert driver.identify().mdts == 3
    assert driver.identify_namespace(1).nsze == DISK // 512
    assert driver.active_namespaces() == [1]


def test_namespace_knows_its_blocks() -> None:
    namespace = started().driver.namespace(1)
    assert (namespace.block, namespace.blocks) == (512, DISK // 512)


def test_namespace_reads_and_writes_in_its_own_blocks() -> None:
    driver = started().driver
    namespace, qpair = driver.namespace(1), driver.create_qpair(entries=4)
    namespace.write(qpair, 5, b"z" * 1024).check()
    assert namespace.read(qpair, 6).data() == b"z" * 512


@pytest.mark.parametrize("queues", [1, 5])
def test_number_of_queues_is_a_count(queues: int) -> None:
    rig = connect(io_queues=queues)
    rig.driver.enable()
    assert rig.driver.set_number_of_queues(2) == queues


def test_number_of_queues_asked_for_is_0s_based_for_both_kinds() -> None:
    rig = connect()
    rig.driver.enable()
    asked: list[tuple[object, ...]] = []
    rig.controller.trace = lambda name, *values: asked.append((name, *values))
    rig.driver.set_number_of_queues(5)
    assert [event[-1] for event in asked if event[0] == "setfeat"] == [4 << 16 | 4]


def test_features_are_read_and_written() -> None:
    driver = started().driver
    driver.set_feature(Feature.TEMPERATURE_THRESHOLD, 400)
    assert driver.get_feature(Feature.TEMPERATURE_THRESHOLD) == 400


@pytest.mark.parametrize(("abrupt", "shn"), [(False, 1), (True, 2)])
def test_shutdown_ends_with_the_controller_shut_down(abrupt: bool, shn: int) -> None:
    rig = started()
    rig.driver.shutdown(abrupt=abrupt)
    assert (rig.controller.life.csts.shst, rig.controller.life.cc.shn) == (2, shn)


def test_controller_can_be_enabled_after_a_shutdown() -> None:
    rig = started()
    rig.driver.shutdown()
    rig.driver.start()
    assert rig.driver.identify().cntrltype == 1


# Queues.


@pytest.mark.parametrize("interrupts", [False, True])
@pytest.mark.parametrize("flow", ["inflight", "sqhd"])
@pytest.mark.parametrize(("sq_entries", "cq_entries"), SHAPES)
def test_queue_pair_of_any_shape_completes_everything_over_several_wraps(
    sq_entries: int, cq_entries: int, flow: str, interrupts: bool
) -> None:
    driver = started().driver
    qpair = driver.create_qpair(
        entries=sq_entries,
        cq_entries=cq_entries,
        flow=flow,  # type: ignore[arg-type]
        interrupts=interrupts,
    )
    pending = [qpair.flush() for _ in range(3 * sq_entries * cq_entries)]
    qpair.wait_all()
    assert all(command.ok for command in pending)
    assert qpair.outstanding == 0


def test_several_submission_queues_share_a_completion_queue() -> None:
    driver = started().driver
    cq = driver.create_cq(entries=3)
    qpairs = [driver.create_sq(entries=entries, cq=cq) for entries in (2, 5, 9)]
    pending = [qpair.flush() for _ in range(40) for qpair in qpairs]
    assert all(command.wait().ok for command in pending)


def test_queue_pair_can_be_made_again_after_it_was_deleted() -> None:
    driver = started().driver
    first = driver.create_qpair(entries=4)
    first.flush().check()
    driver.delete_qpair(first)
    second = driver.create_qpair(entries=3)
    assert second.qid == first.qid
    second.flush().check()


def test_data_written_is_data_read() -> None:
    qpair = started().driver.create_qpair(entries=4)
    qpair.write(slba=3, data=b"ab" * 1024).check()
    assert qpair.read(slba=3, nlb=4).data() == b"ab" * 1024


def test_write_zeroes_clears_blocks() -> None:
    qpair = started().driver.create_qpair(entries=4)
    qpair.write(slba=0, data=b"x" * 1024).check()
    qpair.write_zeroes(slba=1).check()
    assert qpair.read(slba=0, nlb=2).data() == b"x" * 512 + bytes(512)


def test_abort_of_a_command_that_is_gone_says_that_it_was_not_aborted() -> None:
    driver = started().driver
    done = driver.create_qpair(entries=4).flush().wait()
    assert driver.abort(done).check().dw0 & 1


def test_queue_pair_with_interrupts_is_looked_at_only_after_its_vector() -> None:
    rig = started()
    qpair = rig.driver.create_qpair(entries=4, interrupts=True)
    rig.function.interrupt = lambda vector: None  # the platform loses them
    with pytest.raises(Stuck, match=r"an entry is there and vector 1 was not raised"):
        qpair.flush().wait()


@pytest.mark.parametrize("policy", [{"flow": "sqh"}, {"release": "helt"}])
def test_misspelt_policy_is_refused(policy: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give one of '"):
        started().driver.create_qpair(entries=4, **policy)


def test_data_that_is_no_whole_block_is_refused() -> None:
    qpair = started().driver.create_qpair(entries=4)
    with pytest.raises(ValueError, match="3 bytes of data are not a multiple of 512"):
        qpair.write(slba=0, data=b"abc")


def test_register_that_does_not_exist_is_an_error_that_lists_them() -> None:
    with pytest.raises(KeyError, match="no register 'foo'; there are cap, vs, "):
        started().driver["foo"]


# Commands that fail.


def test_failed_command_says_which_and_why() -> None:
    driver = started().driver
    with pytest.raises(CommandFailed, match=r"Identify\(.*nsid=9.*invalid namespace") as caught:
        driver.identify_namespace(9)
    assert caught.value.status == Status.INVALID_NAMESPACE_OR_FORMAT


def test_failed_io_command_raises_its_status_when_it_is_checked() -> None:
    pending = started().driver.create_qpair(entries=4).submit(Read(nsid=1, slba=1 << 63))
    assert pending.wait().ok is False
    with pytest.raises(CommandFailed) as caught:
        pending.check()
    assert caught.value.status == pending.status == Status.LBA_OUT_OF_RANGE


def test_entry_of_any_bits_can_be_submitted() -> None:
    pending = started().driver.create_qpair(entries=4).submit(b"\xd5" * 64)
    assert pending.wait().status == Status.INVALID_COMMAND_OPCODE
    assert "opcode 0xd5" in repr(pending)


def test_queue_that_the_device_need_not_have_is_not_asked_for() -> None:
    driver = started(queue_entries=4, io_queues=2).driver
    with pytest.raises(NotOffered, match=r"a queue of 5 entries: CAP\.MQES allows 4"):
        driver.create_qpair(entries=5)
    with pytest.raises(NotOffered, match="an I/O queue 3: the controller has 2"):
        driver.create_cq(entries=4, qid=3)


def test_interrupts_of_a_function_without_vectors_are_not_offered() -> None:
    driver = started().driver
    driver.link.vectors = 0
    with pytest.raises(NotOffered, match="no MSI-X vectors"):
        driver.create_qpair(entries=4, interrupts=True)


# Waits that cannot be satisfied.


def test_wait_for_a_device_that_never_gets_ready_says_what_was_missing() -> None:
    link = DeadLink()
    with pytest.raises(Stuck, match=r"CSTS.RDY 1 never came: dead device is at rest.*rdy=0"):
        Driver(link).enable()
    assert link.waits == 2


def test_wait_for_a_device_that_never_stops_says_what_was_missing() -> None:
    link = DeadLink()
    link.registers[OFFSET["csts"]] = 1
    with pytest.raises(Stuck, match=r"CSTS.RDY 0 never came.*rdy=1"):
        Driver(link).enable()


def test_shutdown_that_never_ends_says_what_was_missing() -> None:
    with pytest.raises(Stuck, match=r"CSTS.SHST 2.*shst=0"):
        Driver(DeadLink()).shutdown()


def test_shutdown_leaves_the_rest_of_cc() -> None:
    link = DeadLink()
    link.registers[OFFSET["cc"]] = 0x0046_0001
    with pytest.raises(Stuck):
        Driver(link).shutdown()
    assert link.written == [(OFFSET["cc"], 0x0046_4001)]


def test_device_that_reads_as_all_ones_is_gone() -> None:
    link = DeadLink()
    link.registers[OFFSET["csts"]] = 0xFFFF_FFFF
    with pytest.raises(DeviceError, match="all ones"):
        Driver(link).enable()


def test_fatal_status_ends_the_wait() -> None:
    with pytest.raises(DeviceError, match=r"CSTS.CFS is set while waiting for CSTS.RDY 1"):
        connect().driver.enable(sq_entries=1)


def test_wait_for_a_lost_completion_says_how_the_rings_stand() -> None:
    rig = started()
    qpair = rig.driver.create_qpair(entries=4)
    rig.function.config_write(4, b"\x02\x00")  # no bus mastering: nothing is fetched
    with pytest.raises(
        Stuck,
        match=r"Flush CID 0x0 never came.*CQ 1 \(4 entries\): head 0.*SQ 1 \(4 entries\): tail 1, "
        r"tail doorbell 1, last SQHD 0, 1 outstanding",
    ):
        qpair.flush().wait()


def test_wait_for_room_that_never_comes_says_so() -> None:
    rig = started()
    qpair = rig.driver.create_qpair(entries=2)
    rig.function.config_write(4, b"\x02\x00")
    qpair.flush()
    with pytest.raises(Stuck, match="room in SQ 1 never came"):
        qpair.flush()
