"""Our driver on the NVMe device of real QEMUs, over qtest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.link.base import LinkError
from nvmelab.link.qtest import QtestLink
from nvmelab.memory import MemoryFault
from nvmelab.suite.overcommit import overcommit
from nvmelab.targets import connect
from tests.devices.conftest import QEMUS, Connect, binary

pytestmark = pytest.mark.guest


def children() -> set[int]:
    """Processes that this one has started and that live."""
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return {int(pid) for pid in found}


@pytest.mark.parametrize("version", QEMUS)
def test_driver_writes_and_reads_with_interrupts(open_qemu: Connect, version: str) -> None:
    nvme = open_qemu(version)
    assert nvme.identify().mn == "QEMU NVMe Ctrl"
    assert nvme.active_namespaces() == list(range(1, 9))
    qpair = nvme.create_qpair(entries=5, flow="sqhd", interrupts=True)
    data = bytes(range(256)) * 64
    writes = [qpair.write(slba=32 * n, data=data) for n in range(20)]
    assert all(command.wait().ok for command in writes)
    assert qpair.read(slba=0, nlb=32).data() == data


@pytest.mark.parametrize(
    ("version", "clock"), [("5.2", True), ("7.2", False), ("10.0", False), ("11.1", True)]
)
def test_virtual_clock_is_used_where_the_distribution_left_it_in(
    open_qemu: Connect, version: str, clock: bool
) -> None:
    link = open_qemu(version).link
    assert isinstance(link, QtestLink)
    assert link.clock == clock


@pytest.mark.parametrize("version", QEMUS)
def test_newest_first_is_an_order_that_every_qemu_keeps(open_qemu: Connect, version: str) -> None:
    nvme = open_qemu(version)
    storage = nvme.link.storage
    assert storage
    qpair = nvme.create_qpair(entries=8)
    storage.hold = True
    commands = [qpair.read(slba=n) for n in range(4)]
    nvme.link.settle()
    for index in (3, 2, 1, 0):
        storage.release(index)
        commands[index].wait()
    assert [command.number for command in commands] == [4, 3, 2, 1]


@pytest.mark.parametrize("version", QEMUS)
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_commands_to_different_disks_finish_in_any_order(
    open_qemu: Connect, version: str, order: tuple[int, ...]
) -> None:
    nvme = open_qemu(version)
    storage = nvme.link.storage
    assert storage
    qpair = nvme.create_qpair(entries=8)
    storage.hold = True
    commands = [qpair.read(nsid, slba=0) for nsid in (1, 2, 3)]
    nvme.link.settle()
    left = list(range(3))
    for number in order:
        storage.release(left.index(number))
        left.remove(number)
        commands[number].wait()
    assert [commands[number].number for number in order] == [1, 2, 3]


@pytest.mark.parametrize("entries", [3, 4, 8, 64])
def test_qemu_5_2_forgets_an_over_committed_queue(open_qemu: Connect, entries: int) -> None:
    nvme = open_qemu("5.2")
    assert overcommit(nvme, entries=entries, cq_entries=16, seed=1).hang


def test_qemu_5_2_does_not_hang_with_2_entries(open_qemu: Connect) -> None:
    assert not overcommit(open_qemu("5.2"), entries=2, cq_entries=16, seed=1).hang


@pytest.mark.parametrize("version", QEMUS[1:])
@pytest.mark.parametrize("entries", [3, 8])
def test_qemus_with_the_fix_do_not_hang(open_qemu: Connect, version: str, entries: int) -> None:
    run = overcommit(open_qemu(version), entries=entries, cq_entries=16, seed=1)
    assert (run.hang, run.most_outstanding) == (False, 2 * entries - 2)


def test_device_of_the_users_own_takes_our_disks(open_qemu: Connect) -> None:
    nvme = open_qemu("11.1", "-device", "nvme,serial=mine,drive=d0,mqes=3")
    assert (nvme.identify().sn, nvme.cap.mqes, nvme.active_namespaces()) == ("mine", 4, [1])
    nvme.create_qpair(entries=4).write(slba=0, data=b"x" * 512).check()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-device", "nvmx"), "'nvmx' is not a valid device model name"),
        (("-device", "nvme,drive=d0"), "serial"),
        (("-machine", "none"), "No 'PCI' bus found"),
    ],
)
def test_qemu_that_does_not_start_is_an_error_with_its_own_words(
    open_qemu: Connect, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LinkError, match=message):
        open_qemu("11.1", *words)
    assert children() == set()


def test_qemu_that_is_killed_is_an_error_that_says_how_it_ended(open_qemu: Connect) -> None:
    nvme = open_qemu("11.1")
    (pid,) = children()
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(LinkError, match="was ended by SIGKILL"):
        nvme.identify()


def test_nothing_is_left_of_a_link_that_was_closed(open_qemu: Connect) -> None:
    folders = set(Path("/tmp").glob("nvmelab-*"))
    nvme = open_qemu("11.1")
    nvme.close()
    nvme.close()
    assert children() == set()
    assert set(Path("/tmp").glob("nvmelab-*")) == folders


def test_memory_of_a_qemu_is_unmapped_when_the_link_is_closed(open_qemu: Connect) -> None:
    """While the driver and its queues, which refer to each other, are still here."""
    nvme = open_qemu("11.1")
    nvme.close()
    assert "memory-backend-memfd" not in Path("/proc/self/maps").read_text()
    with pytest.raises(MemoryFault):
        nvme.admin.cq.reap()


@contextlib.contextmanager
def somebody_elses_qemu(path: Path, *words: str) -> Iterator[None]:
    """A QEMU that listens for qtest on `path`."""
    command = [
        *(binary("11.1"), "-machine", "pc", "-accel", "qtest", "-nodefaults", "-display", "none"),
        *("-m", "64", "-qtest", f"unix:{path},server=on,wait=off", "-qtest-log", "none"),
        *("-daemonize", "-pidfile", f"{path}.pid", *words),
    ]
    subprocess.run(command, check=True)  # ends when the QEMU behind it is ready
    pid = int(Path(f"{path}.pid").read_text())
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


def test_qemu_that_somebody_else_has_started_is_attached_to(tmp_path: Path) -> None:
    path = tmp_path / "qtest"
    words = (
        *("-blockdev", "driver=null-co,node-name=d0,size=67108864,read-zeroes=on"),
        *("-device", "nvme,serial=attached,drive=d0"),
    )
    with somebody_elses_qemu(path, *words), connect(f"qtest:{path}") as nvme:
        assert nvme.identify().sn == "attached"
        qpair = nvme.create_qpair(entries=4)
        assert qpair.read(slba=0, nlb=8).data() == bytes(4096)


def test_qemu_without_an_nvme_device_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "qtest"
    with (
        somebody_elses_qemu(path),
        pytest.raises(LinkError, match="no NVMe controller on PCI bus 0"),
    ):
        connect(f"qtest:{path}")


def test_our_controller_is_reached_through_qemus_vfio_user_client() -> None:
    with connect(f"qemu-vfio-user:{binary('11.1')}") as nvme:
        assert nvme.identify().mn == "nvmelab NVMe Ctrl"
        qpair = nvme.create_qpair(entries=3, flow="sqhd", interrupts=True)
        assert all(qpair.write(slba=n, data=b"y" * 512).wait().ok for n in range(20))
