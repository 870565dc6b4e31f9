"""`nvmelab demo`."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Invoke


def test_demo_says_what_it_wrote_and_verified(nvmelab: Invoke) -> None:
    result = nvmelab("demo", "--writes", "300")

    assert result.exit_code == 0
    assert "I/O queues of at most 4 entries (CAP.MQES 3)" in result.stdout
    assert "read back: every byte is what was written last" in result.stdout


def test_demo_of_one_seed_gives_one_result(nvmelab: Invoke) -> None:
    words = ("demo", "--writes", "300", "--seed", "7", "--json")

    assert nvmelab(*words).stdout == nvmelab(*words).stdout


@pytest.mark.parametrize("entries", [2, 3, 5, 64])
def test_demo_keeps_its_queues_full(nvmelab: Invoke, entries: int) -> None:
    result = nvmelab("demo", "--queue-entries", str(entries), "--writes", "300", "--json")

    report = json.loads(result.stdout)
    assert report["entries"] == entries
    assert report["most_outstanding"] == 2 * (entries - 1)
    assert report["bytes_written"] == 300 * 4096
    assert 0 < report["bytes_verified"] <= report["bytes_written"]


def test_demo_of_one_entry_is_refused(nvmelab: Invoke) -> None:
    result = nvmelab("demo", "--queue-entries", "1")

    assert result.exit_code == 2
    assert "1 is not in the range 2<=x<=2048" in result.stderr
