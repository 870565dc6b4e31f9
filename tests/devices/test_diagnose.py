"""Logs of real QEMUs under a load that over-commits: the hanging ones are the device's fault, and
nothing is found in the others."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelab.check.verdict import Verdict
from nvmelab.suite.overcommit import overcommit
from tests.check.test_diagnosis import verdict_on
from tests.devices.conftest import QEMUS, Connect

pytestmark = pytest.mark.guest

SIZES = (2, 3, 4, 5, 6, 7, 8, 16, 32, 64)


def logged(open_qemu: Connect, version: str, log: Path, entries: int, cq_entries: int) -> bool:
    """Run the load on that QEMU, with its log in that file; whether it hung."""
    nvme = open_qemu(version, "-trace", "pci_nvme_*", "-D", str(log))
    run = overcommit(nvme, entries=entries, cq_entries=cq_entries, seed=1)
    hang = run.hang
    nvme.close()
    return hang


def judged(log: Path) -> tuple[Verdict, Verdict]:
    """As it stands, and declared hung."""
    data = log.read_bytes()
    return verdict_on(data, rest=False), verdict_on(data, rest=True)


@pytest.mark.parametrize("entries", SIZES)
@pytest.mark.parametrize("version", QEMUS)
def test_every_size_of_the_matrix(
    open_qemu: Connect, version: str, entries: int, tmp_path: Path
) -> None:
    for cq_entries in sorted({entries, 16}):
        log = tmp_path / f"{cq_entries}.log"
        hang = logged(open_qemu, version, log, entries, cq_entries)
        plain, hung = judged(log)
        assert plain.findings == hung.findings == []
        if hang:
            assert version == "5.2" and entries > 2
            assert hung.verdict == "device"
            assert {part.state for part in hung.stuck} == {"rung"}
            assert plain.verdict == "undecided"
            assert plain.pattern and "over-committed" in plain.pattern.name
        else:
            assert plain.verdict == "clean" and plain.pattern is None
