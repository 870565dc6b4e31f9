"""Logs of Linux on QEMU's own nvme device: both innocent, wherever the log is cut."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from tests.check.test_diagnosis import verdict_on
from tests.guest.lab import BOOT_LIMIT_S, guest_command, nvme_disk

pytestmark = pytest.mark.guest

JOB = """
modprobe nvme; wait-for /dev/nvme0n1
fio --name=verify --filename=/dev/nvme0n1 --rw=randrw --bs=4k --direct=1 --ioengine=libaio \
    --iodepth=32 --numjobs=2 --cpus_allowed=0,1 --cpus_allowed_policy=split --size=2M \
    --offset_increment=16M --verify=crc32c --verify_fatal=1 --verify_backlog=256
echo 1 > /sys/class/nvme/nvme0/reset_controller
dd if=/dev/nvme0n1 of=/dev/null bs=64k count=64
"""


SEABIOS = {"queues.number-first"}
"""What is noted of the firmware, which looks at the disk first (docs/findings.md)."""


def logged(folder: Path, device: str, *words: str) -> bytes:
    """The log of a boot on `-device nvme` with these properties."""
    image, log = folder / "disk.img", folder / "qemu.log"
    image.write_bytes(bytes(64 << 20))
    command = guest_command(JOB, folder, nvme_disk(image, device=device))
    done = subprocess.run(
        [*command, "-trace", "pci_nvme_*", "-D", str(log), *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_LIMIT_S,
        check=True,
    )
    assert "JOB-EXIT 0" in done.stdout, done.stdout[-2000:]
    return log.read_bytes()


@pytest.mark.parametrize(
    ("device", "words"),
    [("", ()), (",mqes=3,dbcs=off", ("-msg", "timestamp=on"))],
    ids=["shadow doorbells", "tiny queues"],
)
def test_linux_on_qemus_own_device_is_clean(
    tmp_path: Path, device: str, words: tuple[str, ...]
) -> None:
    log = logged(tmp_path, device, *words)
    verdict = verdict_on(log, rest=False)
    assert (verdict.verdict, verdict.in_flight) == ("clean", 0)
    assert {finding.rule for finding in verdict.findings} == SEABIOS
    assert b"pci_nvme_io_cmd" in log
    lines = log.splitlines(keepends=True)
    source = random.Random(2388)
    for _ in range(20):
        begin = source.randrange(len(lines))
        end = source.randrange(begin, len(lines))
        cut = verdict_on(b"".join(lines[begin:end]), rest=False)
        assert {finding.rule for finding in cut.findings} <= SEABIOS
        assert cut.verdict in ("clean", "undecided"), (begin, end)
    if "dbcs=off" in device:
        assert verdict_on(log, rest=True).verdict == "clean"
