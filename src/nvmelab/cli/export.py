"""`nvmelab export`: a log or a capture in another form."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO, cast

import click

from nvmelab.check.chain import Handler
from nvmelab.check.live import Feeder
from nvmelab.cli.options import Fail, named
from nvmelab.report.perfetto import PerfettoWriter
from nvmelab.trace.capture import CaptureError, CaptureReader
from nvmelab.trace.capture import told_apart as capture_told_apart
from nvmelab.trace.clock import Clock
from nvmelab.trace.ftrace_reader import told_apart
from nvmelab.trace.opening import LogError, open_log
from nvmelab.trace.qemu_log import QemuLogWriter
from nvmelab.trace.qemu_reader import chunks_of, read_log


@click.command()
@click.argument("log", type=click.Path(readable=False, allow_dash=True))
@click.option(
    "--perfetto",
    type=click.Path(readable=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a trace for ui.perfetto.dev: the commands of each queue with their stages.",
)
@click.option(
    "--qemu-log",
    type=click.Path(readable=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write a capture as the text that --trace would have written.",
)
def export(log: str, perfetto: Path | None, qemu_log: Path | None) -> None:
    """Write a log of QEMU's nvme device, or of ours, or a capture, in another form. LOG may be
    compressed (gzip, xz, bzip2; zstd by the program zstd), and - is standard input. FILE may be -,
    standard output.

    Times are those of the capture, or of the log (-msg timestamp=on); in a log without times a line
    counts as a microsecond.

    \b
    nvmelab export run.capture --perfetto run.json
    nvmelab export run.capture --qemu-log run.log
    """
    if (perfetto is None) == (qemu_log is None):
        raise Fail("say one form: --perfetto FILE, or --qemu-log FILE")
    target = perfetto or qemu_log
    assert target
    try:
        with open_log(log) as stream:
            is_capture, chunks = capture_told_apart(chunks_of(stream.read))
            is_linux = False
            if not is_capture:
                is_linux, chunks = told_apart(chunks)
            if is_linux:
                raise Fail(
                    f"{named(log)}: this is Linux's own trace; export reads what a device logs"
                )
            if qemu_log and not is_capture:
                raise Fail(f"{named(log)}: this is no capture, and a log is a log already")
            with _writing(target) as file:
                if qemu_log:
                    said = _to_log(CaptureReader(chunks), file)
                elif is_capture:
                    said = _capture_to_perfetto(CaptureReader(chunks), file, named(Path(log).name))
                else:
                    said = _log_to_perfetto(chunks, file, log)
    except CaptureError as error:
        raise Fail(f"{named(log)}: {error}") from None
    except LogError as error:
        raise Fail(str(error)) from None
    if stream.cut:
        said += f"; {stream.cut}"
    to_output = str(target) == "-"
    click.echo(f"{'standard output' if to_output else target}: {said}", err=to_output)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    """A file, or standard output for `-`. Raises Fail."""
    try:
        with click.open_file(str(path), "w", encoding="utf-8") as file:
            yield cast(TextIO, file)
    except BrokenPipeError:
        raise  # who reads has enough
    except OSError as error:
        raise Fail(f"{path}: {error.strerror}; name a file that can be written") from None


def _to_log(capture: CaptureReader, file: TextIO) -> str:
    write = QemuLogWriter(file)
    for _number, _ns, name, values in capture:
        write(name, values)
    return f"{capture.events:,} events{f'; {capture.cut}' if capture.cut else ''}"


def _capture_to_perfetto(capture: CaptureReader, file: TextIO, name: str) -> str:
    served = capture.header.served
    writer = PerfettoWriter(file, f"{served.image} ({served.device}), {name}")
    take = Feeder(writer.handlers).take
    for _number, ns, event, values in capture:
        # Rising, as the monitor tells commands apart by their times.
        writer.now = max(writer.now + 1, ns)
        take(writer.now, event, values)
    writer.close()
    cut = f"; {capture.cut}" if capture.cut else ""
    return f"{writer.slices:,} commands of {capture.events:,} events{cut}{_unseen(writer)}"


def _log_to_perfetto(chunks: Iterator[bytes], file: TextIO, name: str) -> str:
    writer = PerfettoWriter(file, named(name) if name == "-" else Path(name).name)
    clock = Clock()
    begin: int | None = None
    """When the first line that has a time came: those before it count as a microsecond each."""

    def on_line(_number: int, line: bytes) -> None:
        nonlocal begin
        us = clock.read(line)
        if us is None:
            writer.now += 1 if begin is not None else 1000
        else:
            begin = writer.now if begin is None else begin
            writer.now = max(writer.now + 1, begin + us * 1000)

    def timed_handler(handle: Handler) -> Handler:
        return lambda _line, values: handle(writer.now, values)

    handlers = {event: timed_handler(handle) for event, handle in writer.handlers.items()}
    counts = read_log(chunks, handlers, on_line)
    writer.close()
    if not counts.events:
        raise LogError(f"{named(name)}: no line is of QEMU's nvme device (pci_nvme_...)")
    clockless = "" if begin is not None else "; without times: each line counts as a microsecond"
    return f"{writer.slices:,} commands of {counts.events:,} events{clockless}{_unseen(writer)}"


def _unseen(writer: PerfettoWriter) -> str:
    return (
        "; with shadow doorbells, or with ioeventfd, it does not show when completions are "
        "released, so commands end when they are posted (nvmelab run --doorbells trapped, or "
        "QEMU's dbcs=off and ioeventfd=off, show it)"
        if writer.blind
        else ""
    )
