"""The README's console blocks are what the commands print, numbers of a run aside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_demo_prints_what_the_readme_says(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    found = re.search(r"^\$ make demo\n(.*?)^(path .*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    assert found

    printed = subprocess.run(
        [sys.executable, "-m", "nvmelab", "demo"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,  # it writes its page there
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    ).stdout

    # One seed gives one result, so even the numbers are the same.
    assert printed == found[1]
    assert found[2].replace("$", "$$") in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("page", ["README.md", "docs/diagnosing.md", "docs/reading-a-verdict.md"])
def test_the_diagnoses_are_what_is_printed(page: str) -> None:
    found = re.findall(
        r"^\$ (?:\.venv/bin/)?nvmelab (diagnose tests/data/.*)\n((?:.*\n)*?)```$",
        (ROOT / page).read_text(),
        re.MULTILINE,
    )
    assert found
    for words, printed in found:
        done = subprocess.run(
            [sys.executable, "-m", "nvmelab", *words.split()],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
        )
        assert (done.stdout, done.returncode) == (printed, 1)


def test_every_page_that_is_linked_exists() -> None:
    for page in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
