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


def write_file(path: Path, data: bytes) -> None:
    """Write a file that a verb makes, with its folder. Raises Fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise Fail(
            f"{path} cannot be written: {error.strerror}; name a file that can be written"
        ) from (None)
