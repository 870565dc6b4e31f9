"""Our trace of a guest against the trace that the same guest makes on QEMU's own nvme device."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from nvmelab.trace.events import OURS
from tests.guest.lab import BOOT_LIMIT_S, guest_command, nvme_disk, run_nvmelab

pytestmark = pytest.mark.guest

JOB = """
modprobe nvme; wait-for /dev/nvme0n1
dd if=/dev/zero of=/dev/nvme0n1 bs=1M count=2 oflag=direct 2>/dev/null
dd if=/dev/nvme0n1 of=/dev/null bs=512k count=2 iflag=direct 2>/dev/null
blkdiscard -o 0 -l 1048576 /dev/nvme0n1
nvme write-zeroes /dev/nvme0n1 -s 0 -c 7
nvme flush /dev/nvme0n1 -n 1
nvme smart-log /dev/nvme0 > /dev/null
nvme get-feature /dev/nvme0 -f 6
# What fails on purpose: an unknown log page, feature, admin and I/O command, and LBA.
nvme get-log /dev/nvme0 -i 0xee -l 512 || true
nvme get-feature /dev/nvme0 -f 0xee || true
nvme admin-passthru /dev/nvme0 -o 0xc7 || true
nvme io-passthru /dev/nvme0n1 -o 0x77 -n 1 || true
nvme read /dev/nvme0n1 -s 99999999 -c 0 -z 512 || true
"""

# Timestamps, which QEMU has and we do not; the EventIdx of a completion queue, which we publish
# only when it is full; events of QEMU that only repeat another; INTx, which firmware uses there.
NOT_OURS = {"setfeat_timestamp", "update_cq_eventidx", "getfeat_vwcache", "irq_pin", "aer"}


def shapes(log: str) -> dict[str, set[str]]:
    """The forms of line each event has, with the values taken out."""
    found: dict[str, set[str]] = {}
    for name, text in re.findall(r"^pci_nvme_(\w+) (.*)$", log, re.MULTILINE):
        text = re.sub(r"'[^']*'", "QUOTED", text)
        text = re.sub(r"\b0x[0-9a-f]+\b", "HEX", text)
        found.setdefault(name, set()).add(re.sub(r"\b\d+\b", "DEC", text))
    return found


def test_a_guest_makes_the_same_trace_as_on_qemus_own_device(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(64 << 20))
    command = guest_command(JOB, tmp_path, nvme_disk(image, drive=",discard=unmap"))
    theirs, ours = tmp_path / "qemu.log", tmp_path / "ours.log"

    tracing = ["-trace", "pci_nvme_*", "-D", str(theirs)]
    subprocess.run(
        [*command, *tracing],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=BOOT_LIMIT_S,
        check=True,
    )
    options = ["--trace", "pci_nvme_*", "--trace-file", str(ours)]
    run_nvmelab(options, command).check()

    expected, found = shapes(theirs.read_text()), shapes(ours.read_text())
    assert expected.keys() - found.keys() <= NOT_OURS
    assert found.keys() - expected.keys() == OURS.keys() - {"cq_not_cleared"}
    common = {name for name in found.keys() - OURS.keys() if not name.startswith("err_")}
    assert {name: found[name] for name in common} == {name: expected[name] for name in common}
    assert {"err_invalid_log_page", "err_req_status", "err_invalid_lba_range"} <= found.keys()
