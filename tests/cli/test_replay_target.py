"""`nvmelab replay --target`: what it says about a run on a real device, and how to force one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke, error_of
from tests.devices.conftest import binary

Hang = Callable[..., str]


@pytest.fixture
def hang(nvmelab: Invoke, tmp_path: Path) -> Hang:
    """hang(device, *words): the file of a shortest hang of 4 entries on that persona."""

    def hang(device: str, *words: str) -> str:
        options = ("--entries", "4", "--device", device, "--output", str(tmp_path), *words)
        assert nvmelab("explore", "overcommit", *options).exit_code == 1
        return str(tmp_path / "hang-4.json")

    return hang


def words_of(text: str) -> str:
    """Without the breaks of its lines."""
    return " ".join(text.split())


def test_a_device_that_goes_on_by_itself_wants_an_eager_run(nvmelab: Invoke, hang: Hang) -> None:
    said = nvmelab("replay", hang("qemu-9.0"), "--target", "inproc")
    assert said.exit_code == 0
    assert "parted   the device goes on by itself" in said.stdout
    more = "next nvmelab explore overcommit --entries 4 --device qemu-9.0 --eager: a run in which"
    assert more in words_of(said.stdout) and said.stdout.count("next ") == 1


def test_an_eager_run_that_parts_needs_no_other(nvmelab: Invoke, hang: Hang) -> None:
    said = nvmelab("replay", hang("qemu-9.0", "--eager"), "--target", "inproc")
    assert said.exit_code == 0
    assert "parted   after step" in said.stdout and "next " not in said.stdout


def test_a_run_that_no_target_can_take_is_one_line(nvmelab: Invoke, hang: Hang) -> None:
    file = hang("qemu-9.0", "--doorbells", "apart")
    said = error_of(nvmelab("replay", file, "--target", "inproc"), 2)
    assert said.startswith(f"{file}: only runs in coarse steps")


@pytest.mark.guest
def test_the_affected_qemu_hangs_and_the_repaired_one_does_not(nvmelab: Invoke, hang: Hang) -> None:
    file = hang("qemu-5.2")
    affected = nvmelab("replay", file, "--target", f"qemu:{binary('5.2')}")
    assert affected.exit_code == 1
    assert affected.stdout.startswith("HANG     on QEMU 5.2.0")
    assert "steps    all 21 forced one by one" in affected.stdout
    assert "1 outstanding (CID" in words_of(affected.stdout)
    assert "parted" not in affected.stdout and "next " not in affected.stdout
    repaired = nvmelab("replay", file, "--target", f"qemu:{binary('11.1')}")
    assert repaired.exit_code == 0 and repaired.stdout.startswith("NO HANG  on QEMU ")
    assert "--device qemu-5.2 --eager" in words_of(repaired.stdout)


@pytest.mark.guest
def test_the_same_facts_for_a_program(nvmelab: Invoke, hang: Hang) -> None:
    target = f"qemu:{binary('5.2')}"
    said = nvmelab("replay", hang("qemu-5.2"), "--target", target, "--json")
    assert said.exit_code == 1
    facts = json.loads(said.stdout)
    assert "1 outstanding (CID" in facts.pop("rings")
    assert facts == {
        "result": "hang",
        "target": target,
        "device": "QEMU 5.2.0",
        "forced": 21,
        "followed": 0,
        "skipped": 0,
        "parted": None,
        "error": None,
    }


@pytest.mark.guest
def test_a_run_in_another_order_says_how_to_find_one_for_this_device(
    nvmelab: Invoke, hang: Hang
) -> None:
    said = nvmelab("replay", hang("qemu-9.0-lifo"), "--target", f"qemu:{binary('5.2')}")
    assert "parted   after step" in said.stdout
    more = "next nvmelab explore overcommit --entries 4 --device qemu-5.2: a run in the order"
    assert more in words_of(said.stdout)
