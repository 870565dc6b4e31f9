"""The judge beside a link: what it finds of a device without the device's own word, and that it
accuses nobody wrongly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from nvmelab.check.verdict import Verdict
from nvmelab.check.witness import Witness
from nvmelab.corpus.breaches import BREACHES
from nvmelab.corpus.breaches.breach import Breach
from nvmelab.device.controller import Controller as Device
from nvmelab.host.driver import Controller as Driver
from nvmelab.link.watched import WatchedLink
from nvmelab.pair import Pair, workload

FOUND = {
    "fetches-twice",
    "sqhd-ahead",
    "wrong-cid",
    "completes-twice",
    "refuses-shared-cq",
    "unknown-status",
    "posts-after-deletion",
    "posts-to-its-number",
    "interrupts-poller",
}
"""What a device does wrong that shows on the bus while it goes on."""
AT_REST = {"skips-slot", "phase-stays", "never-ready", "never-shut-down", "never-interrupts"}
"""What shows only because somebody waits."""


def watched(kind: type[Device], act: Callable[[Driver], None]) -> tuple[Witness, list[Verdict]]:
    """The witness of one pair, and what it says at each rest."""
    pair = Pair(kind)
    witness = Witness(pair.driver.link.memory)
    rests = []

    class Asking(WatchedLink):
        def wait(self, done: Callable[[], bool]) -> bool:
            came = super().wait(done)
            verdict = witness.verdict() if self.at_rest else None
            if verdict:
                rests.append(verdict)
            return came

    pair.driver = Driver(Asking(pair.driver.link, witness))
    pair.run(act)
    return witness, rests


@cache
def of_breach(name: str) -> tuple[Witness, list[Verdict]]:
    return watched(BREACHES[name].device, BREACHES[name].act)


def test_a_sound_pair_is_accused_of_nothing() -> None:
    witness, rests = watched(Device, workload)
    assert witness.breaches() == []
    assert {verdict.verdict for verdict in rests} <= {"clean", "undecided"}


@pytest.mark.parametrize("breach", BREACHES.values(), ids=lambda breach: breach.name)
def test_the_other_side_is_never_accused(breach: Breach) -> None:
    witness, rests = of_breach(breach.name)
    if breach.party == "driver":
        assert witness.breaches() == []
    blamed = {verdict.verdict for verdict in rests}
    assert not blamed & ({"driver", "device", "platform"} - {breach.party})


@pytest.mark.parametrize("name", sorted(FOUND))
def test_a_breach_that_shows_on_the_bus_is_found(name: str) -> None:
    witness, _rests = of_breach(name)
    assert [finding.party for finding in witness.breaches()] == ["device"]


@pytest.mark.parametrize("name", sorted(AT_REST))
def test_a_device_that_leaves_its_driver_waiting_is_named(name: str) -> None:
    _witness, rests = of_breach(name)
    assert "device" in {verdict.verdict for verdict in rests}
