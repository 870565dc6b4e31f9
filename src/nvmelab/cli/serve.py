"""`nvmelab serve`: the controller alone, on a UNIX socket."""

from __future__ import annotations

import json
import shlex
import signal
from typing import Any

import click

from nvmelab.check.live import LiveMonitor
from nvmelab.cli.options import Fail
from nvmelab.cli.serving import (
    captures,
    device_options,
    doorbells_of,
    refuse_blind_check,
    schedules,
    trace_files,
)
from nvmelab.corpus.personas import PERSONAS
from nvmelab.device.controller import ControllerConfig
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.server import ServerError
from nvmelab.report.terminal import summary, summary_table
from nvmelab.report.units import size_text
from nvmelab.schedule import Schedule, ScheduleError
from nvmelab.service import Disk, Service
from nvmelab.storage.base import ImageError
from nvmelab.storage.file import CACHE_MODES
from nvmelab.trace.capture import CaptureFile
from nvmelab.trace.file import TraceError, TraceFile


@click.command()
@click.argument("image", type=click.Path(readable=False))
@click.option("--socket", "socket_path", required=True, metavar="PATH", help="UNIX socket to make.")
@click.option("--serial", default="nvmelab", show_default=True, help="Serial number.")
@click.option(
    "--cache",
    type=click.Choice(list(CACHE_MODES)),
    default="writeback",
    show_default=True,
    help="What it means in QEMU; none is O_DIRECT.",
)
@click.option("--read-only", is_flag=True, help="The guest cannot write.")
@click.option("--block-size", type=click.Choice(["512", "4096"]), default="512", show_default=True)
@device_options
def serve(
    image: str,
    socket_path: str,
    serial: str,
    cache: str,
    read_only: bool,
    block_size: str,
    queue_entries: int | None,
    pci_id: tuple[int, int],
    doorbells: str | None,
    persona: str,
    latency: int,
    seed: int | None,
    schedule_file: str | None,
    trace: tuple[str, ...],
    trace_file: str | None,
    capture: str | None,
    check: str | None,
    waived: tuple[str, ...],
    as_json: bool,
) -> None:
    """Serve IMAGE as an NVMe controller to any vfio-user client, until Ctrl-C.

    One guest at a time; when it is gone, the next may come.

    \b
    nvmelab serve disk.img --socket nvme.sock
    nvmelab serve disk.img --socket nvme.sock --queue-entries 4 \\
        --trace 'pci_nvme_*' --trace-file run.log
    """
    mode = doorbells_of(persona, doorbells)
    try:
        config = ControllerConfig(
            serial=serial,
            pci_vendor=pci_id[0],
            pci_device=pci_id[1],
            queue_entries=queue_entries or ControllerConfig().queue_entries,
            shadow_doorbells=mode == "shadow",
            wakeups=PERSONAS[persona].wakeups,
        )
    except ValueError as error:
        raise Fail(str(error)) from None
    disk = Disk(
        path=image,
        config=config,
        cache=CACHE_MODES[cache],
        read_only=read_only,
        block=int(block_size),
        physical=int(block_size),
        persona=persona,
        latency_ns=latency,
    )
    (trace_log,) = trace_files(trace, trace_file, mode, [image])
    (schedule,) = schedules(seed, schedule_file, mode, [disk])
    refuse_blind_check(check, waived, mode)
    if check == "stop":
        raise Fail("--check=stop needs a QEMU of ours: use nvmelab run")
    mapped = mode == "mapped"
    judge = LiveMonitor(waived) if check else None
    (captured,) = captures(capture, mode, [disk])
    _serve(disk, socket_path, trace_log, captured, schedule, as_json, mapped=mapped, check=judge)


def _serve(
    disk: Disk,
    socket_path: str,
    log: TraceFile | None,
    capture: CaptureFile | None,
    schedule: Schedule | None,
    as_json: bool,
    *,
    mapped: bool,
    check: LiveMonitor | None,
) -> None:
    """Until a signal ends it; then the summary."""
    loop = Loop()
    try:
        service = Service(
            disk,
            socket_path,
            loop,
            trace=log,
            capture=capture,
            mapped=mapped,
            schedule=schedule,
            check=check,
            on_disconnect=lambda: _tell_of_guest(service),
        )
    except (ImageError, ServerError, TraceError, ScheduleError) as error:
        raise Fail(str(error)) from None

    def stop(_signal: int, _frame: Any) -> None:
        loop.stop()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    _announce(service)
    try:
        loop.run()
    finally:
        service.close()
        loop.close()
    click.echo(json.dumps(summary(service)) if as_json else summary_table(service), err=True)


def _announce(service: Service) -> None:
    """What is served, and how QEMU takes it."""
    disk, path = service.disk, service.socket_path
    size = service.controller.namespaces[1].backend.size
    device = {"driver": "vfio-user-pci", "socket": {"path": path, "type": "unix"}}
    click.echo(
        f"nvmelab: {disk.path} ({size_text(size)}) is served on {path}; Ctrl-C ends it.\n"
        f"Serial {disk.config.serial}, I/O queues of at most {disk.config.queue_entries} entries. "
        "QEMU 10.1 or later takes it with, for example:\n"
        "  -m 1G -object memory-backend-memfd,id=mem0,size=1G,share=on "
        "-machine memory-backend=mem0 \\\n"
        f"  -device {shlex.quote(json.dumps(device))}\n"
        f"Its queues, live: nvmelab top {shlex.quote(path)}",
        err=True,
    )


def _tell_of_guest(service: Service) -> None:
    count = sum(counter.commands for _, counter in service.controller.statistics.rows())
    click.echo(f"nvmelab: the guest is gone; {count:,} commands so far", err=True)
    for line in service.left_behind:
        click.echo(f"  outstanding: {line}", err=True)
    for line in service.forgotten:
        click.echo(f"  HANG, and it is the device's: {line}", err=True)
