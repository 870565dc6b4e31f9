"""A stock Linux guest uses our controller as its disk."""

from __future__ import annotations

import hashlib
import random
import re
from pathlib import Path

import pytest

from tests.check.test_diagnosis import verdict_on
from tests.guest.lab import Outcome, guest_command, nvme_disk, run_nvmelab

pytestmark = pytest.mark.guest

MIB = 1 << 20

# What an emulated machine makes the kernel complain about whatever disk it has.
HARMLESS = re.compile(
    r"tsc: Unable to calibrate|APIC calibration not consistent|mtrr:|IRQ \d+ override|MMCONFIG|"
    r"hpet: Lost|clocksource:|RAS: |Spectre|MDS|MMIO Stale|TAA|SRBDS|VMSCAPE|ITS:|acpi_bus_type|"
    r"platform regulatory|random: |Decoding failed|unchecked MSR|workqueue: .* hogged CPU|"
    r"perf: interrupt took"
)
WARNINGS = """
dmesg -r | grep '^<[0-4]>' | sed 's/^/WARNING /' || true
"""


def warnings_of(console: str) -> list[str]:
    """The guest kernel's warnings and errors, those of every emulated machine excepted."""
    lines = re.findall(r"WARNING (<.*)$", console, re.MULTILINE)
    return [line for line in lines if not HARMLESS.search(line)]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    return image


def test_linux_sees_a_sane_device(image: Path, tmp_path: Path) -> None:
    job = (
        """
        modprobe nvme
        wait-for /dev/nvme0n1
        nvme list
        nvme id-ctrl /dev/nvme0
        nvme id-ns /dev/nvme0n1
        nvme smart-log /dev/nvme0
        nvme error-log /dev/nvme0 | head -4
        nvme effects-log /dev/nvme0 | head -4
        cat /proc/interrupts | grep nvme
        """
        + WARNINGS
    )

    outcome = run_nvmelab([], guest_command(job, tmp_path, nvme_disk(image)))

    console = outcome.check()
    fields = dict(re.findall(r"^(\w+)\s*: (.*?)\s*$", console, re.MULTILINE))
    assert re.search(r"/dev/nvme0n1 .*deadbeef .*268.44  MB / 268.44  MB    512", console)
    assert (fields["vid"], fields["ssvid"]) == ("0x1b36", "0x1af4")
    assert (fields["sn"], fields["ver"], fields["cntrltype"]) == ("deadbeef", "0x10400", "1")
    assert (fields["sqes"], fields["cqes"], fields["nn"]) == ("0x66", "0x44", "1")
    assert fields["nsze"] == fields["ncap"] == fields["nuse"] == hex(256 * MIB // 512)
    assert re.search(r"^critical_warning\s*: 0$", console, re.MULTILINE)
    assert re.search(r"^temperature\s*: 50 .C", console, re.MULTILINE)
    assert re.search(r"^available_spare\s*: 100%", console, re.MULTILINE)
    assert len(re.findall(r"nvme0q\d", console)) == 3  # admin, and a queue for each CPU
    assert warnings_of(console) == []
    assert re.search(r"^  read +\d+ ", outcome.messages, re.MULTILINE)


def test_files_survive_power_off_and_are_the_same_after_it(image: Path, tmp_path: Path) -> None:
    data = random.Random(2388).randbytes(MIB)
    digest = hashlib.sha256(data * 64).hexdigest()
    # The guest makes the 64 MiB from one it is given, so that the expected digest is ours.
    seed = tmp_path / "seed"
    seed.write_bytes(data)
    with image.open("r+b") as file:
        file.truncate(257 * MIB)
        file.seek(256 * MIB)
        file.write(data)
    write = (
        """
        modprobe nvme; modprobe ext4; wait-for /dev/nvme0n1
        mkfs.ext4 -q -F /dev/nvme0n1 256M
        mount -t ext4 /dev/nvme0n1 /mnt
        dd if=/dev/nvme0n1 of=/tmp/seed bs=1M skip=256 count=1 2>/dev/null
        for i in $(seq 64); do cat /tmp/seed; done > /mnt/data
        sync
        umount /mnt
        """
        + WARNINGS
    )
    read = (
        """
        modprobe nvme; modprobe ext4; wait-for /dev/nvme0n1
        e2fsck -f -n /dev/nvme0n1
        mount -t ext4 -o ro /dev/nvme0n1 /mnt
        sha256sum /mnt/data
        umount /mnt
        """
        + WARNINGS
    )
    disk = nvme_disk(image)

    first = run_nvmelab([], guest_command(write, tmp_path, disk)).check()
    second = run_nvmelab([], guest_command(read, tmp_path, disk)).check()

    assert f"{digest}  /mnt/data" in second
    assert warnings_of(first) == warnings_of(second) == []


@pytest.mark.parametrize("entries", [2, 3, 4, 5, 8])
def test_tiny_queues_lose_nothing(entries: int, image: Path, tmp_path: Path) -> None:
    job = (
        """
        modprobe nvme; modprobe ext4; wait-for /dev/nvme0n1
        fio --name=verify --filename=/dev/nvme0n1 --rw=randrw --bs=4k --direct=1 \
            --ioengine=libaio --iodepth=32 --numjobs=2 --cpus_allowed=0,1 \
            --cpus_allowed_policy=split --size=6M --offset_increment=64M \
            --verify=crc32c --verify_fatal=1 --verify_backlog=256 --group_reporting
        mkfs.ext4 -q -F /dev/nvme0n1
        mount -t ext4 /dev/nvme0n1 /mnt
        dd if=/dev/urandom of=/mnt/data bs=1M count=16 2>/dev/null
        sha256sum /mnt/data > /tmp/sum
        umount /mnt
        mount -t ext4 /dev/nvme0n1 /mnt
        sha256sum -c /tmp/sum
        umount /mnt
        e2fsck -f -n /dev/nvme0n1
        cat /sys/block/nvme0n1/queue/nr_requests | sed 's/^/nr_requests /'
        """
        + WARNINGS
    )
    trace = tmp_path / "run.log"
    options = ["--check", "--queue-entries", str(entries)]
    options += ["--trace", "pci_nvme_*", "--trace-file", str(trace)]

    outcome = run_nvmelab(options, guest_command(job, tmp_path, nvme_disk(image)))

    console = outcome.check()
    assert re.search(r"err= 0", console)
    assert warnings_of(console) == []
    check_trace(trace.read_text(), entries)
    judged_innocent(outcome, trace)


def judged_innocent(outcome: Outcome, trace: Path) -> None:
    """Live and from its log, Linux and our controller break no rule."""
    assert "VERDICT  clean" in outcome.messages, outcome.messages
    verdict = verdict_on(trace.read_bytes(), rest=False)
    assert (verdict.verdict, verdict.in_flight) == ("clean", 0), verdict


def check_trace(log: str, entries: int) -> None:
    """The log shows queues of that size, and doorbells, fetches, completions and interrupts that
    fit together."""
    sizes = re.findall(r"^pci_nvme_create_sq .*qsize=(\d+)", log, re.MULTILINE)
    assert set(sizes[-2:]) == {str(entries - 1)}
    doorbells = len(re.findall(r"^pci_nvme_mmio_doorbell_sq sqid [12] new_tail \d+$", log, re.M))
    fetched = re.findall(r"^pci_nvme_io_cmd cid \d+ nsid 0x1 sqid [12] opc 0x(\w+) ", log, re.M)
    finished = len(
        re.findall(r"^pci_nvme_enqueue_req_completion cid \d+ cqid [12] .*status 0x0$", log, re.M)
    )
    assert len(fetched) == finished > 1000
    assert {"0", "1", "2"} <= set(fetched)
    assert 0 < doorbells <= len(fetched)  # Linux may ring once for several commands
    assert re.search(r"^pci_nvme_irq_msix raising MSI-X IRQ vector [12]$", log, re.MULTILINE)
    assert re.search(r"^pci_nvme_mmio_doorbell_cq cqid [12] new_head \d+$", log, re.MULTILINE)
    assert "pci_nvme_ub_" not in log
    tails = re.findall(r"^pci_nvme_mmio_doorbell_sq sqid [12] new_tail (\d+)$", log, re.MULTILINE)
    assert max(int(tail) for tail in tails[-1000:]) < entries


def test_mapped_doorbells_lose_no_ring_after_an_idle_pause(image: Path, tmp_path: Path) -> None:
    job = (
        """
        modprobe nvme; wait-for /dev/nvme0n1
        fio --name=pauses --filename=/dev/nvme0n1 --rw=randread --bs=4k --direct=1 \
            --ioengine=psync --number_ios=200 --thinktime=20000 --thinktime_blocks=1 \
            --output-format=json > /tmp/out
        grep -m1 total_ios /tmp/out
        fio --name=verify --filename=/dev/nvme0n1 --rw=randrw --bs=4k --direct=1 \
            --ioengine=libaio --iodepth=32 --numjobs=2 --size=6M --offset_increment=64M \
            --verify=crc32c --verify_fatal=1 --verify_backlog=256 --group_reporting
        """
        + WARNINGS
    )
    options = ["--doorbells", "mapped", "--queue-entries", "4"]

    outcome = run_nvmelab(options, guest_command(job, tmp_path, nvme_disk(image)))

    console = outcome.check()
    assert re.search(r'"total_ios" : 200,', console)
    assert re.search(r"err= 0", console)
    assert warnings_of(console) == []


VERIFY = """
    fio --name=verify --filename=/dev/nvme0n1 --rw=randrw --bs=4k --direct=1 \
        --ioengine=libaio --iodepth=32 --numjobs=2 --cpus_allowed=0,1 \
        --cpus_allowed_policy=split --size=6M --offset_increment=64M \
        --verify=crc32c --verify_fatal=1 --verify_backlog=256 --group_reporting
"""


def count(pattern: str, log: str) -> int:
    """The lines of the log that begin with `pattern`, without the prefix that all events have."""
    return len(re.findall(rf"^pci_nvme_{pattern}", log, re.MULTILINE))


def test_shadow_doorbells_spare_a_guest_the_head_doorbells(image: Path, tmp_path: Path) -> None:
    job = f"modprobe nvme; wait-for /dev/nvme0n1\n{VERIFY}{WARNINGS}"
    trace = tmp_path / "run.log"
    options = ["--check", "--queue-entries", "1024"]
    options += ["--trace", "pci_nvme_*", "--trace-file", str(trace)]

    outcome = run_nvmelab(options, guest_command(job, tmp_path, nvme_disk(image)))

    console = outcome.check()
    judged_innocent(outcome, trace)
    log = trace.read_text()
    commands = count("io_cmd ", log)
    assert re.search(r"err= 0", console)
    assert warnings_of(console) == []
    assert count("dbbuf_config ", log) == 1
    # Once in each round of a ring, and when it is full: how often Linux rings for a tail depends
    # on who is faster.
    assert commands > 3000
    assert count("mmio_doorbell_cq cqid [12] ", log) <= commands // 100
    assert count("mmio_doorbell_sq sqid [12] ", log) <= commands
    assert count("ub_", log) == 0


@pytest.mark.parametrize("entries", [4, 1024])
def test_controller_resets_under_load_lose_nothing(
    entries: int, image: Path, tmp_path: Path
) -> None:
    job = (
        f"""
        modprobe nvme; wait-for /dev/nvme0n1
        {VERIFY.rstrip()} &
        for i in 1 2 3 4; do
            sleep 0.5
            echo 1 > /sys/class/nvme/nvme0/reset_controller
        done
        wait $!
        """
        + WARNINGS
    )
    trace = tmp_path / "run.log"
    options = ["--check", "--queue-entries", str(entries)]
    options += ["--trace", "pci_nvme_*", "--trace-file", str(trace)]

    outcome = run_nvmelab(options, guest_command(job, tmp_path, nvme_disk(image)))

    console = outcome.check()
    judged_innocent(outcome, trace)
    log = trace.read_text()
    assert re.search(r"err= 0", console)
    assert warnings_of(console) == []
    assert count("dbbuf_config ", log) == 5
    assert count("ub_", log) == 0
