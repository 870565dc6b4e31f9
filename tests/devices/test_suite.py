"""The suite on real devices finds what docs/findings.md explains, and nothing else."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from nvmelab.suite.all import CHECKS
from nvmelab.suite.expectations import Expectations, read_expectations
from nvmelab.suite.runner import Result, Runner
from nvmelab.targets import Target, open_target
from tests.devices.conftest import QEMUS, binary
from tests.guest.lab import ROOT

pytestmark = pytest.mark.guest

KNOWN = ROOT / "docs/known/qemu.toml"
OPTIONAL = {
    "5.2": {"shadow", "data.deallocate"},
    "7.2": set(),
    "10.0": set(),
    "11.1": set(),
}
"""Groups and checks that a QEMU's device has no feature for."""


def run(target: Target) -> tuple[str, list[Result]]:
    runner = Runner(partial(open_target, target), seed=1)
    runner.probe()
    return runner.name, list(runner.run(CHECKS.values()))


@pytest.mark.parametrize("version", QEMUS)
def test_qemus_own_device_has_the_known_findings_and_no_other(version: str) -> None:
    name, results = run(Target("qemu", binary(version)))
    expectations = Expectations(read_expectations(str(KNOWN), CHECKS), name)
    judged = [expectations.apply(result) for result in results]
    assert [result for result in judged if result.result == "finding" and not result.known] == []
    assert [result for result in judged if result.result == "error"] == []
    assert expectations.unmet(results) == []
    skipped = {result.id for result in results if result.result == "skipped"}
    optional = OPTIONAL[version]
    assert {id for id in skipped if not {id, id.partition(".")[0]} & optional} == set()


@pytest.mark.parametrize("limits", ["mqes=1", "mqes=3", "max_ioqpairs=1", "msix_qsize=2,mdts=1"])
def test_device_that_offers_little_is_not_accused_of_it(limits: str) -> None:
    words = ("-device", f"nvme,serial=x,drive=d0,{limits}")
    name, results = run(Target("qemu", binary("11.1"), words))
    expectations = Expectations(read_expectations(str(KNOWN), CHECKS), name)
    judged = [expectations.apply(result) for result in results]
    assert [result for result in judged if result.result == "finding" and not result.known] == []
    assert [result for result in judged if result.result == "error"] == []


def test_our_controller_passes_through_qemus_vfio_user_client() -> None:
    _, results = run(Target("qemu-vfio-user", binary("11.1")))
    assert [result for result in results if result.result != "pass"] == []


def test_every_known_finding_is_explained() -> None:
    text = Path(ROOT / "docs/findings.md").read_text()
    for entry in read_expectations(str(KNOWN), CHECKS):
        assert f"`{entry.check}`" in text
