"""How a structure of the specification is declared: once, as a class whose annotations say where
each field lives.

    @structure(64, ref="NVM Command Set 1.1, 3.3.4")
    class Read(Structure, frozen=True):
        slba: Annotated[int, Bits(10, 63)] = 0
        nlb: Annotated[int, Bits(12, 15, 0, add=1)] = 1

gives `Read.decode(data, offset)`, `Read.from_words(words)`, `read.encode()`, the constructor, repr,
equality and `match` (msgspec), `Read.size`, `Read.ref` and `Read.reserved`, the mask of all bits no
field claims. Overlaps and fields outside the structure are refused when the class is made; a value
that does not fit its field is refused by `encode`.

All structures of NVMe are little-endian and a whole number of dwords long.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self, TypeVar, get_type_hints

import msgspec


class Bits(NamedTuple):
    """Bits `hi`:`lo` of dword `dw`, inclusive, as the specification prints them. `hi` may go past
    31: the field then continues in the dwords that follow."""

    dw: int
    hi: int = 31
    lo: int = 0
    add: int = 0
    """1 for a field that is 0's based: the attribute is the count."""

    @property
    def position(self) -> int:
        return 32 * self.dw + self.lo

    @property
    def width(self) -> int:
        return self.hi - self.lo + 1


class Bytes(NamedTuple):
    """Bytes `last`:`first` of the structure, inclusive. For an `int`, a little-endian number; for
    `bytes`, the bytes; for `str`, ASCII padded with spaces (Base 2.2, 1.4.2)."""

    first: int
    last: int
    add: int = 0

    @property
    def position(self) -> int:
        return 8 * self.first

    @property
    def width(self) -> int:
        return 8 * (self.last - self.first + 1)


class Structure(msgspec.Struct, frozen=True, gc=False):
    """Base of every declared structure. The methods are made by `@structure`."""

    size: ClassVar[int]
    """Length in bytes."""
    ref: ClassVar[str]
    """Document, revision and section that defines it."""
    reserved: ClassVar[int]
    """Bits that no field claims, as one little-endian number of 8 * size bits."""
    fields: ClassVar[dict[str, Bits | Bytes]]

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Self:
        """Read the structure from `data`. Raises struct.error if it is too short."""
        raise NotImplementedError("made by @structure")

    @classmethod
    def from_words(cls, words: tuple[int, ...]) -> Self:
        """The structure from its dwords; for structures without `bytes` and `str` fields."""
        raise NotImplementedError("made by @structure")

    def encode(self) -> bytes:
        """The structure as `size` bytes. Raises ValueError if a value does not fit its field."""
        raise NotImplementedError("made by @structure")


S = TypeVar("S", bound=type[Structure])


def _number(text: str | bytes, place: Bytes) -> int:
    """A `str` or `bytes` field as the number its bytes make."""
    raw = text.encode("ascii").ljust(place.width // 8) if isinstance(text, str) else text
    if len(raw) > place.width // 8:
        return 1 << place.width  # too long, even if what hangs over is zero
    return int.from_bytes(raw, "little")


def _misfit(value: Structure) -> ValueError:
    for name, place in value.fields.items():
        field = getattr(value, name)
        number = field - place.add if isinstance(field, int) else _number(field, place)  # type: ignore[arg-type]
        if number < 0 or number >> place.width:
            break
    return ValueError(f"{type(value).__name__}.{name}: {field!r} does not fit {place.width} bits")


def _encoder(places: dict[str, Bits | Bytes], kinds: dict[str, type], size: int, fixed: int) -> str:
    """Source of `encode`: all fields as numbers, one test that they fit, one sum."""
    lines, tests, terms = [], [], [f"{fixed:#x}"]
    for i, (name, place) in enumerate(places.items()):
        number = f"s.{name} - {place.add}" if kinds[name] is int else f"N(s.{name}, P[{name!r}])"
        lines.append(f" a{i} = {number}\n")
        tests.append(f"a{i} >> {place.width}")
        terms.append(f"a{i} << {place.position}")
    misfit = f" if {' or '.join(tests)}:\n  raise E(s)\n" if tests else ""
    total = " | ".join(terms)
    return f"def encode(s):\n{''.join(lines)}{misfit} return ({total}).to_bytes({size}, 'little')\n"


def _expression(place: Bits | Bytes, kind: type) -> str:
    """Python source that takes one field out of `w` (the dwords) or `d`, `o` (bytes, offset)."""
    position, width = place.position, place.width
    if kind is not int:
        first = position // 8
        raw = f"bytes(d[o + {first}:o + {first + width // 8}])"
        return raw if kind is bytes else raw + '.decode("ascii", "replace").rstrip(" \\0")'
    word, low = divmod(position, 32)
    last = (position + width - 1) // 32
    parts = [f"w[{word}]"] + [f"w[{i}] << {32 * (i - word)}" for i in range(word + 1, last + 1)]
    value = " | ".join(parts)
    if low:
        value = f"({value}) >> {low}"
    if low + width != 32 * (last - word + 1):
        value = f"({value}) & {(1 << width) - 1:#x}"
    return f"({value}) + {place.add}" if place.add else f"({value})"


def structure(size: int, *, ref: str, fixed: int = 0, also_taken: int = 0) -> Callable[[S], S]:
    """Class decorator: see the module. `fixed` are bits that every encoded value has set, such as
    a command's opcode; `also_taken` are bits that have a meaning without being a field here."""
    assert size % 4 == 0

    def declare(cls: S) -> S:
        hints = get_type_hints(cls, include_extras=True)
        places: dict[str, Bits | Bytes] = {}
        kinds: dict[str, type] = {}
        expressions: list[str] = []
        taken = also_taken
        for name in cls.__struct_fields__:
            place = hints[name].__metadata__[0]
            mask = (1 << place.width) - 1 << place.position
            assert place.width > 0 and mask < 1 << 8 * size, f"{cls.__name__}.{name} lies outside"
            assert not taken & mask, f"{cls.__name__}.{name} overlaps another field"
            taken |= mask
            places[name] = place
            kinds[name] = hints[name].__origin__
            expressions.append(_expression(place, kinds[name]))
        made: dict[str, Any] = {"U": struct.Struct(f"<{size // 4}I").unpack_from, "C": cls}
        made |= {"N": _number, "P": places, "E": _misfit}
        fields = ", ".join(expressions)
        exec(  # one generated call is many times faster than a loop over the fields
            f"def decode(d, o=0):\n w = U(d, o)\n return C({fields})\n"
            + ("" if "d[" in fields else f"def from_words(w):\n return C({fields})\n")
            + _encoder(places, kinds, size, fixed),
            made,
        )
        for method in made.keys() & {"decode", "from_words"}:
            setattr(cls, method, staticmethod(made[method]))
        setattr(cls, "encode", made["encode"])  # noqa: B010  (mypy refuses the plain assignment)
        cls.size, cls.ref, cls.fields = size, ref, places
        cls.reserved = ~taken & (1 << 8 * size) - 1
        return cls

    return declare


class OpenEnum(enum.IntEnum):
    """An enumeration that knows some names and accepts every number: an unknown value stays the
    number, with a name such as `0xc1`. Decoding never fails."""

    @classmethod
    def _missing_(cls, value: object) -> Self:
        assert isinstance(value, int)
        member = int.__new__(cls, value)
        member._name_ = f"{value:#x}"
        member._value_ = value
        return member

    @property
    def label(self) -> str:
        """The name in words: `write zeroes`, or `0xc1`."""
        return self.name.lower().replace("_", " ")
