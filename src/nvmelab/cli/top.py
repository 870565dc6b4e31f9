"""`nvmelab top`: every queue of a controller that is serving, live."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click
import msgspec

from nvmelab.cli.options import Fail, given
from nvmelab.link.control import ControlClient, ControlEnded, ControlError, running
from nvmelab.report.top import Line, frame
from nvmelab.snapshot import Snapshot

_ENDING = frozenset(b"qQ\x03")
_ENDED = "nvmelab: the server has ended"
Keys = Callable[[ControlClient, float], bool]
"""Waits so many seconds; False if q was typed."""


@click.command()
@click.argument("socket_path", required=False, metavar="[SOCKET]")
@click.option("--json", "as_json", is_flag=True, help="Snapshots as JSON, one on a line.")
@click.option(
    "--count",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after so many snapshots.  [default: 1 with --json, otherwise until q or Ctrl-C]",
)
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds between two snapshots.",
)
def top(socket_path: str | None, as_json: bool, count: int | None, interval: float) -> None:
    """Show every queue of the controller that is served on SOCKET: head, tail, what is outstanding,
    and who must act next. A queue that stands still for 2 seconds with commands on it is STUCK.

    Without SOCKET, the one guest of `nvmelab run`. It looks, and changes nothing; q or Ctrl-C ends
    it.

    \b
    nvmelab top
    nvmelab top nvme.sock
    nvmelab top nvme.sock --json
    nvmelab top nvme.sock --json --count 3 --interval 2
    """
    if count == 1 or (as_json and count is None):
        for option in given("--interval"):
            raise Fail(f"{option} is between snapshots, and this is one; add --count 2 or more")
    try:
        client = ControlClient(socket_path or _only_one(running()))
    except ControlError as error:
        raise Fail(str(error)) from None
    try:
        with contextlib.closing(client):
            if as_json:
                _print_json(client, count or 1, interval)
            elif sys.stdout.isatty():
                _live(client, count, interval)
            else:
                _print_text(client, count, interval)
    except ControlEnded:
        click.echo(_ENDED, err=as_json)
    except ControlError as error:
        raise Fail(str(error)) from None
    except KeyboardInterrupt:
        pass  # that is how one ends it


def _only_one(found: Sequence[str]) -> str:
    if not found:
        raise Fail(
            "no guest of nvmelab run is here; name the socket of nvmelab serve, for example: "
            "nvmelab top nvme.sock"
        )
    if len(found) > 1:
        raise Fail(f"several are served; name one: {', '.join(map(_with_image, found))}")
    return found[0]


def _with_image(path: str) -> str:
    """A socket, and what is served there if it says so."""
    try:
        with contextlib.closing(ControlClient(path, reply_s=1)) as client:
            image = snapshot_of(client.ask(), path).image
    except (ControlError, ControlEnded):
        return path
    return f"{path} ({image})" if image.isprintable() else path


def snapshot_of(answer: bytes, path: str) -> Snapshot:
    """What a server has answered. Raises ControlError."""
    try:
        return msgspec.json.decode(answer, type=Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass
    try:
        said = msgspec.json.decode(answer, type=dict[str, str])["error"]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, KeyError):
        said = "no answer that this nvmelab knows; is it another version, or another program?"
    raise ControlError(f"{path}: {said}" if said.isprintable() else f"{path}: no good answer")


def _sleep(client: ControlClient, seconds: float, *also: int) -> list[int]:
    """Wait until the time has passed, the server has gone, or one of the descriptors is ready."""
    ready: list[int] = select.select([client.fileno(), *also], [], [], seconds)[0]
    return ready


def _print_json(client: ControlClient, count: int, interval: float) -> None:
    for number in range(count):
        if number:
            _sleep(client, interval)
        answer = client.ask()
        snapshot_of(answer, client.path)
        click.echo(answer, nl=False)


def _print_text(client: ControlClient, count: int | None, interval: float) -> None:
    """A block of lines for each snapshot."""
    before: Snapshot | None = None
    number = 0
    while True:
        now = snapshot_of(client.ask(), client.path)
        lines = [line.text for line in frame(now, before)]
        click.echo("\n".join(lines) + "\n")
        before, number = now, number + 1
        if number == count:
            return
        _sleep(client, interval)


def _live(client: ControlClient, count: int | None, interval: float) -> None:
    """One frame, drawn again and again in its place. The last one stays on the screen."""
    before: Snapshot | None = None
    drawn: list[Line] = []
    number = 0
    try:
        with _screen() as keys:
            while True:
                now = snapshot_of(client.ask(), client.path)
                columns, rows = shutil.get_terminal_size()
                drawn = frame(now, before, width=columns, rows=rows - 1)
                _draw(drawn, columns)
                before, number = now, number + 1
                if number == count or not keys(client, interval):
                    return
    finally:
        for line in drawn:
            click.echo(_styled(line))


@contextlib.contextmanager
def _screen() -> Iterator[Keys]:
    """The terminal's other screen, and its keys one by one. Everything is as before at the end,
    also where a signal is the end."""
    number = sys.stdin.fileno() if sys.stdin.isatty() else None
    state = termios.tcgetattr(number) if number is not None else None

    def wait(client: ControlClient, seconds: float) -> bool:
        if number is None:
            _sleep(client, seconds)
        elif number in _sleep(client, seconds, number):
            typed = os.read(number, 64)
            return bool(typed) and not _ENDING & set(typed)
        return True

    def end(signal_number: int, _frame: Any) -> None:
        sys.exit(128 + signal_number)

    old = {sign: signal.signal(sign, end) for sign in (signal.SIGTERM, signal.SIGHUP)}
    try:
        if number is not None:
            tty.setcbreak(number)
            attributes = termios.tcgetattr(number)
            # Ctrl-C is a key, too: a signal just before a wait would be noticed after it.
            attributes[3] &= ~termios.ISIG
            termios.tcsetattr(number, termios.TCSADRAIN, attributes)
        click.echo("\x1b[?1049h\x1b[?25l", nl=False)
        yield wait
    finally:
        click.echo("\x1b[?25h\x1b[?1049l", nl=False)
        if number is not None and state is not None:
            termios.tcsetattr(number, termios.TCSADRAIN, state)
        for sign, handler in old.items():
            signal.signal(sign, handler)


def _draw(lines: Sequence[Line], columns: int) -> None:
    shown = (f"{_styled(Line(line.text[:columns], line.alert))}\x1b[K\n" for line in lines)
    click.echo("\x1b[H" + "".join(shown) + "q ends\x1b[K\x1b[J", nl=False)


def _styled(line: Line) -> str:
    """Bold, and red unless NO_COLOR says no: readable on dark and light."""
    if not line.alert:
        return line.text
    return click.style(line.text, bold=True, fg=None if os.environ.get("NO_COLOR") else "red")
