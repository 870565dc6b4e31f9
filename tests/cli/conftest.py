"""What the tests of verbs share: a way to call them, and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from nvmelab.cli.main import cli

Invoke = Callable[..., Result]


@pytest.fixture
def nvmelab() -> Invoke:
    """nvmelab(*words): run the verb in this process."""

    def invoke(*words: str) -> Result:
        return CliRunner().invoke(cli, list(words), prog_name="nvmelab")

    return invoke


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    return image


def error_of(result: Result, status: int) -> str:
    """The one line on standard error with which a verb failed."""
    assert result.exit_code == status, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("nvmelab: error: ")
    return lines[0].removeprefix("nvmelab: error: ")
