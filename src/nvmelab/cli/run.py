"""`nvmelab run`: a QEMU command line whose NVMe devices are ours."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import click
import msgspec

from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import Verdict
from nvmelab.cli.options import Fail, one_line
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
from nvmelab.device.wakeups import WakeupRules
from nvmelab.link.control import RUN_FOLDER
from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.server import ServerError
from nvmelab.qemu.binary import QemuError, probe
from nvmelab.qemu.commandline import CommandLineError, NvmeDevice, Plan, rewrite
from nvmelab.qemu.machine import die_with_parent
from nvmelab.report.terminal import summary, summary_table
from nvmelab.schedule import Schedule, ScheduleError
from nvmelab.service import Disk, Service
from nvmelab.stopper import GuestStopper
from nvmelab.storage.base import ImageError
from nvmelab.storage.file import CacheMode
from nvmelab.trace.capture import CaptureFile
from nvmelab.trace.file import TraceError, TraceFile


class CannotRun(Fail):
    """QEMU was not run. The exit status is the one that `env` and `docker run` use for it."""

    exit_code = 125


_CANNOT = (
    CommandLineError, QemuError, ImageError, ServerError, TraceError, ScheduleError, Fail,
)  # fmt: skip


Watched = tuple[Disk, TraceFile | None, CaptureFile | None, Schedule | None]
"""What is served, and where it is recorded."""


class _Run(click.Command):
    """Whatever keeps QEMU from being run has one exit status, also a mistyped option."""

    def make_context(self, *arguments: Any, **more: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **more)
        except click.UsageError as error:
            raise CannotRun(one_line(error)) from None


@click.command(
    cls=_Run,
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
)
@click.argument("qemu", nargs=-1, type=click.UNPROCESSED, metavar="-- QEMU ARGUMENTS...")
@device_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print the rewritten QEMU command, and on standard error which files would be written, "
    "and end; no image is opened and no QEMU looked for. With --json, one object.",
)
def run(
    qemu: tuple[str, ...],
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
    dry_run: bool,
) -> None:
    """Run a QEMU command line with each `-device nvme` replaced by our controller on the same
    image. QEMU 10.1 or later.

    The exit status is QEMU's own, or 125 if it could not be run; with --check, 1 if QEMU's is 0 and
    the verdict is not clean. The summary goes to standard error.

    \b
    nvmelab run -- qemu-system-x86_64 -m 2G -nographic \\
        -drive file=usr.img,if=none,id=nvm -device nvme,serial=deadbeef,drive=nvm ...
    nvmelab run --queue-entries 4 --trace 'pci_nvme_*' -- qemu-system-x86_64 ...
    nvmelab run --queue-entries 4 --device qemu-9.0 --latency 0.5ms --schedule seed:7 \\
        -- qemu-system-x86_64 ...
    """
    try:
        _refuse_misplaced(qemu)
        mode = doorbells_of(persona, doorbells)
        refuse_blind_check(check, waived, mode)
        plan = rewrite(qemu)
        disks = [
            msgspec.structs.replace(
                _disk(device, queue_entries, pci_id, mode, PERSONAS[persona].wakeups),
                persona=persona,
                latency_ns=latency,
            )
            for device in plan.devices
        ]
        _refuse_shared_images(disks)
        logs = trace_files(trace, trace_file, mode, [disk.path for disk in disks])
        chosen = schedules(seed, schedule_file, mode, disks)
        watched = list(zip(disks, logs, captures(capture, mode, disks), chosen, strict=True))
        if dry_run:
            _show(plan, watched, as_json, stops=check == "stop")
            return
        probe(qemu[0]).require_vfio_user(qemu[0])
        mapped = mode == "mapped"
        status = _run(plan, watched, as_json, mapped=mapped, check=check, waived=waived)
    except _CANNOT as error:
        raise CannotRun(str(error)) from None
    sys.exit(status)


def _show(plan: Plan, watched: list[Watched], as_json: bool, *, stops: bool) -> None:
    """What would be run, and written."""
    command = plan.command([f"nvme{number}.sock" for number in range(len(watched))])
    if stops:
        command += GuestStopper.arguments_for("qmp.sock")
    files = [file.path for _, *files in watched for file in files if file]
    if as_json:
        click.echo(json.dumps({"command": command, "files": files}))
        return
    click.echo(shlex.join(command))
    for name in files:
        click.echo(f"nvmelab: {name} would be written", err=True)


def _refuse_misplaced(qemu: tuple[str, ...]) -> None:
    """Words after `--` that were meant to stand before it. QEMU has a --trace and a --device."""
    if qemu and qemu[0].startswith("-"):
        raise Fail(f"the first word after -- must be a QEMU program, not {qemu[0]}")
    ours = {name for option in run.params for name in option.opts} - {"--trace", "--device", "qemu"}
    for word in qemu:
        if word.partition("=")[0] in ours:
            raise Fail(f"{word} is an option of nvmelab; put it before the --")


def _refuse_shared_images(disks: list[Disk]) -> None:
    for number, disk in enumerate(disks):
        for other in disks[:number]:
            if os.path.realpath(disk.path) == os.path.realpath(other.path):
                raise Fail(
                    f"both -device nvme,serial={other.config.serial} and serial="
                    f"{disk.config.serial} use {disk.path}; give each an image of its own"
                )


def _disk(
    device: NvmeDevice,
    queue_entries: int | None,
    pci_id: tuple[int, int],
    doorbells: str,
    wakeups: WakeupRules | None,
) -> Disk:
    """What to serve in the place of one `-device nvme`. Raises Fail."""
    if queue_entries is not None and device.mqes is not None:
        raise Fail(
            f"both --queue-entries {queue_entries} and mqes={device.mqes} of -device nvme are "
            "given; leave out one of them"
        )
    if device.mqes is not None:
        queue_entries = device.mqes + 1
    image = device.image
    return Disk(
        path=image.path,
        config=ControllerConfig(
            serial=device.serial,
            pci_vendor=pci_id[0],
            pci_device=pci_id[1],
            queue_entries=queue_entries or ControllerConfig().queue_entries,
            io_queues=device.max_ioqpairs,
            vectors=device.msix_qsize,
            mdts=device.mdts,
            shadow_doorbells=doorbells == "shadow",
            wakeups=wakeups,
        ),
        cache=CacheMode(image.direct, image.write_cache, ignore_flush=not image.flush),
        read_only=image.read_only,
        discard=image.discard,
        probe=image.format is None,
        lock=image.locking,
        block=device.logical_block_size,
        physical=device.physical_block_size,
        aio=image.aio,
    )


def _run(
    plan: Plan,
    watched: list[Watched],
    as_json: bool,
    *,
    mapped: bool,
    check: str | None,
    waived: tuple[str, ...],
) -> int:
    """Serve the disks, run QEMU, report. The exit status is QEMU's."""
    services: list[Service] = []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix=RUN_FOLDER))
        loop = Loop()
        stack.callback(loop.close)
        sockets = [os.path.join(folder, f"nvme{number}.sock") for number in range(len(watched))]
        for (disk, log, capture, schedule), socket in zip(watched, sockets, strict=True):
            service = Service(
                disk,
                socket,
                loop,
                trace=log,
                capture=capture,
                mapped=mapped,
                schedule=schedule,
                check=LiveMonitor(waived) if check else None,
            )
            stack.callback(service.close)
            services.append(service)
        for note in plan.notes:
            click.echo(f"nvmelab: {note}", err=True)
        for service in [] if as_json else services:
            path = shlex.quote(service.socket_path)
            click.echo(f"nvmelab: {service.disk.path}: look inside: nvmelab top {path}", err=True)
        command = plan.command(sockets)
        if check == "stop":
            stopper = GuestStopper(os.path.join(folder, "qmp.sock"), loop)
            stack.callback(stopper.close)
            command += stopper.arguments
            for service in services:
                service.tell_of_trouble(partial(_stop_guest, stopper), stopper.is_stopped)
        stack.enter_context(_terminal_restored())
        status = _run_qemu(command, loop)
    for service in services:
        click.echo(json.dumps(summary(service)) if as_json else summary_table(service), err=True)
    judged = [service.verdict.verdict for service in services if service.verdict]
    return 1 if status == 0 and set(judged) - {"clean"} else status


def _stop_guest(stopper: GuestStopper, verdict: Verdict) -> None:
    stopper.stop()
    click.echo(f"nvmelab: the guest is stopped: {verdict.told}; Ctrl-C ends it", err=True)


def _run_qemu(command: list[str], loop: Loop) -> int:
    """Run QEMU as a child and the loop beside it, until QEMU ends."""
    child: subprocess.Popen[bytes] | None = None
    asked = 0

    def ask_to_end(_number: int) -> None:
        """The first signal asks QEMU to end, a further one makes it."""
        nonlocal asked
        asked += 1
        if child:
            child.send_signal(signal.SIGTERM if asked == 1 else signal.SIGKILL)

    with _signals(ask_to_end):
        try:
            child = subprocess.Popen(command, preexec_fn=die_with_parent)
        except OSError as error:
            raise QemuError(f"{command[0]} cannot be run: {error.strerror}") from None
        if asked:  # before there was a child to tell
            child.terminate()
        pidfd = os.pidfd_open(child.pid)
        try:
            loop.add(pidfd, lambda _events: loop.stop())
            loop.run()
            loop.remove(pidfd)
        finally:
            if child.poll() is None:
                child.kill()
            status = child.wait()
            os.close(pidfd)
    return status if status >= 0 else 128 - status


@contextlib.contextmanager
def _signals(handler: Callable[[int], None]) -> Iterator[None]:
    """Call `handler(number)` for the signals that end a program."""

    def call(number: int, _frame: FrameType | None) -> None:
        handler(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    before = [signal.signal(number, call) for number in numbers]
    try:
        yield
    finally:
        for number, old in zip(numbers, before, strict=True):
            signal.signal(number, old)


@contextlib.contextmanager
def _terminal_restored() -> Iterator[None]:
    """Leave the terminal as it was: a QEMU that is killed cannot."""
    if not sys.stdin.isatty():
        yield
        return
    state = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, state)
