"""`nvmelab run` and `nvmelab serve` around a real QEMU: how they start, end and clean up."""

from __future__ import annotations

import json
import os
import pty
import random
import re
import select
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.storage.file import FileBackend
from tests.guest.lab import (
    NVMELAB,
    QEMU,
    environment,
    guest_command,
    nvme_disk,
    run_nvmelab,
)

pytestmark = pytest.mark.guest

LIMIT_S = 120
IDLE = ["-accel", "tcg", "-S", "-display", "none", "-serial", "none", "-monitor", "none"]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(64 << 20))
    return image


class Monitor:
    """QEMU's QMP: it connects to us once it has made its devices."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "qmp"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._listener.settimeout(LIMIT_S)

    def options(self) -> list[str]:
        return ["-qmp", f"unix:{self.path}"]

    def connect(self) -> int:
        """Wait until QEMU is there; its process id."""
        self._socket, _ = self._listener.accept()
        self._socket.settimeout(LIMIT_S)
        self._lines = self._socket.makefile("rw")
        assert "QMP" in json.loads(self._lines.readline())
        self.execute("qmp_capabilities")
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid: int = struct.unpack("=iII", credentials)[0]
        return pid

    def execute(self, command: str) -> object:
        self._lines.write(json.dumps({"execute": command}) + "\n")
        self._lines.flush()
        while "return" not in (answer := json.loads(self._lines.readline())):
            assert "error" not in answer
        return answer["return"]

    def wait_for(self, event: str) -> None:
        while json.loads(self._lines.readline()).get("event") != event:
            pass


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    return Monitor(tmp_path)


def start(folder: Path, monitor: Monitor, image: Path, *options: str) -> subprocess.Popen[str]:
    """`nvmelab run` of a QEMU whose guest never starts. TMPDIR is `folder`/tmp."""
    (folder / "tmp").mkdir()
    return subprocess.Popen(
        [*NVMELAB, "run", *options, "--", str(QEMU), *IDLE, *monitor.options(), *nvme_disk(image)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | {"TMPDIR": str(folder / "tmp")},
    )


def assert_nothing_left(folder: Path, image: Path, qemu: int) -> None:
    """No process, socket or lock."""
    assert not Path(f"/proc/{qemu}").exists()
    assert list((folder / "tmp").iterdir()) == []
    FileBackend(image).close()  # raises ImageError if it is locked


def test_quit_of_qemu_is_its_exit_status_0(tmp_path: Path, monitor: Monitor, image: Path) -> None:
    process = start(tmp_path, monitor, image)
    qemu = monitor.connect()

    monitor.execute("quit")
    _, messages = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0
    assert "no command arrived" in messages  # the guest was connected, and never ran
    assert_nothing_left(tmp_path, image, qemu)


def test_image_is_locked_while_qemu_runs(tmp_path: Path, monitor: Monitor, image: Path) -> None:
    process = start(tmp_path, monitor, image)
    monitor.connect()

    second = run_nvmelab([], [str(QEMU), *IDLE, *nvme_disk(image)])
    monitor.execute("quit")
    process.communicate(timeout=LIMIT_S)

    assert second.status == 125
    assert "in use by" in second.messages
    assert f"(pid {process.pid})" in second.messages


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_qemu_too(
    number: signal.Signals, tmp_path: Path, monitor: Monitor, image: Path
) -> None:
    process = start(tmp_path, monitor, image)
    qemu = monitor.connect()

    process.send_signal(number)
    process.communicate(timeout=LIMIT_S)

    assert process.returncode == 0  # what QEMU makes of SIGTERM
    assert_nothing_left(tmp_path, image, qemu)


def test_killed_qemu_gives_its_status_and_leaves_nothing(
    tmp_path: Path, monitor: Monitor, image: Path
) -> None:
    process = start(tmp_path, monitor, image)
    qemu = monitor.connect()

    os.kill(qemu, signal.SIGKILL)
    _, messages = process.communicate(timeout=LIMIT_S)

    assert process.returncode == 128 + signal.SIGKILL
    assert "Traceback" not in messages
    assert_nothing_left(tmp_path, image, qemu)


def test_killed_nvmelab_takes_qemu_with_it(tmp_path: Path, monitor: Monitor, image: Path) -> None:
    process = start(tmp_path, monitor, image)
    qemu = monitor.connect()
    pidfd = os.pidfd_open(qemu)

    process.kill()
    process.communicate(timeout=LIMIT_S)

    waiting, _, _ = select.select([pidfd], [], [], LIMIT_S)
    assert waiting == [pidfd]
    os.close(pidfd)
    FileBackend(image).close()


def test_ctrl_c_on_the_terminal_ends_both(tmp_path: Path, monitor: Monitor, image: Path) -> None:
    (tmp_path / "tmp").mkdir()
    command = [*NVMELAB, "run", "--", str(QEMU), *IDLE, *monitor.options(), *nvme_disk(image)]
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TMPDIR"] = str(tmp_path / "tmp")
        os.execv(command[0], command)
    qemu = monitor.connect()

    os.write(terminal, b"\x03")
    output = b"".join(_until_closed(terminal))
    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0, output
    assert b"Traceback" not in output
    assert_nothing_left(tmp_path, image, qemu)


def _until_closed(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side is closed
            return
        if not data:
            return
        yield data


def test_bad_option_of_qemu_is_qemus_own_error_and_status(tmp_path: Path, image: Path) -> None:
    outcome = run_nvmelab([], [str(QEMU), *IDLE, *nvme_disk(image), "-device", "nonsense"])

    assert outcome.status == 1
    assert "nonsense" in outcome.messages


def test_command_line_with_o_direct_and_a_boot_index_boots(tmp_path: Path, image: Path) -> None:
    disk = [
        *("-device", "nvme,serial=deadbeef,drive=nvm,bootindex=0"),
        *("-drive", f"file={image},if=none,id=nvm,cache=none,aio=native"),
    ]
    job = """
    modprobe nvme; wait-for /dev/nvme0n1
    dd if=/dev/zero bs=1M count=4 | tr '\\0' x | dd of=/dev/nvme0n1 bs=4k oflag=direct 2>/dev/null
    """

    outcome = run_nvmelab([], guest_command(job, tmp_path, disk, machine="pc"))

    outcome.check()
    assert image.read_bytes()[: 4 << 20] == b"x" * (4 << 20)
    assert "aio=native" in outcome.messages


def test_several_devices_keep_apart(tmp_path: Path, image: Path) -> None:
    other = tmp_path / "other.img"
    other.write_bytes(b"B" * (8 << 20))
    image.write_bytes(b"A" * (16 << 20))
    blockdev = {
        "driver": "raw",
        "node-name": "two",
        "read-only": True,
        "file": {"driver": "file", "filename": str(other)},
    }
    device = {"driver": "nvme", "serial": "second", "drive": "two", "mqes": 3}
    disk = [
        *nvme_disk(image, device=",logical_block_size=4096,physical_block_size=4096"),
        *("-blockdev", json.dumps(blockdev), "-device", json.dumps(device)),
    ]
    job = """
    modprobe nvme; wait-for /dev/nvme0n1; wait-for /dev/nvme1n1
    for disk in nvme0n1 nvme1n1; do
        echo "DISK $(cat /sys/block/$disk/device/serial) $(cat /sys/block/$disk/size)" \
            "$(cat /sys/block/$disk/queue/logical_block_size) $(cat /sys/block/$disk/ro)" \
            "$(dd if=/dev/$disk bs=1 count=1 2>/dev/null)"
    done
    """

    outcome = run_nvmelab([], guest_command(job, tmp_path, disk))

    console = outcome.check()
    lines = {" ".join(line.split()) for line in re.findall(r"DISK (.*)", console)}
    assert lines == {"deadbeef 32768 4096 0 A", "second 16384 512 1 B"}
    assert "I/O queues of at most 4 entries" in outcome.messages


def test_server_that_met_10000_hostile_connections_serves_the_next_guest(
    tmp_path: Path, image: Path
) -> None:
    path = tmp_path / "nvme.sock"
    server = subprocess.Popen(
        [*NVMELAB, "serve", str(image), "--socket", str(path), "--queue-entries", "4"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert server.stderr
    assert "is served on" in server.stderr.readline()
    dice = random.Random(2388)
    for _ in range(10_000):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(path))
            peer.sendall(_hostile_bytes(dice))

    address = {"path": str(path), "type": "unix"}
    command = guest_command(
        "modprobe nvme; wait-for /dev/nvme0n1; dd if=/dev/nvme0n1 of=/dev/null bs=64k count=64",
        tmp_path,
        [
            *("-object", "memory-backend-memfd,id=mem0,size=1G,share=on"),
            *("-machine", "memory-backend=mem0"),
            *("-device", json.dumps({"driver": "vfio-user-pci", "socket": address})),
        ],
    )
    guest = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400, check=False
    )
    server.send_signal(signal.SIGINT)
    _, messages = server.communicate(timeout=LIMIT_S)

    assert "JOB-EXIT 0" in guest.stdout, guest.stdout[-3000:] + guest.stderr
    assert server.returncode == 0
    assert "Traceback" not in messages
    assert len(messages.splitlines()) < 100
    assert not path.exists()


def _hostile_bytes(dice: random.Random) -> bytes:
    """Random bytes; half of the time after a header that claims to be a message."""
    body = dice.randbytes(dice.randrange(1, 200))
    if dice.random() < 0.5:
        return body
    size = dice.choice([len(body) + 16, dice.randrange(1 << 32)])
    return struct.pack("<HHIII", 1, dice.randrange(20), size, dice.randrange(64), 0) + body


def test_a_finding_stops_the_guest(tmp_path: Path, monitor: Monitor, image: Path) -> None:
    """A doorbell of no queue, written by a guest without a driver."""
    job = """
    device=$(grep -l 0x010802 /sys/bus/pci/devices/*/class); device=${device%/class}
    printf '\\006' | dd of=$device/config bs=1 seek=4 conv=notrunc 2>/dev/null
    read -r bar0 rest < $device/resource
    devmem $((bar0 + 0x1000 + 8 * 9)) 32 1
    sleep 60  # it is stopped long before
    """
    command = guest_command(job, tmp_path, nvme_disk(image))
    process = subprocess.Popen(
        [*NVMELAB, "run", "--check=stop", "--", *command, *monitor.options()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    monitor.connect()
    assert process.stderr
    line = next(line for line in process.stderr if "the guest is stopped" in line)
    assert "driver: the tail doorbell of SQ 9, which is none (doorbell.queue, Base 2.2" in line
    monitor.wait_for("STOP")
    status = monitor.execute("query-status")
    assert isinstance(status, dict) and status["status"] == "paused"
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 1
    assert "VERDICT  driver" in messages
