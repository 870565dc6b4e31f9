"""`nvmelab diagnose`: whose fault is the hang in this log?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from nvmelab.check.chain import Handler
from nvmelab.check.linux import LinuxMonitor, TooMany, judge_linux
from nvmelab.check.live import Feeder
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.cli.options import Fail, given, named, refuse_page, write_file
from nvmelab.cli.waiving import waive_option
from nvmelab.report.diagnosis import diagnosis_json, diagnosis_text, evidence_of
from nvmelab.report.log_page import log_page
from nvmelab.report.recorder import Recorder
from nvmelab.trace.again import Again
from nvmelab.trace.capture import CaptureError, CaptureReader
from nvmelab.trace.capture import told_apart as capture_told_apart
from nvmelab.trace.ftrace_reader import read_ftrace, told_apart
from nvmelab.trace.opening import LogError, open_log
from nvmelab.trace.qemu_log import event_text
from nvmelab.trace.qemu_reader import Counts, chunks_of, read_log


@click.command()
@click.argument("log", type=click.Path(readable=False, allow_dash=True))
@click.option("--hung", is_flag=True, help="Everything stood still where the log ends.")
@click.option(
    "--sq-entries",
    type=click.IntRange(2, 65536),
    metavar="N",
    help="Entries of the I/O queues whose creation is not in the log.",
)
@click.option(
    "--html",
    type=click.Path(readable=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a page with the verdict, a timeline of every queue, and the log to step through.",
)
@waive_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def diagnose(
    log: str,
    hung: bool,
    sq_entries: int | None,
    html: Path | None,
    waived: tuple[str, ...],
    as_json: bool,
) -> None:
    """Judge the log of QEMU's nvme device, or of ours, or a capture: who broke which rule; or, with
    --hung, who must act and does not. LOG may be compressed (gzip, xz, bzip2; zstd by the program
    zstd), and - is standard input.

    Such a log is made with -trace 'pci_nvme_*' -D qemu.log; all three forms of its lines are read,
    with anything between them. A capture is made by nvmelab run --capture. Without --hung, commands
    that are under way where the log ends are just that.

    LOG may also be Linux's own trace of its driver, which names the commands that were never
    completed and accuses nobody: echo 1 > /sys/kernel/tracing/events/nvme/enable, and then
    cat /sys/kernel/tracing/trace.

    Exit status 0 for clean, 1 for any other verdict, 2 if there is no such log.

    \b
    nvmelab diagnose qemu.log --hung --html hang.html
    nvmelab diagnose excerpt.log --hung --sq-entries 4 --json
    zcat qemu.log.gz | nvmelab diagnose -
    nvmelab diagnose run.capture --html run.html
    nvmelab diagnose linux.trace --hung
    """
    refuse_page("--html", html)
    monitor = Monitor(sq_entries, waived)
    recorder = Recorder(monitor) if html else None
    linux = LinuxMonitor()
    counts = _read(log, monitor, recorder, linux)
    if hung and counts.broken:
        raise Fail(
            f"{named(log)}: {counts.cut}, so that its last events are no end; leave out --hung"
        )
    again = Again(log)
    again.look(line for taken in monitor.taken_back for line in (taken.since, taken.at))
    if linux.count:
        verdict = judge_linux(linux, rest=hung)
    else:
        verdict = judge(monitor, rest=hung, time_of=again.time_of)
    if html and recorder:
        name = named(log) if log == "-" else Path(log).name
        name = name.encode(errors="replace").decode()  # it need not be UTF-8
        write_file(html, log_page(recorder, verdict, counts, name=name, hung=hung).encode())
        click.echo(f"nvmelab: {html}: the page of this log", err=True)
    if as_json:
        click.echo(json.dumps(diagnosis_json(verdict, counts)))
    else:
        again.look(evidence_of(verdict))
        click.echo(diagnosis_text(verdict, counts, again.text_of, rest=hung))
    sys.exit(0 if verdict.verdict == "clean" else 1)


def _read(log: str, monitor: Monitor, recorder: Recorder | None, linux: LinuxMonitor) -> Counts:
    """Feed the monitor, through the recorder if there is one; or, with Linux's own trace, the other
    monitor. Raises Fail."""
    handlers = recorder.handlers if recorder else monitor.handlers
    try:
        with open_log(log) as stream:
            is_capture, chunks = capture_told_apart(chunks_of(stream.read))
            is_linux = False
            if is_capture:
                counts = _read_capture(chunks, monitor, handlers, recorder)
            else:
                is_linux, chunks = told_apart(chunks)
                if is_linux:
                    counts = _read_linux(log, chunks, recorder, linux)
                else:
                    counts = read_log(chunks, handlers, recorder.line if recorder else None)
    except CaptureError as error:
        raise Fail(f"{named(log)}: {error}") from None
    except LogError as error:
        raise Fail(str(error)) from None
    if stream.cut:
        counts.cut, counts.broken = stream.cut, True
    if not counts.events:
        raise Fail(f"{named(log)}: {_nothing_of_qemu(counts)}")
    if monitor.twice:
        first_line, second = monitor.twice
        raise Fail(
            f"{named(log)}: lines {first_line} and {second} enable a controller with no reset "
            "between: these are several devices, whose lines nothing tells apart; log one at a time"
        )
    return counts


def _nothing_of_qemu(counts: Counts) -> str:
    one = counts.lines == 1
    lines = "1 line, and it is not" if one else f"{counts.lines:,} lines, and none is"
    make = "make a log with -trace 'pci_nvme_*' -D qemu.log"
    return f"{lines} of QEMU's nvme device (pci_nvme_...); {counts.cut or make}"


def _read_linux(
    log: str,
    chunks: Iterable[bytes],
    recorder: Recorder | None,
    linux: LinuxMonitor,
) -> Counts:
    """As `_read`, of Linux's own trace. Raises Fail."""
    if recorder:
        raise Fail(
            f"{named(log)}: this is Linux's own trace, and --html shows what a device logs; leave "
            "--html out, and the verdict is printed"
        )
    for option in given("--sq-entries", "--waive"):
        raise Fail(f"{option} is of no use with Linux's own trace; leave it out")
    try:
        counts = read_ftrace(chunks, linux)
    except TooMany as error:
        raise Fail(f"{named(log)}: {error}") from None
    if not linux.count:
        raise Fail(
            f"{named(log)}: Linux's trace has no nvme_setup_cmd; record all of its events: "
            "echo 1 > /sys/kernel/tracing/events/nvme/enable"
        )
    return counts


def _read_capture(
    chunks: Iterable[bytes],
    monitor: Monitor,
    handlers: dict[str, Handler],
    recorder: Recorder | None,
) -> Counts:
    """As `_read`, of a capture. Raises CaptureError, and Fail."""
    for option in given("--sq-entries"):
        raise Fail(f"{option} is of no use with a capture, which has every creation")
    capture = CaptureReader(chunks)
    monitor.trust()
    monitor.cc = 0  # a capture begins at power-on
    take = Feeder(handlers).take
    for number, ns, name, values in capture:
        if recorder:
            text = event_text(name, values)
            recorder.line(number, text.encode(errors="replace"), ns // 1000)
        take(number, name, values)
    if not capture.events:
        raise CaptureError(
            "a capture without events: no guest was there"
            + (f"; {capture.cut}" * bool(capture.cut))
        )
    counts = Counts()
    counts.lines = counts.events = capture.events
    counts.cut, counts.broken = capture.cut, capture.damaged
    counts.unit = "event"
    return counts
