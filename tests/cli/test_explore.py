"""`nvmelab explore` and `nvmelab replay`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke


@pytest.fixture
def hang(nvmelab: Invoke, tmp_path: Path) -> Path:
    result = nvmelab(
        *("explore", "overcommit", "--entries", "3", "--device", "qemu-9.0"),
        *("--output", str(tmp_path)),
    )
    assert result.exit_code == 1
    assert result.stdout.startswith("HANG     after 24 steps: 1 command rung, not fetched")
    assert "ball     device" in result.stdout and "no shorter run does this" in result.stdout
    return tmp_path / "hang-3.json"


def test_a_hang_comes_with_its_files(hang: Path) -> None:
    assert sorted(path.name for path in hang.parent.iterdir()) == [
        "hang-3.html",
        "hang-3.json",
        "hang_3.py",
    ]


def test_a_replay_hangs_again_and_not_on_our_controller(nvmelab: Invoke, hang: Path) -> None:
    again = nvmelab("replay", str(hang))
    assert again.exit_code == 1 and again.stdout.startswith("HANG     Hang after 24 steps")
    ours = nvmelab("replay", str(hang), "--device", "nvmelab", "--json")
    assert ours.exit_code == 0
    assert json.loads(ours.stdout)["result"] == "passed"


@pytest.mark.parametrize("old", ['"complete 0"', '"entries": 3', '"fetch 1"'])
def test_a_run_that_is_not_the_recorded_one_is_no_answer(
    nvmelab: Invoke, hang: Path, old: str
) -> None:
    new = {'"complete 0"': '"complete 7"', '"entries": 3': '"entries": 4', '"fetch 1"': '"reap"'}
    hang.write_text(hang.read_text().replace(old, new[old], 1))
    result = nvmelab("replay", str(hang))
    assert result.exit_code == 2 and "not the recorded one" in result.stderr


def test_a_violation_is_told_apart_from_what_it_is(nvmelab: Invoke, tmp_path: Path) -> None:
    words = ("explore", "overcommit", "--entries", "3", "--fault", "completes-twice")
    said = nvmelab(*words, "--output", str(tmp_path))
    assert said.stdout.startswith("VIOLATION after ") and "nothing to post" not in said.stdout


def test_interrupted_is_not_found(nvmelab: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_words: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("nvmelab.cli.explore.explore", interrupt)
    assert nvmelab("explore", "overcommit").exit_code == 130


def test_a_replay_on_a_target(nvmelab: Invoke, hang: Path) -> None:
    said = nvmelab("replay", str(hang), "--target", "inproc")
    assert said.exit_code == 0
    assert said.stdout.startswith("NO HANG  on in-process controller: every command was completed")
    found = json.loads(nvmelab("replay", str(hang), "--target", "inproc", "--json").stdout)
    assert (found["result"], found["forced"], found["skipped"]) == ("passed", 0, 0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "nowhere"), "nowhere"),
        (("--target", "qemu:/does/not/exist"), "/does/not/exist"),
        (("--target", "inproc", "--device", "nvmelab"), "--target stands alone"),
    ],
)
def test_a_target_that_cannot_be_used(
    nvmelab: Invoke, hang: Path, words: tuple[str, ...], said: str
) -> None:
    result = nvmelab("replay", str(hang), *words)
    assert result.exit_code == 2 and said in result.stderr and "Traceback" not in result.stderr


def test_a_replay_writes_its_page(nvmelab: Invoke, hang: Path) -> None:
    page = hang.parent / "again.html"
    assert nvmelab("replay", str(hang), "--html", str(page)).exit_code == 1
    assert page.read_text() == (hang.parent / "hang-3.html").read_text()


def test_the_proof_says_its_scope(nvmelab: Invoke, tmp_path: Path) -> None:
    words = ("explore", "overcommit", "--entries", "3", "--commands", "any")
    result = nvmelab(*words, "--output", str(tmp_path))
    assert result.exit_code == 0
    assert result.stdout.startswith("PROVED")
    assert "1 SQ and 1 CQ of 3 entries, any number of commands" in result.stdout
    assert "coarse steps" in result.stdout
    assert list(tmp_path.iterdir()) == []


def explored(nvmelab: Invoke, tmp_path: Path, *words: str) -> dict[str, object]:
    result = nvmelab("explore", "overcommit", "--json", "--output", str(tmp_path), *words)
    found: dict[str, object] = json.loads(result.stdout)
    assert result.exit_code == (found["result"] in ("hang", "violation"))
    return found


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--entries", "3"), {"result": "proved", "states": 846, "replay": None, "ball": None}),
        (("--entries", "3", "--commands", "4"), {"result": "exhausted", "steps": None}),
        (("--entries", "4", "--states", "100"), {"result": "budget"}),
        (
            ("--entries", "3", "--device", "qemu-9.0", "--no-rules", "--graph", "--commands", "6"),
            {"result": "hang", "states": 670, "transitions": 1633, "hangs": 1, "steps": 24},
        ),
        (
            ("--entries", "3", "--device", "qemu-9.1.2", "--no-rules", "--graph"),
            {"result": "exhausted", "states": 207, "hangs": 0},
        ),
        (
            ("--entries", "3", "--device", "qemu-9.0", "--grain", "fine"),
            {"result": "hang", "steps": 44, "ball": "device"},
        ),
        (
            ("--entries", "3", "--device", "qemu-9.0-lifo", "--eager"),
            {"result": "hang", "steps": 27, "eager": True},
        ),
        (
            ("--entries", "3", "--fault", "checks-then-waits"),
            {"result": "hang", "ball": "driver", "grain": "fine"},
        ),
        (
            ("--entries", "3", "--fault", "phase-stays"),
            {"result": "violation", "ball": "device", "rule": "cq.phase"},
        ),
        (
            ("--entries", "16", "--device", "qemu-9.0", "--strategy", "pct", "--seed", "7"),
            {"result": "hang", "ball": "device", "seed": 7, "states": 0},
        ),
        (
            ("--entries", "8", "--strategy", "walk", "--runs", "20"),
            {"result": "budget", "runs": 20, "seed": 1, "replay": None},
        ),
    ],
)
def test_what_is_found(
    nvmelab: Invoke, tmp_path: Path, words: tuple[str, ...], expected: dict[str, object]
) -> None:
    found = explored(nvmelab, tmp_path, *words)
    assert {name: found[name] for name in expected} == expected
    if found["replay"]:
        assert Path(str(found["replay"])).parent == tmp_path


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--entries", "1"), "entries"),
        (("--commands", "some"), "neither a number nor any"),
        (("--commands", "0"), "0 commands"),
        (("--device", "other"), "device"),
        (("--fault", "checks-then-waits", "--grain", "coarse"), "--grain fine"),
        (("--fault", "tail-wraps-late", "--grain", "fine"), "--grain coarse"),
        (("--seed", "1"), "--seed is of --strategy pct and walk, and this is bfs"),
        (("--runs", "5"), "--runs is of --strategy pct and walk"),
        (("--depth", "2", "--strategy", "walk"), "name that, or leave out --depth"),
        (("--graph", "--strategy", "pct"), "--graph is of --strategy bfs, and this is pct"),
        (("--states", "9", "--strategy", "walk"), "--states is of --strategy bfs"),
        (
            ("--entries", "3", "--device", "qemu-9.0", "--output", "/dev/null/x"),
            "cannot be written",
        ),
    ],
)
def test_what_cannot_run(nvmelab: Invoke, words: tuple[str, ...], said: str) -> None:
    result = nvmelab("explore", "overcommit", *words)
    assert result.exit_code == 2
    assert said in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(
    "contents", [None, b"", b"{}", b"\x00\xff", b'{"format": "nvmelab-replay"}']
)
def test_no_replay_file(nvmelab: Invoke, tmp_path: Path, contents: bytes | None) -> None:
    path = tmp_path / "bad.json"
    if contents is not None:
        path.write_bytes(contents)
    result = nvmelab("replay", str(path))
    assert result.exit_code == 2
    assert result.stderr.startswith(f"nvmelab: error: {path}: ")
    assert result.stderr.count("\n") == 1
