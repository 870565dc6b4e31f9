"""`nvmelab diagnose`: whose fault is the hang in this log?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.cli.explore import write_file
from nvmelab.cli.options import Fail, waive_option
from nvmelab.report.diagnosis import diagnosis_json, diagnosis_text
from nvmelab.report.log_page import log_page
from nvmelab.report.recorder import Recorder
from nvmelab.trace.opening import LogError, open_log
from nvmelab.trace.qemu_reader import Counts, chunks_of, read_log


@click.command(short_help="Whose fault is the hang in this log?")
@click.argument("log", type=click.Path(allow_dash=True))
@click.option("--hung", is_flag=True, help="Everything stood still where the log ends.")
@click.option(
    "--sq-entries",
    type=click.IntRange(2, 65536),
    metavar="N",
    help="Entries of the I/O queues whose creation is not in the log.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
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
    """Judge the log of QEMU's nvme device, or of ours: who broke which rule; or, with --hung, who
    must act and does not. LOG may be compressed (gzip, zstd), and - is standard input.

    Such a log is made with -trace 'pci_nvme_*' -D qemu.log; all three forms of its lines are read,
    with anything between them. Without --hung, commands that are under way where the log ends are
    just that.

    Exit status 0 for clean, 1 for any other verdict, 2 if there is no such log.

    \b
    nvmelab diagnose qemu.log --hung --html hang.html
    nvmelab diagnose excerpt.log --hung --sq-entries 4 --json
    zcat qemu.log.gz | nvmelab diagnose -
    """
    monitor = Monitor(sq_entries, waived)
    recorder = Recorder(monitor) if html else None
    counts = _read(log, monitor, recorder)
    verdict = judge(monitor, rest=hung)
    if html and recorder:
        name = "standard input" if log == "-" else Path(log).name
        write_file(html, log_page(recorder, verdict, counts, name=name, hung=hung).encode())
    if as_json:
        click.echo(json.dumps(diagnosis_json(verdict, counts)))
    else:
        click.echo(diagnosis_text(verdict, counts, rest=hung))
    sys.exit(0 if verdict.verdict == "clean" else 1)


def _read(log: str, monitor: Monitor, recorder: Recorder | None) -> Counts:
    """Feed the monitor, through the recorder if there is one. Raises Fail."""
    handlers = recorder.handlers if recorder else monitor.handlers
    on_line = recorder.line if recorder else None
    try:
        with open_log(log) as stream:
            counts = read_log(chunks_of(stream.read), handlers, on_line)
    except LogError as error:
        raise Fail(str(error)) from None
    if not counts.events:
        raise Fail(
            f"{log}: {counts.lines:,} lines, and none is of QEMU's nvme device (pci_nvme_...); "
            "make a log with -trace 'pci_nvme_*' -D qemu.log"
        )
    if monitor.twice:
        first, second = monitor.twice
        raise Fail(
            f"{log}: lines {first} and {second} enable a controller with no reset between: these "
            "are several devices, whose lines nothing tells apart; log one at a time"
        )
    return counts
