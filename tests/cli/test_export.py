"""`nvmelab export`: what opens in Perfetto is well formed, and a capture becomes a log."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from nvmelab.cli.export import _log_to_perfetto
from nvmelab.pair import Pair, workload
from nvmelab.trace.capture import CaptureFile, Served
from tests.check.test_diagnosis import DATA, EXCERPT, HANG, SOUND
from tests.check.test_monitor import IRQ, ROUND, START, fetch, finish, ring
from tests.cli.conftest import Invoke, error_of

Events = list[dict[str, Any]]


def of_log(log: bytes) -> Events:
    file = io.StringIO()
    _log_to_perfetto(iter([log]), file, "x.log")
    events: Events = json.loads(file.getvalue())["traceEvents"]
    return events


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """Of the whole workload of a pair, a time for each event."""
    path = tmp_path / "run.capture"
    times = iter(range(0, 10**9, 700))
    file = CaptureFile(str(path), Served("disk.img", "pair", 64), clock=lambda: next(times))
    file.open()
    pair = Pair()
    pair.device.trace = file.emit
    workload(pair.driver)
    file.close()
    return path


def check(events: Events) -> None:
    """Slices of a track nest, flows begin and end in slices and go forward, names are known."""
    tracks: dict[int, list[tuple[float, float]]] = defaultdict(list)
    flows: dict[int, list[dict[str, Any]]] = defaultdict(list)
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    for event in events:
        assert event["ph"] in "MXCstf" and event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] > 0 and event["tid"] in named
            tracks[event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] in "stf":
            flows[event["id"]].append(event)
    for thread, slices in tracks.items():
        open_: list[float] = []
        for begin, end in sorted(slices, key=lambda pair: (pair[0], -pair[1])):
            while open_ and open_[-1] <= begin + 1e-6:
                open_.pop()
            assert not open_ or end <= open_[-1] + 1e-6 or thread < 3, (thread, begin, end)
            open_.append(end)
    for steps in flows.values():
        assert steps[0]["ph"] == "s" and steps[-1]["ph"] == "f"
        assert [step["ts"] for step in steps] == sorted(step["ts"] for step in steps)
        for step in steps:
            inside = (begin <= step["ts"] <= end + 1e-6 for begin, end in tracks[step["tid"]])
            assert any(inside), step


@pytest.mark.parametrize("log", [EXCERPT, HANG, SOUND, (START + ROUND * 50).encode()])
def test_a_log_is_well_formed(log: bytes) -> None:
    events = of_log(log)
    check(events)
    assert any(event["name"].startswith("read") for event in events) or log is EXCERPT


def commands(events: Events) -> Events:
    return [event for event in events if event["ph"] == "X" and "cid" in event.get("args", {})]


def test_the_stages_of_a_command_are_in_it(capture: Path, nvmelab: Invoke) -> None:
    target = capture.with_suffix(".json")
    said = nvmelab("export", str(capture), "--perfetto", str(target)).stdout
    events = json.loads(target.read_text())["traceEvents"]
    check(events)
    assert f"{len(commands(events)):,} commands of" in said
    first = commands(events)[0]
    inner = [e["name"] for e in events if e["ph"] == "X" and e["tid"] == first["tid"]][1:5]
    assert [name.split(",")[0] for name in inner] == ["rung", "fetched", "finished", "posted"]
    names = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"doorbells", "interrupts", "SQ 0", "SQ 1", "SQ 2"} <= names
    counted = {event["name"] for event in events if event["ph"] == "C"}
    assert {"SQ 0", "SQ 1"} <= counted


def test_what_never_ended_is_shown_to_the_end() -> None:
    stuck = [event for event in commands(of_log(EXCERPT)) if "released" in event["args"]]
    assert [event["args"]["cid"] for event in stuck] == [4]


def tracks(events: Events) -> list[str]:
    return [event["args"]["name"] for event in events if event["name"] == "thread_name"]


SHADOWS = (
    ring(4, 0)
    + "pci_nvme_admin_cmd cid 3 sqid 0 opc 0x7c opname 'NVME_ADM_CMD_DBBUF_CONFIG'\n"
    + "pci_nvme_dbbuf_config dbs_addr=0x5000 eis_addr=0x6000\n"
    + "pci_nvme_enqueue_req_completion cid 3 cqid 0 dw0 0x0 dw1 0x0 status 0x0\n"
    + IRQ
    + "pci_nvme_mmio_doorbell_cq cqid 0 new_head 4\n"
)


def looks(tail: int) -> str:
    return f"pci_nvme_update_sq_tail sqid 1 new_tail {tail}\n"


def test_what_shadow_doorbells_do_not_show_is_not_drawn(tmp_path: Path, nvmelab: Invoke) -> None:
    rounds = [
        looks(number % 4) + fetch(number % 4) + finish(number % 4) + IRQ + "\n" * 7
        for number in range(1, 7)
    ]
    look = "pci_nvme_update_cq_head cqid 1 new_head {}\n"
    rounds[3:3], rounds[7:] = [look.format(3)], [look.format(2)]
    events = of_log((START + SHADOWS + "".join(rounds)).encode())
    check(events)
    assert tracks(events) == ["doorbells", "interrupts", "SQ 0", "SQ 1"]
    found = [event for event in commands(events) if event["name"].startswith("read")]
    assert len(found) == 6
    for event in found:
        assert event["args"]["released"] == "does not show"
        # From its tail over its fetch and its end to the interrupt.
        assert 3.0 <= event["dur"] < 3.1
    inner = [e for e in events if e["ph"] == "X" and e["name"].startswith("posted; ")]
    assert len(inner) == 6 and all(event["dur"] < 0.01 for event in inner)
    ends = [event for event in events if event["ph"] == "f" and event["tid"] == 2]
    assert len(ends) >= 6
    path = tmp_path / "x.log"
    path.write_text(START + SHADOWS + "".join(rounds))
    said = nvmelab("export", str(path), "--perfetto", str(tmp_path / "x.json")).stdout
    assert "--doorbells trapped" in said
    path.write_text(START + ROUND)
    said = nvmelab("export", str(path), "--perfetto", str(tmp_path / "x.json")).stdout
    assert "--doorbells" not in said


@pytest.mark.parametrize("end", ["", "pci_nvme_mmio_stopped x\n" + START + ROUND])
def test_what_was_rung_and_never_fetched_has_a_slice(end: str) -> None:
    log = START + ROUND + ring(2) + fetch(1) + ring(0) + "a console\n" * 20
    events = of_log((log + end).encode())
    check(events)
    (rung,) = (event for event in events if event["name"].startswith("rung, never"))
    assert rung["name"] == "rung, never fetched (2 entries)" and rung["args"]["fetched"] == "never"
    until = log.count("\n") + bool(end)
    assert end_of(rung) == until
    (read,) = (event for event in commands(events) if "never" in event["name"])
    assert read["name"] == "read 0x1, never finished" and end_of(read) == until
    assert {event["name"] for event in events if "dur" in event and event["ts"] == read["ts"] + 1}
    if end:
        counts = [event["args"] for event in events if event["ph"] == "C" and event["ts"] == until]
        assert counts == [{"rung": 0, "at the device": 0}] * 2


def test_a_deleted_queue_ends_what_it_had() -> None:
    deletion = (
        ring(4, 0)
        + "pci_nvme_admin_cmd cid 3 sqid 0 opc 0x0 opname 'x'\n"
        + "pci_nvme_del_sq deleting submission queue sqid=1\n"
        + "pci_nvme_enqueue_req_completion cid 3 cqid 0 dw0 0x0 dw1 0x0 status 0x0\n"
    )
    log = START + ring(2) + fetch(1) + deletion
    events = of_log((log + "a console\n" * 20).encode())
    check(events)
    of_sq = [event["tid"] >> 16 for event in events if event["name"] == "thread_name"]
    assert set(of_sq) == {0, 1, 2}
    ended = [e for e in events if e["ph"] == "X" and "never" in e["name"] and e["tid"] >> 16 == 2]
    assert {end_of(event) for event in ended} == {log.count("\n")}
    assert {event["name"] for event in ended} == {
        *("read 0x1, never finished", "fetched, never finished", "rung, never fetched")
    }


def end_of(event: dict[str, Any]) -> float:
    end: float = event["ts"] + event["dur"]
    return end


@pytest.mark.parametrize("after", [b"a console\n", b"pci_nvme_mmio_read addr 0x1c size 4\n"])
def test_without_times_every_line_counts_as_a_microsecond(after: bytes) -> None:
    (stuck,) = (
        event for event in commands(of_log(EXCERPT + after * 500)) if "released" in event["args"]
    )
    assert end_of(stuck) == EXCERPT.count(b"\n") + 500


def test_lines_without_a_time_among_others_take_none() -> None:
    stamped = b"".join(
        b"7@1000.%06d:%s\n" % (at, line) for at, line in enumerate(HANG.splitlines())
    )
    plain = commands(of_log(stamped))
    mixed = commands(of_log(stamped.replace(b"\n", b"\n" + b"a console\n" * 5)))
    late = commands(of_log(b"a console\n" * 100 + stamped))
    assert [round(event["ts"]) for event in mixed] == [round(event["ts"]) for event in plain]
    assert [round(event["ts"] - 100) for event in late] == [round(event["ts"]) for event in plain]


def test_a_capture_becomes_the_log_again(capture: Path, nvmelab: Invoke) -> None:
    log = capture.with_suffix(".log")
    assert "events" in nvmelab("export", str(capture), "--qemu-log", str(log)).stdout
    assert log.read_text().startswith("pci_nvme_")
    plain = json.loads(nvmelab("diagnose", str(log), "--json").stdout)
    exact = json.loads(nvmelab("diagnose", str(capture), "--json").stdout)
    assert plain["verdict"] == exact["verdict"] == "clean"
    assert plain["exercised"] == exact["exercised"]


def test_where_a_damaged_capture_stood_still_does_not_show(capture: Path, nvmelab: Invoke) -> None:
    data = bytearray(capture.read_bytes())
    data[-100] ^= 0xFF
    capture.write_bytes(data)
    said = error_of(nvmelab("diagnose", str(capture), "--hung"), 2)
    assert "its checksum is wrong" in said and said.endswith("leave out --hung")
    assert "its checksum is wrong" in " ".join(nvmelab("diagnose", str(capture)).stdout.split())
    capture.write_bytes(data[:-100])  # cut, not damaged
    assert nvmelab("diagnose", str(capture), "--hung").exit_code in (0, 1)


def test_what_cannot_be_exported_is_one_line(capture: Path, nvmelab: Invoke) -> None:
    target = str(capture.with_suffix(".out"))
    assert "say one form" in error_of(nvmelab("export", str(capture)), 2)
    text = capture.with_suffix(".txt")
    text.write_text("nothing\n")
    assert "no capture" in error_of(nvmelab("export", str(text), "--qemu-log", target), 2)
    linux = str(DATA / "linux-7-outstanding.trace")
    said = error_of(nvmelab("export", linux, "--perfetto", target), 2)
    assert "Linux's own trace" in said and not Path(target).exists()
    assert "no line" in error_of(nvmelab("export", str(text), "--perfetto", target), 2)
    half = capture.with_suffix(".half")
    half.write_bytes(capture.read_bytes()[:3000])
    assert "no whole header" in error_of(nvmelab("export", str(half), "--perfetto", target), 2)
    nowhere = str(capture.parent / "no" / "x")
    assert "can be written" in error_of(nvmelab("export", str(capture), "--perfetto", nowhere), 2)


def test_a_dash_is_standard_output(capture: Path, nvmelab: Invoke) -> None:
    target = capture.with_suffix(".json")
    nvmelab("export", str(capture), "--perfetto", str(target))
    result = nvmelab("export", str(capture), "--perfetto", "-")
    assert result.stdout == target.read_text()
    assert result.stderr.startswith("standard output: ") and " commands of " in result.stderr
    log = nvmelab("export", str(capture), "--qemu-log", "-").stdout
    assert log.startswith("pci_nvme_")


def test_a_reader_of_standard_output_may_go_early(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(START + ROUND * 2000)
    words = [sys.executable, "-m", "nvmelab", "export", str(log), "--perfetto", "-"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout and child.stderr
        child.stdout.read(10)
        child.stdout.close()
        assert child.stderr.read() == b""


def test_an_export_of_half_a_packed_log_says_so(nvmelab: Invoke, tmp_path: Path) -> None:
    path, target = tmp_path / "log.gz", tmp_path / "log.json"
    path.write_bytes(gzip.compress(HANG)[:900])
    said = nvmelab("export", str(path), "--perfetto", str(target)).stdout
    assert said.endswith("; the compressed data ends too early\n")
    check(json.loads(target.read_text())["traceEvents"])
