"""fio in one Linux guest: `nvmelab run` against QEMU's own `-device nvme`, on the same image.

    python bench/guest.py [--rounds 3] [--seconds 4] [--cache none] [--contenders qemu,trapped]

Needs `make lab`. In each round every contender boots the same guest once, in turn, there and back,
and runs the same fio jobs; the table gives, for each job, the median over the rounds of each
contender's IOPS, and of the ratio to the first contender within the round, which is QEMU's own
device unless others are named. A ratio of a round compares runs that are minutes apart at most, on
the same machine and image.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.guest.lab import accelerator, guest_command, nvme_disk  # noqa: E402

CONTENDERS: dict[str, list[str] | None] = {
    "qemu": None,
    "trapped": ["--doorbells", "trapped"],
    "shadow": [],
    "mapped": ["--doorbells", "mapped"],
    "checked": ["--doorbells", "trapped", "--check"],
}
USUAL = "qemu,trapped,shadow,mapped"
JOBS = [
    (rw, bs, depth)
    for rw in ("randread", "randwrite")
    for bs in ("4k", "128k")
    for depth in (1, 32)
]


def guest_job(seconds: int) -> str:
    lines = ["modprobe nvme; wait-for /dev/nvme0n1"]
    for rw, bs, depth in JOBS:
        lines.append(
            f"fio --name=x --filename=/dev/nvme0n1 --rw={rw} --bs={bs} --iodepth={depth}"
            " --ioengine=libaio --direct=1 --time_based --ramp_time=1"
            f" --runtime={seconds} --norandommap --output-format=json > /tmp/out"
        )
        # fio's own object, on one line: the console takes it whole.
        lines.append(f'echo "RESULT {rw} {bs} {depth} $(grep \'"iops" :\' /tmp/out | tr -d "\\n")"')
    return "\n".join(lines)


def measure(options: list[str] | None, command: list[str]) -> dict[tuple[str, str, int], float]:
    """IOPS of each job in one boot."""
    if options is not None:
        command = [sys.executable, "-m", "nvmelab", "run", *options, "--", *command]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        check=False, timeout=1800,
    )  # fmt: skip
    found: dict[tuple[str, str, int], float] = {}
    for rw, bs, depth, rest in re.findall(r"RESULT (\w+) (\w+) (\d+) (.*)", done.stdout):
        found[rw, bs, int(depth)] = max(float(x) for x in re.findall(r": ([\d.]+)", rest))
    if len(found) != len(JOBS):
        sys.exit(f"the guest did not finish:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="for each fio job")
    parser.add_argument("--cache", default="none", help="cache= of the -drive")
    parser.add_argument("--size", type=int, default=256, help="MiB of the image")
    parser.add_argument("--contenders", default=USUAL, help=f"of {', '.join(CONTENDERS)}")
    arguments = parser.parse_args()
    names: list[str] = arguments.contenders.split(",")
    if not CONTENDERS.keys() >= set(names) or len(names) < 2:
        parser.error(f"--contenders: two or more of {', '.join(CONTENDERS)}")
    runs: dict[str, list[dict[tuple[str, str, int], float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(dir=ROOT / ".lab") as name:
        folder = Path(name)
        image = folder / "disk.img"
        with image.open("wb") as file:
            for _ in range(arguments.size):
                file.write(b"\xa5" * (1 << 20))
        disk = nvme_disk(image, drive=f",cache={arguments.cache}")
        shared = ["-object", "memory-backend-memfd,id=m,size=1G,share=on"]
        disk += [*shared, "-machine", "memory-backend=m"]
        command = guest_command(guest_job(arguments.seconds), folder, disk)
        for number in range(arguments.rounds):
            # There and back: who comes last in a round is first in the next, as disks and
            # neighbours slow down what runs later.
            for contender in names if number % 2 == 0 else names[::-1]:
                print(f"round {number + 1}, {contender}", file=sys.stderr, flush=True)
                runs[contender].append(measure(CONTENDERS[contender], command))
    print(f"cache={arguments.cache}, {accelerator()[1]}, {arguments.rounds} rounds\n")
    first, *others = names
    print(f"| fio job | depth | {first} IOPS |", end="")
    print("".join(f" {name} IOPS | ratio |" for name in others))
    print("|---|---|---|" + "---|---|" * len(others))
    for job in JOBS:
        iops = {name: statistics.median(run[job] for run in runs[name]) for name in names}
        ratios = {
            name: statistics.median(
                run[job] / theirs[job] for run, theirs in zip(runs[name], runs[first], strict=True)
            )
            for name in others
        }
        columns = "".join(f" {iops[name]:,.0f} | {ratios[name]:.2f} |" for name in others)
        print(f"| {job[0]} {job[1]} | {job[2]} | {iops[first]:,.0f} |{columns}")
    print(json.dumps({name: [{str(k): v for k, v in run.items()} for run in rows]
                      for name, rows in runs.items()}), file=sys.stderr)  # fmt: skip


if __name__ == "__main__":
    main()
