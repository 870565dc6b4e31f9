"""Get Features and Set Features. Base 2.2, 4.4, 5.1.11 and 5.1.25."""

from __future__ import annotations

import pytest

from nvmelab.device.namespaces import Namespace
from nvmelab.spec.admin import (
    AsyncEventRequest,
    CreateIoCq,
    DeleteIoCq,
    GetFeatures,
    GetLogPage,
    SetFeatures,
)
from nvmelab.spec.features import Feature, Select
from nvmelab.spec.logpages import LogPage, Smart
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import Bench
from tests.device.disks import Disk

SUPPORTED = {1, 2, 4, 5, 6, 7, 8, 9, 0xA, 0xB}
OF_THE_CONTROLLER = sorted(SUPPORTED - {Feature.ERROR_RECOVERY})
INVALID_FIELD = Status.INVALID_FIELD_IN_COMMAND | DNR


def enabled(*, io_queues: int = 64) -> Bench:
    bench = Bench(backends=[Disk()], io_queues=io_queues)
    bench.enable()
    return bench


def get(bench: Bench, fid: int, **fields: int) -> int:
    done = bench.execute(GetFeatures(fid=fid, **fields))
    assert done.status == Status.SUCCESS
    return done.dw0


def put(bench: Bench, fid: int, value: int, **fields: int) -> int:
    """The status field."""
    return bench.execute(SetFeatures(fid=fid, value=value, **fields)).status


def get_status(bench: Bench, fid: int, **fields: int) -> int:
    return bench.execute(GetFeatures(fid=fid, **fields)).status


# All features.


def test_features_that_are_not_supported_are_invalid_fields() -> None:
    bench = enabled()
    unknown = [fid for fid in range(256) if fid not in SUPPORTED]
    assert {get_status(bench, fid) for fid in unknown} == {INVALID_FIELD}
    assert {put(bench, fid, 0) for fid in unknown} == {INVALID_FIELD}


@pytest.mark.parametrize(
    ("fid", "value"),
    [
        (Feature.ARBITRATION, 0x0102_0303),
        (Feature.INTERRUPT_COALESCING, 0x1234),
        (Feature.WRITE_ATOMICITY_NORMAL, 1),
        (Feature.ASYNC_EVENT_CONFIGURATION, 0x31F),
        (Feature.VOLATILE_WRITE_CACHE, 0),
        (Feature.TEMPERATURE_THRESHOLD, 300),
    ],
)
def test_value_that_was_set_is_returned_and_its_default_stays(fid: int, value: int) -> None:
    bench = enabled()
    default = get(bench, fid)
    assert put(bench, fid, value) == Status.SUCCESS
    assert get(bench, fid) == value != default
    assert get(bench, fid, sel=Select.DEFAULT) == default


@pytest.mark.parametrize(
    ("fid", "default", "value", "kept"),
    [
        (Feature.ARBITRATION, 7, 0xFFFF_FFFF, 0xFFFF_FF07),
        (Feature.POWER_MANAGEMENT, 0, 0xFFFF_FFE0, 0xE0),
        (Feature.INTERRUPT_COALESCING, 0, 0xFFFF_FFFF, 0xFFFF),
        (Feature.WRITE_ATOMICITY_NORMAL, 0, 0xFFFF_FFFF, 1),
        (Feature.VOLATILE_WRITE_CACHE, 1, 0xFFFF_FFFE, 0),
    ],
)
def test_default_is_as_stated_and_reserved_bits_are_not_kept(
    fid: int, default: int, value: int, kept: int
) -> None:
    bench = enabled()
    assert get(bench, fid) == default
    put(bench, fid, value)
    assert get(bench, fid) == kept


@pytest.mark.parametrize("fid", OF_THE_CONTROLLER)
def test_saved_value_is_the_default_where_nothing_can_be_saved(fid: int) -> None:
    bench = enabled()
    assert get(bench, fid, sel=Select.SAVED) == get(bench, fid, sel=Select.DEFAULT)


@pytest.mark.parametrize("fid", sorted(SUPPORTED))
def test_capabilities_are_changeable_and_for_error_recovery_of_a_namespace(fid: int) -> None:
    of_a_namespace = 0b010 * (fid == Feature.ERROR_RECOVERY)
    assert get(enabled(), fid, sel=Select.SUPPORTED_CAPABILITIES, nsid=1) == 0b100 | of_a_namespace


@pytest.mark.parametrize("sel", [4, 5, 6, 7])
def test_reserved_select_is_an_invalid_field(sel: int) -> None:
    assert get_status(enabled(), Feature.ARBITRATION, sel=sel) == INVALID_FIELD


@pytest.mark.parametrize("fid", sorted(SUPPORTED))
def test_saving_is_refused(fid: int) -> None:
    wanted = Status.FEATURE_IDENTIFIER_NOT_SAVEABLE | DNR
    assert put(enabled(), fid, 0, sv=1, nsid=0) == wanted


@pytest.mark.parametrize("fid", OF_THE_CONTROLLER)
def test_set_for_one_namespace_is_refused_where_the_feature_is_the_controllers(fid: int) -> None:
    wanted = Status.FEATURE_NOT_NAMESPACE_SPECIFIC | DNR
    assert put(enabled(), fid, 0, nsid=1) == wanted


@pytest.mark.parametrize("fid", OF_THE_CONTROLLER)
def test_get_for_one_namespace_returns_the_controllers_value(fid: int) -> None:
    bench = enabled()
    assert get(bench, fid, nsid=1) == get(bench, fid)


def test_set_for_all_namespaces_is_taken_where_the_feature_is_the_controllers() -> None:
    bench = enabled()
    assert put(bench, Feature.INTERRUPT_COALESCING, 5, nsid=0xFFFF_FFFF) == Status.SUCCESS
    assert get(bench, Feature.INTERRUPT_COALESCING) == 5


def test_reset_brings_defaults_back() -> None:
    bench = enabled()
    put(bench, Feature.INTERRUPT_COALESCING, 5)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    assert get(bench, Feature.INTERRUPT_COALESCING) == 0


# Power, temperature, cache, error recovery.


def test_power_state_0_is_taken() -> None:
    bench = enabled()
    assert put(bench, Feature.POWER_MANAGEMENT, 0x20) == Status.SUCCESS
    assert get(bench, Feature.POWER_MANAGEMENT) == 0x20


@pytest.mark.parametrize("state", [1, 31])
def test_power_state_that_does_not_exist_is_an_invalid_field(state: int) -> None:
    assert put(enabled(), Feature.POWER_MANAGEMENT, state) == INVALID_FIELD


@pytest.mark.parametrize(("select", "wanted"), [(0x00, 343), (0x10, 0), (0x01, 0xFFFF), (0x18, 0)])
def test_default_threshold_of_each_sensor_and_kind(select: int, wanted: int) -> None:
    assert get(enabled(), Feature.TEMPERATURE_THRESHOLD, cdw11=select << 16) == wanted


def test_thresholds_over_and_under_are_separate() -> None:
    bench = enabled()
    put(bench, Feature.TEMPERATURE_THRESHOLD, 350)
    put(bench, Feature.TEMPERATURE_THRESHOLD, 1 << 20 | 280)
    assert get(bench, Feature.TEMPERATURE_THRESHOLD) == 350
    assert get(bench, Feature.TEMPERATURE_THRESHOLD, cdw11=1 << 20) == 280


@pytest.mark.parametrize("select", [0x09, 0x0E, 0x20, 0x30])
def test_threshold_of_a_reserved_sensor_or_kind_is_an_invalid_field(select: int) -> None:
    bench = enabled()
    assert put(bench, Feature.TEMPERATURE_THRESHOLD, select << 16 | 300) == INVALID_FIELD
    assert get_status(bench, Feature.TEMPERATURE_THRESHOLD, cdw11=select << 16) == INVALID_FIELD


@pytest.mark.parametrize("kind", [0, 1])
def test_threshold_of_all_sensors_can_be_set(kind: int) -> None:
    value = kind << 20 | 0xF << 16 | 300
    assert put(enabled(), Feature.TEMPERATURE_THRESHOLD, value) == Status.SUCCESS


def test_threshold_of_all_sensors_of_a_reserved_kind_is_an_invalid_field() -> None:
    assert put(enabled(), Feature.TEMPERATURE_THRESHOLD, 0x2F << 16 | 300) == INVALID_FIELD


def test_threshold_of_all_sensors_cannot_be_read() -> None:
    bench = enabled()
    assert get_status(bench, Feature.TEMPERATURE_THRESHOLD, cdw11=0xF << 16) == INVALID_FIELD


@pytest.mark.parametrize("write_cache", [False, True])
def test_write_cache_is_on_where_the_disk_has_one(write_cache: bool) -> None:
    bench = Bench(backends=[Disk(write_cache=write_cache)])
    bench.enable()
    assert get(bench, Feature.VOLATILE_WRITE_CACHE) == int(write_cache)


@pytest.mark.parametrize(
    ("nsid", "wanted"),
    [
        (0, Status.INVALID_NAMESPACE_OR_FORMAT),
        (2, Status.INVALID_FIELD_IN_COMMAND),
        (4, Status.INVALID_NAMESPACE_OR_FORMAT),
    ],
)
def test_error_recovery_of_no_active_namespace_is_refused(nsid: int, wanted: Status) -> None:
    bench = enabled()
    bench.controller.namespaces[3] = Namespace(3, Disk(), "test")
    assert get_status(bench, Feature.ERROR_RECOVERY, nsid=nsid) == wanted | DNR
    assert put(bench, Feature.ERROR_RECOVERY, 1, nsid=nsid) == wanted | DNR


def test_error_recovery_of_all_namespaces_cannot_be_read() -> None:
    wanted = Status.INVALID_NAMESPACE_OR_FORMAT | DNR
    assert get_status(enabled(), Feature.ERROR_RECOVERY, nsid=0xFFFF_FFFF) == wanted


def test_error_recovery_is_kept_for_each_namespace() -> None:
    bench = enabled()
    bench.controller.namespaces[2] = Namespace(2, Disk(), "test")
    put(bench, Feature.ERROR_RECOVERY, 7, nsid=1)
    assert [get(bench, Feature.ERROR_RECOVERY, nsid=nsid) for nsid in (1, 2)] == [7, 0]


def test_error_recovery_can_be_set_for_all_namespaces() -> None:
    bench = enabled()
    bench.controller.namespaces[2] = Namespace(2, Disk(), "test")
    put(bench, Feature.ERROR_RECOVERY, 7, nsid=0xFFFF_FFFF)
    assert [get(bench, Feature.ERROR_RECOVERY, nsid=nsid) for nsid in (1, 2)] == [7, 7]


# Queues and vectors.


@pytest.mark.parametrize("queues", [1, 2, 64, 65535])
def test_number_of_queues_granted_is_0s_based_in_both_halves(queues: int) -> None:
    bench = enabled(io_queues=queues)
    wanted = (queues - 1) << 16 | (queues - 1)
    assert bench.execute(SetFeatures(fid=Feature.NUMBER_OF_QUEUES, value=0)).dw0 == wanted
    assert get(bench, Feature.NUMBER_OF_QUEUES) == wanted


@pytest.mark.parametrize("value", [0xFFFF, 0xFFFF_0000, 0xFFFF_FFFF])
def test_request_for_65536_queues_is_an_invalid_field(value: int) -> None:
    assert put(enabled(), Feature.NUMBER_OF_QUEUES, value) == INVALID_FIELD


def test_number_of_queues_after_a_queue_was_created_is_a_sequence_error() -> None:
    bench = enabled()
    bench.create_cq(1, entries=4)
    assert put(bench, Feature.NUMBER_OF_QUEUES, 0) == Status.COMMAND_SEQUENCE_ERROR | DNR


def test_number_of_queues_is_a_sequence_error_even_if_the_queue_is_gone_again() -> None:
    bench = enabled()
    bench.create_cq(1, entries=4)
    bench.execute(DeleteIoCq(qid=1))
    assert put(bench, Feature.NUMBER_OF_QUEUES, 0) == Status.COMMAND_SEQUENCE_ERROR | DNR


def test_number_of_queues_after_a_refused_creation_is_taken() -> None:
    bench = enabled()
    assert bench.execute(CreateIoCq(qid=0, qsize=4)).status
    assert put(bench, Feature.NUMBER_OF_QUEUES, 0) == Status.SUCCESS


def test_number_of_queues_can_be_set_again_after_a_reset() -> None:
    bench = enabled()
    bench.create_cq(1, entries=4)
    bench.write_cc(en=0)
    bench.settle()
    bench.enable()
    assert put(bench, Feature.NUMBER_OF_QUEUES, 0) == Status.SUCCESS


def test_vector_configuration_is_kept_for_each_vector() -> None:
    bench = enabled()
    bench.create_cq(1, entries=4, iv=5)
    bench.create_cq(2, entries=4, iv=6)
    assert put(bench, Feature.INTERRUPT_VECTOR_CONFIGURATION, 1 << 16 | 5) == Status.SUCCESS
    values = [get(bench, Feature.INTERRUPT_VECTOR_CONFIGURATION, cdw11=vector) for vector in (5, 6)]
    assert values == [1 << 16 | 5, 6]


@pytest.mark.parametrize("vector", [7, 65, 0xFFFF])
def test_vector_of_no_queue_is_an_invalid_field(vector: int) -> None:
    bench = enabled()
    bench.create_cq(1, entries=4, iv=5)
    assert put(bench, Feature.INTERRUPT_VECTOR_CONFIGURATION, vector) == INVALID_FIELD
    found = get_status(bench, Feature.INTERRUPT_VECTOR_CONFIGURATION, cdw11=vector)
    assert found == INVALID_FIELD


@pytest.mark.parametrize(("threshold", "warning"), [(324, 0), (323, 2), (300, 2)])
def test_threshold_at_or_below_the_temperature_is_a_critical_warning(
    threshold: int, warning: int
) -> None:
    bench = enabled()
    put(bench, Feature.TEMPERATURE_THRESHOLD, threshold)

    page = bench.allocate(4096)
    bench.execute(GetLogPage(lid=LogPage.SMART, numd=128, prp1=page))

    assert Smart.decode(bench.memory.read(page, 512)).critical_warning == warning


def test_host_that_asked_for_it_is_told_of_the_temperature() -> None:
    bench = enabled()
    bench.admin.submit(AsyncEventRequest(cid=9))
    put(bench, Feature.ASYNC_EVENT_CONFIGURATION, 1 << 1)

    bench.admin.submit(SetFeatures(cid=8, fid=Feature.TEMPERATURE_THRESHOLD, value=300))
    bench.settle()

    (event,) = [done for done in bench.admin_cq.reap() if done.cid == 9]
    assert event.dw0 == 0x02_01_01  # SMART log page, temperature threshold, SMART event
