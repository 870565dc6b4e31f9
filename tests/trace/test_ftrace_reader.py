"""Linux's own trace of its nvme driver: every form of its lines, and what is none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nvmelab.limits import LOG_LOOK_BYTES
from nvmelab.trace.ftrace_reader import read_ftrace, told_apart
from nvmelab.trace.qemu_reader import Counts

SET_UP = (
    b"nvme0: disk=nvme0n1, qid=1, cmdid=4099, nsid=1, flags=0x0, meta=0x0, "
    b"cmd=(nvme_cmd_read slba=800, len=7, ctrl=0x0, dsmgmt=0, reftag=0)"
)
COMPLETED = b"nvme0: disk=nvme0n1, qid=1, cmdid=4099, res=0x0, retries=0, flags=0x1, status=0x371"
POSITION = b"nvme0: disk=nvme0n1, qid=1, head=79, tail=80"


class Heard:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def set_up(self, *values: object) -> None:
        self.told.append(("set up", *values))

    def completed(self, *values: object) -> None:
        self.told.append(("completed", *values))

    def position(self, *values: object) -> None:
        self.told.append(("position", *values))

    def begins(self, *values: object) -> None:
        self.told.append(("begins", *values))

    def lost(self, *values: object) -> None:
        self.told.append(("lost", *values))


def heard(text: bytes) -> tuple[list[tuple[object, ...]], Counts]:
    listener = Heard()
    counts = read_ftrace([text], listener)
    return listener.told, counts


FIELDS = ("nvme_cmd_read", "slba=800, len=7, ctrl=0x0, dsmgmt=0, reftag=0")


@pytest.mark.parametrize(
    ("before", "us"),
    [
        (b"              dd-126     [001] .....    68.535806: ", 68_535_806),
        (b"    kworker/0:1H-312   [000] ....  1234.567890: ", 1_234_567_890),
        (b"          <idle>-0       [000] d.H1.     5.000001: ", 5_000_001),
        (b" a: b [0] 1.5: [003] d..1. 2847.331205: ", 2_847_331_205),  # a task's name
        (b"dd-126   [001]    68.535806123: ", 68_535_806),  # perf, trace-cmd with -t
        (b"dd  1234 [001]  100.000002:               nvme:", 100_000_002),
        (b"[   68.9] dd-126 1..... 68535806us : ", 68_535_806),  # a dump to the console
        (b"dd-126 1d.h1. 68535806us!: ", 68_535_806),
        (b"dd-126 [001] ..... 271828182845: ", None),  # another clock
        (b"", None),
    ],
)
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
def test_every_form_of_a_line_is_read(before: bytes, us: int | None, end: bytes) -> None:
    told, counts = heard(before + b"nvme_setup_cmd: " + SET_UP + end)
    assert told == [("set up", 1, us, "nvme0", 1, 4099, *FIELDS)]
    assert (counts.events, counts.damaged) == (1, [])


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nvme_setup_cmd:       " + SET_UP, ("set up", 1, None, "nvme0", 1, 4099, *FIELDS)),
        (b"nvme_complete_rq: " + COMPLETED, ("completed", 1, None, "nvme0", 1, 4099, 0x371, 1)),
        (b"nvme_sq: " + POSITION, ("position", 1, "nvme0", 1, 79, 80)),
        (
            b"nvme_complete_rq: nvme12: qid=0, cmdid=9, res=7, retries=0, flags=0x0, status=16386",
            ("completed", 1, None, "nvme12", 0, 9, 0x4002, 0),
        ),
        (  # 4.17
            b"nvme_setup_admin_cmd:  cmdid=14, flags=0x0, meta=0x0, "
            b"cmd=(nvme_admin_create_sq sqid=1, qsize=1023, sq_flags=0x1, cqid=1)",
            (
                *("set up", 1, None, "", 0, 14, "nvme_admin_create_sq"),
                "sqid=1, qsize=1023, sq_flags=0x1, cqid=1",
            ),
        ),
        (
            b"nvme_setup_nvm_cmd: qid=3, nsid=1, cmdid=5, flags=0x0, meta=0x0, "
            b"cmd=(nvme_cmd_flush cdw10=00 00 00 00)",
            ("set up", 1, None, "", 3, 5, "nvme_cmd_flush", "cdw10=00 00 00 00"),
        ),
        (
            b"nvme_complete_rq: cmdid=5, qid=3, res=0, retries=0, flags=0x0, status=0",
            ("completed", 1, None, "", 3, 5, 0, 0),
        ),
    ],
)
def test_every_version_is_read(line: bytes, told: tuple[object, ...]) -> None:
    assert heard(line)[0] == [told]


def test_what_is_lost_is_told() -> None:
    text = (
        b"# entries-in-buffer/entries-written: 112/4000   #P:2\n"
        b"CPU:1 [LOST 123 EVENTS]\nCPU:0 [77 EVENTS DROPPED]\nI LOST my keys [all of them]\n"
    )
    assert heard(text)[0] == [("begins", 1, 112, 4000), ("lost", 2), ("lost", 3)]


@pytest.mark.parametrize(
    "line",
    [
        b"nvme_setup_cmd: nvme0: disk=nvme0n1, qid=1, cmdid=40",  # cut
        b"nvme_setup_cmd: nvme0: qid=1, cmdid=70000, cmd=(nvme_cmd_read slba=0)",
        b"nvme_setup_cmd: nvme0: qid=-1, cmdid=1, cmd=(nvme_cmd_read slba=0)",
        b"nvme_complete_rq: nvme0: qid=1, cmdid=1",
        b"nvme_complete_rq: nvme0: qid=1, cmdid=" + b"9" * 5000 + b", status=0, flags=0x0",
        b"nvme_sq: nvme0: qid=1, head=1",
    ],
)
def test_a_line_that_cannot_be_is_damaged(line: bytes) -> None:
    told, counts = heard(line)
    assert (told, counts.damaged) == ([], [1])


def test_other_lines_are_left_alone() -> None:
    text = (
        b"# tracer: nop\n[    1.2] nvme nvme0: pci function 0000:00:03.0\nnvme_setup_cmd\n"
        b"  dd-1 [000] ..... 1.000000: block_rq_issue: 259,0 R 4096 () 0 + 8 [dd]\n"
        b"  kworker-1 [000] ..... 1.000000: nvme_async_event: nvme0: NVME_AEN=0x000102 [x]\n"
    )
    told, counts = heard(text)
    assert (told, counts.events, counts.lines, counts.damaged) == ([], 1, 5, [])


@given(st.binary(max_size=200), st.sampled_from([b"setup_cmd", b"complete_rq", b"sq"]))
def test_nothing_behind_an_event_is_trouble(text: bytes, kind: bytes) -> None:
    heard(b"dd-1 [000] ..... 1.000000: nvme_" + kind + b": nvme0: qid=1, cmdid=2, " + text)


EVENT = b"dd-1 [000] 1.000000: nvme_setup_cmd: " + SET_UP + b"\n"


@pytest.mark.parametrize(
    ("chunks", "is_linux"),
    [
        ([EVENT], True),
        ([b"console\n" * 10, b"more\n", EVENT], True),
        ([b"console\n", b"pci_nvme_mmio_read addr 0x0 size 4\n", EVENT], False),
        ([b"console\n"], False),
        ([], False),
        ([b"x" * LOG_LOOK_BYTES, EVENT], False),
    ],
)
def test_a_trace_is_told_from_a_log(chunks: list[bytes], is_linux: bool) -> None:
    found, again = told_apart(iter(chunks))
    assert (found, list(again)) == (is_linux, chunks)
