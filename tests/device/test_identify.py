"""Identify. Base 2.2, 5.1.13; NVM Command Set 1.2, 4.1.5."""

from __future__ import annotations

import struct
import uuid

import pytest

from nvmelab.device.namespaces import Namespace
from nvmelab.spec.admin import Identify
from nvmelab.spec.identify import (
    Cns,
    IdentifyController,
    IdentifyControllerNvm,
    IdentifyNamespace,
    IdentifyNamespaceIndependent,
)
from nvmelab.spec.status import DNR, Status
from tests.device.conftest import NO_RAM, PAGE, Bench
from tests.device.disks import Disk

OF_A_NAMESPACE = [Cns.NAMESPACE, Cns.NAMESPACE_CSI, Cns.NAMESPACE_INDEPENDENT]
NSID_LISTS = [Cns.ACTIVE_NAMESPACES, Cns.ACTIVE_NAMESPACES_CSI]
WITH_A_COMMAND_SET = [Cns.NAMESPACE_CSI, Cns.CONTROLLER_CSI, Cns.ACTIVE_NAMESPACES_CSI]


def enabled(bench: Bench | None = None) -> Bench:
    bench = bench or Bench()
    bench.enable()
    return bench


def with_namespaces(*nsids: int) -> Bench:
    """Namespaces 1 and those."""
    bench = enabled()
    for nsid in nsids:
        bench.controller.namespaces[nsid] = Namespace(nsid, Disk(), "test")
    return bench


def identify(bench: Bench, cns: int, nsid: int = 0, **fields: int) -> bytes:
    """The 4,096 bytes of the answer."""
    buffer = bench.allocate(PAGE)
    bench.memory.write(buffer, b"\xee" * PAGE)
    done = bench.execute(Identify(cns=cns, nsid=nsid, prp1=buffer, **fields))
    assert done.status == Status.SUCCESS
    return bench.memory.read(buffer, PAGE)


def refusal(bench: Bench, cns: int, nsid: int = 0, **fields: int) -> int:
    """The status field of a refused command, which has written nothing."""
    buffer = bench.allocate(PAGE)
    done = bench.execute(Identify(cns=cns, nsid=nsid, prp1=buffer, **fields))
    assert bench.memory.read(buffer, PAGE) == bytes(PAGE)
    return done.status


# The controller.


def test_strings_are_ascii_padded_with_spaces() -> None:
    data = identify(enabled(Bench(serial="S1", model="M", firmware="0.1")), Cns.CONTROLLER)
    assert data[4:24] == b"S1".ljust(20)
    assert data[24:64] == b"M".ljust(40)
    assert data[64:72] == b"0.1".ljust(8)


def test_serial_number_of_20_characters_fills_its_field() -> None:
    assert identify(enabled(Bench(serial="0123456789abcdefghij")), Cns.CONTROLLER)[4:24] == (
        b"0123456789abcdefghij"
    )


def test_vendors_are_those_of_configuration_space() -> None:
    bench = enabled(Bench(pci_vendor=0x1234, pci_subsystem_vendor=0x5678))
    data = identify(bench, Cns.CONTROLLER)
    assert data[0:2] == bench.function.config_read(0, 2) == b"\x34\x12"
    assert data[2:4] == bench.function.config_read(0x2C, 2) == b"\x78\x56"


def test_version_is_that_of_the_register() -> None:
    bench = enabled()
    assert struct.unpack_from("<I", identify(bench, Cns.CONTROLLER), 80) == (bench.register("vs"),)


@pytest.mark.parametrize("mdts", [0, 1, 7])
def test_mdts_is_what_is_configured(mdts: int) -> None:
    assert identify(enabled(Bench(mdts=mdts)), Cns.CONTROLLER)[77] == mdts


def test_controller_is_an_io_controller_with_the_standard_entry_sizes() -> None:
    data = identify(enabled(), Cns.CONTROLLER)
    assert data[111] == 1
    assert (data[512], data[513]) == (0x66, 0x44)


def test_limits_are_0s_based() -> None:
    data = identify(enabled(), Cns.CONTROLLER)
    assert (data[258], data[259], data[262], data[263]) == (3, 3, 15, 0)


def test_only_implemented_optional_commands_are_announced() -> None:
    data = identify(enabled(), Cns.CONTROLLER)
    assert struct.unpack_from("<H", data, 520) == (0b1_1100,)  # DSM, Write Zeroes, Select
    # OACS: Doorbell Buffer Config; no format, firmware, namespace management, ...
    assert struct.unpack_from("<H", data, 256) == (1 << 8,)
    assert data[522:524] == b"\0\0"  # no fused commands
    assert data[536:540] == bytes(4)  # no SGLs


def test_flush_of_all_namespaces_is_announced_beside_a_write_cache() -> None:
    assert identify(enabled(), Cns.CONTROLLER)[525] == 0b111


def test_temperature_thresholds_are_reported() -> None:
    warning, critical = struct.unpack_from("<HH", identify(enabled(), Cns.CONTROLLER), 266)
    assert 273 < warning < critical


def test_one_power_state_is_described() -> None:
    data = IdentifyController.decode(identify(enabled(), Cns.CONTROLLER))
    assert (data.npss, data.psd0_mp) == (1, 2500)


def test_subsystem_name_is_a_uuid_nqn_ended_by_a_zero() -> None:
    name, _, rest = identify(enabled(), Cns.CONTROLLER)[768:1024].partition(b"\0")
    prefix = b"nqn.2014-08.org.nvmexpress:uuid:"
    assert name.startswith(prefix) and rest.strip(b"\0") == b""
    assert str(uuid.UUID(name[len(prefix) :].decode())).encode() == name[len(prefix) :]


def test_subsystem_names_differ_with_the_serial_number_and_stay_the_same_with_it() -> None:
    names = [identify(enabled(Bench(serial=serial)), Cns.CONTROLLER)[768:1024] for serial in "aab"]
    assert names[0] == names[1] != names[2]


def test_number_of_namespaces_is_the_highest_identifier() -> None:
    data = identify(with_namespaces(7), Cns.CONTROLLER)
    assert struct.unpack_from("<I", data, 516) == (7,)


def test_controller_of_the_nvm_command_set_has_no_limits() -> None:
    data = IdentifyControllerNvm.decode(identify(enabled(), Cns.CONTROLLER_CSI))
    assert (data.wzsl, data.dmrl, data.dmrsl, data.dmsl) == (0, 0, 0, 0)


# A namespace.


@pytest.mark.parametrize(("block", "lbads"), [(512, 9), (4096, 12)])
def test_namespace_has_the_size_of_its_disk(block: int, lbads: int) -> None:
    bench = enabled()
    bench.controller.namespaces[1] = Namespace(1, Disk(1 << 20), "test", block=block)
    data = IdentifyNamespace.decode(identify(bench, Cns.NAMESPACE, 1))
    assert data.nsze == data.ncap == data.nuse == (1 << 20) // block
    assert (data.lbaf0_lbads, data.lbaf0_ms, data.nlbaf, data.flbas) == (lbads, 0, 1, 0)


def test_namespace_of_large_physical_blocks_states_its_preferred_write() -> None:
    bench = enabled()
    bench.controller.namespaces[1] = Namespace(1, Disk(), "test", block=512, physical=4096)
    data = identify(bench, Cns.NAMESPACE, 1)
    assert data[24] & 1 << 4
    assert struct.unpack_from("<4H", data, 64) == (7, 7, 7, 7)  # 8 blocks, 0's based


def test_namespace_whose_blocks_are_the_physical_ones_states_no_preference() -> None:
    data = identify(enabled(), Cns.NAMESPACE, 1)
    assert data[24] == 0
    assert data[64:74] == bytes(10)


@pytest.mark.parametrize("read_only", [False, True])
def test_write_protection_is_reported_in_both_structures(read_only: bool) -> None:
    bench = Bench(backends=[Disk(read_only=read_only)])
    bench.enable()
    assert identify(bench, Cns.NAMESPACE, 1)[99] == int(read_only)
    assert identify(bench, Cns.NAMESPACE_INDEPENDENT, 1)[8] == int(read_only)


def test_active_namespace_is_ready() -> None:
    data = IdentifyNamespaceIndependent.decode(identify(enabled(), Cns.NAMESPACE_INDEPENDENT, 1))
    assert data.nstat == 1


def test_namespace_has_nothing_of_the_command_set_extensions() -> None:
    assert identify(enabled(), Cns.NAMESPACE_CSI, 1) == bytes(PAGE)


@pytest.mark.parametrize("cns", OF_A_NAMESPACE)
def test_inactive_namespace_is_zero_filled(cns: int) -> None:
    assert identify(with_namespaces(3), cns, 2) == bytes(PAGE)


@pytest.mark.parametrize("cns", [*OF_A_NAMESPACE, Cns.NAMESPACE_DESCRIPTORS])
@pytest.mark.parametrize("nsid", [0, 4, 0xFFFF_FFFE, 0xFFFF_FFFF])
def test_invalid_namespace_is_refused(cns: int, nsid: int) -> None:
    wanted = Status.INVALID_NAMESPACE_OR_FORMAT | DNR
    assert refusal(with_namespaces(3), cns, nsid) == wanted


def test_descriptors_of_an_inactive_namespace_are_an_invalid_field() -> None:
    wanted = Status.INVALID_FIELD_IN_COMMAND | DNR
    assert refusal(with_namespaces(3), Cns.NAMESPACE_DESCRIPTORS, 2) == wanted


def descriptors(data: bytes) -> list[tuple[int, bytes]]:
    """(type, identifier) until a length of zero; what follows must be zero."""
    found, at = [], 0
    while data[at + 1]:
        found.append((data[at], data[at + 4 : at + 4 + data[at + 1]]))
        assert data[at + 2 : at + 4] == b"\0\0"
        at += 4 + data[at + 1]
    assert data[at:] == bytes(PAGE - at)
    return found


def test_descriptors_are_a_uuid_and_the_command_set() -> None:
    found = dict(descriptors(identify(enabled(), Cns.NAMESPACE_DESCRIPTORS, 1)))
    assert found.keys() == {3, 4}
    assert found[4] == b"\0"
    assert uuid.UUID(bytes=found[3]).version == 5


def test_descriptors_differ_between_namespaces() -> None:
    bench = with_namespaces(2)
    first, second = (identify(bench, Cns.NAMESPACE_DESCRIPTORS, nsid) for nsid in (1, 2))
    assert first != second


# Lists of namespaces.


@pytest.mark.parametrize("cns", NSID_LISTS)
@pytest.mark.parametrize(
    ("after", "wanted"), [(0, [1, 3, 9]), (1, [3, 9]), (2, [3, 9]), (9, []), (0xFFFF_FFFD, [])]
)
def test_active_list_goes_on_after_the_given_identifier(
    cns: int, after: int, wanted: list[int]
) -> None:
    data = identify(with_namespaces(9, 3), cns, after)
    assert struct.unpack("<1024I", data) == (*wanted, *[0] * (1024 - len(wanted)))


def test_active_list_ends_at_1024_entries() -> None:
    data = identify(with_namespaces(*range(2, 1100)), Cns.ACTIVE_NAMESPACES)
    assert struct.unpack("<1024I", data) == tuple(range(1, 1025))


@pytest.mark.parametrize("cns", NSID_LISTS)
@pytest.mark.parametrize("after", [0xFFFF_FFFE, 0xFFFF_FFFF])
def test_active_list_after_the_reserved_identifiers_is_refused(cns: int, after: int) -> None:
    assert refusal(enabled(), cns, after) == Status.INVALID_NAMESPACE_OR_FORMAT | DNR


# What is wrong with a command.


@pytest.mark.parametrize("cns", WITH_A_COMMAND_SET)
@pytest.mark.parametrize("csi", [1, 2, 0xFF])
def test_other_command_set_is_an_invalid_field(cns: int, csi: int) -> None:
    assert refusal(enabled(), cns, 1, csi=csi) == Status.INVALID_FIELD_IN_COMMAND | DNR


def test_every_other_structure_is_an_invalid_field() -> None:
    bench = enabled()
    found = {
        bench.execute(Identify(cns=cns, nsid=1, prp1=NO_RAM)).status
        for cns in range(256)
        if cns not in set(Cns)
    }
    assert found == {Status.INVALID_FIELD_IN_COMMAND | DNR}


def test_answer_follows_prp2_over_a_page_boundary() -> None:
    bench = enabled(Bench(serial="crossing"))
    first, second = bench.allocate(PAGE), bench.allocate(2 * PAGE) + PAGE
    bench.execute(Identify(cns=Cns.CONTROLLER, prp1=first + PAGE - 8, prp2=second))
    assert bench.memory.read(first + PAGE - 4, 4) == b"cros"
    assert bench.memory.read(second, 16) == b"sing".ljust(16)


def test_answer_into_read_only_memory_is_a_data_transfer_error() -> None:
    bench = enabled()
    bench.memory.map(0x1000, bytearray(PAGE), writable=False)
    done = bench.execute(Identify(cns=Cns.CONTROLLER, prp1=0x1000))
    assert done.status & 0x7FF == Status.DATA_TRANSFER_ERROR


@pytest.mark.parametrize(
    ("prp1", "prp2", "wanted"),
    [
        (NO_RAM, 0, Status.DATA_TRANSFER_ERROR),
        (NO_RAM + 2, 0, Status.PRP_OFFSET_INVALID),
        (NO_RAM + 4, NO_RAM + 8, Status.PRP_OFFSET_INVALID),
    ],
)
def test_bad_data_pointer_is_refused(prp1: int, prp2: int, wanted: Status) -> None:
    done = enabled().execute(Identify(cns=Cns.CONTROLLER, prp1=prp1, prp2=prp2))
    assert done.status & 0x7FF == wanted
