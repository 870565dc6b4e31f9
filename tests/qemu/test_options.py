"""Option strings and the values in them. Every expectation here was seen on QEMU 11.1."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nvmelab.qemu.options import (
    CommandLineError,
    join_pairs,
    parse_device,
    parse_nested,
    parse_options,
    read_bool,
    read_integer,
    read_memory_size,
    read_size,
    shorten,
)

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("nvme", {"driver": "nvme"}),
        ("nvme,serial=a,drive=d", {"driver": "nvme", "serial": "a", "drive": "d"}),
        ("serial=a,driver=nvme", {"serial": "a", "driver": "nvme"}),
        ("nvme,", {"driver": "nvme"}),
        ("nvme,serial=", {"driver": "nvme", "serial": ""}),
        ("nvme,,serial=a", {"driver": "nvme,serial=a"}),
        ("x=a,,b,y=c", {"x": "a,b", "y": "c"}),
        ("x=a,,", {"x": "a,"}),
        ("x=a=b", {"x": "a=b"}),
        ("x=1,x=2", {"x": "2"}),
        ("id=1,id=2", {"id": "1"}),
        ("nvme,multifunction", {"driver": "nvme", "multifunction": "on"}),
        ("nvme,nomultifunction,x=1", {"driver": "nvme", "multifunction": "off", "x": "1"}),
        ("file.locking=off", {"file.locking": "off"}),
    ],
)
def test_options_are_read_as_device_and_drive_read_them(
    text: str, expected: dict[str, str]
) -> None:
    assert parse_options(text, "driver") == expected


def test_without_an_implied_key_a_first_word_is_a_flag() -> None:
    assert parse_options("readonly,if=none") == {"readonly": "on", "if": "none"}


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-z][a-z0-9_.-]{0,8}", fullmatch=True),
            st.text(alphabet=st.sampled_from("ab,=. {}\"'"), max_size=8),
        ),
        unique_by=lambda pair: pair[0],
    )
)
def test_joined_pairs_are_read_back(pairs: list[tuple[str, str]]) -> None:
    assert parse_options(join_pairs(pairs)) == dict(pairs)


def test_dots_make_nested_tables() -> None:
    text = "raw,node-name=n,file.driver=file,file.cache.direct=on"
    assert parse_nested(text, "driver") == {
        "driver": "raw",
        "node-name": "n",
        "file": {"driver": "file", "cache": {"direct": "on"}},
    }


@pytest.mark.parametrize("text", ["raw,read-only", "file=a,file.driver=b", "file.driver=b,file=a"])
def test_nested_options_that_qemu_refuses(text: str) -> None:
    with pytest.raises(CommandLineError):
        parse_nested(text, "driver")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"driver":"nvme","mqes":3}', {"driver": "nvme", "mqes": 3}),
        ("{'driver':'nvme','x':true}", {"driver": "nvme", "x": True}),
        ("{'a':'say \"hi\"'}", {"a": 'say "hi"'}),
        (r"{'a':'it\'s'}", {"a": "it's"}),
        ('{"a":"it\'s, \'quoted\'"}', {"a": "it's, 'quoted'"}),
    ],
)
def test_json_may_have_single_quotes(text: str, expected: dict[str, object]) -> None:
    assert parse_device(text) == expected


@pytest.mark.parametrize("text", ["{", '{"a":1,"a":2}', "{'a':}"])
def test_broken_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(CommandLineError) as caught:
        parse_device(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("512", 512),
        ("64k", 64 * KIB),
        ("2G", 2 * GIB),
        ("1.5G", 1536 * MIB),
        (".5G", 512 * MIB),
        ("1.M", MIB),
        ("0.1G", 107_374_182),
        ("0x8000000", 128 * MIB),
        ("010M", 10 * MIB),
        ("16777217B", 16_777_217),
        ("+128M", 128 * MIB),
        ("1T", 1 << 40),
        ("1p", 1 << 50),
        ("1E", 1 << 60),
        (4096, 4096),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    assert read_size(text) == expected


@pytest.mark.parametrize("text", ["", "1e2", "1.5", "2Gi", "0x8M", "-1", "G", "on", True, None, -1])
def test_what_is_no_size(text: object) -> None:
    with pytest.raises(CommandLineError):
        read_size(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("512", 512 * MIB), ("010", 10 * MIB), ("2G", 2 * GIB), ("512B", 512)]
)
def test_memory_sizes_without_a_suffix_are_mebibytes(text: str, expected: int) -> None:
    assert read_memory_size(text) == expected


def test_a_hexadecimal_memory_size_is_refused_as_in_qemu() -> None:
    with pytest.raises(CommandLineError):
        read_memory_size("0x40000000")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("3", 3), ("0x1f", 31), ("010", 8), ("+3", 3), ("-1", -1), ("0", 0), (" 3", 3), (7, 7)],
)
def test_integers(text: object, expected: int) -> None:
    assert read_integer(text) == expected


@pytest.mark.parametrize("text", ["", "0x", "3.0", "3k", "08", "a", True, None])
def test_what_is_no_integer(text: object) -> None:
    with pytest.raises(CommandLineError):
        read_integer(text)


def test_booleans() -> None:
    assert [read_bool(word) for word in ("on", "yes", "true", "y", True)] == [True] * 5
    assert [read_bool(word) for word in ("off", "no", "false", "n", False)] == [False] * 5


@pytest.mark.parametrize("text", ["On", "1", "", 1, None])
def test_what_is_no_boolean(text: object) -> None:
    with pytest.raises(CommandLineError):
        read_bool(text)


def test_a_long_option_is_shown_short_and_on_one_line() -> None:
    shown = shorten("a\nb " + "x" * 200)
    assert shown.startswith("a b xxx")
    assert shown.endswith("...")
    assert len(shown) == 100
