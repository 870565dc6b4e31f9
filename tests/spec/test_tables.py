"""The tables against the documents: every offset here was taken from the specification by hand.

Base 2.2 unless a line says otherwise; NVM is the NVM Command Set 1.2.
"""

from __future__ import annotations

import pytest

from nvmelab.spec.admin import (
    Abort,
    CreateIoCq,
    CreateIoSq,
    DeleteIoCq,
    DeleteIoSq,
    GetFeatures,
    GetLogPage,
    Identify,
    SetFeatures,
)
from nvmelab.spec.commands import ADMIN, COMMANDS, NVM, Command, Completion
from nvmelab.spec.features import Feature
from nvmelab.spec.identify import (
    Cns,
    DescriptorType,
    IdentifyController,
    IdentifyControllerNvm,
    IdentifyNamespace,
    IdentifyNamespaceIndependent,
    descriptor,
)
from nvmelab.spec.layout import Structure
from nvmelab.spec.logpages import FirmwareSlot, LogPage, Smart
from nvmelab.spec.nvm import DatasetManagement, Range, Read, Write, WriteZeroes
from nvmelab.spec.registers import DOORBELLS, REGISTERS, Aqa, Cap, Cc, Csts
from nvmelab.spec.status import DNR, Status

# Figure 33, Figures 36 to 46: name, offset, bytes, bits that keep what the host writes.
PROPERTIES = [
    ("cap", 0x00, 8, 0),
    ("vs", 0x08, 4, 0),
    ("intms", 0x0C, 4, 0),
    ("intmc", 0x10, 4, 0),
    ("cc", 0x14, 4, 0x00FFFFF1),
    ("csts", 0x1C, 4, 0),
    ("aqa", 0x24, 4, 0x0FFF0FFF),
    ("asq", 0x28, 8, 0xFFFFFFFFFFFFF000),
    ("acq", 0x30, 8, 0xFFFFFFFFFFFFF000),
]

# Bits of properties: (structure, field, high, low) as the figures print them.
PROPERTY_BITS: list[tuple[type[Structure], str, int, int]] = [
    (Cap, "mqes", 15, 0),
    (Cap, "cqr", 16, 16),
    (Cap, "ams", 18, 17),
    (Cap, "to", 31, 24),
    (Cap, "dstrd", 35, 32),
    (Cap, "nssrs", 36, 36),
    (Cap, "css", 44, 37),
    (Cap, "bps", 45, 45),
    (Cap, "cps", 47, 46),
    (Cap, "mpsmin", 51, 48),
    (Cap, "mpsmax", 55, 52),
    (Cap, "pmrs", 56, 56),
    (Cap, "cmbs", 57, 57),
    (Cap, "nsss", 58, 58),
    (Cap, "crms", 60, 59),
    (Cc, "en", 0, 0),
    (Cc, "css", 6, 4),
    (Cc, "mps", 10, 7),
    (Cc, "ams", 13, 11),
    (Cc, "shn", 15, 14),
    (Cc, "iosqes", 19, 16),
    (Cc, "iocqes", 23, 20),
    (Csts, "rdy", 0, 0),
    (Csts, "cfs", 1, 1),
    (Csts, "shst", 3, 2),
    (Csts, "nssro", 4, 4),
    (Csts, "pp", 5, 5),
    (Aqa, "asqs", 11, 0),
    (Aqa, "acqs", 27, 16),
]

# Fields of commands: (command, field, dword, high, low). Figures 91, 92, 144, 193, 198 to 202,
# 308 to 310, 384, 475, 476, 479 to 481, 483, 485; NVM Figures 43 to 46, 50 to 58, 67 to 75, 81 to
# 83.
COMMAND_BITS: list[tuple[type[Structure], str, int, int, int]] = [
    (CreateIoCq, "qsize", 10, 31, 16),
    (CreateIoCq, "qid", 10, 15, 0),
    (CreateIoCq, "iv", 11, 31, 16),
    (CreateIoCq, "ien", 11, 1, 1),
    (CreateIoCq, "pc", 11, 0, 0),
    (CreateIoSq, "qsize", 10, 31, 16),
    (CreateIoSq, "qid", 10, 15, 0),
    (CreateIoSq, "cqid", 11, 31, 16),
    (CreateIoSq, "qprio", 11, 2, 1),
    (CreateIoSq, "pc", 11, 0, 0),
    (CreateIoSq, "nvmsetid", 12, 15, 0),
    (DeleteIoCq, "qid", 10, 15, 0),
    (DeleteIoSq, "qid", 10, 15, 0),
    (Identify, "cns", 10, 7, 0),
    (Identify, "cntid", 10, 31, 16),
    (Identify, "cnssid", 11, 15, 0),
    (Identify, "csi", 11, 31, 24),
    (Identify, "uidx", 14, 6, 0),
    (GetLogPage, "lid", 10, 7, 0),
    (GetLogPage, "lsp", 10, 14, 8),
    (GetLogPage, "rae", 10, 15, 15),
    (GetLogPage, "numd", 10, 47, 16),
    (GetLogPage, "lsi", 11, 31, 16),
    (GetLogPage, "lpo", 12, 63, 0),
    (GetLogPage, "uidx", 14, 6, 0),
    (GetLogPage, "ot", 14, 23, 23),
    (GetLogPage, "csi", 14, 31, 24),
    (Abort, "sqid", 10, 15, 0),
    (Abort, "aborted_cid", 10, 31, 16),
    (SetFeatures, "fid", 10, 7, 0),
    (SetFeatures, "sv", 10, 31, 31),
    (SetFeatures, "value", 11, 31, 0),
    (SetFeatures, "cdw12", 12, 31, 0),
    (SetFeatures, "uidx", 14, 6, 0),
    (GetFeatures, "fid", 10, 7, 0),
    (GetFeatures, "sel", 10, 10, 8),
    (GetFeatures, "cdw11", 11, 31, 0),
    (GetFeatures, "uidx", 14, 6, 0),
    (Read, "slba", 10, 63, 0),
    (Read, "nlb", 12, 15, 0),
    (Read, "prinfo", 12, 29, 26),
    (Read, "fua", 12, 30, 30),
    (Read, "lr", 12, 31, 31),
    (Read, "dsm", 13, 7, 0),
    (Write, "slba", 10, 63, 0),
    (Write, "nlb", 12, 15, 0),
    (Write, "dtype", 12, 23, 20),
    (Write, "prinfo", 12, 29, 26),
    (Write, "fua", 12, 30, 30),
    (Write, "lr", 12, 31, 31),
    (Write, "dsm", 13, 7, 0),
    (WriteZeroes, "slba", 10, 63, 0),
    (WriteZeroes, "nlb", 12, 15, 0),
    (WriteZeroes, "deac", 12, 25, 25),
    (WriteZeroes, "prinfo", 12, 29, 26),
    (WriteZeroes, "fua", 12, 30, 30),
    (WriteZeroes, "lr", 12, 31, 31),
    (DatasetManagement, "nr", 10, 7, 0),
    (DatasetManagement, "attributes", 11, 2, 0),
    (Range, "cattr", 0, 31, 0),
    (Range, "nlb", 1, 31, 0),
    (Range, "slba", 2, 63, 0),
    # Figures 96 to 100.
    (Completion, "dw0", 0, 31, 0),
    (Completion, "dw1", 1, 31, 0),
    (Completion, "sqhd", 2, 15, 0),
    (Completion, "sqid", 2, 31, 16),
    (Completion, "cid", 3, 15, 0),
    (Completion, "phase", 3, 16, 16),
    (Completion, "status", 3, 31, 17),
]

# Figures 91 and 92: bytes of what every command has.
COMMON_BYTES = [("cid", 2, 3), ("nsid", 4, 7), ("prp1", 24, 31), ("prp2", 32, 39)]

# (structure, field, first byte, last byte). Figures 207, 209, 313, 314, 320; NVM Figures 114, 116,
# 120.
DATA_BYTES: list[tuple[type[Structure], str, int, int]] = [
    (IdentifyController, "vid", 0, 1),
    (IdentifyController, "ssvid", 2, 3),
    (IdentifyController, "sn", 4, 23),
    (IdentifyController, "mn", 24, 63),
    (IdentifyController, "fr", 64, 71),
    (IdentifyController, "rab", 72, 72),
    (IdentifyController, "ieee", 73, 75),
    (IdentifyController, "cmic", 76, 76),
    (IdentifyController, "mdts", 77, 77),
    (IdentifyController, "cntlid", 78, 79),
    (IdentifyController, "ver", 80, 83),
    (IdentifyController, "oaes", 92, 95),
    (IdentifyController, "ctratt", 96, 99),
    (IdentifyController, "cntrltype", 111, 111),
    (IdentifyController, "oacs", 256, 257),
    (IdentifyController, "acl", 258, 258),
    (IdentifyController, "aerl", 259, 259),
    (IdentifyController, "frmw", 260, 260),
    (IdentifyController, "lpa", 261, 261),
    (IdentifyController, "elpe", 262, 262),
    (IdentifyController, "npss", 263, 263),
    (IdentifyController, "wctemp", 266, 267),
    (IdentifyController, "cctemp", 268, 269),
    (IdentifyController, "sqes", 512, 512),
    (IdentifyController, "cqes", 513, 513),
    (IdentifyController, "maxcmd", 514, 515),
    (IdentifyController, "nn", 516, 519),
    (IdentifyController, "oncs", 520, 521),
    (IdentifyController, "fuses", 522, 523),
    (IdentifyController, "fna", 524, 524),
    (IdentifyController, "vwc", 525, 525),
    (IdentifyController, "awun", 526, 527),
    (IdentifyController, "awupf", 528, 529),
    (IdentifyController, "sgls", 536, 539),
    (IdentifyController, "subnqn", 768, 1023),
    (IdentifyController, "psd0_mp", 2048, 2049),
    (IdentifyController, "psd0_enlat", 2052, 2055),
    (IdentifyController, "psd0_exlat", 2056, 2059),
    (IdentifyNamespace, "nsze", 0, 7),
    (IdentifyNamespace, "ncap", 8, 15),
    (IdentifyNamespace, "nuse", 16, 23),
    (IdentifyNamespace, "nsfeat", 24, 24),
    (IdentifyNamespace, "nlbaf", 25, 25),
    (IdentifyNamespace, "flbas", 26, 26),
    (IdentifyNamespace, "dlfeat", 33, 33),
    (IdentifyNamespace, "npwg", 64, 65),
    (IdentifyNamespace, "npwa", 66, 67),
    (IdentifyNamespace, "npdg", 68, 69),
    (IdentifyNamespace, "npda", 70, 71),
    (IdentifyNamespace, "nows", 72, 73),
    (IdentifyNamespace, "nsattr", 99, 99),
    (IdentifyNamespace, "nguid", 104, 119),
    (IdentifyNamespace, "eui64", 120, 127),
    (IdentifyNamespace, "lbaf0_ms", 128, 129),
    (IdentifyNamespace, "lbaf0_lbads", 130, 130),
    (IdentifyControllerNvm, "vsl", 0, 0),
    (IdentifyControllerNvm, "wzsl", 1, 1),
    (IdentifyControllerNvm, "dmrl", 3, 3),
    (IdentifyControllerNvm, "dmrsl", 4, 7),
    (IdentifyControllerNvm, "dmsl", 8, 15),
    (IdentifyNamespaceIndependent, "nsfeat", 0, 0),
    (IdentifyNamespaceIndependent, "nmic", 1, 1),
    (IdentifyNamespaceIndependent, "nsattr", 8, 8),
    (IdentifyNamespaceIndependent, "nstat", 14, 14),
    (Smart, "critical_warning", 0, 0),
    (Smart, "composite_temperature", 1, 2),
    (Smart, "available_spare", 3, 3),
    (Smart, "available_spare_threshold", 4, 4),
    (Smart, "percentage_used", 5, 5),
    (Smart, "data_units_read", 32, 47),
    (Smart, "data_units_written", 48, 63),
    (Smart, "host_read_commands", 64, 79),
    (Smart, "host_write_commands", 80, 95),
    (Smart, "power_cycles", 112, 127),
    (Smart, "media_errors", 160, 175),
    (Smart, "error_log_entries", 176, 191),
    (FirmwareSlot, "afi", 0, 0),
    (FirmwareSlot, "frs1", 8, 15),
]

# Fields whose stored value is one less than the count (0's based).
COUNTS: list[tuple[type[Structure], str]] = [
    (Cap, "mqes"),
    (Aqa, "asqs"),
    (Aqa, "acqs"),
    (CreateIoCq, "qsize"),
    (CreateIoSq, "qsize"),
    (GetLogPage, "numd"),
    (Read, "nlb"),
    (Write, "nlb"),
    (WriteZeroes, "nlb"),
    (DatasetManagement, "nr"),
    (IdentifyController, "acl"),
    (IdentifyController, "aerl"),
    (IdentifyController, "elpe"),
    (IdentifyController, "npss"),
    (IdentifyNamespace, "nlbaf"),
    (IdentifyNamespace, "npwg"),
    (IdentifyNamespace, "npwa"),
    (IdentifyNamespace, "npdg"),
    (IdentifyNamespace, "npda"),
    (IdentifyNamespace, "nows"),
]

# Figures 28 and 30, NVM Figure 21.
OPCODES = {
    (ADMIN, 0x00): "DeleteIoSq",
    (ADMIN, 0x01): "CreateIoSq",
    (ADMIN, 0x02): "GetLogPage",
    (ADMIN, 0x04): "DeleteIoCq",
    (ADMIN, 0x05): "CreateIoCq",
    (ADMIN, 0x06): "Identify",
    (ADMIN, 0x08): "Abort",
    (ADMIN, 0x09): "SetFeatures",
    (ADMIN, 0x0A): "GetFeatures",
    (ADMIN, 0x0C): "AsyncEventRequest",
    (ADMIN, 0x7C): "DoorbellBufferConfig",
    (NVM, 0x00): "Flush",
    (NVM, 0x01): "Write",
    (NVM, 0x02): "Read",
    (NVM, 0x08): "WriteZeroes",
    (NVM, 0x09): "DatasetManagement",
}

# Figures 102 to 106.
STATUSES = {
    "SUCCESS": 0x000,
    "INVALID_COMMAND_OPCODE": 0x001,
    "INVALID_FIELD_IN_COMMAND": 0x002,
    "COMMAND_ID_CONFLICT": 0x003,
    "DATA_TRANSFER_ERROR": 0x004,
    "INTERNAL_ERROR": 0x006,
    "COMMAND_ABORT_REQUESTED": 0x007,
    "ABORTED_SQ_DELETION": 0x008,
    "INVALID_NAMESPACE_OR_FORMAT": 0x00B,
    "COMMAND_SEQUENCE_ERROR": 0x00C,
    "PRP_OFFSET_INVALID": 0x013,
    "NAMESPACE_IS_WRITE_PROTECTED": 0x020,
    "LBA_OUT_OF_RANGE": 0x080,
    "CAPACITY_EXCEEDED": 0x081,
    "COMPLETION_QUEUE_INVALID": 0x100,
    "INVALID_QUEUE_IDENTIFIER": 0x101,
    "INVALID_QUEUE_SIZE": 0x102,
    "ABORT_COMMAND_LIMIT_EXCEEDED": 0x103,
    "ASYNC_EVENT_REQUEST_LIMIT_EXCEEDED": 0x105,
    "INVALID_INTERRUPT_VECTOR": 0x108,
    "INVALID_LOG_PAGE": 0x109,
    "INVALID_QUEUE_DELETION": 0x10C,
    "FEATURE_IDENTIFIER_NOT_SAVEABLE": 0x10D,
    "FEATURE_NOT_CHANGEABLE": 0x10E,
    "FEATURE_NOT_NAMESPACE_SPECIFIC": 0x10F,
    "WRITE_FAULT": 0x280,
    "UNRECOVERED_READ_ERROR": 0x281,
}


def test_properties_stand_where_the_specification_says() -> None:
    assert [tuple(register[:4]) for register in REGISTERS] == PROPERTIES


def test_doorbells_start_at_1000h() -> None:
    assert DOORBELLS == 0x1000


@pytest.mark.parametrize(("cls", "name", "high", "low"), PROPERTY_BITS)
def test_property_bits(cls: type[Structure], name: str, high: int, low: int) -> None:
    place = cls.fields[name]
    assert (place.position, place.width) == (low, high - low + 1)


@pytest.mark.parametrize(("cls", "name", "dword", "high", "low"), COMMAND_BITS)
def test_command_bits(cls: type[Structure], name: str, dword: int, high: int, low: int) -> None:
    place = cls.fields[name]
    assert (place.position, place.width) == (32 * dword + low, high - low + 1)


@pytest.mark.parametrize("cls", COMMANDS.values())
@pytest.mark.parametrize(("name", "first", "last"), COMMON_BYTES)
def test_common_bytes_of_commands(cls: type[Command], name: str, first: int, last: int) -> None:
    place = cls.fields[name]
    assert (place.position, place.width) == (8 * first, 8 * (last - first + 1))


@pytest.mark.parametrize(("cls", "name", "first", "last"), DATA_BYTES)
def test_data_bytes(cls: type[Structure], name: str, first: int, last: int) -> None:
    place = cls.fields[name]
    assert (place.position, place.width) == (8 * first, 8 * (last - first + 1))


def test_every_declared_field_is_in_these_lists() -> None:
    listed = {(row[0], row[1]) for row in (*PROPERTY_BITS, *COMMAND_BITS, *DATA_BYTES)}
    common = {name for name, _, _ in COMMON_BYTES}
    declared: list[type[Structure]] = [
        Cap, Cc, Csts, Aqa, Completion, Range, IdentifyController, IdentifyNamespace,
        IdentifyControllerNvm, IdentifyNamespaceIndependent, Smart, FirmwareSlot,
        *COMMANDS.values(),
    ]  # fmt: skip
    missing = [
        (cls.__name__, name)
        for cls in declared
        for name in cls.fields
        if (cls, name) not in listed and not (issubclass(cls, Command) and name in common)
    ]
    assert missing == []


def test_zeroes_based_fields_are_these_and_no_others() -> None:
    structures = {cls for cls, *_ in PROPERTY_BITS}
    structures |= {cls for cls, *_ in COMMAND_BITS} | {cls for cls, *_ in DATA_BYTES}
    counts = {(cls, name) for cls in structures for name, at in cls.fields.items() if at.add}
    assert counts == set(COUNTS)


def test_opcodes() -> None:
    assert {key: cls.__name__ for key, cls in COMMANDS.items()} == OPCODES


def test_statuses() -> None:
    assert {status.name: int(status) for status in Status} == STATUSES


def test_do_not_retry_is_bit_31_of_dword_3() -> None:
    assert int.from_bytes(Completion(status=DNR).encode(), "little") == 1 << 96 + 31


@pytest.mark.parametrize(
    ("name", "fid"),
    [
        ("ARBITRATION", 0x01),
        ("POWER_MANAGEMENT", 0x02),
        ("TEMPERATURE_THRESHOLD", 0x04),
        ("ERROR_RECOVERY", 0x05),
        ("VOLATILE_WRITE_CACHE", 0x06),
        ("NUMBER_OF_QUEUES", 0x07),
        ("INTERRUPT_COALESCING", 0x08),
        ("INTERRUPT_VECTOR_CONFIGURATION", 0x09),
        ("WRITE_ATOMICITY_NORMAL", 0x0A),
        ("ASYNC_EVENT_CONFIGURATION", 0x0B),
        ("TIMESTAMP", 0x0E),
    ],
)
def test_feature_identifiers(name: str, fid: int) -> None:
    assert Feature[name] == fid


def test_identify_values() -> None:
    assert {cns.name: int(cns) for cns in Cns} == {
        "NAMESPACE": 0,
        "CONTROLLER": 1,
        "ACTIVE_NAMESPACES": 2,
        "NAMESPACE_DESCRIPTORS": 3,
        "NAMESPACE_CSI": 5,
        "CONTROLLER_CSI": 6,
        "ACTIVE_NAMESPACES_CSI": 7,
        "NAMESPACE_INDEPENDENT": 8,
    }


def test_log_pages() -> None:
    assert {page.name: int(page) for page in LogPage} == {
        "SUPPORTED_LOG_PAGES": 0,
        "ERROR_INFORMATION": 1,
        "SMART": 2,
        "FIRMWARE_SLOT": 3,
        "CHANGED_NAMESPACES": 4,
        "COMMANDS_AND_EFFECTS": 5,
    }


def test_namespace_descriptor_is_type_length_two_zeroes_value() -> None:
    assert descriptor(DescriptorType.UUID, bytes(range(16))) == b"\3\x10\0\0" + bytes(range(16))
