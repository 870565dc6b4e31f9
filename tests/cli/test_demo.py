"""`nvmelab demo`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, error_of


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


def test_demo_finds_the_hang_and_proves_our_rules(nvmelab: Invoke, told: Path) -> None:
    page = told / "hang.html"
    result = nvmelab("demo", "--page", str(page))
    assert result.exit_code == 0
    assert "HANG     after 21 steps: 1 command rung, not fetched" in result.stdout
    assert "PROVED   no reachable state is stuck" in result.stdout
    assert f"page     {page}" in result.stdout
    assert "Hang after 21 steps" in page.read_text()
    rows = [line.split("  ") for line in result.stdout.splitlines() if line[:7].strip().isdigit()]
    assert len([row for row in rows if "proved" in row]) == 3


def test_demo_as_json(nvmelab: Invoke, told: Path) -> None:
    page = told / "more.html"
    result = nvmelab("demo", "--page", str(page), "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["page"] == str(page) and page.exists()
    assert (report["hang"]["result"], report["hang"]["steps"]) == ("hang", 21)
    assert report["proof"]["result"] == "proved"
    steps = {(cell["entries"], cell["device"]): cell["steps"] for cell in report["table"]}
    assert [steps[3, name] for name in ("qemu-9.0", "qemu-9.0+1", "qemu-9.0+2", "qemu-fix-v1")] == [
        24,
        33,
        42,
        15,
    ]
    assert steps[4, "nvmelab"] is None and steps[2, "qemu-9.0"] is None


def test_a_page_for_a_folder_that_is_none_is_refused_before_the_work(
    nvmelab: Invoke, tmp_path: Path
) -> None:
    page = tmp_path / "no/hang.html"
    said = error_of(nvmelab("demo", "--page", str(page)), 2)
    assert said == f"--page {page}: there is no folder {page.parent}; make it, or name another"
