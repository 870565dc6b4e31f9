"""`nvmelab diagnose`."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nvmelab.pair import Pair, workload
from nvmelab.trace.capture import CaptureFile, Served
from tests.check.test_diagnosis import DATA, HANG, SOUND
from tests.cli.conftest import Invoke, error_of
from tests.report.test_log_page import data_in

EXCERPT = str(DATA / "issue-2388-excerpt.log")


def test_the_excerpt_in_words(nvmelab: Invoke) -> None:
    result = nvmelab("diagnose", EXCERPT, "--hung", "--sq-entries", "4")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())  # whatever the width
    assert said.startswith(
        "STUCK SQ 1 (4 entries), 1 command: fetched, not finished (line 4); device: finish it "
        "STUCK SQ 1 (4 entries), 2 commands: rung, not fetched (lines 12, 22); device: fetch them "
    )
    heading = "the device has the ball: 2 commands of SQ 1 are rung, not fetched"
    assert f"VERDICT device: {heading} rule a command that was rung is consumed" in said
    step = "a request becomes free, and the device does not look again"
    assert f"line 17: {step} nvme_post_cqes sq->req_list is empty 0 " in said


def test_the_excerpt_for_a_program(nvmelab: Invoke) -> None:
    result = nvmelab("diagnose", EXCERPT, "--hung", "--json")
    said = json.loads(result.stdout)
    assert (result.exit_code, said["verdict"], said["findings"]) == (1, "device", [])
    assert [part["ball"] for part in said["stuck"]] == ["device", "device"]
    assert [part["evidence"] for part in said["stuck"]] == [[4], [12, 22]]
    assert said["pattern"]["evidence"] == [12, 13, 17, 22]
    said = json.loads(nvmelab("diagnose", EXCERPT, "--json").stdout)
    assert (said["verdict"], said["stuck"], said["in_flight"]) == ("undecided", [], 3)


def test_a_healthy_log_is_clean(nvmelab: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(SOUND))
    result = nvmelab("diagnose", str(path))
    assert result.exit_code == 0
    assert result.stdout.startswith("VERDICT  clean")


def test_a_page_of_any_log(nvmelab: Invoke, tmp_path: Path) -> None:
    page = tmp_path / "hang.html"
    assert nvmelab("diagnose", EXCERPT, "--hung", "--html", str(page)).exit_code == 1
    title = "<title>The device has the ball: 2 commands of SQ 1 are rung, not fetched"
    assert title in page.read_text()
    log = tmp_path / "sound.log"
    log.write_bytes(SOUND)
    assert nvmelab("diagnose", str(log), "--html", str(page)).exit_code == 0
    assert "<title>No rule is broken that this can show: sound.log" in page.read_text()


def test_a_page_of_a_log_whose_name_is_no_text(nvmelab: Invoke, tmp_path: Path) -> None:
    log, page = tmp_path / "\udcff.log", tmp_path / "page.html"
    log.write_bytes(SOUND)
    assert nvmelab("diagnose", str(log), "--html", str(page)).exit_code == 0
    assert "that this can show: ?.log" in page.read_text()


def test_a_page_of_a_pipe(tmp_path: Path) -> None:
    page = tmp_path / "hang.html"
    words = [sys.executable, "-m", "nvmelab", "diagnose", "-", "--hung", "--html", str(page)]
    done = subprocess.run(words, input=gzip.compress(HANG), stdout=subprocess.PIPE, check=False)
    assert (done.returncode, b"VERDICT  device" in done.stdout) == (1, True)
    assert "standard input" in page.read_text()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: (
        subprocess.run(["zstd", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout
    ),
}


@pytest.fixture(params=PACKERS)
def packed(request: pytest.FixtureRequest) -> bytes:
    """A log, packed."""
    if request.param == "zstd" and not shutil.which("zstd"):
        pytest.skip("there is no program zstd here")
    return PACKERS[request.param](HANG)


def diagnose(*words: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "nvmelab", "diagnose", "-", *words]
    return subprocess.run(command, input=data, capture_output=True, check=False, timeout=60)


def test_a_packed_log_is_read_from_a_file_and_from_a_pipe(
    nvmelab: Invoke, tmp_path: Path, packed: bytes
) -> None:
    path = tmp_path / "log"
    path.write_bytes(packed)
    said = nvmelab("diagnose", str(path), "--hung").stdout
    assert "VERDICT  device" in said and "log      121 lines" in said
    quoted = f"{'':<11}"  # lines of the log: of a pipe there are none, it cannot be read again
    kept = [line for line in said.splitlines() if not line.startswith(quoted)]
    piped = diagnose("--hung", data=packed).stdout.decode()
    assert piped.split() == " ".join(kept).split()


def test_the_begin_of_a_packed_log_is_read_and_has_no_end(nvmelab: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(HANG)[:900])
    said = " ".join(nvmelab("diagnose", str(path)).stdout.split())
    assert said.endswith("of the nvme device; the compressed data ends too early")
    cut = json.loads(nvmelab("diagnose", str(path), "--json").stdout)
    assert 0 < cut["lines"] < 121 and cut["cut"] == "the compressed data ends too early"
    message = error_of(nvmelab("diagnose", str(path), "--hung"), 2)
    assert message.endswith("so that its last events are no end; leave out --hung")
    done = diagnose("--hung", data=gzip.compress(HANG)[:900])
    assert done.stderr.startswith(b"nvmelab: error: standard input: the compressed data ends")


def test_one_line_is_not_1_lines(nvmelab: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"pci_nvme_mmio_read addr 0x1c size 4\n")
    assert "log      1 line, 1 of the nvme device" in nvmelab("diagnose", str(path)).stdout


def test_where_a_page_went_is_said_and_no_folder_is_made_for_it(
    nvmelab: Invoke, tmp_path: Path
) -> None:
    page = tmp_path / "hang.html"
    result = nvmelab("diagnose", EXCERPT, "--hung", "--html", str(page))
    assert result.stderr == f"nvmelab: {page}: the page of this log\n"
    nowhere = tmp_path / "no/hang.html"
    message = error_of(nvmelab("diagnose", EXCERPT, "--html", str(nowhere)), 2)
    assert f"there is no folder {nowhere.parent}; make it, or name another" in message
    assert not nowhere.parent.exists()
    assert "standard output has the verdict" in error_of(
        nvmelab("diagnose", EXCERPT, "--html", "-"), 2
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nope", "there is no rule 'nope'; nvmelab rules lists them"),
        ("queues.sizes", "there is no rule 'queues.sizes'; is it queues.size"),
        ("progress.driver", "progress.driver is the verdict on what stands still, and cannot be"),
    ],
)
def test_a_rule_to_waive_that_is_none(nvmelab: Invoke, name: str, said: str) -> None:
    assert said in error_of(nvmelab("diagnose", EXCERPT, "--waive", name), 2)


LINUX = DATA / "linux-7-outstanding.trace"


@pytest.mark.parametrize("before", [b"", b"[    1.0] a long console\r\n" * 100_000])
def test_linuxs_own_trace_in_words(nvmelab: Invoke, tmp_path: Path, before: bytes) -> None:
    path = tmp_path / "trace.gz"
    path.write_bytes(gzip.compress(before + LINUX.read_bytes(), 1))
    result = nvmelab("diagnose", str(path), "--hung")
    assert result.exit_code == 1
    said = " ".join(result.stdout.split())
    number = before.count(b"\n") + 124
    assert said.startswith(
        "STUCK nvme0 SQ 1 (1024 entries), 1 command: set up by Linux, not completed "
        f"(line {number}); device or platform or driver: complete it, deliver its interrupt, or "
        "take its completion VERDICT undecided: it stands still, and whose fault that is does not "
        f"show proof line {number}: "
    )
    assert said.endswith(" of Linux's nvme driver")
    assert nvmelab("diagnose", str(path)).exit_code == 0


TIMED = """\
7@{0}.000001:pci_nvme_mmio_doorbell_sq sqid 1 new_tail 1
7@{0}.000002:pci_nvme_io_cmd cid 7 nsid 0x1 sqid 1 opc 0x2 opname 'NVME_NVM_CMD_READ'
7@{1}.000003:pci_nvme_mmio_stopped cleared controller enable bit
"""


@pytest.mark.parametrize(("end", "verdict", "status"), [(130, "device", 1), (100, "clean", 0)])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_how_long_it_had_waited_when_the_host_gave_up(
    nvmelab: Invoke,
    tmp_path: Path,
    pack: Callable[[bytes], bytes],
    end: int,
    verdict: str,
    status: int,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(pack(b"\n" * 1000 + TIMED.format(100, end).encode()))
    result = nvmelab("diagnose", str(path), "--json")
    said = json.loads(result.stdout)
    assert (said["verdict"], result.exit_code) == (verdict, status)
    assert said["taken_back"] == (1003 if verdict == "device" else None)
    text = " ".join(nvmelab("diagnose", str(path)).stdout.split())
    assert ("after 30.0 s" in text) == (verdict == "device")


def test_linuxs_own_trace_for_a_program(nvmelab: Invoke) -> None:
    said = json.loads(nvmelab("diagnose", str(LINUX), "--hung", "--json").stdout)
    (part,) = said["stuck"]
    assert (said["verdict"], part["controller"], part["sqid"]) == ("undecided", "nvme0", 1)
    assert (part["state"], part["ball"], part["evidence"]) == ("set up", "undecided", [124])
    assert (said["findings"], said["exercised"], said["events"]) == ([], [], 112)


def test_what_linuxs_own_trace_cannot_have(nvmelab: Invoke, tmp_path: Path) -> None:
    page = str(tmp_path / "page.html")
    said = error_of(nvmelab("diagnose", str(LINUX), "--html", page), 2)
    assert said.endswith("leave --html out, and the verdict is printed")
    assert "--sq-entries" in error_of(nvmelab("diagnose", str(LINUX), "--sq-entries", "4"), 2)
    assert "--waive" in error_of(nvmelab("diagnose", str(LINUX), "--waive", "queues.size"), 2)
    half = tmp_path / "half"
    half.write_text(
        "".join(f"{ln}\n" for ln in LINUX.read_text().splitlines() if "setup_cmd" not in ln)
    )
    assert "has no nvme_setup_cmd; record all" in error_of(nvmelab("diagnose", str(half)), 2)


def test_a_page_of_a_capture(nvmelab: Invoke, tmp_path: Path) -> None:
    page, capture = tmp_path / "run.html", tmp_path / "run.capture"
    file = CaptureFile(str(capture), Served("disk.img", "pair", 64))
    file.open()
    pair = Pair()
    pair.device.trace = file.emit
    workload(pair.driver)
    file.close()
    assert nvmelab("diagnose", str(capture), "--html", str(page)).exit_code == 0
    data = data_in(page.read_text())
    assert (data["unit"], data["first"], data["us"] is None) == ("event", 1, False)
    assert "every creation" in error_of(nvmelab("diagnose", str(capture), "--sq-entries", "4"), 2)
    assert data["text"].count("pci_nvme_cqe cqid 1 slot 0") > 1


@pytest.mark.parametrize(
    ("contents", "said"),
    [
        (b"", "0 lines, and none is of QEMU's nvme device"),
        (bytes(range(256)) * 4096, "none is of QEMU's nvme device"),
        (b"x" * (10 << 20), "1 line, and it is not of QEMU's nvme device"),
        (b"Linux version 6.12\n" * 100, "none is of QEMU's nvme device"),
        (b"[    1.2] nvme_core: loading out-of-tree module\n", "it is not of QEMU's nvme device"),
        (gzip.compress(HANG)[:-8] + bytes(8), "CRC check failed"),
        (lzma.compress(HANG)[:300] + bytes(400), "the compressed data is damaged"),
        (bz2.compress(HANG)[:500], "0 lines, and none is of QEMU's nvme device"),
        (HANG.decode().encode("utf-16"), "is UTF-16 text; make it UTF-8: iconv -f UTF-16"),
        (b"PK\x03\x04", "is a ZIP archive; unpack it: unzip -p"),
        (b"\x17\x08Dtracing", "is the file of trace-cmd; make text of it: trace-cmd report -i"),
        (b"\x28\xb5\x2f\xfd" + b"x" * 100, "zstd"),
        (SOUND + SOUND.replace(b"pci_reset", b"x").replace(b"mmio_stopped", b"x"), "several"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_log(nvmelab: Invoke, tmp_path: Path, contents: bytes | None, said: str) -> None:
    path = tmp_path / "log"
    if contents is not None:
        path.write_bytes(contents)
    message = error_of(nvmelab("diagnose", str(path)), 2)
    assert said in message or ("zstd" in said and "damaged" in message)
