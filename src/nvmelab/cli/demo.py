"""`nvmelab demo`: a real hang is found, shown and explained; then our rules are proved."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import msgspec

from nvmelab.cli.explore import Ticker
from nvmelab.cli.options import refuse_page, write_file
from nvmelab.explore.explore import Plan, Result, explore
from nvmelab.explore.narrate import tell
from nvmelab.explore.setting import Setting
from nvmelab.explore.story import Story
from nvmelab.explore.table import DEVICES, FULL, LIVE, Cell, cell, cell_of
from nvmelab.report.explore import (
    result_json,
    story_lines,
    verdict_line,
    verdict_lines,
)
from nvmelab.report.paragraphs import paragraph, plain
from nvmelab.report.story_page import story_page
from nvmelab.report.table import legend, table_lines

ENTRIES = 4
HANGS, HOLDS = "qemu-9.0", "nvmelab"

_QUESTION = (
    "An NVMe driver waits for a command that never completes. In 2024 this took the author of a "
    "driver days: with queues of 3 to 8 entries QEMU's device forgot commands (QEMU issue 2388, "
    "fixed in 9.1.2 after 11 years). Here are our driver and our controller, which keeps to the "
    f"rules of QEMU 9.0: queues of {ENTRIES} entries, and every order of their steps."
)


@click.command()
@click.option(
    "--page",
    type=click.Path(readable=False, dir_okay=False, path_type=Path),
    default=Path("nvmelab-demo.html"),
    show_default=True,
    help="Where the page goes that shows the hang step by step.",
)
@click.option("--full", is_flag=True, help="The table for up to 64 entries; takes about a minute.")
@click.option("--json", "as_json", is_flag=True, help="The results as one JSON object.")
def demo(page: Path, full: bool, as_json: bool) -> None:
    """A hang of QEMU 9.0's NVMe device is found among all orders of events, shown step by step and
    explained; then the rules of our own controller are proved free of it, for any number of
    commands; then a table of queue sizes against the repairs that were tried.

    Exit status 0 if the hang was found and our controller proved, 1 if not.

    \b
    nvmelab demo
    nvmelab demo --page hang.html --json
    """
    refuse_page("--page", page)
    ticker = Ticker()
    hang = explore(Setting(entries=ENTRIES, device=HANGS), Plan(), ticker)
    proof = explore(Setting(entries=ENTRIES, device=HOLDS), Plan(), ticker)
    story = None
    if hang.replay:
        story = tell(hang.setting, hang.replay.steps(), shortest=hang.replay.shortest)
        write_file(page, story_page(story).encode())
    if not as_json:
        ticker.end()
        _show(hang, story, proof)
    found = _table(FULL if full else LIVE, [cell_of(hang), cell_of(proof)], ticker)
    ticker.end()
    if as_json:
        click.echo(json.dumps(_json(hang, story, proof, found, page)))
    else:
        click.echo("\n" + "\n".join(table_lines(found)))
        click.echo(plain(legend(found)))
        click.echo(f"\npage     {page}: the hang step by step, in a browser")
        click.echo(
            "next     nvmelab explore overcommit --help            your own sizes and rules\n"
            "         nvmelab test qemu:qemu-system-x86_64         our driver on a real device\n"
            "         nvmelab run -- qemu-system-x86_64 ...        a guest on this controller"
        )
    sys.exit(0 if hang.result == "hang" and proof.result == "proved" else 1)


def _show(hang: Result, story: Story | None, proof: Result) -> None:
    click.echo(plain(_QUESTION) + "\n")
    click.echo(verdict_line(hang, story))
    if story:
        click.echo("\n".join(story_lines(story)) + "\n")
        click.echo("\n".join(verdict_lines(story)) + "\n")
    click.echo(verdict_line(proof, None))
    click.echo(
        paragraph(
            "why",
            "What it could do follows from its state: it notes no queue, and so cannot forget one.",
        )
    )
    click.echo(paragraph("scope", proof.setting.scope))


def _table(sizes: tuple[int, ...], known: list[Cell], ticker: Ticker) -> list[Cell]:
    """The cells of the table; those that are known already are not explored again."""
    done = {(one.entries, one.device): one for one in known}
    return [
        done.get((entries, device)) or cell(entries, device, ticker)
        for entries in sizes
        for device in DEVICES
    ]


def _json(
    hang: Result, story: Story | None, proof: Result, table: list[Cell], page: Path
) -> dict[str, object]:
    return {
        "hang": result_json(hang, story, None),
        "proof": result_json(proof, None, None),
        "table": [msgspec.to_builtins(one) for one in table],
        "page": str(page) if story else None,
    }
