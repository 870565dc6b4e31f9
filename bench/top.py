"""What `nvmelab top` costs: one snapshot, and a guest's commands while others look at its queues.

    python bench/top.py [--seconds 2]

The guest is the one of bench/controller.py, a ring of reads kept full in memory, in a loop that has
a control socket too: with nobody on it, with one who asks once a second, and with eight who do
nothing but ask, connect and send garbage. In each round all of them; medians over the rounds of the
ratio to the loop without a control socket, in commands for each second of processor time.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import socket
import statistics
import tempfile
import time
from collections.abc import Callable

import msgspec

from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as Driver
from nvmelab.link.control import REQUEST, ControlServer
from nvmelab.link.inproc import InprocLink
from nvmelab.link.loop import Loop
from nvmelab.memory import GuestMemory
from nvmelab.snapshot import Observer, Snapshot
from nvmelab.spec.nvm import Read
from nvmelab.spec.registers import DOORBELLS, SQE_SIZE
from nvmelab.storage.held import HeldWorker
from nvmelab.storage.ram import RamBackend

ENTRIES = 64
ROUNDS = 5


def prepare(pairs: int, worker: HeldWorker | None = None) -> NvmeFunction:
    """A running controller whose submission queues are full of reads that are not rung."""
    controller = Controller(
        ControllerConfig(),
        [Namespace(1, RamBackend(1 << 20), "bench")],
        GuestMemory(),
        clock=time.perf_counter_ns,
        worker=worker,
    )
    function = NvmeFunction(controller)
    driver = Driver(InprocLink(function, storage=worker))
    driver.start(io_queues=pairs)
    buffer = driver.link.allocate(4096)
    for _ in range(pairs):
        qpair = driver.create_qpair(entries=ENTRIES)
        for slot in range(ENTRIES):
            sqe = Read(cid=slot, nsid=1, nlb=8, prp1=buffer).encode()
            driver.link.memory.write(qpair.sq.base + slot * SQE_SIZE, sqe)
    return function


def answer(controller: Controller, observer: Observer) -> bytes:
    """A snapshot as a service gives it."""
    sqs, cqs, left_out = observer.queues()
    return msgspec.json.encode(
        Snapshot(
            version=1, time_ns=controller.clock(), image="disk.img", serial="bench",
            device="nvmelab", guest=True, controller=observer.controller(), sqs=sqs, cqs=cqs,
            sqs_left_out=left_out, totals=observer.totals(), check=None,
        )
    )  # fmt: skip


def snapshot_cost(pairs: int, outstanding: int) -> tuple[float, int]:
    """Seconds and bytes of one snapshot: the best of many."""
    worker = HeldWorker()
    function = prepare(pairs, worker)
    worker.hold = True
    for qid in range(1, pairs + 1):
        function.bar_write(0, DOORBELLS + 8 * qid, 4, outstanding)
    while function.run():
        pass
    observer = Observer(function.controller)
    spent = []
    for _ in range(50):
        begin = time.perf_counter()
        made = answer(function.controller, observer)
        spent.append(time.perf_counter() - begin)
    return min(spent), len(made)


def rate(seconds: float, path: str | None) -> float:
    """Commands of the guest for each second of this process, in a loop with a control socket on
    `path` or without. Not for each second of the clock: the others take processors too."""
    function = prepare(1)
    controller = function.controller
    loop = Loop()
    server = None
    if path:
        observer = Observer(controller)
        server = ControlServer(path, loop, lambda: answer(controller, observer))
    tail = head = done = 0
    burst = ENTRIES - 1

    def guest() -> bool:
        nonlocal tail, head, done
        tail = (tail + burst) % ENTRIES
        function.bar_write(0, DOORBELLS + 8, 4, tail)
        while function.run():
            pass
        head = (head + burst) % ENTRIES
        function.bar_write(0, DOORBELLS + 12, 4, head)
        done += burst
        return True

    loop.add_worker(guest)
    begin, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        loop.turn()
    spent = time.process_time() - cpu
    if server:
        server.close()
    loop.close()
    return done / spent


def once_a_second(path: str) -> None:
    with contextlib.suppress(OSError):
        while True:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.connect(path)
                while peer.send(REQUEST) and peer.recv(1 << 20):
                    time.sleep(1)


def flood(path: str) -> None:
    """Ask, send garbage, come back: as fast as one is let."""
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as peer:
                peer.settimeout(0.01)
                peer.connect(path)
                for _ in range(8):
                    peer.send(REQUEST)
                    peer.recv(1 << 20)
                peer.send(b"garbage\n")
        except OSError:
            time.sleep(0.001)


def beside(path: str, others: int, what: Callable[[str], None], seconds: float) -> float:
    """The guest's rate while so many others do that."""
    processes = [multiprocessing.Process(target=what, args=(path,)) for _ in range(others)]
    for process in processes:
        process.start()
    try:
        return rate(seconds, path)
    finally:
        for process in processes:
            process.kill()
            process.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    seconds: float = parser.parse_args().seconds
    print("| queue pairs | commands outstanding on each | one snapshot | its JSON |")
    print("|---|---|---|---|")
    for pairs, outstanding in ((1, 0), (1, 32), (8, 32), (64, 0), (64, 32)):
        spent, size = snapshot_cost(pairs, outstanding)
        print(f"| {pairs} | {outstanding} | {spent * 1e6:,.0f} us | {size:,} bytes |")
    cases: dict[str, Callable[[str], float]] = {
        "nobody asks": lambda path: rate(seconds, path),
        "one asks once a second": lambda path: beside(path, 1, once_a_second, seconds),
        "one floods": lambda path: beside(path, 1, flood, seconds),
        "eight flood": lambda path: beside(path, 8, flood, seconds),
    }
    ratios: dict[str, list[float]] = {name: [] for name in cases}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            alone = rate(seconds, None)
            for name, measure in cases.items():
                ratios[name].append(measure(f"{folder}/x.ctl") / alone)
    print("\n| beside the guest | its commands, to those without a control socket |")
    print("|---|---|")
    for name, found in ratios.items():
        print(f"| {name} | {statistics.median(found):.3f} |")


if __name__ == "__main__":
    main()
