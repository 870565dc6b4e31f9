"""How a verb ends with an error, and writes a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


class Fail(click.ClickException):
    """One line on standard error, and exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"nvmelab: error: {self.message}", err=True, file=file)


def write_file(path: Path, data: bytes) -> None:
    """Write a file that a verb makes, with its folder. Raises Fail."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise Fail(
            f"{path} cannot be written: {error.strerror}; name a folder with --output"
        ) from (None)
