"""How a verb ends with an error, refuses an option that would change nothing, writes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource


class Fail(click.ClickException):
    """One line on standard error, and exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"nvmelab: error: {self.message}", err=True, file=file)


def given(*options: str) -> list[str]:
    """Those of these options of the verb, such as `--seed`, that stand on its command line."""
    context = click.get_current_context()
    names = {option: param.name for param in context.command.params for option in param.opts}
    return [
        option
        for option in options
        if context.get_parameter_source(names[option] or "") is ParameterSource.COMMANDLINE
    ]


def one_line(error: click.UsageError) -> str:
    """What is wrong with a command line, and where to look, without click's lines about usage."""
    said = " ".join(error.format_message().split())
    where = f"{error.ctx.command_path} --help" if error.ctx else "nvmelab --help"
    return f"{said.removesuffix('.')}; see {where}"


def named(path: str) -> str:
    """The file of a verb that reads one, for people: `-` is standard input."""
    return "standard input" if path == "-" else path


def refuse_page(option: str, page: Path | None) -> None:
    """Raises Fail for a page that could not be written, before the work is done."""
    if page is None:
        return
    if str(page) == "-":
        raise Fail(f"{option} needs the name of a file: standard output has the verdict")
    if not page.parent.is_dir():
        raise Fail(f"{option} {page}: there is no folder {page.parent}; make it, or name another")


def write_file(path: Path, data: bytes) -> None:
    """Write a file that a verb makes. Raises Fail."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise Fail(
            f"{path} cannot be written: {error.strerror}; name a file that can be written"
        ) from None
