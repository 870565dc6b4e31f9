from __future__ import annotations

import struct
from typing import Annotated

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelab.spec import admin, commands, identify, logpages, nvm, registers
from nvmelab.spec.commands import COMMANDS, AdminOpcode, Command
from nvmelab.spec.events import ErrorEvent, EventType
from nvmelab.spec.features import Feature, Select
from nvmelab.spec.layout import Bits, Bytes, OpenEnum, Structure, structure
from nvmelab.spec.status import DNR, NvmeError, Status

DECLARED: list[type[Structure]] = [
    value
    for module in (admin, commands, identify, logpages, nvm, registers)
    for value in vars(module).values()
    if isinstance(value, type)
    and issubclass(value, Structure)
    and hasattr(value, "size")
    and value.__module__ == module.__name__
]
COMMON = 0xFFFF | ((1 << 64) - 1) << 128  # OPC, FUSE, PSDT and MPTR of any command
ENUMS: list[type[OpenEnum]] = [Status, AdminOpcode, commands.NvmOpcode, Feature, Select, EventType,
                               ErrorEvent, identify.Cns, identify.DescriptorType,
                               logpages.LogPage]  # fmt: skip


def names(classes: list[type[Structure]]) -> list[str]:
    return [cls.__name__ for cls in classes]


def mask(place: Bits | Bytes) -> int:
    return (1 << place.width) - 1 << place.position


@structure(8, ref="none")
class Sample(Structure, frozen=True):
    low: Annotated[int, Bits(0, 3, 0)] = 0
    count: Annotated[int, Bits(0, 15, 8, add=1)] = 1
    wide: Annotated[int, Bits(0, 47, 16)] = 0
    """Goes on in dword 1, bits 15:0."""
    top: Annotated[int, Bits(1, 31, 31)] = 0


@structure(16, ref="none")
class Texts(Structure, frozen=True):
    name: Annotated[str, Bytes(1, 4)] = ""
    raw: Annotated[bytes, Bytes(8, 11)] = bytes(4)


def test_something_is_declared_in_every_module() -> None:
    assert len(DECLARED) >= 25


# Every declared structure.


@pytest.mark.parametrize("cls", DECLARED, ids=names(DECLARED))
@settings(max_examples=15)
@given(data=st.data())
def test_declared_structure_survives_encode_and_decode(
    cls: type[Structure], data: st.DataObject
) -> None:
    values: dict[str, object] = {}
    for name, place in cls.fields.items():
        default = getattr(cls(), name)
        if isinstance(default, str):
            text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))
            values[name] = data.draw(text)[: place.width // 8]
        elif isinstance(default, bytes):
            size = place.width // 8
            values[name] = data.draw(st.binary(max_size=32))[:size].ljust(size, b"\1")
        else:
            values[name] = data.draw(st.integers(0, (1 << place.width) - 1)) + place.add
    value = cls(**values)
    assert cls.decode(value.encode()) == value


@pytest.mark.parametrize("cls", DECLARED, ids=names(DECLARED))
def test_declared_structure_encodes_to_its_size(cls: type[Structure]) -> None:
    assert len(cls().encode()) == cls.size


@pytest.mark.parametrize("cls", DECLARED, ids=names(DECLARED))
def test_declared_structure_names_document_revision_and_section(cls: type[Structure]) -> None:
    assert cls.ref.startswith(("Base 2.2, ", "NVM Command Set 1.2, "))


@pytest.mark.parametrize("cls", DECLARED, ids=names(DECLARED))
def test_reserved_bits_are_those_no_field_claims(cls: type[Structure]) -> None:
    claimed = COMMON if issubclass(cls, Command) else 0
    for place in cls.fields.values():
        claimed |= mask(place)
    assert cls.reserved == ((1 << 8 * cls.size) - 1) & ~claimed


@pytest.mark.parametrize("cls", DECLARED, ids=names(DECLARED))
def test_reserved_bits_do_not_reach_any_field(cls: type[Structure]) -> None:
    quiet = cls.decode(bytes(cls.size))
    noisy = cls.decode(cls.reserved.to_bytes(cls.size, "little"))
    assert noisy == quiet


@pytest.mark.parametrize("cls", DECLARED, ids=names(DECLARED))
def test_no_encoded_value_has_a_reserved_bit(cls: type[Structure]) -> None:
    full = cls.decode(b"\x7e" * cls.size)
    assert int.from_bytes(full.encode(), "little") & cls.reserved == 0


NUMBER_FIELDS = [
    (cls, name) for cls in DECLARED for name in cls.fields if isinstance(getattr(cls(), name), int)
]


@pytest.mark.parametrize(
    ("cls", "name"), NUMBER_FIELDS, ids=[f"{cls.__name__}.{name}" for cls, name in NUMBER_FIELDS]
)
def test_number_field_lives_in_its_declared_bits_alone(cls: type[Structure], name: str) -> None:
    place = cls.fields[name]
    lowest, highest = place.add, (1 << place.width) - 1 + place.add
    difference = int.from_bytes(cls(**{name: lowest}).encode(), "little") ^ int.from_bytes(
        cls(**{name: highest}).encode(), "little"
    )
    assert difference == mask(place)


@pytest.mark.parametrize(
    ("cls", "name"), NUMBER_FIELDS, ids=[f"{cls.__name__}.{name}" for cls, name in NUMBER_FIELDS]
)
def test_number_that_does_not_fit_its_field_is_refused(cls: type[Structure], name: str) -> None:
    place = cls.fields[name]
    for value in (place.add - 1, (1 << place.width) + place.add):
        with pytest.raises(ValueError, match=rf"{cls.__name__}\.{name}"):
            cls(**{name: value}).encode()


@pytest.mark.parametrize("cls", COMMANDS.values())
def test_command_from_words_is_command_from_bytes(cls: type[Command]) -> None:
    words = tuple(0x9E37_79B9 * i & 0xFFFF_FFFF for i in range(1, 17))
    assert cls.from_words(words) == cls.decode(struct.pack("<16I", *words))


@pytest.mark.parametrize(("key", "cls"), COMMANDS.items())
def test_encoded_command_has_its_opcode(key: tuple[str, int], cls: type[Command]) -> None:
    assert (cls.queue, cls.opcode) == key
    assert cls(cid=0xABCD, nsid=1).encode()[:4] == bytes([key[1], 0, 0xCD, 0xAB])


# How a declaration works.


def test_decode_takes_a_field_that_crosses_dwords() -> None:
    assert Sample.decode(struct.pack("<II", 0xBEEF_0000, 0x0000_DEAD)).wide == 0xDEAD_BEEF


def test_encode_puts_a_field_across_dwords() -> None:
    assert Sample(wide=0xDEAD_BEEF).encode() == struct.pack("<II", 0xBEEF_0000, 0x0000_DEAD)


def test_zeroes_based_field_is_a_count() -> None:
    assert Sample.decode(bytes(8)).count == 1
    assert Sample(count=256).encode()[1] == 0xFF


def test_decode_reads_at_an_offset() -> None:
    data = bytes(5) + Sample(low=7, top=1).encode()
    assert Sample.decode(data, 5) == Sample(low=7, top=1)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_decode_reads_any_kind_of_bytes(kind: type) -> None:
    assert Sample.decode(kind(Sample(low=9).encode())).low == 9


def test_decode_of_too_few_bytes_is_refused() -> None:
    with pytest.raises(struct.error):
        Sample.decode(bytes(7))


def test_text_is_padded_with_spaces_and_the_padding_is_not_read_back() -> None:
    encoded = Texts(name="ab").encode()
    assert encoded[:6] == b"\0ab  \0"
    assert Texts.decode(encoded).name == "ab"


def test_text_that_ends_in_zeroes_is_read_without_them() -> None:
    assert Texts.decode(b"\0ab\0\0".ljust(16, b"\0")).name == "ab"


def test_text_that_is_not_ascii_is_read_and_never_written() -> None:
    assert Texts.decode(b"\0\xffab\0".ljust(16, b"\0")).name == "\ufffdab"
    with pytest.raises(ValueError):
        Texts(name="\u00e9").encode()


@pytest.mark.parametrize("value", [Texts(name="12345"), Texts(raw=b"12345"), Texts(raw=bytes(5))])
def test_text_or_bytes_longer_than_the_field_are_refused(value: Texts) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        value.encode()


def test_overlapping_fields_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"Bad\.b overlaps"):

        @structure(4, ref="none")
        class Bad(Structure, frozen=True):
            a: Annotated[int, Bits(0, 7, 0)] = 0
            b: Annotated[int, Bits(0, 15, 7)] = 0


def test_command_field_over_the_opcode_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"Bad\.a overlaps"):

        @commands.command(commands.ADMIN, 0xF0, ref="none")
        class Bad(Command, frozen=True):
            a: Annotated[int, Bits(0, 7, 0)] = 0

    assert (commands.ADMIN, 0xF0) not in COMMANDS


def test_second_command_with_one_opcode_is_refused() -> None:
    with pytest.raises(AssertionError):

        @commands.command(commands.ADMIN, AdminOpcode.ABORT, ref="none")
        class Bad(Command, frozen=True):
            pass

    assert COMMANDS[commands.ADMIN, AdminOpcode.ABORT] is admin.Abort


def test_field_in_a_dword_behind_the_structure_is_refused() -> None:
    with pytest.raises(AssertionError, match="outside"):

        @structure(4, ref="none")
        class Bad(Structure, frozen=True):
            a: Annotated[int, Bits(1, 0, 0)] = 0


def test_field_that_ends_behind_the_structure_is_refused() -> None:
    with pytest.raises(AssertionError, match="outside"):

        @structure(4, ref="none")
        class Bad(Structure, frozen=True):
            a: Annotated[bytes, Bytes(3, 4)] = b""


def test_field_of_no_width_is_refused() -> None:
    with pytest.raises(AssertionError, match="outside"):

        @structure(4, ref="none")
        class Bad(Structure, frozen=True):
            a: Annotated[int, Bits(0, 3, 4)] = 0


# Open enumerations.


@pytest.mark.parametrize("enum", ENUMS)
def test_every_number_is_a_member(enum: type[OpenEnum]) -> None:
    numbers = range(0x800)
    members = [enum(number) for number in numbers]
    assert [member.value for member in members] == list(numbers)
    assert members == list(numbers)


def test_unknown_value_has_its_number_as_name_and_label() -> None:
    assert (Status(0x7C1).name, Status(0x7C1).label) == ("0x7c1", "0x7c1")


def test_known_value_has_a_label_in_words() -> None:
    assert Status(0x10C).label == "invalid queue deletion"


def test_unknown_value_is_found_in_a_dictionary_by_number() -> None:
    assert {0xC1: "found"}[Feature(0xC1)] == "found"


def test_error_of_a_command_tells_the_host_not_to_retry() -> None:
    assert NvmeError(Status.INVALID_QUEUE_SIZE, "why").field == 0x102 | DNR == 0x4102


def test_error_that_may_pass_does_not_forbid_to_retry() -> None:
    assert NvmeError(Status.INTERNAL_ERROR, "why", dnr=False).field == 0x006
