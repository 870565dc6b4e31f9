"""QEMU's option strings: `key=value,key=value`, their JSON form, and the values in them.

QEMU has two readers of its own, and this module follows both:

* the older one (`-device`, `-drive`, `-m`, `-object`): a key without a value is a flag, which means
  `on`, or `off` when it starts with `no`;
* the newer one (`-blockdev`, `-machine`): a key without a value is an error.

In both, the first value may stand without its key, `,,` in a value is one comma, and the last of
several equal keys wins (but the first `id`). Checked against QEMU 7.2 and 11.1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction

from nvmelab.limits import QEMU_OPTION_SHOWN_MAX


class CommandLineError(Exception):
    """A QEMU command line that we cannot serve. The message is one line that says what to do.

    Usual cause: an option of `-device nvme` or of its drive that nvmelab does not have.
    """


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set: how the tables here are written."""
    return frozenset(text.split())


_TRUE = words("on yes true y")
_FALSE = words("off no false n")
_SUFFIXES = {"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_SIZE = re.compile(r"\s*\+?(?:(0[xX][0-9a-fA-F]+)|(\d+\.?\d*|\.\d+)([bBkKmMgGtTpPeE]?))", re.ASCII)
_INTEGER = re.compile(r"\s*([+-]?)(?:0[xX]([0-9a-fA-F]+)|0([0-7]+)|(0|[1-9]\d*))", re.ASCII)
_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|' r"'((?:[^'\\]|\\.)*)'")


def split_pairs(text: str, implied: str | None = None) -> list[tuple[str, str | None]]:
    """The keys and values of an option string, in their order; the value of a flag is None.

    `implied` is the key of a first value that stands without one.
    """
    pairs: list[tuple[str, str | None]] = []
    position = 0
    while position < len(text):
        comma = text.find(",", position)
        end = len(text) if comma < 0 else comma
        equals = text.find("=", position, end)
        if equals >= 0:
            key = text[position:equals]
            value, position = _take_value(text, equals + 1)
            pairs.append((key, value))
        elif position == 0 and implied is not None:
            value, position = _take_value(text, 0)
            pairs.append((implied, value))
        else:
            pairs.append((text[position:end], None))
            position = end + 1
    return pairs


def _take_value(text: str, start: int) -> tuple[str, int]:
    """The value that begins at `start`, commas unescaped, and where the next key begins."""
    parts: list[str] = []
    while True:
        comma = text.find(",", start)
        if comma < 0:
            parts.append(text[start:])
            return "".join(parts), len(text)
        parts.append(text[start:comma])
        if not text.startswith(",,", comma):
            return "".join(parts), comma + 1
        parts.append(",")
        start = comma + 2


def join_pairs(pairs: Iterable[tuple[str, str]]) -> str:
    """The option string of these keys and values, commas in values escaped."""
    return ",".join(f"{key}={value.replace(',', ',,')}" for key, value in pairs)


def parse_options(text: str, implied: str | None = None) -> dict[str, str]:
    """Read as QEMU reads `-device`: flags are on or off, dotted keys stay as they are."""
    options: dict[str, str] = {}
    for key, value in split_pairs(text, implied):
        if value is None:
            negated = key.startswith("no")
            key, value = (key[2:], "off") if negated else (key, "on")
        if key != "id" or "id" not in options:
            options[key] = value
    return options


def parse_nested(text: str, implied: str | None = None) -> dict[str, object]:
    """Read as QEMU reads `-blockdev`: JSON, or keys whose dots make nested dictionaries.

    Raises CommandLineError for a key without a value and for keys that contradict each other.
    """
    if text.startswith("{"):
        return parse_json(text)
    flat: dict[str, str] = {}
    for key, value in split_pairs(text, implied):
        if value is None:
            raise CommandLineError(f"'=' expected after {key!r}")
        flat[key] = value
    return nest(flat)


def parse_device(text: str) -> dict[str, object]:
    """Read a `-device`: JSON or options. Raises CommandLineError."""
    return parse_json(text) if text.startswith("{") else dict(parse_options(text, "driver"))


def nest(flat: Mapping[str, str]) -> dict[str, object]:
    """Turn `{"file.driver": "x"}` into `{"file": {"driver": "x"}}`."""
    root: dict[str, object] = {}
    for key, value in flat.items():
        *parents, last = key.split(".")
        table = root
        for parent in parents:
            inner = table.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise CommandLineError(f"{parent!r} is both a value and a group of options")
            table = inner
        if last in table:
            raise CommandLineError(f"{key!r} is both a value and a group of options")
        table[last] = value
    return root


def parse_json(text: str) -> dict[str, object]:
    """Read the JSON form of an option. As in QEMU, strings may stand in single quotes."""
    try:
        value = json.loads(_JSON_STRING.sub(_double_quoted, text), object_pairs_hook=_unique)
    except ValueError as error:
        raise CommandLineError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise CommandLineError("not a JSON object")
    return value


def _double_quoted(match: re.Match[str]) -> str:
    single: str | None = match[1]
    if single is None:
        return match[0]
    return '"' + single.replace("\\'", "'").replace('"', '\\"') + '"'


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice")
    return table


def read_bool(value: object) -> bool:
    """A boolean as QEMU spells it, or JSON's own. Raises CommandLineError."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value in _TRUE | _FALSE:
        return value in _TRUE
    raise CommandLineError(f"{value!r} is not on or off")


def read_integer(value: object) -> int:
    """An integer: decimal, hexadecimal (0x), octal (0), or JSON's. Raises CommandLineError."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _INTEGER.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise CommandLineError(f"{value!r} is not an integer")
    sign, hexadecimal, octal, decimal = match.groups()
    base = 16 if hexadecimal else 8 if octal else 10
    number = int(hexadecimal or octal or decimal, base)
    return -number if sign == "-" else number


def read_size(value: object) -> int:
    """A size in bytes: a number, perhaps with a suffix (B K M G T P E), or JSON's integer.

    A fraction needs a suffix, and a hexadecimal number has none. Raises CommandLineError.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None or ("." in match[0] and not match[3]):
        raise CommandLineError(f"{value!r} is not a size; sizes look like 512, 64K, 2G or 1.5G")
    if match[1]:
        return int(match[1], 16)
    # A dot may stand first or last, which Fraction does not take.
    number = Fraction(f"0{match[2]}0" if "." in match[2] else match[2])
    return int(number * (1 << _SUFFIXES[match[3].upper()]))


def read_memory_size(value: str) -> int:
    """The size of `-m`, in bytes: without a suffix it counts MiB. Raises CommandLineError."""
    size = read_size(value)
    return read_size(value + "M") if value[-1].isdigit() else size


def shorten(text: str) -> str:
    """An option as an error message shows it: one line, cut when long."""
    line = " ".join(text.split())
    if len(line) <= QEMU_OPTION_SHOWN_MAX:
        return line
    return line[: QEMU_OPTION_SHOWN_MAX - 3] + "..."
