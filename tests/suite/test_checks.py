"""Every check passes on our controller, and finds the fault that is planted for it."""

from __future__ import annotations

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.link.base import HostLink
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.suite.all import CHECKS
from nvmelab.suite.runner import Result, Runner
from nvmelab.targets import Target, open_target
from tests.suite.broken import BROKEN

PLANTED = [(id, variant) for id, variants in BROKEN.items() for variant in variants]


def run(check_id: str, variant: type[Controller], seed: int = 1) -> Result:
    """One check on a controller of that class, in this process."""

    def make(
        config: ControllerConfig, namespaces: list[Namespace], worker: HeldWorker
    ) -> Controller:
        return variant(config, namespaces, GuestMemory(), worker=worker)

    def connect() -> HostLink:
        return open_target(Target("inproc"), controller=make)

    (result,) = Runner(connect, seed=seed).run([CHECKS[check_id]])
    return result


@pytest.mark.parametrize("check_id", CHECKS)
@pytest.mark.parametrize("seed", [1, 2])
def test_check_passes_on_a_sound_controller(check_id: str, seed: int) -> None:
    result = run(check_id, Controller, seed)
    assert (result.result, result.seen) == ("pass", "as expected")


@pytest.mark.parametrize(
    ("check_id", "variant"), PLANTED, ids=[f"{id}-{variant.__name__}" for id, variant in PLANTED]
)
def test_check_finds_the_planted_fault(check_id: str, variant: type[Controller]) -> None:
    result = run(check_id, variant)
    assert result.result == "finding", f"{variant.__doc__} {result}"
    # Our driver is sound: the judge names the device, or says nothing.
    assert result.verdict is None or result.verdict.verdict in ("device", "undecided")


def test_every_check_has_a_planted_fault() -> None:
    assert set(BROKEN) == set(CHECKS)
