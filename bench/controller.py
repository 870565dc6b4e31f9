"""Commands per second of the controller alone: in memory, no guest, no link, no system call.

    python bench/controller.py [--seconds 2]

Queues are rung with a full ring, the controller runs until it has nothing left, and the completion
queue is given back: what is timed is fetch, decode, PRPs, copy, posting and the doorbells' calls.
Each row is the best of three rounds; between the rows, the same loop copies the same bytes with
nothing around it, so that the ratio says what the controller costs beyond its data.
"""

from __future__ import annotations

import argparse
import time

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as Driver
from nvmelab.host.qpair import Qpair
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.spec.commands import Command
from nvmelab.spec.nvm import Flush, Read, Write
from nvmelab.spec.registers import DOORBELLS, SQE_SIZE
from nvmelab.storage.ram import RamBackend

DISK = 64 << 20


def prepare(entries: int) -> tuple[NvmeFunction, Driver, Qpair]:
    """A running controller with one I/O queue pair."""
    controller = Controller(
        ControllerConfig(), [Namespace(1, RamBackend(DISK), "bench")], GuestMemory(),
        clock=time.perf_counter_ns,
    )  # fmt: skip
    function = NvmeFunction(controller)
    driver = Driver(InprocLink(function))
    driver.start()
    return function, driver, driver.create_qpair(entries=entries)


def rate(command: Command, entries: int, seconds: float) -> float:
    """Commands per second with rings of that many entries, kept as full as they may be."""
    function, driver, qpair = prepare(entries)
    buffer = driver.link.allocate(128 << 10)
    pages = driver.link.allocate(4096)
    driver.link.memory.write(
        pages, b"".join((buffer + 4096 * n).to_bytes(8, "little") for n in range(1, 32))
    )
    nbytes = getattr(command, "nlb", 0) * 512
    prp2 = pages if nbytes > 8192 else buffer + 4096
    for slot in range(entries):
        kind = type(command)
        fields = {name: getattr(command, name) for name in command.__struct_fields__}
        fields |= {"cid": slot, "nsid": 1, "prp1": buffer, "prp2": prp2}
        sqe = kind(**fields).encode()
        driver.link.memory.write(qpair.sq.base + slot * SQE_SIZE, sqe)
    tail = head = done = 0
    burst = entries - 1
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        for _ in range(16):
            tail = (tail + burst) % entries
            function.bar_write(0, DOORBELLS + 8, 4, tail)
            while function.run():
                pass
            head = (head + burst) % entries
            function.bar_write(0, DOORBELLS + 12, 4, head)
        done += 16 * burst
    assert function.controller.statistics.counter(1, command.opcode).commands == done
    assert not function.controller.statistics.counter(1, command.opcode).errors
    return done / spent


def copies(nbytes: int, seconds: float) -> float:
    """Copies of that many bytes per second, between two places in memory."""
    source, target = memoryview(bytearray(nbytes)), memoryview(bytearray(nbytes))
    done = 0
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        for _ in range(256):
            target[:] = source
        done += 256
    return done / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    seconds: float = parser.parse_args().seconds
    print("| command | entries | commands/s | us each | copies of its data/s |")
    print("|---|---|---|---|---|")
    for name, command in (
        ("flush", Flush()),
        ("read 512 B", Read(nlb=1)),
        ("read 4 KiB", Read(nlb=8)),
        ("write 4 KiB", Write(nlb=8)),
        ("read 128 KiB", Read(nlb=256)),
    ):
        for entries in (4, 64):
            best = max(rate(command, entries, seconds) for _ in range(3))
            nbytes = getattr(command, "nlb", 0) * 512
            plain = f"{max(copies(nbytes, seconds / 4) for _ in range(3)):,.0f}" if nbytes else "-"
            print(f"| {name} | {entries} | {best:,.0f} | {1e6 / best:.2f} | {plain} |")


if __name__ == "__main__":
    main()
