"""The load behind the matrix, and the matrix itself."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.errors import DeviceError
from nvmelab.link.base import HostLink, LinkError
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.suite.matrix import Cell, Column, matrix, sizes
from nvmelab.suite.overcommit import Run, overcommit
from nvmelab.targets import Target, open_target
from tests.suite.broken.overcommit import ForgetsRungQueue


def connect(variant: type[Controller] = Controller, **changes: Any) -> HostLink:
    def make(
        config: ControllerConfig, namespaces: list[Namespace], worker: HeldWorker
    ) -> Controller:
        return variant(ControllerConfig(**changes), namespaces, GuestMemory(), worker=worker)

    return open_target(Target("inproc"), controller=make)


def run(variant: type[Controller], entries: int, cq_entries: int, seed: int) -> Run:
    driver = Driver(connect(variant))
    driver.start()
    return overcommit(driver, entries=entries, cq_entries=cq_entries, seed=seed)


@pytest.mark.parametrize("entries", [3, 4, 5, 6, 7, 8, 16, 32, 64])
def test_device_with_the_lost_wake_up_hangs_at_every_size_from_3_on(entries: int) -> None:
    for cq_entries in {entries, 16}:
        assert run(ForgetsRungQueue, entries, cq_entries, 1).hang


@pytest.mark.parametrize("seed", range(5))
def test_device_with_the_lost_wake_up_never_hangs_with_2_entries(seed: int) -> None:
    assert not run(ForgetsRungQueue, 2, 2, seed).hang
    assert not run(ForgetsRungQueue, 2, 16, seed).hang


@pytest.mark.parametrize("entries", [2, 3, 4, 8, 64])
@pytest.mark.parametrize("seed", range(5))
def test_sound_device_never_hangs(entries: int, seed: int) -> None:
    assert not run(Controller, entries, entries, seed).hang
    assert not run(Controller, entries, 16, seed).hang


@pytest.mark.parametrize("entries", [3, 4, 8, 64])
def test_load_over_commits_as_far_as_the_queue_allows(entries: int) -> None:
    # A pool of `entries` requests, and entries - 1 in the ring.
    assert run(Controller, entries, 16, 1).most_outstanding == 2 * entries - 2


def test_hang_shows_the_rings() -> None:
    state = run(ForgetsRungQueue, 4, 16, 1).state
    assert "SQ 1 (4 entries)" in state and "no entry to reap" in state


def test_one_seed_gives_one_run() -> None:
    assert run(Controller, 8, 16, 3) == run(Controller, 8, 16, 3)
    assert run(Controller, 8, 16, 3) != run(Controller, 8, 16, 4)


def test_nothing_is_held_back_after_a_hang() -> None:
    link = connect(ForgetsRungQueue)
    driver = Driver(link)
    driver.start()
    assert overcommit(driver, entries=4, cq_entries=16, seed=1).hang
    assert link.storage and (link.storage.hold, link.storage.held()) == (False, 0)


# The matrix.


def test_rows_are_each_size_with_a_cq_of_that_size_and_of_16() -> None:
    assert sizes([2, 16, 32]) == [(2, 2), (2, 16), (16, 16), (32, 16), (32, 32)]


def test_cell_is_the_seed_that_hung_or_the_last_one_tried() -> None:
    assert Column(partial(connect, ForgetsRungQueue), [5, 6]).cell(4, 4).result == "hang"
    assert Column(connect, [5, 6]).cell(4, 4) == Cell("ok", 6)


def test_size_above_mqes_is_skipped_with_the_reason() -> None:
    cell = Column(partial(connect, queue_entries=8), [1]).cell(16, 16)
    assert (cell.result, cell.seed, cell.seen) == ("skipped", None, "CAP.MQES allows 8 entries")


def test_link_is_opened_again_after_a_hang() -> None:
    opened = 0

    def count() -> HostLink:
        nonlocal opened
        opened += 1
        return connect(ForgetsRungQueue)

    matrix({"bad": count}, entries=[2, 3], seeds=[1], progress=lambda text: None)
    assert opened == 2, "one for the two rows of 2 and the first of 3, one for the second"


def test_device_that_cannot_be_opened_is_named() -> None:
    def nothing() -> HostLink:
        raise LinkError("nobody there")

    with pytest.raises(LinkError, match="mine: nobody there"):
        matrix({"mine": nothing}, seeds=[1], progress=lambda text: None)


def test_device_that_breaks_another_rule_is_named_with_the_row() -> None:
    class WrongCid(Controller):
        def finish(self, request: object, status: int = 0) -> None:
            if request.sq.id:  # type: ignore[attr-defined]
                request.cid ^= 1  # type: ignore[attr-defined]
            super().finish(request, status)  # type: ignore[arg-type]

    with pytest.raises(DeviceError, match=r"mine: SQ 2, CQ 2: SQ 1 has no outstanding command"):
        matrix(
            {"mine": partial(connect, WrongCid)}, entries=[2], seeds=[1], progress=lambda text: None
        )
