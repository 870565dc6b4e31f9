"""`nvmelab replay`: take a recorded run again."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import NoReturn

import click
import msgspec

import nvmelab
from nvmelab.cli.options import Fail, refuse_page, write_file
from nvmelab.corpus.personas import PERSONAS
from nvmelab.explore.narrate import tell
from nvmelab.explore.remote import NotForThis, replay_on
from nvmelab.explore.replay import Played, Replay, ReplayError, decode, follow
from nvmelab.explore.setting import SettingError
from nvmelab.host.errors import DeviceError
from nvmelab.limits import REPLAY_BYTES_MAX
from nvmelab.link.base import LinkError
from nvmelab.report.explore import story_lines, verdict_lines
from nvmelab.report.paragraphs import paragraph
from nvmelab.report.remote import outcome_json, outcome_text
from nvmelab.report.story_page import story_page


@click.command("replay")
@click.argument("file", type=click.Path(readable=False, dir_okay=False, allow_dash=True))
@click.option(
    "--device",
    type=click.Choice(list(PERSONAS)),
    help="On another device than the one it was found on.",
)
@click.option(
    "--html",
    type=click.Path(readable=False, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the page that shows the run step by step.",
)
@click.option(
    "--target",
    metavar="TARGET",
    help="On a real device, named as for `nvmelab test`: qemu:PROGRAM, inproc, ...",
)
@click.option("--json", "as_json", is_flag=True, help="The result as one JSON object.")
def replay_verb(
    file: str, device: str | None, html: Path | None, target: str | None, as_json: bool
) -> None:
    """Take a run again that `explore` has found, and say whether it still fails.

    On another device, steps that it cannot take are left out, and it may finish at the end whatever
    it can. Exit status 1 if the run fails, 0 if it does not, 2 if it could not run.

    A QEMU before 7.1 with a virtual clock (Debian 11's) takes the very steps, forced one by one:
    search with `explore --device qemu-5.2`, in whose order it runs. Any other target takes its own
    steps as soon as it can, and the driver's and the storage's are as recorded.

    \b
    nvmelab replay hang-4.json
    nvmelab replay hang-4.json --device nvmelab
    nvmelab replay hang-4.json --html hang.html
    nvmelab replay hang-4.json --target qemu:.lab/bin/qemu-system-x86_64-5.2
    """
    refuse_page("--html", html)
    replay = _read(file)
    if target:
        if device or html:
            raise Fail("--target stands alone: --device and --html are of the explored device")
        _on_target(file, replay, target, as_json)
    setting = replay.setting
    if device:
        setting = msgspec.structs.replace(setting, device=device)
    same = setting == replay.setting
    try:
        played = follow(setting.system(), replay.steps(), replay.digests if same else ())
        story = tell(setting, played.labels, shortest=replay.shortest and same)
    except (ReplayError, SettingError) as error:
        raise Fail(f"{file}: {error}") from None
    if same:
        _refuse_another_run(file, replay, played)
    if html:
        write_file(html, story_page(story).encode())
        click.echo(f"nvmelab: {html}: the page of this run", err=True)
    if as_json:
        click.echo(json.dumps(_json(replay, played, setting.device)))
    else:
        word = story.result.upper() if played.failed else "NO HANG"
        click.echo(f"{word:<8} {story.title}")
        click.echo("\n".join(story_lines(story)))
        if played.failed:
            click.echo("\n".join(verdict_lines(story)))
        for name, text in _notes(played):
            click.echo(paragraph(name, text))
    sys.exit(1 if played.failed else 0)


def _on_target(file: str, replay: Replay, target: str, as_json: bool) -> NoReturn:
    """Take the run on a real device, and end."""
    try:
        with contextlib.closing(nvmelab.connect(target)) as controller:
            name = controller.link.name
            outcome = replay_on(controller, replay)
    except (nvmelab.TargetError, LinkError, DeviceError) as error:
        raise Fail(str(error)) from None
    except (NotForThis, ReplayError, SettingError) as error:
        raise Fail(f"{file}: {error}") from None
    if as_json:
        click.echo(json.dumps(outcome_json(target, name, outcome)))
    else:
        click.echo(outcome_text(name, replay, outcome))
    sys.exit(1 if outcome.hang or outcome.error else 0)


def _refuse_another_run(file: str, replay: Replay, played: Played) -> None:
    """On the device it was found on a run must come out as recorded: what another run does says
    nothing about this one. Raises Fail."""
    ended = (played.rule, played.party, len(played.labels))
    recorded = (replay.rule, replay.ball, len(replay.labels))
    if played.skipped or played.differs is not None or ended != recorded:
        where = f" from step {played.differs} on" if played.differs is not None else ""
        raise Fail(
            f"{file}: the run is not the recorded one{where}: the file is damaged, or made by "
            f"another version ({replay.made_by}); find it again with nvmelab explore"
        )


def _read(file: str) -> Replay:
    """The contents of the file, or of standard input. Raises Fail."""
    try:
        if file == "-":
            data = sys.stdin.buffer.read(REPLAY_BYTES_MAX + 1)
        else:
            with open(file, "rb") as stream:
                data = stream.read(REPLAY_BYTES_MAX + 1)
    except OSError as error:
        raise Fail(f"{file}: {error.strerror}") from None
    try:
        return decode(data)
    except ReplayError as error:
        raise Fail(f"{file}: {error}") from None


def _notes(played: Played) -> list[tuple[str, str]]:
    notes = []
    if played.skipped:
        notes.append(("skipped", f"{played.skipped} steps that this device cannot take then"))
    return notes


def _json(replay: Replay, played: Played, device: str) -> dict[str, object]:
    result = "hang" if played.ball else "violation" if played.violation else "passed"
    return {
        "result": result,
        "steps": len(played.labels),
        "skipped": played.skipped,
        "differs": played.differs,
        "rule": played.rule or None,
        "ball": played.party or None,
        "device": device,
        "recorded": replay.result,
    }
