"""A real QEMU's vfio-user client on our server, driven over qtest: no guest code runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nvmelab.link.loop import Loop
from nvmelab.link.vfio_user.server import Server
from tests.guest.lab import QEMU
from tests.link.vfio_user.conftest import BAR_BYTES, MSIX_AT, Stub

PATIENCE_S = 20.0
BAR_AT = 0xE0000000
MESSAGE_AT = 0x200000

SHARED_RAM = ["-object", "memory-backend-memfd,id=m,size=64M,share=on"]
PRIVATE_RAM = ["-object", "memory-backend-memfd,id=m,size=64M,share=off"]
ANONYMOUS_RAM = ["-object", "memory-backend-ram,id=m,size=64M"]

pytestmark = pytest.mark.guest


class Lines:
    """A socket of lines, read by the loop, so that the server goes on serving meanwhile."""

    def __init__(self, path: Path, loop: Loop) -> None:
        self.loop = loop
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.unread = b""
        deadline = time.monotonic() + PATIENCE_S
        while self.sock.connect_ex(str(path)):
            assert time.monotonic() < deadline, "QEMU does not start"
            loop.turn(0.02)
        loop.add(self.sock.fileno(), self._ready)

    def _ready(self, _events: int) -> None:
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError:
            data = b""
        self.unread += data or b"QEMU is gone\n"

    def line(self) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while b"\n" not in self.unread:
            assert time.monotonic() < deadline, "QEMU does not answer"
            self.loop.turn(1.0)
        line, self.unread = self.unread.split(b"\n", 1)
        return line.decode()

    def close(self) -> None:
        self.loop.remove(self.sock.fileno())
        self.sock.close()


class Qemu:
    """A QEMU without a running guest, with `vfio-user-pci` on the server of `loop`."""

    def __init__(
        self, directory: Path, loop: Loop, machine: str, ram: list[str], *extra: str
    ) -> None:
        self.loop = loop
        self.directory = directory
        device = {
            "driver": "vfio-user-pci",
            "addr": "4",
            "socket": {"path": str(directory / "nvme.sock"), "type": "unix"},
        }
        command = [str(QEMU), "-machine", f"{machine},memory-backend=m", "-accel", "qtest"]
        command += ["-nodefaults", "-display", "none", "-m", "64", *ram]
        command += ["-qtest", f"unix:{directory}/qtest,server=on,wait=off", "-qtest-log", "none"]
        command += ["-qmp", f"unix:{directory}/qmp,server=on,wait=off"]
        command += ["-device", json.dumps(device), *extra]
        self.errors = directory / "stderr"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(command, stderr=errors)
        self.lines: list[Lines] = []

    def until(self, condition: Callable[[], bool]) -> None:
        """Serve until `condition` holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, self.errors.read_text()
            self.loop.turn(0.02)

    def connect(self) -> None:
        """Wait until the device is created, and connect qtest and QMP."""
        self.lines = [Lines(self.directory / name, self.loop) for name in ("qtest", "qmp")]
        self.qtest("read 0x100000 1")
        assert "QMP" in self.lines[1].line()
        self.qmp("qmp_capabilities")

    def qtest(self, command: str) -> int:
        """One qtest command; the value it gives, or 0."""
        self.lines[0].sock.sendall(command.encode() + b"\n")
        reply = self.lines[0].line().split()
        assert reply[0] == "OK", reply
        return int(reply[1], 0) if len(reply) > 1 else 0

    def qmp(self, command: str) -> None:
        """One QMP command. Events that come before its answer are dropped."""
        self.lines[1].sock.sendall(json.dumps({"execute": command}).encode() + b"\n")
        while "return" not in json.loads(self.lines[1].line()):
            pass

    def config_read(self, offset: int) -> int:
        self.qtest(f"outl 0xcf8 {0x80002000 | offset:#x}")
        return self.qtest("inl 0xcfc")

    def config_write(self, offset: int, value: int) -> None:
        self.qtest(f"outl 0xcf8 {0x80002000 | offset:#x}")
        self.qtest(f"outl 0xcfc {value:#x}")

    def place(self) -> None:
        """BAR0 at BAR_AT, memory and bus master on."""
        self.config_write(0x10, BAR_AT)
        self.config_write(0x14, 0)
        self.config_write(0x04, 0x6)

    def enable_vector(self, vector: int, data: int) -> None:
        """Unmask one vector, whose message is `data` written to MESSAGE_AT + 4 * vector."""
        entry = BAR_AT + 0x2000 + 16 * vector
        for at, value in enumerate((MESSAGE_AT + 4 * vector, 0, data, 0)):
            self.qtest(f"writel {entry + 4 * at:#x} {value:#x}")

    def close(self) -> None:
        for lines in self.lines:
            lines.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=["pc", "q35"])
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


class Setup:
    """A stub behind a server, and the QEMU on it."""

    def __init__(
        self, directory: Path, machine: str, ram: list[str], doorbells: int | None
    ) -> None:
        self.function = Stub()
        self.loop = Loop()
        self.server = Server(self.function, directory / "nvme.sock", self.loop, doorbells=doorbells)
        self.qemu = Qemu(directory, self.loop, machine, ram)

    def close(self) -> None:
        self.qemu.close()
        self.server.close()
        self.loop.close()


Start = Callable[..., Setup]


@pytest.fixture
def start(tmp_path: Path, machine: str) -> Iterator[Start]:
    setups: list[Setup] = []

    def start(ram: list[str] = SHARED_RAM, doorbells: int | None = None) -> Setup:
        setups.append(Setup(tmp_path, machine, ram, doorbells))
        return setups[-1]

    yield start
    for setup in setups:
        setup.close()


def test_device_is_created_without_a_warning(start: Start) -> None:
    setup = start()

    setup.qemu.connect()

    assert setup.qemu.config_read(0) == 0x00101B36
    assert setup.server.connected
    assert setup.qemu.errors.read_text() == ""


def test_register_read_and_posted_write(start: Start) -> None:
    setup = start()
    setup.qemu.connect()
    setup.qemu.place()
    setup.function.registers[0x08:0x0C] = bytes.fromhex("00040100")
    setup.function.calls.clear()

    version = setup.qemu.qtest(f"readl {BAR_AT + 0x08:#x}")
    setup.qemu.qtest(f"writel {BAR_AT + 0x1000:#x} 5")
    setup.qemu.qtest(f"readl {BAR_AT + 0x1C:#x}")

    assert version == 0x00010400
    assert setup.function.calls == [
        ("bar_read", 0, 0x08, 4),
        ("bar_write", 0, 0x1000, 4, 5),
        ("bar_read", 0, 0x1C, 4),
    ]


def test_bar_size_and_command_register(start: Start) -> None:
    setup = start()
    setup.qemu.connect()

    setup.qemu.config_write(0x10, 0xFFFFFFFF)
    size = setup.qemu.config_read(0x10)
    setup.qemu.place()

    assert size == (0xFFFFFFFF & ~(BAR_BYTES - 1)) | 0x4
    written = [call for call in setup.function.calls if call[:2] == ("config_write", 0x04)]
    assert written[-1] == ("config_write", 0x04, b"\x06\0\0\0")


def test_guest_ram_is_shared(start: Start) -> None:
    setup = start()
    setup.qemu.connect()

    setup.qemu.qtest("writel 0x100000 0x12345678")
    setup.function.memory.store_u32(0x100004, 0xCAFE)

    assert setup.function.memory.load_u32(0x100000) == 0x12345678
    assert setup.qemu.qtest("readl 0x100004") == 0xCAFE


def test_msix_vector_reaches_guest_memory(start: Start) -> None:
    setup = start()
    setup.qemu.connect()
    setup.qemu.place()
    setup.qemu.config_write(MSIX_AT, 0x80000000)
    setup.qemu.enable_vector(2, 0xABCD)

    setup.function.interrupt(2)

    setup.qemu.until(lambda: setup.qemu.qtest(f"readl {MESSAGE_AT + 8:#x}") == 0xABCD)


def test_vector_raised_before_it_is_unmasked_arrives_later(start: Start) -> None:
    setup = start()
    setup.qemu.connect()
    setup.qemu.place()
    setup.qemu.config_write(MSIX_AT, 0x80000000)

    setup.function.interrupt(1)
    assert setup.function.pending(1)
    setup.qemu.enable_vector(1, 0x4321)

    setup.qemu.until(lambda: setup.qemu.qtest(f"readl {MESSAGE_AT + 4:#x}") == 0x4321)
    assert not setup.function.pending(1)


def test_vectors_survive_disable_and_enable(start: Start) -> None:
    setup = start()
    setup.qemu.connect()
    setup.qemu.place()
    setup.qemu.config_write(MSIX_AT, 0x80000000)
    setup.qemu.enable_vector(0, 0x11)
    setup.qemu.config_write(MSIX_AT, 0)
    setup.qemu.config_write(MSIX_AT, 0x80000000)
    setup.qemu.enable_vector(0, 0x22)

    setup.function.interrupt(0)

    setup.qemu.until(lambda: setup.qemu.qtest(f"readl {MESSAGE_AT:#x}") == 0x22)


def test_system_reset_resets_the_function(start: Start) -> None:
    setup = start()
    setup.qemu.connect()
    setup.function.calls.clear()

    setup.qemu.qmp("system_reset")

    setup.qemu.until(lambda: ("reset",) in setup.function.calls)


def test_mapped_doorbell_is_a_store_into_the_file(start: Start) -> None:
    doorbells = os.memfd_create("doorbells")
    os.ftruncate(doorbells, 0x2000)
    setup = start(doorbells=doorbells)
    setup.qemu.connect()
    setup.qemu.place()
    setup.function.calls.clear()

    setup.qemu.qtest(f"writel {BAR_AT + 0x1008:#x} 7")
    setup.qemu.qtest(f"writel {BAR_AT + 0x14:#x} 1")

    assert os.pread(doorbells, 4, 0x1008) == b"\x07\0\0\0"
    assert setup.function.calls == [("bar_write", 0, 0x14, 4, 1)]
    os.close(doorbells)


def test_qemu_that_exits_leaves_no_memory_and_resets(start: Start) -> None:
    setup = start()
    setup.qemu.connect()
    setup.function.calls.clear()

    setup.qemu.process.kill()
    setup.qemu.until(lambda: not setup.server.connected)

    assert setup.function.calls == [("reset",)]
    assert setup.function.memory.regions == []


@pytest.mark.parametrize(
    ("ram", "reason"),
    [(PRIVATE_RAM, "guest RAM is private (share=off)"), (ANONYMOUS_RAM, "guest RAM is not shared")],
)
def test_ram_that_cannot_be_reached_fails_the_device(
    start: Start, ram: list[str], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    setup = start(ram)

    setup.qemu.until(lambda: setup.qemu.process.poll() is not None)

    assert setup.qemu.process.returncode == 1
    assert "vfio-user-pci" in setup.qemu.errors.read_text()
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert reason in errors[0]
    assert "share=on -machine memory-backend=mem0" in errors[0]
