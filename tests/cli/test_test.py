"""`nvmelab test` and `nvmelab matrix`: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nvmelab.cli import matrix as matrix_module
from nvmelab.cli import test as test_module
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.link.base import HostLink, LinkError
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.suite.all import CHECKS
from nvmelab.targets import Target, open_target
from tests.cli.conftest import Invoke, error_of
from tests.suite.broken.overcommit import ForgetsRungQueue
from tests.suite.broken.rings import KeepsPhase

Plant = Callable[[type[Controller]], None]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    """Have every target be a controller of that class, in this process."""

    def plant(variant: type[Controller]) -> None:
        def make(
            config: ControllerConfig, namespaces: list[Namespace], worker: HeldWorker
        ) -> Controller:
            return variant(config, namespaces, GuestMemory(), worker=worker)

        def connect(target: Target) -> HostLink:
            return open_target(Target("inproc"), controller=make)

        monkeypatch.setattr(test_module, "open_target", connect)
        monkeypatch.setattr(matrix_module, "open_target", connect)

    return plant


# test: what it prints.


def test_checks_that_pass_are_a_line_each_and_a_summary(nvmelab: Invoke) -> None:
    result = nvmelab("test", "inproc", "--only", "rings.phase", "--seed", "7")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "pass     rings.phase                    Base 2.2, 4.2.4",
        "",
        "inproc (in-process controller), seed 7: 1 passed",
    ]


def test_finding_says_what_was_expected_and_seen_and_the_rule(
    nvmelab: Invoke, plant: Plant
) -> None:
    plant(KeepsPhase)
    result = nvmelab("test", "inproc", "--only", "rings.phase")
    assert result.exit_code == 1
    for words in ("FINDING  rings.phase", "expected the phase tag", "seen ", "rule     Base 2.2"):
        assert words in result.stdout
    assert "0 passed, 1 with findings" in result.stdout


def test_json_is_one_object(nvmelab: Invoke, plant: Plant) -> None:
    plant(ForgetsRungQueue)
    only = ("--only", "rings.phase", "--only", "overcommit.silence")
    found = json.loads(nvmelab("test", "inproc", *only, "--json").stdout)
    assert (found["target"], found["seed"]) == ("inproc", 1)
    assert [check["id"] for check in found["checks"]] == ["rings.phase", "overcommit.silence"]
    assert [check["result"] for check in found["checks"]] == ["pass", "finding"]
    assert found["checks"][0]["ref"] == "Base 2.2, 4.2.4"
    assert "SQ 1 (3 entries)" in found["checks"][1]["seen"]


@pytest.mark.parametrize("option", [("--json",), ("--junit", "x.xml"), ("--seed", "2")])
def test_list_runs_nothing(nvmelab: Invoke, option: tuple[str, ...]) -> None:
    message = error_of(nvmelab("test", "--list", *option), 2)
    assert f"--list runs nothing, so {option[0]}" in message


def test_target_may_have_a_name_that_is_no_text(
    nvmelab: Invoke, plant: Plant, tmp_path: Path
) -> None:
    plant(Controller)
    target, path = "vfio-user:\udcff.sock", tmp_path / "junit.xml"
    words = ("test", target, "--only", "rings.phase", "--json", "--junit", str(path))
    assert json.loads(nvmelab(*words).stdout)["target"] == target
    assert ElementTree.parse(path).getroot().get("name") == "nvmelab test vfio-user:?.sock"


def test_list_has_every_check_and_needs_no_target(nvmelab: Invoke) -> None:
    lines = nvmelab("test", "--list").stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == list(CHECKS)


def test_junit_counts_what_it_holds(nvmelab: Invoke, plant: Plant, tmp_path: Path) -> None:
    plant(ForgetsRungQueue)
    path = tmp_path / "junit.xml"
    only = ("--only", "rings.phase", "--only", "overcommit.silence")
    nvmelab("test", "inproc", *only, "--junit", str(path))
    suite = ElementTree.parse(path).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "0")
    assert [case.get("name") for case in suite.iter("testcase")] == ["phase", "silence"]
    assert len(list(suite.iter("failure"))) == 1


def test_known_finding_does_not_count(nvmelab: Invoke, plant: Plant, tmp_path: Path) -> None:
    plant(KeepsPhase)
    path = tmp_path / "known.toml"
    path.write_text('[[known]]\ncheck = "rings.phase"\nwhy = "it never flips"\n')
    result = nvmelab("test", "inproc", "--only", "rings.phase", "--expect", str(path))
    assert result.exit_code == 0
    assert "known    rings.phase" in result.stdout and "it never flips" in result.stdout


def test_expectation_that_is_not_met_any_more_is_told(nvmelab: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text('[[known]]\ncheck = "rings.phase"\nwhy = "it never flips"\n')
    result = nvmelab("test", "inproc", "--only", "rings.phase", "--expect", str(path))
    assert result.exit_code == 0
    assert "rings.phase passes: take it out" in result.stderr


# test: what cannot be run.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a target"),
        (["disk"], "'disk' is no target; give inproc, vfio-user:SOCKET"),
        (["inproc:x"], "'inproc:x' is no target"),
        (["qemu:"], "'qemu:' is no target"),
        (["inproc", "--", "-m", "1G"], "inproc takes no words for QEMU"),
        (["qemu:no-such-qemu"], "no program no-such-qemu on the PATH"),
        (["qemu:/no/such/qemu"], "/no/such/qemu is not there; install a QEMU"),
        (["qemu:/bin/true"], "/bin/true ended with status 0: it printed nothing"),
        (["qemu:/"], "/ cannot be run: Permission denied"),
        (["qemu-vfio-user:/bin/true"], "/bin/true does not look like a QEMU"),
        (["vfio-user:/no/such.sock"], "/no/such.sock "),
        (
            ["qtest:/no/such.sock"],
            "/no/such.sock: No such file or directory; start QEMU with -qtest",
        ),
        (["inproc", "--only", "rinks"], "--only rinks names no check; groups are "),
        (["inproc", "--expect", "/no/such.toml"], "/no/such.toml: No such file"),
    ],
)
def test_what_cannot_be_run_is_one_line(nvmelab: Invoke, words: list[str], message: str) -> None:
    assert message in error_of(nvmelab("test", *words), 2)


def test_device_that_never_gets_ready_is_one_line(nvmelab: Invoke, plant: Plant) -> None:
    class NeverReady(Controller):
        def enabled(self) -> list[object]:  # type: ignore[override]
            return []

        def run(self) -> bool:
            return False

    plant(NeverReady)
    message = error_of(nvmelab("test", "inproc"), 2)
    assert "cannot be started: CSTS.RDY 1 never came" in message
    assert "CAP.TO is 7.5 s" in message


def test_device_without_a_namespace_is_one_line(nvmelab: Invoke, plant: Plant) -> None:
    class Empty(Controller):
        def __init__(self, config: ControllerConfig, _: object, *rest: Any, **more: Any) -> None:
            super().__init__(config, [], *rest, **more)

    plant(Empty)
    assert "has no namespace 1" in error_of(nvmelab("test", "inproc"), 2)


def test_target_that_goes_away_ends_the_run_with_what_was_found(
    nvmelab: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = 0

    def connect(target: Target) -> HostLink:
        nonlocal opened
        opened += 1
        if opened > 1:
            raise LinkError("the server is gone")
        link = open_target(Target("inproc"))
        reads = 0
        read = link.read

        def fail(offset: int, size: int) -> int:
            nonlocal reads
            reads += 1
            if reads > 12:
                raise LinkError("the server closed the connection")
            return read(offset, size)

        link.read = fail  # type: ignore[method-assign]
        return link

    monkeypatch.setattr(test_module, "open_target", connect)
    result = nvmelab("test", "inproc", "--only", "rings", "--json")
    assert result.exit_code == 2
    checks = json.loads(result.stdout)["checks"]
    assert checks[-1]["result"] == "error"
    assert "the server closed the connection" in checks[-1]["seen"]
    assert f"after {len(checks)} of " in result.stderr and "the server is gone" in result.stderr


# matrix.


def test_matrix_is_a_table_with_the_seed_of_each_hang(nvmelab: Invoke) -> None:
    words = ("matrix", "--target", "ours=inproc", "--entries", "2,3", "--seeds", "2", "--seed", "5")
    result = nvmelab(*words)
    assert result.exit_code == 0
    assert [line.split() for line in result.stdout.splitlines()[:5]] == [
        ["SQ", "entries", "CQ", "entries", "ours"],
        ["2", "2", "ok"],
        ["2", "16", "ok"],
        ["3", "3", "ok"],
        ["3", "16", "ok"],
    ]
    assert "seeds 5 to 6" in result.stdout


def test_matrix_may_have_a_column_whose_name_is_no_text(nvmelab: Invoke) -> None:
    words = ("matrix", "--target", "\udcff=inproc", "--entries", "2", "--seeds", "1", "--json")
    (row, _row) = json.loads(nvmelab(*words).stdout)["rows"]
    assert list(row["targets"]) == ["\udcff"]


def test_matrix_of_a_device_that_hangs_ends_with_1(nvmelab: Invoke, plant: Plant) -> None:
    plant(ForgetsRungQueue)
    result = nvmelab("matrix", "--target", "bad=inproc", "--entries", "2,4", "--json")
    assert result.exit_code == 1
    rows = json.loads(result.stdout)["rows"]
    assert [(row["entries"], row["cq_entries"]) for row in rows] == [
        (2, 2),
        (2, 16),
        (4, 4),
        (4, 16),
    ]
    assert [row["targets"]["bad"]["result"] for row in rows] == ["ok", "ok", "hang", "hang"]
    assert [row["targets"]["bad"]["seed"] for row in rows] == [3, 3, 1, 1]


def test_matrix_without_a_lab_says_so_and_has_our_column(
    nvmelab: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = nvmelab("matrix", "--entries", "2")
    assert result.exit_code == 0
    assert "no QEMU in .lab/bin" in result.stderr
    assert result.stdout.split()[:5] == ["SQ", "entries", "CQ", "entries", "nvmelab"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "inproc"], "--target inproc: give NAME=TARGET"),
        (["--target", "a=disk"], "'disk' is no target"),
        (["--target", "a=inproc", "--target", "a=inproc"], "two columns are called a"),
        (["--target", "a=inproc", "--entries", "1"], "--entries 1: give sizes from 2"),
        (["--target", "a=inproc", "--entries", "x"], "--entries x: give sizes from 2"),
        (["--target", "a=qemu:/no/such"], "a: /no/such is not there"),
    ],
)
def test_matrix_that_cannot_be_made_is_one_line(
    nvmelab: Invoke, words: list[str], message: str
) -> None:
    assert message in error_of(nvmelab("matrix", *words), 2)
