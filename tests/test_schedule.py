"""Steps that are drawn from a seed: each is taken in the end, and the record says which."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nvmelab.schedule import Schedule, ScheduleError
from nvmelab.spec.nvm import Read
from tests.device.conftest import Bench


def served(path: Path, seed: int) -> list[str]:
    """The record of a controller that carries out some reads."""
    schedule = Schedule(seed, str(path), {"device": "nvmelab"})
    schedule.open()
    bench = Bench()
    bench.enable()
    cq = bench.create_cq(1, entries=8)
    sq = bench.create_sq(1, entries=8, cq=cq)
    buffer = bench.allocate(4096)
    sq.submit(*(Read(cid=cid, nsid=1, prp1=buffer) for cid in range(7)))
    for _ in range(10_000):
        if not schedule.turn(bench.controller):
            break
    assert [entry.cid for entry in cq.reap()] == list(range(7))
    schedule.close()
    schedule.close()
    return path.read_text().splitlines()


def test_every_step_is_taken_and_recorded(tmp_path: Path) -> None:
    head, *labels = served(tmp_path / "log", 7)
    assert json.loads(head) == {
        "format": "nvmelab-schedule",
        "version": 1,
        "seed": 7,
        "device": "nvmelab",
    }
    assert labels.count("fetch 1") == labels.count("execute 1") == labels.count("post 1") == 7
    assert "wait" in labels and "interrupt 1" in labels


def test_one_seed_gives_one_order_and_another_another(tmp_path: Path) -> None:
    assert served(tmp_path / "a", 7) == served(tmp_path / "b", 7)
    assert served(tmp_path / "c", 8)[1:] != served(tmp_path / "a", 7)[1:]


def test_a_record_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ScheduleError, match="name a file that can be written"):
        Schedule(1, str(tmp_path / "no" / "log"), {}).open()


def test_a_full_disk_ends_the_record_and_not_the_guest(caplog: pytest.LogCaptureFixture) -> None:
    schedule = Schedule(1, "/dev/full", {})
    schedule.open()
    bench = Bench()
    bench.enable()
    schedule.turn(bench.controller)
    schedule.close()
    (said,) = caplog.messages
    assert said.startswith("/dev/full: No space left on device")
