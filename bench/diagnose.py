"""Lines per second of `nvmelab diagnose`, beside a plain Python loop over the lines and `grep -c`.

    python bench/diagnose.py [--lines 1000000] [--rounds 3]

The log is one of our own controller in QEMU's format: our driver reads through a queue of 32
entries. Peak memory is that of a process of its own, on that log and on one of ten times as many
lines, which is the same log over and over with a reset between.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.device.pci import NvmeFunction
from nvmelab.host.driver import Controller as Driver
from nvmelab.link.inproc import InprocLink
from nvmelab.memory import GuestMemory
from nvmelab.report.log_page import log_page
from nvmelab.report.recorder import Recorder
from nvmelab.storage.ram import RamBackend
from nvmelab.trace.file import TraceFile
from nvmelab.trace.qemu_reader import chunks_of, read_log


def make_log(path: Path, lines: int) -> int:
    """Write at least so many lines; how many."""
    trace = TraceFile(("pci_nvme_*",), str(path))
    trace.open()
    config = ControllerConfig(shadow_doorbells=False)
    device = Controller(config, [Namespace(1, RamBackend(1 << 20), "bench")], GuestMemory())
    device.trace = trace.bus.emitter
    driver = Driver(InprocLink(NvmeFunction(device)))
    driver.start()
    qpair = driver.create_qpair(entries=32)
    buffer = driver.buffer(4096)
    for number in range(lines // 9):
        qpair.read(slba=8 * (number % 16), nlb=8, buffer=buffer)
    qpair.wait_all()
    trace.close()
    with path.open("rb") as log:
        return sum(1 for _line in log)


def ours(path: Path) -> float:
    begin = time.perf_counter()
    monitor = Monitor()
    with path.open("rb") as log:
        read_log(chunks_of(log.read), monitor.handlers)
    assert judge(monitor, rest=True).verdict == "clean"
    return time.perf_counter() - begin


def with_a_page(path: Path) -> float:
    begin = time.perf_counter()
    recorder = Recorder(Monitor())
    with path.open("rb") as log:
        counts = read_log(chunks_of(log.read), recorder.handlers, recorder.line)
    verdict = judge(recorder.monitor, rest=True)
    log_page(recorder, verdict, counts, name=path.name, hung=True)
    return time.perf_counter() - begin


def loop(path: Path) -> float:
    begin = time.perf_counter()
    count = 0
    with path.open("rb") as log:
        for _line in log:
            count += 1
    return time.perf_counter() - begin


def grep(path: Path) -> float:
    begin = time.perf_counter()
    subprocess.run(["grep", "-c", "pci_nvme_", path], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - begin


_PEAK = """
import sys
from nvmelab.cli.main import cli
try:
    cli(["diagnose", *sys.argv[1:]])
except SystemExit:
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def peak(path: Path, *options: str) -> int:
    """MiB."""
    command = [sys.executable, "-c", _PEAK, str(path), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        log, long = Path(folder, "qemu.log"), Path(folder, "long.log")
        lines = make_log(log, options.lines)
        print("| what | lines/s | ratio to the plain loop |")
        print("|---|---|---|")
        best = {
            name: min(way(log) for _ in range(options.rounds))
            for name, way in (
                ("diagnose", ours),
                ("diagnose --html", with_a_page),
                ("a plain loop", loop),
                ("grep -c", grep),
            )
        }
        for name, seconds in best.items():
            print(f"| {name} | {lines / seconds:,.0f} | {best['a plain loop'] / seconds:.2f} |")
        data = log.read_bytes()
        with long.open("wb") as file:
            for _ in range(10):
                file.write(data + b"pci_nvme_pci_reset PCI reset\n")
        print(f"\npeak memory: {peak(log)} MiB on {lines:,} lines, ", end="")
        print(f"{peak(long)} MiB on {10 * lines + 10:,}")
        page = Path(folder, "page.html")
        print(f"with --html: {peak(log, '--html', str(page))} MiB, ", end="")
        print(f"and {peak(long, '--html', str(page))} MiB; the page has ", end="")
        print(f"{page.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
