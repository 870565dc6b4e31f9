"""Without the lab, the tests here fail rather than being skipped: who runs them wants them run."""

from __future__ import annotations

import pytest

from tests.guest.lab import KERNEL, QEMU


@pytest.fixture(autouse=True, scope="session")
def lab_is_prepared() -> None:
    for path in (QEMU, KERNEL):
        assert path.exists(), f"{path} is missing: run `make lab`"
