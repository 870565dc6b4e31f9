"""What the driver reaches over each link: small reads per second, at depth 1 and with a full queue.

    python bench/links.py [--seconds 2]

All links in one run, one after the other, in rounds; the ratio is to the in-process link of the
same round. The QEMUs are those of `make lab`; `vfio-user` is `nvmelab serve` in a process of its
own, on an image in memory if /dev/shm is there.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import nvmelab
from nvmelab.cli.matrix import lab_targets
from nvmelab.targets import Target

ENTRIES = 17
"""16 commands outstanding when the queue is full."""
IMAGE = 64 << 20


def rate(nvme: nvmelab.Controller, *, interrupts: bool, depth: int, seconds: float) -> float:
    """Reads of 512 bytes per second on a queue pair of its own."""
    qpair = nvme.create_qpair(entries=ENTRIES, interrupts=interrupts)
    buffer = nvme.buffer(512)
    done = 0
    begin = time.perf_counter()
    while (spent := time.perf_counter() - begin) < seconds:
        commands = [qpair.read(slba=n, buffer=buffer) for n in range(depth)]
        for command in commands:
            command.check()
        done += depth
    nvme.delete_qpair(qpair)
    return done / spent


@contextlib.contextmanager
def served(doorbells: str) -> Iterator[str]:
    """The target of an `nvmelab serve` in a process of its own."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as name:
        image, socket = Path(name, "disk.img"), Path(name, "nvme.sock")
        image.write_bytes(b"")
        os.truncate(image, IMAGE)
        command = [sys.executable, "-m", "nvmelab", "serve", str(image), "--socket", str(socket)]
        server = subprocess.Popen([*command, "--doorbells", doorbells], stderr=subprocess.DEVNULL)
        try:
            while not socket.exists():
                assert server.poll() is None, "the server does not start"
                time.sleep(0.01)
            yield f"vfio-user:{socket}"
        finally:
            server.terminate()
            server.wait()


@contextlib.contextmanager
def open_target(name: str, qemus: dict[str, Target]) -> Iterator[str]:
    """The words of the target that a row of the table is called after."""
    kind, _, version = name.rstrip(")").partition(" (")
    if name.startswith("vfio-user"):
        with served(name.split()[1]) as target:
            yield target
    else:
        yield f"{kind}:{qemus[version].where}" if version else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    qemus = lab_targets()
    names = list(qemus)
    links = [
        "inproc",
        "vfio-user, trapped doorbells",
        "vfio-user, mapped doorbells",
        f"qemu-vfio-user ({names[-1]})",
        *(f"qemu ({name})" for name in names),
    ]
    cases = [(False, 1), (True, 1), (False, 16), (True, 16)]
    found: dict[tuple[str, tuple[bool, int]], list[float]] = {}
    for _ in range(options.rounds):
        for name in links:
            with open_target(name, qemus) as target, nvmelab.connect(target) as nvme:
                for case in cases:
                    value = rate(nvme, interrupts=case[0], depth=case[1], seconds=options.seconds)
                    found.setdefault((name, case), []).append(value)
    print("| link | depth 1 | depth 1, MSI-X | depth 16 | ratio | depth 16, MSI-X |")
    print("|---|---|---|---|---|---|")
    for name in links:
        medians = [statistics.median(found[name, case]) for case in cases]
        base = found["inproc", cases[2]]
        ratio = statistics.median(
            value / other for value, other in zip(found[name, cases[2]], base, strict=True)
        )
        columns = [f"{value:,.0f}" for value in medians]
        print(
            f"| {name} | {columns[0]} | {columns[1]} | {columns[2]} | {ratio:.3f} | {columns[3]} |"
        )


if __name__ == "__main__":
    main()
