"""A QEMU without a guest: what keeps it from being driven."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelab.qemu.binary import QemuError
from nvmelab.qemu.machine import Machine, require_clock


@pytest.mark.parametrize("version", [(6, 2, 0), (7, 1, 0), (5, 2, 0)])
def test_old_nvme_device_without_a_virtual_clock_cannot_be_driven(
    version: tuple[int, int, int],
) -> None:
    with pytest.raises(QemuError, match="without the qtest accelerator"):
        require_clock(version, clock=False)


@pytest.mark.parametrize(
    ("version", "clock"), [((5, 2, 0), True), ((7, 2, 22), False), ((11, 1, 2), False)]
)
def test_others_can(version: tuple[int, int, int], clock: bool) -> None:
    require_clock(version, clock)


def program(folder: Path, script: str) -> str:
    """An executable that stands for a QEMU."""
    path = folder / "qemu"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exit 0", "ended with status 0: it printed nothing; is it a QEMU?"),
        ("echo one; echo two >&2; exit 3", "ended with status 3: two"),
        ("kill -9 $$", "was ended by SIGKILL: it printed nothing"),
    ],
)
def test_last_words_say_how_it_ended_and_what_it_said_last(
    tmp_path: Path, script: str, words: str
) -> None:
    machine = Machine(program(tmp_path, script), tmp_path, [], clock=True)
    assert words in machine.last_words()


def test_program_that_is_not_there_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(QemuError, match="is not there; install a QEMU"):
        Machine(str(tmp_path / "none"), tmp_path, [], clock=True)


def test_close_ends_the_process_and_may_be_called_twice(tmp_path: Path) -> None:
    machine = Machine(program(tmp_path, "exec sleep 1000"), tmp_path, [], clock=True)
    machine.close()
    machine.close()
    assert machine.ended()


@pytest.mark.parametrize(("clock", "words"), [(True, "-accel qtest"), (False, "-accel tcg -S")])
def test_command_line_has_shared_memory_and_the_accelerator(
    tmp_path: Path, clock: bool, words: str
) -> None:
    machine = Machine(program(tmp_path, 'echo "$@"'), tmp_path, ["-device", "nvme"], clock=clock)
    machine.process.wait()
    printed = machine.messages()
    assert words in printed
    assert "memory-backend-memfd,id=ram,size=67108864,share=on" in printed
    assert printed.endswith("-device nvme")
