"""Options and checks that several verbs share, and how a verb ends with an error."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from nvmelab.trace.file import TraceFile
from nvmelab.trace.qemu_log import PatternError

F = TypeVar("F", bound=Callable[..., Any])


class Fail(click.ClickException):
    """One line on standard error, and exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"nvmelab: error: {self.message}", err=True, file=file)


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


def device_options(command: F) -> F:
    """What both `run` and `serve` say about the controller and its trace."""
    for option in reversed(
        (
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
                default="shadow",
                show_default=True,
                help="shadow: the guest may use shadow doorbells, as on QEMU's own device. "
                "trapped: it may not, so each doorbell is a message, and --trace has them all. "
                "mapped: it writes doorbells into memory that is polled; no --trace then.",
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
                type=click.Path(dir_okay=False),
                metavar="FILE",
                help="Where the trace goes.  [default: nvmelab-trace.log]",
            ),
            click.option(
                "--json",
                "as_json",
                is_flag=True,
                help="The summary at the end as one JSON object, on standard error.",
            ),
        )
    ):
        command = option(command)
    return command


def trace_files(
    patterns: tuple[str, ...], path: str | None, doorbells: str, images: list[str]
) -> list[TraceFile | None]:
    """A trace file for each device, as the options ask for it, not opened yet. The second device's
    has a 1 at the end of its name, and so on. Raises Fail."""
    if not patterns:
        if path:
            raise Fail("--trace-file needs --trace, for example: --trace 'pci_nvme_*'")
        return [None] * len(images)
    if doorbells == "mapped":
        raise Fail(
            "--doorbells mapped excludes --trace: a store into a mapped page is seen late and "
            "without its order; leave out one of them"
        )
    path = path or "nvmelab-trace.log"
    files: list[TraceFile | None] = []
    for number in range(len(images)):
        name = f"{path}.{number}" if number else path
        for image in images:
            if os.path.exists(name) and os.path.exists(image) and os.path.samefile(name, image):
                raise Fail(f"--trace-file {name} is an image that is served; name another file")
        try:
            files.append(TraceFile(patterns, name))
        except PatternError as error:
            raise Fail(str(error)) from None
    return files
