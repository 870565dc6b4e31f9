"""Options and checks that `run` and `serve` share: what is served, and what is recorded of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from nvmelab.cli.options import Fail
from nvmelab.cli.waiving import waive_option
from nvmelab.corpus.personas import PERSONAS
from nvmelab.limits import LATENCY_MAX_NS
from nvmelab.schedule import Schedule
from nvmelab.service import Disk
from nvmelab.trace.capture import CaptureFile, Served
from nvmelab.trace.file import TraceFile
from nvmelab.trace.qemu_log import PatternError

F = TypeVar("F", bound=Callable[..., Any])


class PciId(click.ParamType[tuple[int, int]]):
    """`vendor:device` in hexadecimal."""

    name = "vvvv:dddd"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        try:
            vendor, device = (int(part, 16) for part in str(value).split(":"))
        except ValueError:
            self.fail(f"{value!r} is not like 1b36:0010", param, ctx)
        if not (0 < vendor < 0xFFFF and 0 <= device <= 0xFFFF):
            self.fail(f"{value!r} is no pair of PCI identifiers", param, ctx)
        return vendor, device


class Latency(click.ParamType[int]):
    """A time such as `0.5ms`, as nanoseconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ns|us|ms|s)", str(value))
        if found is None:
            if value == "0":
                return 0
            self.fail(f"{value!r} is no time; write it like 500us, 0.5ms or 1s", param, ctx)
        unit = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}[found[2]]
        ns = round(float(found[1]) * unit)
        if ns > LATENCY_MAX_NS:
            self.fail(f"{value} is longer than {LATENCY_MAX_NS // 10**9}s", param, ctx)
        return ns


class Seed(click.ParamType[int]):
    """`seed:7`."""

    name = "seed:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"seed:(\d{1,18})", str(value))
        if found is None:
            self.fail(f"{value!r} is not like seed:7", param, ctx)
        return int(found[1])


def doorbells_of(persona: str, doorbells: str | None) -> str:
    """The mode of the doorbells where none was asked for, or the one that was. Raises Fail if the
    device does not have it."""
    wakeups = PERSONAS[persona].wakeups
    if wakeups and doorbells not in (None, "trapped"):
        raise Fail(f"--device {persona} has no {doorbells} doorbells; use trapped ones")
    return doorbells or ("trapped" if wakeups else "shadow")


def _refuse_image(option: str, name: str, images: list[str]) -> None:
    """What is written must not be what is served."""
    for image in images:
        if os.path.exists(name) and os.path.exists(image) and os.path.samefile(name, image):
            raise Fail(f"{option} {name} is an image that is served; name another file")


def refuse_blind_check(check: str | None, waived: tuple[str, ...], doorbells: str) -> None:
    """Raises Fail where nothing could be judged."""
    if check and doorbells == "mapped":
        raise Fail("--doorbells mapped excludes --check: such doorbells are seen late")
    if waived and not check:
        raise Fail("--waive needs --check")


def _files(option: str, path: str, images: list[str]) -> list[str]:
    """The name of a file for each device: the second one's has a 1 at its end, and so on. Raises
    Fail for one that is an image."""
    names = [f"{path}.{number}" if number else path for number in range(len(images))]
    for name in names:
        _refuse_image(option, name, images)
    return names


def schedules(
    seed: int | None, path: str | None, doorbells: str, disks: list[Disk]
) -> list[Schedule | None]:
    """A schedule for each device, not opened yet. Raises Fail."""
    if seed is None:
        if path:
            raise Fail("--schedule-file needs --schedule, for example: --schedule seed:7")
        return [None] * len(disks)
    if doorbells == "mapped":
        raise Fail("--doorbells mapped excludes --schedule: such doorbells are seen late")
    names = _files("--schedule-file", path or "nvmelab-schedule.log", [disk.path for disk in disks])
    made: list[Schedule | None] = []
    for number, (disk, name) in enumerate(zip(disks, names, strict=True)):
        facts = {"device": disk.persona, "latency_ns": disk.latency_ns}
        made.append(Schedule(seed + number, name, facts))
    return made


def captures(path: str | None, doorbells: str, disks: list[Disk]) -> list[CaptureFile | None]:
    """A capture for each device, not opened yet. Raises Fail."""
    if path is None:
        return [None] * len(disks)
    if doorbells == "mapped":
        raise Fail("--doorbells mapped excludes --capture: such doorbells are seen late")
    names = _files("--capture", path, [disk.path for disk in disks])
    made: list[CaptureFile | None] = []
    for disk, name in zip(disks, names, strict=True):
        config = disk.config
        served = Served(
            disk.path, config.serial, config.queue_entries, disk.persona, disk.latency_ns
        )
        made.append(CaptureFile(name, served))
    return made


_DEVICE_OPTIONS = (
    click.option(
        "--queue-entries",
        type=click.IntRange(2, 65536),
        metavar="N",
        help="Largest I/O queue in entries, CAP.MQES + 1.  [default: 2048]",
    ),
    click.option(
        "--pci-id",
        type=PciId(),
        default="1b36:0010",
        show_default=True,
        help="PCI vendor and device. The default is that of QEMU's own nvme device.",
    ),
    click.option(
        "--doorbells",
        type=click.Choice(["shadow", "trapped", "mapped"]),
        help="shadow: the guest may use shadow doorbells, as on QEMU's own device. "
        "trapped: it may not, so each doorbell is a message, and --trace has them all. "
        "mapped: it writes doorbells into memory that is polled; no --trace then.  "
        "[default: shadow; trapped for a --device that has none]",
    ),
    click.option(
        "--device",
        "persona",
        type=click.Choice(list(PERSONAS)),
        default="nvmelab",
        show_default=True,
        help="Whose rules the controller follows for its queues: qemu-9.0 forgets a rung "
        "queue as QEMU did before 9.1.2. See docs/exploring.md.",
    ),
    click.option(
        "--latency",
        type=Latency(),
        default=0,
        help="How long each operation of the storage takes, such as 0.5ms: a fast disk "
        "hides hangs.",
    ),
    click.option(
        "--schedule",
        "seed",
        type=Seed(),
        help="Draw the order of the controller's steps, and latencies between half and one "
        "and a half of --latency, from a seed; they are recorded.",
    ),
    click.option(
        "--schedule-file",
        type=click.Path(readable=False, dir_okay=False),
        metavar="FILE",
        help="Where the record goes.  [default: nvmelab-schedule.log]",
    ),
    click.option(
        "--trace",
        multiple=True,
        metavar="PATTERN",
        help="Events to log, as for QEMU's -trace: 'pci_nvme_*'. May be repeated; "
        "a leading - takes events away.",
    ),
    click.option(
        "--trace-file",
        type=click.Path(readable=False, dir_okay=False),
        metavar="FILE",
        help="Where the trace goes.  [default: nvmelab-trace.log]",
    ),
    click.option(
        "--capture",
        type=click.Path(readable=False, dir_okay=False),
        metavar="FILE",
        help="Write every event, exactly and with its time, for nvmelab diagnose: smaller than a "
        "trace, and readable up to the end if all of this is killed.",
    ),
    click.option(
        "--check",
        is_flag=False,
        flag_value="note",
        type=click.Choice(["note", "stop"]),
        help="Judge the guest's driver, and the controller: the summary has the verdict. "
        "--check=stop stops the guest at the first finding, or when it hangs (run only).",
    ),
    waive_option,
    click.option(
        "--json",
        "as_json",
        is_flag=True,
        help="The summary at the end as one JSON object, on standard error.",
    ),
)


def device_options(command: F) -> F:
    """What both `run` and `serve` say about the controller, its storage and its trace."""
    for option in reversed(_DEVICE_OPTIONS):
        command = option(command)
    return command


def trace_files(
    patterns: tuple[str, ...], path: str | None, doorbells: str, images: list[str]
) -> list[TraceFile | None]:
    """A trace file for each device, as the options ask for it, not opened yet. Raises Fail."""
    if not patterns:
        if path:
            raise Fail("--trace-file needs --trace, for example: --trace 'pci_nvme_*'")
        return [None] * len(images)
    if doorbells == "mapped":
        raise Fail(
            "--doorbells mapped excludes --trace: a store into a mapped page is seen late and "
            "without its order; leave out one of them"
        )
    names = _files("--trace-file", path or "nvmelab-trace.log", images)
    try:
        return [TraceFile(patterns, name) for name in names]
    except PatternError as error:
        raise Fail(str(error)) from None
