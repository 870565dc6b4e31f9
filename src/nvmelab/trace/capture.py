"""The capture file: every event of one controller, exactly, with its time.

MAGIC, and then records: 4 bytes with the length of the content, 4 with its CRC-32, both little
endian, and the content in msgpack. The first record is the `Header`. The others are flat arrays of
what one event after another needs: its number in the header's table, the nanoseconds since the
event before it (since the start, for the first), its values. A text is written once; where it comes
again, its number (from 0, in the order of the file) stands for it. The last record, `[-1, ns]`,
says that the file was ended and not cut.

A record is written at the end of a turn of the loop, so what a kill can take is that turn.
"""

from __future__ import annotations

import itertools
import logging
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Annotated, Any, NamedTuple

import msgspec

from nvmelab import __version__
from nvmelab.limits import (
    CAPTURE_EVENTS_MAX,
    CAPTURE_FIELDS_MAX,
    CAPTURE_RECORD_BYTES_MAX,
    CAPTURE_TEXT_MAX,
    CAPTURE_TEXTS_MAX,
    CAPTURE_VALUES,
    CAPTURE_VALUES_MAX,
)
from nvmelab.trace.events import EVENTS
from nvmelab.trace.file import TraceError

_log = logging.getLogger("nvmelab.trace")

MAGIC = b"nvmelab capture\n"
VERSION = 1
_FRAME = struct.Struct("<II")
_END = -1
_U64 = (1 << 64) - 1

_Text = Annotated[str, msgspec.Meta(max_length=CAPTURE_TEXT_MAX)]
_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Field = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]{1,32}:[dxq]$")]
_Table = Annotated[
    list[tuple[_Word, Annotated[list[_Field], msgspec.Meta(max_length=CAPTURE_FIELDS_MAX)]]],
    msgspec.Meta(max_length=CAPTURE_EVENTS_MAX),
]


class Served(msgspec.Struct, frozen=True):
    """What the controller of a capture was."""

    image: _Text
    serial: _Text
    queue_entries: int
    """Of the largest I/O queue that it allows."""
    device: _Text = "nvmelab"
    """Whose rules it follows."""
    latency_ns: int = 0
    """How long each operation of its storage takes at least."""


class Header(msgspec.Struct, frozen=True):
    """What stands before the events."""

    version: int
    program: _Text
    begun_ns: int
    """The wall clock (UNIX time) when the time of the capture is 0."""
    clock_ns: int
    """The monotonic clock then: captures of one machine can be put side by side."""
    served: Served
    events: _Table
    """The kinds of events by their number: name, and each field as `key:form`."""


class CaptureError(Exception):
    """This is no capture that can be read. One line for the user."""


class CaptureFile:
    """Writes the events of one controller: `emit` is an emitter. The file is overwritten by `open`
    and not before.

    A file that cannot be written any more, on a full disk for example, ends the capture with a line
    in the log: the guest goes on.
    """

    def __init__(
        self, path: str, served: Served, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.path = path
        self._served = served
        self._clock = clock
        self._file: IO[bytes] | None = None
        self._kinds = {
            name: (number, tuple(at for at, (_, form) in enumerate(event.fields) if form == "q"))
            for number, (name, event) in enumerate(EVENTS.items())
        }
        self._texts: dict[str, int] = {}
        self._pending: list[int | str] = []
        self._encode = msgspec.msgpack.Encoder(enc_hook=int).encode  # int: other kinds of integers

    def open(self) -> None:
        """Begin. Raises TraceError."""
        self._last = self._clock()
        served = msgspec.structs.replace(self._served, image=_writable(self._served.image))
        header = Header(
            version=VERSION,
            program=f"nvmelab {__version__}",
            begun_ns=time.time_ns(),
            clock_ns=self._last,
            served=served,
            events=[
                (event.name, [f"{key}:{form}" for key, form in event.fields])
                for event in EVENTS.values()
            ],
        )
        try:
            self._file = Path(self.path).open("wb")  # noqa: SIM115
            self._file.write(MAGIC + _record(msgspec.msgpack.encode(header)))
            self._file.flush()
        except OSError as error:
            raise TraceError(
                f"--capture {self.path}: {error.strerror}; name a file that can be written"
            ) from None

    def emit(self, name: str, *values: Any) -> None:
        """Take an event, whose time is now."""
        number, texts = self._kinds[name]
        now = self._clock()
        pending = self._pending
        pending.append(number)
        pending.append(now - self._last)
        self._last = now
        begin = len(pending)
        pending.extend(values)
        for at in texts:
            pending[begin + at] = self._text(str(values[at]))
        if len(pending) >= CAPTURE_VALUES:
            self._write()

    def listen(self, name: str, values: tuple[object, ...]) -> None:
        """As `emit`, as a listener of a bus."""
        self.emit(name, *values)

    def _text(self, text: str) -> int | str:
        """The number of a text that is in the file, or the text."""
        number = self._texts.get(text)
        if number is not None:
            return number
        if len(self._texts) < CAPTURE_TEXTS_MAX:
            self._texts[text] = len(self._texts)
        return _writable(text)

    def flush(self) -> None:
        """Have everything in the file that happened until now."""
        if self._pending:
            self._write()

    def _write(self) -> None:
        values, self._pending = self._pending, []
        if self._file:
            try:
                self._file.write(_record(self._encode(values)))
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """End the file. Safe to call twice."""
        self.flush()
        if self._file:
            self._pending += [_END, self._clock() - self._last]
            self._write()
        if self._file:
            self._file.close()
            self._file = None

    def _give_up(self, error: OSError) -> None:
        file, self._file = self._file, None
        _log.error("%s: %s; the capture ends here", self.path, error.strerror)
        if file:
            try:
                file.close()
            except OSError:
                pass  # what it still held cannot be written either


def _writable(text: str) -> str:
    """A text, such as the name of a file, which need not be UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()[:CAPTURE_TEXT_MAX]


def _record(content: bytes) -> bytes:
    return _FRAME.pack(len(content), zlib.crc32(content)) + content


class Captured(NamedTuple):
    """An event of a capture."""

    number: int
    """From 1."""
    ns: int
    """Since the start."""
    name: str
    values: tuple[int | str, ...]


_BOUNDS = dict.fromkeys(
    ("cid", "sqid", "cqid", "new_tail", "new_head", "vector", "qsize", "opc", "status", "slot"),
    0xFFFF,
) | {f"dw{number}": 0xFFFF_FFFF for number in range(16)}
"""The largest value of what others compute with, by the field's key."""


class _Kind:
    """One kind of event of a file's table."""

    def __init__(self, name: str, fields: list[str]) -> None:
        parsed = [tuple(field.split(":")) for field in fields]
        self.count = len(parsed)
        self.texts = [at for at, (_, form) in enumerate(parsed) if form == "q"]
        self.bounds = [_BOUNDS.get(key, _U64) for key, _ in parsed]
        ours = EVENTS.get(name)
        self.name: str | None = name
        self.places: list[int] | None = None
        """Where our fields stand, if not in our order."""
        if ours and [*ours.fields] != parsed:
            left = [*enumerate(parsed)]
            self.places = []
            for field in ours.fields:
                found = next((item for item in left if item[1] == field), None)
                if found is None:
                    ours = None
                    break
                left.remove(found)  # keys repeat
                self.places.append(found[0])
        if ours is None:
            self.name = None  # not an event of this version


def told_apart(chunks: Iterator[bytes]) -> tuple[bool, Iterator[bytes]]:
    """Whether this is a capture; and the same chunks again."""
    first = next(chunks, b"")
    return first.startswith(MAGIC), itertools.chain([first], chunks)


class CaptureReader:
    """A capture from its bytes, in pieces of any size. Reads the header. Raises CaptureError; what
    is wrong behind the header ends the events, and `cut` says so."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._chunk = b""
        self._read = 0
        """How much of the chunk was taken."""
        self._at = 0
        self.events = 0
        self.unknown = 0
        """Events that this version does not know, which are left out."""
        self.ns = 0
        """The time of the last event, or of the end."""
        self.cut = ""
        """How the file ends, if not by its end: in words."""
        self.damaged = False
        """`cut` is not for want of bytes: what follows is not what was written."""
        if self._take(len(MAGIC)) != MAGIC:
            raise CaptureError("this is no capture of nvmelab")
        self.header = self._header()
        self._kinds = [_Kind(name, fields) for name, fields in self.header.events]

    def _header(self) -> Header:
        content = self._content()
        if content is None:
            raise CaptureError(f"the capture has no whole header: {self.cut}")
        try:
            version = msgspec.msgpack.decode(content, type=_Versioned).version
            if version != VERSION:
                raise CaptureError(
                    f"the capture has version {version}, and this nvmelab reads {VERSION}; read it "
                    "with the nvmelab that made it"
                )
            return msgspec.msgpack.decode(content, type=Header)
        except ValueError as error:
            raise CaptureError(f"the header of the capture is damaged: {error}") from None

    def _take(self, size: int) -> bytes:
        """So many bytes; fewer at the end of the file."""
        begin = self._read
        if len(self._chunk) - begin < size:
            parts = [self._chunk[begin:]]
            have = len(parts[0])
            while have < size and (chunk := next(self._chunks, None)) is not None:
                parts.append(chunk)
                have += len(chunk)
            self._chunk, begin = b"".join(parts), 0
        taken = self._chunk[begin : begin + size]
        self._read = begin + len(taken)
        self._at += len(taken)
        return taken

    def _content(self) -> bytes | None:
        """Of the next record; None where there is no whole one, and `cut` says why."""
        begin = self._at
        frame = self._take(_FRAME.size)
        if not frame:
            self.cut = "it was not ended: nvmelab was killed, or still runs"
            return None
        if len(frame) == _FRAME.size:
            length, checksum = _FRAME.unpack(frame)
            if not 0 < length <= CAPTURE_RECORD_BYTES_MAX:
                self._damage(begin, f"a length of {length:,} bytes")
                return None
            content = self._take(length)
            if len(content) == length:
                if zlib.crc32(content) != checksum:
                    self._damage(begin, "its checksum is wrong")
                    return None
                return content
        self.cut = f"it ends within the record at byte {begin:,}"
        return None

    def _damage(self, at: int, what: str) -> None:
        self.damaged = True
        self.cut = f"the record at byte {at:,} is damaged ({what}), and the rest is left out"

    def __iter__(self) -> Iterator[Captured]:
        """The events, once."""
        texts: list[str] = []
        decode = msgspec.msgpack.Decoder(_Values).decode
        while True:
            begin, before = self._at, (self.events, self.unknown, self.ns)
            content = self._content()
            if content is None:
                return
            try:
                values = decode(content)
                if values[:1] == [_END]:
                    self.ns = _natural(self.ns + _natural(values[1]))
                    if self._take(1):
                        self._damage(self._at - 1, "it stands behind the end")
                    return
                # All of it, before anybody acts on a part.
                found = [*self._events(values, texts)]
            except (ValueError, IndexError, TypeError) as error:
                self.events, self.unknown, self.ns = before
                self._damage(begin, str(error))
                return
            yield from found

    def _events(self, values: list[int | str], texts: list[str]) -> Iterator[Captured]:
        """Of one record. Raises ValueError, IndexError or TypeError for what cannot be."""
        kinds = self._kinds
        at, end = 0, len(values)
        while at < end:
            kind = kinds[_natural(values[at])]
            self.ns = _natural(self.ns + _natural(values[at + 1]))
            fields = values[at + 2 : at + 2 + kind.count]
            at += 2 + kind.count
            if at > end:
                raise ValueError("an event without its values")
            for place in kind.texts:
                text = fields[place]
                if isinstance(text, str):
                    if len(texts) < CAPTURE_TEXTS_MAX:
                        texts.append(text)
                else:
                    fields[place] = texts[_natural(text)]
            for place, (value, bound) in enumerate(zip(fields, kind.bounds, strict=True)):
                if isinstance(value, str):
                    if place not in kind.texts:
                        raise ValueError("a text where a number should be")
                elif not 0 <= value <= bound:
                    raise ValueError(f"a value of {value}")
            self.events += 1
            if kind.name is None:
                self.unknown += 1
                continue
            if kind.places is not None:
                fields = [fields[place] for place in kind.places]
            yield Captured(self.events, self.ns, kind.name, tuple(fields))


_Values = Annotated[list[int | _Text], msgspec.Meta(max_length=CAPTURE_VALUES_MAX)]


class _Versioned(msgspec.Struct):
    version: int


def _natural(value: int | str) -> int:
    """A number that counts something. Raises ValueError."""
    if isinstance(value, str) or not 0 <= value <= _U64:
        raise ValueError(f"{value!r} where a number should be")
    return value
