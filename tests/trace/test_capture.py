"""The capture file: what is written is read, whatever has happened to the file in between."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelab.check.live import LiveMonitor
from nvmelab.pair import Pair, workload
from nvmelab.trace import capture as module
from nvmelab.trace.capture import (
    MAGIC,
    CaptureError,
    CaptureFile,
    CaptureReader,
    Served,
)
from nvmelab.trace.events import EVENTS
from nvmelab.trace.file import TraceError

SERVED = Served("disk.img", "deadbeef", 64)
Event = tuple[int, str, tuple[int | str, ...]]


def written(path: Path, events: list[Event], *, end: bool = True) -> bytes:
    """A capture of these events, each so many ns after the one before."""
    times = itertools.accumulate([1000, *(ns for ns, _name, _values in events), 5])
    file = CaptureFile(str(path), SERVED, clock=lambda: next(times))
    file.open()
    for _ns, name, values in events:
        file.emit(name, *values)
    file.flush()
    if end:
        file.close()
    return path.read_bytes()


def read(data: bytes, piece: int = 1 << 20) -> tuple[CaptureReader, list[Event]]:
    reader = CaptureReader(data[at : at + piece] for at in range(0, len(data), piece))
    events = [(ns, name, values) for _number, ns, name, values in reader]
    return reader, events


def sample(number: int) -> Event:
    name, event = list(EVENTS.items())[number % len(EVENTS)]
    values = tuple(
        "ram" if form == "q" else (number + at) % 60_000
        for at, (_key, form) in enumerate(event.fields)
    )
    return 7 * number, name, values


SAMPLES = [sample(number) for number in range(300)]


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_what_is_written_is_read(tmp_path: Path, piece: int) -> None:
    reader, events = read(written(tmp_path / "c", SAMPLES), piece)
    assert [(name, values) for _ns, name, values in events] == [s[1:] for s in SAMPLES]
    assert [ns for ns, _name, _values in events] == [*itertools.accumulate(s[0] for s in SAMPLES)]
    assert (reader.cut, reader.unknown, reader.events) == ("", 0, 300)
    assert reader.header.served == SERVED and reader.header.program.startswith("nvmelab ")


def test_a_cut_file_is_read_as_far_as_its_records_are_whole(tmp_path: Path) -> None:
    whole = written(tmp_path / "c", SAMPLES)
    _reader, every = read(whole)
    known = 0
    for size in range(len(whole)):
        try:
            reader, events = read(whole[:size])
        except CaptureError as error:
            assert known == 0 and "\n" not in str(error)
            continue
        assert reader.cut and events == every[: len(events)] and len(events) >= known
        known = len(events)
    assert known == 300


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return written(tmp_path_factory.mktemp("sixty") / "c", SAMPLES[:60])


@given(data=st.data())
def test_a_damaged_byte_is_one_line_or_an_end(sixty: bytes, data: st.DataObject) -> None:
    damaged = bytearray(sixty)
    damaged[data.draw(st.integers(0, len(sixty) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        reader, events = read(bytes(damaged))
    except CaptureError as error:
        assert "\n" not in str(error)
    else:
        assert reader.cut and events == read(sixty)[1][: len(events)]


def record(content: object) -> bytes:
    data = msgspec.msgpack.encode(content)
    return struct.pack("<II", len(data), zlib.crc32(data)) + data


HEADER = {
    "version": 1,
    "program": "x",
    "begun_ns": 0,
    "clock_ns": 0,
    "served": {"image": "i", "serial": "s", "queue_entries": 4},
    "events": [["mmio_read", ["addr:x", "size:d"]], ["new_thing", ["a:d"]]],
}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no capture"),
        (b"something else", "no capture"),
        (MAGIC, "no whole header"),
        (MAGIC + bytes(100), "a length of 0 bytes"),
        (MAGIC + struct.pack("<II", 0xFFFF_FFFF, 0) + b"x" * 100, "4,294,967,295 bytes"),
        (MAGIC + record({"version": 9}), "version 9"),
        (MAGIC + record([1, 2]), "damaged"),
        (MAGIC + record({**HEADER, "events": [["x", ["no form"]]]}), "damaged"),
    ],
)
def test_what_is_no_capture_is_one_line(data: bytes, said: str) -> None:
    with pytest.raises(CaptureError) as caught:
        read(data)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "values",
    [
        *([5, 0], [0], [0, 0, 1], [0, -1, 1, 1], ["x", 0], [0, 0, "x", 1], [0, 0, 1, "x"], [-1]),
        [0, 1, 20, 4, 0, (1 << 64) - 1, 20, 4],  # the times' sum
    ],
)
def test_records_that_cannot_be_end_the_events(values: list[object]) -> None:
    reader, events = read(MAGIC + record(HEADER) + record([0, 7, 20, 4]) + record(values))
    assert events[:1] == [(7, "mmio_read", (20, 4))] and len(events) <= 2
    assert reader.damaged and events[1:] == []
    assert (reader.events, reader.ns) == (1, 7)


def test_bytes_behind_the_end_are_damage() -> None:
    whole = MAGIC + record(HEADER) + record([0, 7, 20, 4]) + record([-1, 0])
    reader, events = read(whole + whole)
    assert len(events) == 1 and reader.damaged and f"byte {len(whole):,}" in reader.cut


def test_events_of_another_version_are_counted() -> None:
    reader, events = read(MAGIC + record(HEADER) + record([1, 1, 9, 0, 2, 20, 4]) + record([-1, 0]))
    assert events == [(3, "mmio_read", (20, 4))] and (reader.unknown, reader.cut) == (1, "")


def test_a_full_disk_ends_the_capture_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    file = CaptureFile("/dev/full", SERVED)
    with pytest.raises(TraceError, match="--capture /dev/full"):
        file.open()
    file = CaptureFile("/dev/null", SERVED)
    file.open()
    assert file._file
    file._file.close()
    file._file = open("/dev/full", "wb")  # noqa: SIM115
    file.emit("err_cfs")
    file.flush()
    file.emit("err_cfs")
    file.close()
    assert "the capture ends here" in caplog.text


def test_a_file_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="name a file that can be written"):
        CaptureFile(str(tmp_path / "no" / "c"), SERVED).open()


def test_a_capture_gives_the_verdict_that_was_given_live(tmp_path: Path) -> None:
    file = CaptureFile(str(tmp_path / "c"), SERVED)
    file.open()
    pair = Pair()
    before = pair.live.events

    def emit(name: str, *values: int) -> None:
        pair.live.emit(name, *values)
        file.emit(name, *values)

    pair.device.trace = emit
    workload(pair.driver)
    file.close()
    again = LiveMonitor()
    for _number, _ns, name, values in CaptureReader(pieces(tmp_path / "c")):
        again.emit(name, *values)
    assert again.events == pair.live.events - before
    assert again.monitor.exercised == pair.verdict(rest=True).exercised


def test_an_image_may_have_a_name_that_is_no_text(tmp_path: Path) -> None:
    file = CaptureFile(str(tmp_path / "c"), Served("\udcff.img", "deadbeef", 64))
    file.open()
    file.close()
    reader, _events = read((tmp_path / "c").read_bytes())
    assert reader.header.served.image == "\\udcff.img"


def pieces(path: Path) -> Iterator[bytes]:
    yield path.read_bytes()


def test_a_text_is_written_once(tmp_path: Path) -> None:
    once = written(tmp_path / "a", [(0, "rw_cb", (1, "a long name of an image"))] * 100)
    assert once.count(b"a long name of an image") == 1
    assert module.VERSION == 1
