"""`nvmelab explore`: every order of events, or many of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Literal

import click

from nvmelab.cli.options import Fail, given, write_file
from nvmelab.corpus.faults import FAULTS
from nvmelab.corpus.personas import PERSONAS
from nvmelab.explore.explore import Plan, Result, Strategy, explore
from nvmelab.explore.narrate import tell
from nvmelab.explore.program import program
from nvmelab.explore.replay import encode
from nvmelab.explore.setting import SCENARIOS, Setting, SettingError
from nvmelab.explore.story import Story
from nvmelab.explore.system import Doorbells, Grain
from nvmelab.limits import SEARCH_ENTRIES_MAX, SEARCH_STATES_MAX
from nvmelab.report.explore import result_json, result_text
from nvmelab.report.story_page import story_page

_STRATEGIES = {
    "--seed": ("pct", "walk"),
    "--runs": ("pct", "walk"),
    "--depth": ("pct",),
    "--graph": ("bfs",),
    "--states": ("bfs",),
}
"""Options that are of some strategies only."""


class Commands(click.ParamType[int | None]):
    """A number, or `any`."""

    name = "N|any"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        if value == "any":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a number nor any", param, ctx)


class Ticker:
    """Progress on standard error, for who looks at it: a line that is written over."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._last = time.monotonic()

    def __call__(self, text: str) -> None:
        if self._shown and time.monotonic() - self._last > 0.2:
            self._last = time.monotonic()
            click.echo(f"\r\x1b[K{text}", err=True, nl=False)

    def end(self) -> None:
        if self._shown:
            click.echo("\r\x1b[K", err=True, nl=False)


@click.command("explore")
@click.argument("scenario", type=click.Choice(list(SCENARIOS)))
@click.option(
    "--entries",
    type=click.IntRange(2, SEARCH_ENTRIES_MAX),
    default=4,
    show_default=True,
    help="Size of both queues.",
)
@click.option(
    "--device",
    type=click.Choice(list(PERSONAS)),
    default="nvmelab",
    show_default=True,
    help="Whose rules the device follows.",
)
@click.option(
    "--fault",
    type=click.Choice(list(FAULTS)),
    help="Plant a bug in the device or in the driver, to see it found.",
)
@click.option(
    "--commands", type=Commands(), default="any", show_default=True, help="The driver submits."
)
@click.option(
    "--grain",
    type=click.Choice(["coarse", "fine"]),
    help="How much one step is. coarse: a polling driver, whole runs of the device. fine: a driver "
    "with an interrupt handler, each doorbell a step.  [default: coarse, or what --fault needs]",
)
@click.option(
    "--doorbells",
    type=click.Choice(["together", "apart"]),
    default="together",
    show_default=True,
    help="A doorbell write reaches the device at once, or in a step of its own.",
)
@click.option(
    "--eager",
    is_flag=True,
    help="The device takes its steps before anybody else takes one, as a device does that nobody "
    "holds: such a run can be taken on any (replay --target).",
)
@click.option(
    "--strategy",
    type=click.Choice(["bfs", "pct", "walk"]),
    default="bfs",
    show_default=True,
    help="bfs: all orders, the shortest finding. pct, walk: random runs from a seed, for queues of "
    "more than about 6 entries.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="Of pct and walk.")
@click.option(
    "--runs", type=click.IntRange(1), default=1000, show_default=True, help="Most runs of those."
)
@click.option(
    "--depth",
    type=click.IntRange(1, 10),
    default=1,
    show_default=True,
    help="Of pct: changes of priority in a run, plus one.",
)
@click.option("--graph", is_flag=True, help="With bfs: go on behind the first finding, and count.")
@click.option(
    "--states",
    type=click.IntRange(1),
    default=SEARCH_STATES_MAX,
    help=f"With bfs: give up above this many states.  [default: {SEARCH_STATES_MAX:,}]",
)
@click.option(
    "--no-rules",
    is_flag=True,
    help="Look for hangs only, and tell fewer states apart: faster, and no proof.",
)
@click.option(
    "--output",
    type=click.Path(readable=False, file_okay=False, path_type=Path),
    default=Path(),
    help="Folder for the files of a finding.  [default: this one]",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def explore_verb(
    scenario: str,
    entries: int,
    device: str,
    fault: str | None,
    commands: int | None,
    grain: Grain | None,
    doorbells: Doorbells,
    eager: bool,
    strategy: Strategy,
    seed: int,
    runs: int,
    depth: int,
    graph: bool,
    states: int,
    no_rules: bool,
    output: Path,
    as_json: bool,
) -> None:
    """Our driver on our controller, and every order in which their steps can come: does a command
    get lost, or a rule broken?

    A finding is written to three files: a replay (hang-4.json), a Python program that fails when
    it is run (hang_4.py), and a page that shows it step by step (hang-4.html). Exit status 0 if
    nothing was found, 1 if something was, 2 if it could not run.

    \b
    nvmelab explore overcommit --entries 4 --device qemu-9.0
    nvmelab explore overcommit --entries 4 --device nvmelab
    nvmelab explore overcommit --entries 64 --device qemu-9.0+1 --strategy pct --seed 7
    nvmelab explore overcommit --entries 3 --fault checks-then-waits
    """
    _refuse_unused(strategy)
    setting = Setting(
        entries=entries,
        device=device,
        commands=commands,
        grain=grain or ("fine" if fault and FAULTS[fault].grain == "fine" else "coarse"),
        doorbells=doorbells,
        eager=eager,
        fault=fault or "",
        rules=not no_rules,
        scenario=scenario,
    )
    plan = Plan(strategy=strategy, seed=seed, runs=runs, depth=depth, graph=graph, states=states)
    ticker = Ticker()
    began = time.perf_counter()
    try:
        result = explore(setting, plan, ticker)
    except SettingError as error:
        raise Fail(str(error)) from None
    finally:
        ticker.end()
    took = time.perf_counter() - began
    story = _story(result)
    files = _write(result, story, output) if story else []
    if as_json:
        click.echo(json.dumps(result_json(result, story, str(files[0]) if files else None)))
    else:
        click.echo(result_text(result, story))
        if files:
            replay, script, page = files
            click.echo(f"replay   nvmelab replay {replay}  |  {_python()} {script}  |  open {page}")
        click.echo(f"nvmelab: {took * 1000:,.0f} ms", err=True)
    sys.exit(1 if story else 0)


def _refuse_unused(strategy: Strategy) -> None:
    """Raises Fail for an option that this strategy has no use for."""
    for option in given(*_STRATEGIES):
        wanted = _STRATEGIES[option]
        if strategy not in wanted:
            raise Fail(
                f"{option} is of --strategy {' and '.join(wanted)}, and this is {strategy}: name "
                f"{'that' if len(wanted) == 1 else 'one of them'}, or leave out {option}"
            )


def _python() -> str:
    """The interpreter that has nvmelab, as somebody here would type it."""
    if shutil.which("python") == sys.executable:
        return "python"
    path = os.path.relpath(sys.executable)
    return path if not path.startswith("..") else sys.executable


def _story(result: Result) -> Story | None:
    replay = result.replay
    if replay is None:
        return None
    return tell(replay.setting, replay.steps(), shortest=replay.shortest)


def _write(result: Result, story: Story, folder: Path) -> list[Path]:
    """Write the files of a finding; their paths. Raises Fail."""
    assert result.replay
    kind: Literal["hang", "violation"] = result.replay.result
    entries = result.setting.entries
    files = {
        folder / f"{kind}-{entries}.json": encode(result.replay),
        folder / f"{kind}_{entries}.py": program(result.replay, story).encode(),
        folder / f"{kind}-{entries}.html": story_page(story).encode(),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Fail(f"--output {folder} cannot be written: {error.strerror}; name another") from None
    for path, data in files.items():
        write_file(path, data)
    return list(files)
