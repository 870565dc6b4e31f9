"""QEMU's qtest socket: register and memory accesses of a machine whose processor does not run.

`Qtest` is the protocol, `QtestLink` a `HostLink` to the NVMe function on that machine's PCI bus.
A malformed qtest command aborts QEMU, so lines are made here and nowhere else.

All lines that QEMU reads at once are carried out back to back, with nothing of the device's own in
between; so a link's pass, in which the device can go on, is a line that waits for its answer. What
a device does takes it a few turns of QEMU's main loop, and each answer proves one such turn.
"""

from __future__ import annotations

import base64
import socket
import time
from collections.abc import Callable, Sequence

from nvmelab.limits import (
    QTEST_CLOCK_STEPS,
    QTEST_PASS_NS,
    QTEST_QUIET_PASSES,
    QTEST_REPLY_S,
    QTEST_REST_S,
)
from nvmelab.link.base import HostMemory, LinkError, Storage
from nvmelab.link.loop import Loop
from nvmelab.link.pages import PAGE, Pages
from nvmelab.link.pci import NVME_CLASS, Msix, class_code, enable_function

_CONFIG_ADDRESS, _CONFIG_DATA = 0xCF8, 0xCFC
_BAR0 = 0x10
_MMIO = 0xE000_0000
"""Where BARs are placed: RAM ends far below, firmware begins far above."""
RAM_FIRST = 0x10_0000
"""The first address we use: the megabyte below has holes. The messages of the vectors go to the
words from here on; what is behind them is the driver's."""
_MESSAGE_BYTES = 2 * PAGE
"""A word for each of the 2048 vectors that a function can have."""


class Qtest:
    """One qtest connection on a loop. `gone` says why the other end has closed it."""

    def __init__(self, sock: socket.socket, loop: Loop, gone: Callable[[], str]) -> None:
        self._sock = sock
        self._loop = loop
        self._gone = gone
        self._lines: list[str] = []
        self._rest = b""
        self._ended = False
        loop.add(sock.fileno(), self._ready)

    def _ready(self, _events: int) -> None:
        try:
            data = self._sock.recv(1 << 20)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._ended |= not data
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._lines += [
            line.decode("ascii", "replace") for line in lines if line[:1] not in (b"", b"I")
        ]
        if self._ended:
            self._loop.remove(self._sock.fileno())

    def _reply(self) -> str:
        """The next answer, which is given up on after QTEST_REPLY_S. `IRQ ...` lines are none."""
        deadline = 0.0
        while not self._lines:
            if self._ended:
                raise LinkError(self._gone())
            now = time.monotonic()
            deadline = deadline or now + QTEST_REPLY_S
            if now > deadline:
                raise LinkError(
                    f"QEMU has not answered for {QTEST_REPLY_S:g} s on its qtest socket"
                )
            self._loop.turn(deadline - now)
        return self._lines.pop(0)

    def ask(self, lines: Sequence[str]) -> list[str]:
        """Carry out these commands; the value of each, or an empty text. Raises LinkError."""
        data = ("\n".join(lines) + "\n").encode()
        self._sock.setblocking(True)
        try:
            if not self._ended:
                self._sock.sendall(data)
        except OSError:
            self._ended = True
        self._sock.setblocking(False)
        answers: list[str] = []
        for line in lines:
            word, _, value = self._reply().partition(" ")
            if word != "OK":
                raise LinkError(f"QEMU refused the qtest command {line!r}: {word} {value}")
            answers.append(value)
        return answers

    def value(self, line: str) -> int:
        """One command whose answer is a number."""
        return int(self.ask([line])[0] or "0", 0)

    def do(self, line: str) -> None:
        """One command without an answer that matters."""
        self.ask([line])

    def step_clock(self, ns: int) -> None:
        """Let the virtual clock go on. Raises LinkError where it cannot."""
        self.do(f"clock_step {ns}")

    def close(self) -> None:
        if not self._ended and self._sock.fileno() >= 0:
            self._loop.remove(self._sock.fileno())
        self._ended = True
        self._sock.close()


class QtestMemory:
    """Guest memory through the socket, where it cannot be mapped. Implements `HostMemory`."""

    def __init__(self, qtest: Qtest) -> None:
        self._qtest = qtest

    def read(self, addr: int, length: int) -> bytes:
        return base64.b64decode(self._qtest.ask([f"b64read {addr:#x} {length:#x}"])[0])

    def write(self, addr: int, data: bytes) -> None:
        if data:
            text = base64.b64encode(data).decode()
            self._qtest.do(f"b64write {addr:#x} {len(data):#x} {text}")

    def load_u32(self, addr: int) -> int:
        return self._qtest.value(f"readl {addr:#x}")

    def store_u32(self, addr: int, value: int) -> None:
        self._qtest.do(f"writel {addr:#x} {value:#x}")


class QtestLink:
    """A `HostLink` to the one NVMe function on PCI bus 0 of the machine.

    RAM from RAM_FIRST up to `ram_end` is the driver's. `clock` says whether the virtual clock can
    be stepped. `activity()` is a number that changes whenever something on our side of QEMU, such
    as the storage, has done something for the device. `foreign` says that the QEMU, or its disks,
    are somebody else's: RAM may hold anything, and a wait goes on for QTEST_REST_S, because nothing
    says when such a disk is at rest. Raises LinkError.
    """

    def __init__(
        self,
        qtest: Qtest,
        loop: Loop,
        memory: HostMemory,
        ram_end: int,
        *,
        name: str,
        clock: bool,
        storage: Storage | None,
        activity: Callable[[], int],
        close: Callable[[], None],
        foreign: bool = False,
    ) -> None:
        self.name = name
        self.memory = memory
        self.storage = storage
        self.step: Callable[[Callable[[int], int]], bool] | None = None
        self._qtest = qtest
        self._loop = loop
        self.clock = clock
        """The virtual clock can be stepped."""
        self._activity = activity
        self._foreign = foreign
        self._close = close
        self._writes = 0
        self._devfn = self._find()
        self._bars = self._place_bars()
        self._pages = Pages(memory, RAM_FIRST + _MESSAGE_BYTES, ram_end, clear=foreign)
        memory.write(RAM_FIRST, bytes(_MESSAGE_BYTES))
        msix = enable_function(self)
        self.vectors = msix.vectors if msix else 0
        if msix:
            self._set_up_messages(msix)

    # Configuration space.

    def _find(self) -> int:
        """Where on bus 0 the function is."""
        found = []
        for devfn in range(256):
            self._devfn = devfn
            if self.config_read(0, 2) == 0xFFFF:
                continue
            code = class_code(self)
            found.append(f"{code:06x}")
            if code == NVME_CLASS:
                return devfn
        raise LinkError(
            f"{self.name} has no NVMe controller on PCI bus 0 (class {NVME_CLASS:06x}); "
            f"there are functions of class {', '.join(found) or 'none'}"
        )

    def config_read(self, offset: int, size: int) -> int:
        suffix = {1: "b", 2: "w", 4: "l"}[size]
        return int(
            self._qtest.ask(
                [self._config_line(offset), f"in{suffix} {_CONFIG_DATA + (offset & 3):#x}"]
            )[1],
            0,
        )

    def config_write(self, offset: int, size: int, value: int) -> None:
        suffix = {1: "b", 2: "w", 4: "l"}[size]
        self._qtest.ask(
            [
                self._config_line(offset),
                f"out{suffix} {_CONFIG_DATA + (offset & 3):#x} {value:#x}",
            ]
        )

    def _config_line(self, offset: int) -> str:
        address = 0x8000_0000 | self._devfn << 8 | offset & 0xFC
        return f"outl {_CONFIG_ADDRESS:#x} {address:#x}"

    def _place_bars(self) -> dict[int, int]:
        """Give every memory BAR an address, as firmware would (PCI Local Bus 3.0, 6.2.5.1)."""
        bars: dict[int, int] = {}
        index, at = 0, _MMIO
        while index < 6:
            register = _BAR0 + 4 * index
            kind = self.config_read(register, 4)
            wide = kind & 0b110 == 0b100
            self.config_write(register, 4, 0xFFFF_FFFF)
            mask = self.config_read(register, 4) & ~0xF
            if mask and not kind & 1:
                size = (~mask & 0xFFFF_FFFF) + 1
                at = -(-at // size) * size
                self.config_write(register, 4, at)
                if wide:
                    self.config_write(register + 4, 4, 0)
                bars[index] = at
                at += size
            index += 2 if wide else 1
        if 0 not in bars:
            raise LinkError(f"the NVMe function of {self.name} has no memory BAR0")
        return bars

    def _set_up_messages(self, msix: Msix) -> None:
        """Each vector's message is a 1, written to a word of our own in RAM."""
        table = self._bars[msix.table_bar] + msix.table_offset
        lines = []
        for vector in range(msix.vectors):
            entry = (RAM_FIRST + 4 * vector, 0, 1, 0)
            lines += [
                f"writel {table + 16 * vector + 4 * word:#x} {value:#x}"
                for word, value in enumerate(entry)
            ]
        self._qtest.ask(lines)

    # Registers and memory.

    def read(self, offset: int, size: int) -> int:
        return self._qtest.value(f"read{'q' if size == 8 else 'l'} {self._bars[0] + offset:#x}")

    def write(self, offset: int, size: int, value: int) -> None:
        self._writes += 1
        suffix = "q" if size == 8 else "l"
        self._qtest.do(f"write{suffix} {self._bars[0] + offset:#x} {value:#x}")

    def allocate(self, size: int) -> int:
        return self._pages.allocate(size)

    def free_all(self) -> None:
        self._pages.free_all()

    def take_interrupts(self, vector: int) -> int:
        addr = RAM_FIRST + 4 * vector
        raised = self.memory.load_u32(addr)
        if raised:
            self.memory.store_u32(addr, 0)
        return raised

    # Time.

    def _pass(self, ns: int = QTEST_PASS_NS) -> None:
        """The device may go on for a turn of QEMU's main loop and `ns` of virtual time."""
        if self.clock and ns:
            self._qtest.step_clock(ns)
        else:
            self._qtest.do("endianness")
        while self._loop.turn(0):
            pass

    def _go_on(self, done: Callable[[], bool], ns: int = QTEST_PASS_NS) -> bool:
        """Passes until done; False once QTEST_QUIET_PASSES in a row have shown no activity."""
        quiet = 0
        while quiet < QTEST_QUIET_PASSES:
            before = self._activity() + self._writes
            self._pass(ns)
            if done():
                return True
            # `done` may have rung a doorbell, which is a change too.
            quiet = quiet + 1 if self._activity() + self._writes == before else 0
        return False

    def wait(self, done: Callable[[], bool]) -> bool:
        if done() or self._go_on(done):
            return True
        for ns in QTEST_CLOCK_STEPS if self.clock else ():
            self._pass(ns)
            if done() or self._go_on(done):
                return True
        return self._foreign and self._wait_for_disks(done)

    def _wait_for_disks(self, done: Callable[[], bool]) -> bool:
        """Real time for what no clock of ours moves."""
        deadline = time.monotonic() + QTEST_REST_S
        while time.monotonic() < deadline:
            self._pass()
            if done():
                return True
        return False

    def settle(self) -> None:
        self._go_on(lambda: False)

    # Time, in finer steps: only with `clock`.

    def idle(self) -> None:
        """Let arrive what is under way, with no virtual time passing: a device that waits for its
        timers does nothing."""
        self._go_on(lambda: False, ns=0)

    def advance(self, ns: int) -> None:
        """Let `ns` of virtual time pass."""
        self._qtest.step_clock(ns)

    def close(self) -> None:
        self._close()
