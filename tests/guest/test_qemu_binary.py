"""Our rewritten command lines and probes, on a real QEMU 11.1 (`make lab`).

No controller listens here, so a line is right when QEMU gets as far as our socket and complains
about nothing but that: it connects only after it has read every option and built its memory.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from nvmelab.qemu.arguments import WITHOUT_ARGUMENT
from nvmelab.qemu.binary import guest_runs, kvm_works, probe
from nvmelab.qemu.commandline import rewrite
from tests.guest.lab import QEMU

LIMIT_S = 60

pytestmark = pytest.mark.guest

QUIET = ["-display", "none", "-nodefaults", "-S", "-accel", "tcg"]
DISK = ["-drive", "file=a.img,if=none,id=d", "-device", "nvme,serial=s,drive=d"]


def run(*words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(QEMU), *QUIET, *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def backends(*words: str) -> list[tuple[str, int, bool]]:
    """Id, size and sharing of each memory backend, as QEMU's monitor shows them."""
    questions = ["qmp_capabilities", "query-memdev", "quit"]
    lines = "".join(json.dumps({"execute": question}) + "\n" for question in questions)
    done = run(*words, "-qmp", "stdio", stdin=lines)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    (found,) = (a["return"] for a in answers if isinstance(a.get("return"), list))
    return sorted((backend["id"], backend["size"], backend["share"]) for backend in found)


def test_probe() -> None:
    info = probe(str(QEMU))
    assert info.version[:2] == (11, 1)
    info.require_vfio_user("./qemu")


def test_the_boot_sector_answers_under_tcg() -> None:
    assert guest_runs(str(QEMU), "tcg")


def test_an_accelerator_that_is_not_there_does_not_run_a_guest() -> None:
    assert not guest_runs(str(QEMU), "none")


def test_kvm_is_judged_in_bounded_time() -> None:
    # Both answers are right, depending on the machine; it must only not hang.
    assert kvm_works(str(QEMU)) in (True, False)


@pytest.mark.parametrize(
    "words",
    [
        DISK,
        ["-m", "256", "-M", "q35", *DISK],
        ["-m", "16777217B", *DISK],
        ["-m", "1.5G,slots=2,maxmem=4G", "-mem-prealloc", "-m", "64", *DISK],
        ["-machine", "usb=off", "-machine", "type=q35", "-mem-path", "/dev/shm", *DISK],
        ["-M", "q35,memory.size=256M", *DISK],
        [
            *("-m", "256M", "-machine", "q35,memory-backend=m0"),
            *("-object", "memory-backend-file,id=m0,mem-path=/nowhere,size=256M,align=2M", *DISK),
        ],
        [
            *("-m", "256M", "-numa", "node,memdev=m0"),
            *("-object", "memory-backend-ram,id=m0,size=256M,merge=off", *DISK),
        ],
        [
            *("-object", "{'qom-type':'memory-backend-ram','id':'m0','size':134217728}"),
            *("-machine", "memory-backend=m0", *DISK),
        ],
        [
            *(
                "-M",
                "q35",
                "-device",
                "pcie-root-port,id=rp,slot=1",
                "-drive",
                "file=a,if=none,id=d",
            ),
            *("-device", "nvme,serial=s,drive=d,id=n,bus=rp,bootindex=0,acpi-index=5"),
        ],
        [
            *(
                "-blockdev",
                "driver=file,node-name=f,filename=a",
                "-blockdev",
                "raw,node-name=d,file=f",
            ),
            *("-device", "nvme,serial=s,drive=d,addr=0x6.0,multifunction=on,bootindex=-1"),
        ],
    ],
)
def test_qemu_takes_every_word_of_a_rewritten_line(words: list[str]) -> None:
    (binary, *rewritten) = rewrite([str(QEMU), *words]).command(["/nowhere/nvme.sock"])
    assert binary == str(QEMU)
    done = run(*rewritten)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("Failed to connect to '/nowhere/nvme.sock': No such file or directory")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-m", "256"],
        ["-m", "1G", "-m", "slots=2,maxmem=4G"],
        ["-m", "0.1G"],
        ["-m", "010"],
        ["-m", "16777217B"],
        ["-m", "512", "-M", "memory.size=256M"],
        ["-m", "64", "-m", ""],
    ],
)
def test_ram_is_shared_and_as_large_as_without_us(words: list[str]) -> None:
    ((_, size, shared),) = backends(*words)
    assert not shared
    planned = rewrite([str(QEMU), *words, *DISK]).command(["/nowhere"])[1:]
    at = planned.index("-device")
    del planned[at : at + 2]
    assert backends(*planned) == [("nvmelab-ram", size, True)]


def test_prealloc_reaches_the_memory_that_we_add() -> None:
    words = rewrite([str(QEMU), "-mem-prealloc", *DISK]).command(["/nowhere"])[1:]
    at = words.index("-device")
    del words[at : at + 2]
    lines = '{"execute":"qmp_capabilities"}\n{"execute":"query-memdev"}\n{"execute":"quit"}\n'
    done = run(*words, "-qmp", "stdio", stdin=lines)
    assert '"prealloc": true' in done.stdout


def test_the_table_of_options_without_an_argument_is_that_of_qemu() -> None:
    """QEMU names the first word that it cannot read as an option: an argument is not one."""
    lines = run("-help").stdout.splitlines()
    documented = {line.split()[0].strip("-") for line in lines if line.startswith("-")}
    names = {name for name in documented if "/" not in name}
    assert len(names) > 80
    for name in sorted(names):
        taken = "-wrong-1: invalid option" not in run(f"-{name}", "-wrong-1", "-wrong-2").stderr
        assert taken != (name in WITHOUT_ARGUMENT), name
