"""`nvmelab matrix`: which devices forget a rung submission queue, at which queue sizes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import msgspec

from nvmelab.cli.options import Fail
from nvmelab.host.errors import DeviceError
from nvmelab.link.base import HostLink, LinkError
from nvmelab.suite.matrix import SQ_ENTRIES, Cell, Row, matrix
from nvmelab.targets import Target, TargetError, open_target, parse_target

LAB = ".lab/bin"
_BINARY = re.compile(r"qemu-system-x86_64-(\d+)\.(\d+)")


def lab_targets() -> dict[str, Target]:
    """The QEMUs of `make lab` below this folder, oldest first, by names such as qemu-5.2."""
    found = []
    for path in Path(LAB).glob("qemu-system-x86_64-*"):
        if match := _BINARY.fullmatch(path.name):
            found.append(((int(match[1]), int(match[2])), path))
    return {
        f"qemu-{major}.{minor}": Target("qemu", str(path)) for (major, minor), path in sorted(found)
    }


@click.command("matrix")
@click.option(
    "--target",
    "named",
    multiple=True,
    metavar="NAME=TARGET",
    help="A column of the table; see `nvmelab test --help` for targets. May be repeated.  "
    f"[default: every {LAB}/qemu-system-x86_64-*, and nvmelab=inproc]",
)
@click.option(
    "--entries",
    "sizes",
    metavar="N,N,...",
    default=",".join(map(str, SQ_ENTRIES)),
    show_default=True,
    help="Sizes of the submission queue.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The first seed; one gives one result."
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 10_000),
    default=3,
    show_default=True,
    help="How many seeds to try before a cell is ok.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def matrix_verb(named: tuple[str, ...], sizes: str, seed: int, seeds: int, as_json: bool) -> None:
    """Put devices under the load of QEMU issue 2388 and print a table of those that hang.

    The driver takes the submission queue for full only by the SQ Head Pointer it was told last, so
    more commands are outstanding than the queue has entries; then it falls silent. A device that
    leaves a rung command behind then hangs: with nothing held back, and in virtual time, so it is
    no time-out. Each size is tried with a completion queue of the same size and with one of 16.

    Exit status 0 if none hangs, 1 if one does, 2 if a device could not be driven.

    \b
    nvmelab matrix
    nvmelab matrix --target mine=qemu:./qemu-system-x86_64 --entries 3,4,8 --seeds 20
    nvmelab matrix --json
    """
    targets = _targets(named)
    if not sys.stderr.isatty():
        tell: Callable[[str], None] = lambda _text: None  # noqa: E731
    else:
        tell = lambda text: click.echo(f"\r\033[K{text}", nl=False, err=True)  # noqa: E731
    try:
        rows = matrix(
            targets, entries=_sizes(sizes), seeds=range(seed, seed + seeds), progress=tell
        )
    except (LinkError, DeviceError) as error:
        raise Fail(str(error)) from None
    finally:
        if sys.stderr.isatty():
            click.echo("\r\033[K", nl=False, err=True)
    if as_json:
        click.echo(json.dumps({"rows": msgspec.to_builtins(rows)}))
    else:
        click.echo(_table(rows, list(targets), seed, seeds))
    sys.exit(any(cell.result == "hang" for row in rows for cell in row.targets.values()))


def _targets(named: tuple[str, ...]) -> dict[str, Callable[[], HostLink]]:
    if not named:
        found = lab_targets()
        if not found:
            click.echo(
                f"nvmelab: no QEMU in {LAB}: the table has only our controller. In a checkout, "
                "`make lab` prepares four; or name one: --target NAME=qemu:PROGRAM",
                err=True,
            )
        found["nvmelab"] = Target("inproc")
        return {name: partial(open_target, target) for name, target in found.items()}
    targets: dict[str, Callable[[], HostLink]] = {}
    for word in named:
        name, equals, text = word.partition("=")
        if not (name and equals and text):
            raise Fail(f"--target {word}: give NAME=TARGET, such as mine=qemu:./qemu-system-x86_64")
        if name in targets:
            raise Fail(f"two columns are called {name}; give each a name of its own")
        try:
            targets[name] = partial(open_target, parse_target(text))
        except TargetError as error:
            raise Fail(str(error)) from None
    return targets


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(word) for word in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or any(not 2 <= size <= 65536 for size in sizes):
        raise Fail(f"--entries {text}: give sizes from 2 to 65536 with commas, such as 3,4,8")
    return sizes


def _table(rows: list[Row], names: list[str], seed: int, seeds: int) -> str:
    """The table for people; each cell of a hang has the seed that found it."""
    header = ["SQ entries", "CQ entries", *names]
    lines = [
        [str(row.entries), str(row.cq_entries), *(_words(row.targets[name]) for name in names)]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    text = [
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip()
        for line in (header, *lines)
    ]
    tried = (
        f"with any of the seeds {seed} to {seed + seeds - 1}" if seeds > 1 else f"with seed {seed}"
    )
    text.append(f"\nHANG @n: with seed n. ok: not {tried}.")
    return "\n".join(text)


def _words(cell: Cell) -> str:
    return f"HANG @{cell.seed}" if cell.result == "hang" else cell.result
