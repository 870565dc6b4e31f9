"""What a capture costs beside a text trace: bytes and time for each event, written and read.

    python bench/capture.py [--commands 50000] [--rounds 3]

The events are those of our driver reading 4 KiB blocks from our controller, in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from nvmelab.check.live import LiveMonitor
from nvmelab.check.monitor import Monitor
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as Driver
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.storage.ram import RamBackend
from nvmelab.trace.bus import Emit
from nvmelab.trace.capture import CaptureFile, CaptureReader, Served
from nvmelab.trace.file import TraceFile
from nvmelab.trace.qemu_reader import chunks_of, read_log


def run(commands: int, trace: Emit | None) -> float:
    """Seconds that the reads take."""
    config = ControllerConfig(shadow_doorbells=False)
    device = Controller(config, [Namespace(1, RamBackend(1 << 20), "bench")], GuestMemory())
    device.trace = trace
    driver = Driver(InprocLink(NvmeFunction(device)))
    driver.start()
    qpair = driver.create_qpair(entries=32)
    buffer = driver.buffer(4096)
    begin = time.perf_counter()
    for number in range(commands):
        qpair.read(slba=8 * (number % 16), nlb=8, buffer=buffer)
    qpair.wait_all()
    return time.perf_counter() - begin


def pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from chunks_of(file.read)


def main() -> None:
    """Print the best of the rounds, the ways side by side in each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--commands", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    best: dict[str, float] = {}

    def keep(name: str, seconds: float) -> None:
        best[name] = min(best.get(name, seconds), seconds)

    with tempfile.TemporaryDirectory() as folder:
        log, capture = Path(folder) / "log", Path(folder) / "capture"
        events = 0
        for _ in range(options.rounds):
            keep("nothing", run(options.commands, None))
            keep("--check", run(options.commands, LiveMonitor().emit))
            trace = TraceFile(("pci_nvme_*",), str(log))
            trace.open()
            keep("--trace", run(options.commands, trace.bus.emitter))
            trace.close()
            file = CaptureFile(str(capture), Served("bench", "bench", 2048))
            file.open()
            keep("--capture", run(options.commands, file.emit))
            file.close()
            begin = time.perf_counter()
            events = sum(1 for _event in CaptureReader(pieces(capture)))
            keep("capture read", time.perf_counter() - begin)
            begin = time.perf_counter()
            read_log(pieces(log), Monitor().handlers)
            keep("trace judged", time.perf_counter() - begin)
        for name in ("--trace", "--capture", "--check"):
            cost = (best[name] - best["nothing"]) / events * 1e9
            print(f"{name:<14}{cost:>8.0f} ns for each event")
        for name, path in (("trace", log), ("capture", capture)):
            print(f"{name:<14}{path.stat().st_size / events:>8.1f} bytes for each event")
        for name in ("trace judged", "capture read"):
            print(f"{name:<14}{events / best[name]:>10,.0f} events per second")


if __name__ == "__main__":
    main()
