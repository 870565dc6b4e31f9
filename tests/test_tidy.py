"""The shape of the source: who may import whom, and how long things may get."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src/nvmelab"
FILES = sorted(PACKAGE.rglob("*.py"))

FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

# Rooms, and the rooms they must not know. A room is the first part of a module's name.
FORBIDDEN = {
    "spec": {"*"},
    "device": {"host", "link", "qemu", "cli", "report", "service", "corpus", "explore"},
    "check": {"device", "host", "link", "storage", "qemu", "cli", "report", "service", "explore"},
    "corpus": {"link", "qemu", "cli", "report", "service", "explore", "storage"},
    "explore": {"qemu", "cli", "report", "service", "suite", "targets"},
    "host": {"device", "storage", "qemu", "cli", "report", "service"},
    "storage": {"device", "host", "link", "qemu", "cli", "report", "service", "spec", "trace"},
    "trace": {"device", "host", "link", "qemu", "cli", "report", "service", "storage"},
    "link": {"host", "qemu", "cli", "report", "service", "storage", "device", "suite"},
    "suite": {"device", "storage", "qemu", "cli", "report", "service", "targets", "trace"},
    "qemu": {"device", "host", "link", "cli", "report", "service", "storage"},
}


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def rooms_imported(path: Path) -> set[str]:
    text = path.read_text()
    return set(re.findall(r"^\s*(?:from|import) nvmelab\.(\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES_MAX


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_are_short(path: Path) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [
        function.name
        for function in functions
        if (function.end_lineno or 0) - function.lineno >= FUNCTION_LINES_MAX
    ] == []


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_room_imports_only_what_it_may(path: Path) -> None:
    room = path.relative_to(PACKAGE).parts[0]
    forbidden = FORBIDDEN.get(room, set())
    imported = rooms_imported(path) - {room}
    assert (imported if "*" in forbidden else imported & forbidden) == set()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_file_says_what_it_is(path: Path) -> None:
    source = path.read_text()
    assert not source or ast.get_docstring(ast.parse(source))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_pack_into_writes_only_private_buffers(path: Path) -> None:
    # It zeroes its target first, which a peer that watches the target would see.
    allowed = {"device/pci.py", "device/logpages.py"}
    assert "pack_into(" not in path.read_text() or name_of(path) in allowed
