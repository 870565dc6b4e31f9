"""`nvmelab test`: our driver and our checks on somebody's device."""

from __future__ import annotations

import json
import sys
from functools import partial

import click

from nvmelab.cli.options import Fail, given
from nvmelab.link.base import LinkError
from nvmelab.report.suite import (
    check_table,
    junit_xml,
    result_lines,
    results_json,
    summary_line,
)
from nvmelab.suite.all import CHECKS
from nvmelab.suite.base import Check
from nvmelab.suite.expectations import (
    Expectations,
    ExpectationsError,
    Known,
    read_expectations,
)
from nvmelab.suite.runner import Result, Runner, select
from nvmelab.targets import TargetError, open_target, parse_target


@click.command(
    context_settings={"allow_interspersed_args": True},
)
@click.argument("target", required=False)
@click.argument("qemu", nargs=-1, type=click.UNPROCESSED, metavar="[-- QEMU ARGUMENTS...]")
@click.option("--list", "list_only", is_flag=True, help="Print the checks and end.")
@click.option(
    "--only",
    multiple=True,
    metavar="CHECK",
    help="Run only this group, this check, or what a wildcard names: queues, 'transfer.list*'. "
    "May be repeated.",
)
@click.option(
    "--seed",
    type=int,
    default=1,
    show_default=True,
    help="Draws data, places and orders; one seed gives one result.",
)
@click.option(
    "--expect",
    "expect_file",
    type=click.Path(readable=False, dir_okay=False),
    metavar="FILE",
    help="Findings that are known of the device (TOML); only others count.",
)
@click.option(
    "--junit",
    type=click.Path(readable=False, dir_okay=False),
    metavar="FILE",
    help="Write JUnit XML as well.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def test(
    target: str | None,
    qemu: tuple[str, ...],
    list_only: bool,
    only: tuple[str, ...],
    seed: int,
    expect_file: str | None,
    junit: str | None,
    as_json: bool,
) -> None:
    """Check a device against the NVMe specification, with our own driver: no guest, no
    root, no KVM.

    \b
    TARGET is one of
      inproc                         our controller, in this process
      qemu:PROGRAM                   QEMU's own nvme device, over qtest
      qemu-vfio-user:PROGRAM         our controller behind QEMU's vfio-user-pci (10.1 or later)
      vfio-user:SOCKET               any vfio-user NVMe server: nvmelab serve, SPDK, ...
      qtest:SOCKET                   a QEMU with -qtest unix:SOCKET,server=on,wait=off

    With qemu: the words after -- go to QEMU. A `-device nvme` among them replaces ours; its disks
    are ours, called d0 to d7.

    The suite writes to the device: whatever is on its namespaces is lost.

    Exit status 0 if there is nothing to report, 1 with findings, 2 if something could not be run.

    \b
    nvmelab test inproc
    nvmelab test qemu:/usr/bin/qemu-system-x86_64 --only queues
    nvmelab test qemu:qemu-system-x86_64 --seed 7 -- -device nvme,serial=x,drive=d0,mqes=3
    """
    if list_only:
        for option in given("--json", "--junit", "--expect", "--seed"):
            raise Fail(f"--list runs nothing, so {option} is of no use with it; leave out one")
        click.echo(check_table(_chosen(only)))
        return
    if target is None:
        raise Fail("name a target, such as inproc or qemu:qemu-system-x86_64; see --help")
    checks = _chosen(only)
    try:
        known = read_expectations(expect_file, CHECKS) if expect_file else []
        wanted = parse_target(target, qemu)
    except (TargetError, ExpectationsError) as error:
        raise Fail(str(error)) from None
    runner = Runner(partial(open_target, wanted), seed=seed)
    results: list[Result] = []
    problem, notes = "", []
    try:
        runner.probe()
        notes = _run(runner, checks, known, results, quiet=as_json)
    except LinkError as error:
        problem = str(error)
        if not results:
            raise Fail(problem) from None
    if as_json:
        click.echo(json.dumps(results_json(target, runner.name, seed, results)))
    else:
        click.echo(summary_line(target, runner.name, seed, results))
    for note in notes:
        click.echo(f"nvmelab: {note}", err=True)
    if junit:
        _write(junit, junit_xml(target, seed, results))
    if problem:
        raise Fail(f"after {len(results)} of {len(checks)} checks: {problem}")
    sys.exit(_status(results))


def _chosen(only: tuple[str, ...]) -> list[Check]:
    try:
        return select(CHECKS.values(), only)
    except LookupError as error:
        groups = ", ".join(dict.fromkeys(check.group for check in CHECKS.values()))
        raise Fail(
            f"--only {error.args[0]} names no check; groups are {groups}; see nvmelab test --list"
        ) from None


def _run(
    runner: Runner,
    checks: list[Check],
    known: list[Known],
    results: list[Result],
    *,
    quiet: bool,
) -> list[str]:
    """Put the result of each check into `results`, and show it as it comes; what else there is to
    say."""
    progress = not quiet and sys.stdout.isatty()
    expectations = Expectations(known, runner.name)
    running = iter(runner.run(checks))
    for number, check in enumerate(checks, 1):
        if progress:
            click.echo(f"{number}/{len(checks)} {check.id} ...", nl=False)
        result = next(running)
        result = expectations.apply(result)
        results.append(result)
        if progress:
            click.echo("\r\033[K", nl=False)
        if not quiet:
            click.echo(result_lines(result))
    next(running, None)  # closes the link
    unmet = expectations.unmet(results)
    return [
        f"{id} passes: take it out of the expectations file, or limit it with device ="
        for id in unmet
    ]


def _status(results: list[Result]) -> int:
    if any(result.result == "finding" and not result.known for result in results):
        return 1
    return 2 if any(result.result == "error" for result in results) else 0


def _write(path: str, data: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        raise Fail(f"{path}: {error.strerror}") from None
