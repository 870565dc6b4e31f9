"""A trace file: begun late, and given up without harm."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from nvmelab.trace.file import TraceError, TraceFile
from nvmelab.trace.qemu_log import PatternError


def test_chosen_events_are_in_the_file_after_a_flush(tmp_path: Path) -> None:
    trace = TraceFile(("pci_nvme_mmio_doorbell_*",), str(tmp_path / "run.log"))
    trace.open()

    trace.bus.emit("mmio_doorbell_sq", 1, 2)
    trace.bus.emit("mmio_read", 0, 4)
    trace.flush()

    assert (tmp_path / "run.log").read_text() == "pci_nvme_mmio_doorbell_sq sqid 1 new_tail 2\n"
    trace.close()


def test_file_is_not_touched_before_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_text("old")

    TraceFile(("pci_nvme_*",), str(path)).close()

    assert path.read_text() == "old"


def test_pattern_that_selects_nothing_is_refused() -> None:
    with pytest.raises(PatternError):
        TraceFile(("nothing",), "run.log")


def test_file_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    trace = TraceFile(("pci_nvme_*",), str(tmp_path / "no" / "run.log"))

    with pytest.raises(TraceError, match=r"run\.log: No such file or directory"):
        trace.open()


def test_full_disk_ends_the_trace_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    trace = TraceFile(("pci_nvme_*",), "/dev/full")
    trace.open()

    with caplog.at_level(logging.ERROR):
        for _ in range(10_000):
            trace.bus.emit("mmio_read", 0, 4)
        trace.flush()
        trace.close()

    assert caplog.messages == ["/dev/full: No space left on device; the trace ends here"]
