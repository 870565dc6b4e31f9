"""The qtest link, on a machine of a few lines that has our controller on its PCI bus."""

from __future__ import annotations

import base64
import mmap
import socket
from collections.abc import Iterator

import pytest

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.errors import Stuck
from nvmelab.limits import QTEST_QUIET_PASSES
from nvmelab.link.base import LinkError
from nvmelab.link.loop import Loop
from nvmelab.link.qtest import Qtest, QtestLink, QtestMemory
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

RAM = 8 << 20
DEVFN = 4 << 3


class FakeMachine:
    """Answers qtest lines as QEMU does, for the commands that the link uses. The controller takes
    its turns between two batches of lines, never within one."""

    def __init__(self, sock: socket.socket, loop: Loop, function: NvmeFunction) -> None:
        self.sock = sock
        self.function = function
        self.ram = GuestMemory()
        self.map = mmap.mmap(-1, RAM)
        function.memory.map(0, memoryview(self.map))
        self.ram.map(0, memoryview(self.map))
        function.interrupt = self.raise_vector
        self.table: dict[int, int] = {}
        self.address = 0
        self.now = 0
        self.frozen = False
        self.lines: list[str] = []
        loop.add(sock.fileno(), self._ready)
        self._function_bars = function.bars

    def raise_vector(self, vector: int) -> None:
        at = 16 * vector
        self.ram.store_u32(self.table[at], self.table[at + 8])

    def _ready(self, _events: int) -> None:
        data = self.sock.recv(1 << 20)
        if not data:
            return
        answers = [self._answer(line) for line in data.decode().splitlines()]
        self.sock.sendall("".join(f"{answer}\n" for answer in answers).encode())
        if not self.frozen:
            self.function.run()

    def _answer(self, line: str) -> str:
        self.lines.append(line)
        word, *rest = line.split()
        numbers = [int(text, 0) if text[:1].isdigit() else 0 for text in rest]
        match word:
            case "outl" | "outw" | "outb":
                self._out(numbers[0], {"l": 4, "w": 2, "b": 1}[word[-1]], numbers[1])
            case "inl" | "inw" | "inb":
                return f"OK {self._in(numbers[0], {'l': 4, 'w': 2, 'b': 1}[word[-1]]):#06x}"
            case "readl" | "readq":
                return f"OK {self._read(numbers[0], 8 if word == 'readq' else 4):#018x}"
            case "writel" | "writeq":
                self._write(numbers[0], 8 if word == "writeq" else 4, numbers[1])
            case "b64read":
                return f"OK {base64.b64encode(self.ram.read(numbers[0], numbers[1])).decode()}"
            case "b64write":
                self.ram.write(numbers[0], base64.b64decode(rest[2]))
            case "clock_step":
                self.now += numbers[0]
                return f"IRQ raise 3\nOK {self.now}"
            case "endianness":
                return "OK little"
            case _:
                return f"FAIL Unknown command '{word}'"
        return "OK"

    def _out(self, port: int, size: int, value: int) -> None:
        if port == 0xCF8:
            self.address = value
        elif self.address >> 8 & 0xFF == DEVFN:
            offset = (self.address & 0xFC) + (port & 3)
            self.function.config_write(offset, value.to_bytes(size, "little"))

    def _in(self, port: int, size: int) -> int:
        if self.address >> 8 & 0xFF != DEVFN:
            return (1 << 8 * size) - 1
        offset = (self.address & 0xFC) + (port & 3)
        return int.from_bytes(self.function.config_read(offset, size), "little")

    def _bar(self) -> int:
        return int.from_bytes(self.function.config_read(0x10, 8), "little") & ~0xF

    def _read(self, addr: int, size: int) -> int:
        if addr < RAM:
            return int.from_bytes(self.ram.read(addr, size), "little")
        return self.function.bar_read(0, addr - self._bar(), size)

    def _write(self, addr: int, size: int, value: int) -> None:
        offset = addr - self._bar()
        if addr < RAM:
            self.ram.write(addr, value.to_bytes(size, "little"))
        elif 0x2000 <= offset < 0x2000 + 16 * self.function.vectors:
            self.table[offset - 0x2000] = value
        else:
            self.function.bar_write(0, offset, size, value)


class Rig:
    """The link, and what is at its other end."""

    def __init__(self, *, clock: bool = True, foreign: bool = False) -> None:
        self.loop = Loop()
        near, far = socket.socketpair()
        near.setblocking(False)
        self.worker = HeldWorker()
        config = ControllerConfig()
        namespaces = [Namespace(1, RamBackend(1 << 20), "test")]
        self.controller = Controller(config, namespaces, GuestMemory(), worker=self.worker)
        self.machine = FakeMachine(far, self.loop, NvmeFunction(self.controller))
        self.qtest = Qtest(near, self.loop, lambda: "the machine is gone")
        self.link = QtestLink(
            self.qtest,
            self.loop,
            QtestMemory(self.qtest),
            RAM,
            name="fake machine",
            clock=clock,
            storage=self.worker,
            activity=lambda: len(self.worker.finished),
            close=self.close,
            foreign=foreign,
        )

    def close(self) -> None:
        self.qtest.close()
        self.loop.remove(self.machine.sock.fileno())
        self.machine.sock.close()
        self.loop.close()


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.link.close()


def test_function_is_found_and_its_bar_is_placed(rig: Rig) -> None:
    assert rig.machine._bar() == 0xE000_0000
    assert rig.link.read(8, 4) == 0x0001_0400
    assert rig.link.vectors == 65


@pytest.mark.parametrize("interrupts", [False, True])
@pytest.mark.parametrize("clock", [False, True])
def test_driver_works_over_the_link(interrupts: bool, clock: bool) -> None:
    rig = Rig(clock=clock)
    driver = Driver(rig.link)
    driver.start()
    qpair = driver.create_qpair(entries=4, interrupts=interrupts)
    qpair.write(slba=1, data=b"x" * 1024).check()
    assert qpair.read(slba=1, nlb=2).data() == b"x" * 1024
    rig.link.close()


def test_time_passes_only_where_the_clock_can_be_stepped() -> None:
    for clock in (False, True):
        rig = Rig(clock=clock)
        rig.link.settle()
        assert (rig.machine.now > 0) == clock
        rig.link.close()


def test_idle_lets_the_device_go_on_without_time_and_advance_passes_just_that(rig: Rig) -> None:
    driver = Driver(rig.link)
    driver.start()
    qpair = driver.create_qpair(entries=4)
    rig.worker.hold = True
    before = rig.machine.now
    qpair.read(slba=0)
    rig.link.idle()
    assert rig.worker.held() == 1
    assert rig.machine.now == before
    rig.link.advance(37)
    assert rig.machine.now == before + 37
    rig.worker.let_go()


def test_idle_goes_on_while_something_arrives() -> None:
    rig = Rig()
    lines = rig.machine.lines
    begun = len(lines)
    rig.link._activity = lambda: min(len(lines) - begun, 40)
    rig.link.idle()
    assert lines[begun:] == ["endianness"] * (40 + QTEST_QUIET_PASSES)
    rig.link.close()


def test_wait_for_a_device_at_rest_gives_it_minutes_of_virtual_time_first(rig: Rig) -> None:
    assert rig.link.wait(lambda: False) is False
    assert rig.machine.now > 60_000_000_000


def test_wait_goes_on_while_what_is_waited_for_rings_doorbells(rig: Rig) -> None:
    looks = 0

    def done() -> bool:
        nonlocal looks
        looks += 1
        rig.link.write(0x24, 4, 0)
        return looks == 300

    assert rig.link.wait(done)


def test_held_command_is_stuck_and_the_message_says_that_it_is_held(rig: Rig) -> None:
    driver = Driver(rig.link)
    driver.start()
    qpair = driver.create_qpair(entries=4)
    rig.worker.hold = True
    pending = qpair.read(slba=0)
    with pytest.raises(Stuck, match="its storage still holds 1 of its operations back"):
        pending.wait()
    rig.worker.release()
    assert pending.wait().ok


def test_memory_that_is_given_back_is_zero_again(rig: Rig) -> None:
    first = rig.link.allocate(4096)
    rig.link.memory.write(first, b"x" * 4096)
    rig.link.free_all()
    assert rig.link.allocate(4096) == first
    assert rig.link.memory.read(first, 4096) == bytes(4096)


def test_memory_has_an_end(rig: Rig) -> None:
    with pytest.raises(MemoryError):
        rig.link.allocate(RAM)


def test_refused_command_is_an_error_that_names_it(rig: Rig) -> None:
    with pytest.raises(LinkError, match=r"refused the qtest command 'dance 1': FAIL Unknown"):
        rig.qtest.do("dance 1")


def test_machine_that_goes_away_is_an_error_that_says_why(rig: Rig) -> None:
    rig.machine.sock.shutdown(socket.SHUT_RDWR)
    with pytest.raises(LinkError, match="the machine is gone"):
        rig.link.read(0, 4)
    with pytest.raises(LinkError, match="the machine is gone"):
        rig.link.wait(lambda: False)


def test_bus_without_an_nvme_function_is_an_error_that_says_what_is_there() -> None:
    class Odd(NvmeFunction):
        def _power_on(self) -> None:
            super()._power_on()
            self._config[0x0A] = 1  # class 01 01: an IDE controller

    loop = Loop()
    near, far = socket.socketpair()
    near.setblocking(False)
    machine = FakeMachine(far, loop, Odd(Controller(ControllerConfig(), [], GuestMemory())))
    qtest = Qtest(near, loop, lambda: "gone")
    with pytest.raises(LinkError, match=r"no NVMe controller on PCI bus 0 .* class 010102"):
        QtestLink(
            qtest,
            loop,
            QtestMemory(qtest),
            RAM,
            name="fake machine",
            clock=False,
            storage=None,
            activity=lambda: 0,
            close=lambda: None,
        )
    qtest.close()
    machine.sock.close()


def test_memory_of_a_machine_that_is_not_ours_is_cleared_before_it_is_used() -> None:
    rig = Rig(foreign=True)
    rig.machine.map[0x10_0000:0x20_0000] = b"x" * 0x10_0000
    addr = rig.link.allocate(8192)
    assert rig.link.memory.read(addr, 8192) == bytes(8192)
    rig.link.close()


def test_wait_for_a_disk_that_is_not_ours_goes_on_in_real_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig(foreign=True)
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.1
        return now

    monkeypatch.setattr("nvmelab.link.qtest.time.monotonic", clock)
    assert rig.link.wait(lambda: now > 9)
    assert not rig.link.wait(lambda: False)
    assert now > 10
    rig.link.close()
