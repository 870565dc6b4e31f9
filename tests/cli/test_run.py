"""`nvmelab run`, as far as no QEMU is needed; the rest is in tests/guest/test_run.py."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from nvmelab.storage.file import FileBackend
from tests.cli.conftest import Invoke, error_of


@pytest.fixture
def qemu(tmp_path: Path) -> Path:
    """A program that answers like QEMU 11.1 and then ends with status 7."""
    return fake_qemu(tmp_path, "11.1.0", '-device) echo "vfio-user-pci options:"; exit 0')


def fake_qemu(folder: Path, version: str, case: str) -> Path:
    program = folder / "qemu-system-x86_64"
    program.write_text(
        "#!/bin/sh\ncase $1 in\n"
        f'--version) echo "QEMU emulator version {version}"; exit 0 ;;\n{case} ;;\nesac\nexit 7\n'
    )
    program.chmod(0o755)
    return program


def line(qemu: Path, image: Path, *, drive: str = ",format=raw", device: str = "") -> list[str]:
    return [
        *("--", str(qemu), "-m", "1G"),
        *(
            "-drive",
            f"file={image},if=none,id=d{drive}",
            "-device",
            f"nvme,serial=s,drive=d{device}",
        ),
    ]


def test_exit_status_is_qemus(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    result = nvmelab("run", *line(qemu, image))

    assert result.exit_code == 7
    assert "no guest was connected" in result.stderr
    FileBackend(image).close()


def test_dry_run_prints_the_command_and_runs_nothing(nvmelab: Invoke, image: Path) -> None:
    result = nvmelab("run", "--dry-run", *line(Path("no-such-qemu"), image))

    words = shlex.split(result.stdout)
    assert result.exit_code == 0
    assert words[:3] == ["no-such-qemu", "-m", "1G"]
    assert '"driver":"vfio-user-pci"' in words[words.index("-device") + 1]


def test_dry_run_says_what_would_be_written_and_writes_nothing(
    nvmelab: Invoke, image: Path, tmp_path: Path
) -> None:
    names = [str(tmp_path / name) for name in ("run.log", "run.capture", "schedule.log")]
    trace, capture, schedule = names
    words = (
        *("--dry-run", "--trace", "pci_nvme_*", "--trace-file", trace, "--capture", capture),
        *("--schedule", "seed:7", "--schedule-file", schedule, "--check=stop"),
    )
    result = nvmelab("run", *words, *line(Path("no-such-qemu"), image))
    assert result.stderr.splitlines() == [f"nvmelab: {name} would be written" for name in names]
    command = shlex.split(result.stdout)
    assert command[command.index("-qmp") + 1] == "unix:qmp.sock"
    said = json.loads(nvmelab("run", "--json", *words, *line(Path("no-such-qemu"), image)).stdout)
    assert said == {"command": command, "files": names}
    assert sorted(tmp_path.iterdir()) == [image]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--trace", "nothing_*"), "matches no event"),
        (("--trace-file", "x.log"), "--trace-file needs --trace"),
        (("--doorbells", "mapped", "--capture", "x"), "excludes --capture"),
    ],
)
def test_dry_run_refuses_what_a_run_would(
    nvmelab: Invoke, image: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in error_of(nvmelab("run", "--dry-run", *words, *line(Path("qemu"), image)), 125)


def test_no_command_is_an_error_with_an_example(nvmelab: Invoke) -> None:
    assert "-device nvme,serial=deadbeef,drive=nvm" in error_of(nvmelab("run"), 125)


def test_missing_image(nvmelab: Invoke, qemu: Path, tmp_path: Path) -> None:
    message = error_of(nvmelab("run", *line(qemu, tmp_path / "gone.img")), 125)

    assert "gone.img" in message
    assert "truncate -s" in message


def test_read_only_image_of_a_writable_drive(
    nvmelab: Invoke, qemu: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_open(monkeypatch)

    message = error_of(nvmelab("run", *line(qemu, image)), 125)

    assert "readonly=on" in message


def refuse_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files cannot be opened for writing: root may write whatever the mode of a file says."""
    import errno
    import os

    plain = os.open

    def refuse(path: str, flags: int, mode: int = 0o777, **more: int) -> int:
        if str(path).endswith(".img") and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return plain(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refuse)


def test_image_of_odd_size(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    image.write_bytes(bytes(1000))

    message = error_of(nvmelab("run", *line(qemu, image)), 125)

    assert "1000 bytes" in message
    assert f"truncate -s %512 {image}" in message


def test_image_locked_by_another(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    other = FileBackend(image)

    message = error_of(nvmelab("run", *line(qemu, image)), 125)
    other.close()

    assert f"{image}: in use by" in message


def test_qcow2_image(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    image.write_bytes(b"QFI\xfb\0\0\0\3" + bytes(4088))

    message = error_of(nvmelab("run", *line(qemu, image, drive="")), 125)

    assert f"qemu-img convert -O raw {image}" in message


def test_unknown_option_of_the_device(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    message = error_of(nvmelab("run", *line(qemu, image, device=",cmb_size_mb=64")), 125)

    assert "'cmb_size_mb' is not served; understood: serial, drive" in message


def test_unknown_option_of_ours(nvmelab: Invoke) -> None:
    message = error_of(nvmelab("run", "--frobnicate", "--", "qemu-system-x86_64"), 125)

    assert "No such option '--frobnicate'" in message


def test_queue_of_one_entry(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    message = error_of(nvmelab("run", "--queue-entries", "1", *line(qemu, image)), 125)

    assert "'--queue-entries': 1 is not in the range 2<=x<=65536" in message


def test_queue_entries_and_mqes_together(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    words = ("--queue-entries", "4", *line(qemu, image, device=",mqes=7"))

    message = error_of(nvmelab("run", *words), 125)

    assert "both --queue-entries 4 and mqes=7" in message


def test_too_old_qemu(nvmelab: Invoke, tmp_path: Path, image: Path) -> None:
    old = fake_qemu(tmp_path, "7.2.22", "-device) exit 1")

    message = error_of(nvmelab("run", *line(old, image)), 125)

    assert message.startswith(f"{old} is QEMU 7.2.22, which is too old: vfio-user-pci needs 10.1")
    assert message.endswith("makes .lab/bin/qemu-system-x86_64")


def test_missing_qemu(nvmelab: Invoke, tmp_path: Path, image: Path) -> None:
    message = error_of(nvmelab("run", *line(tmp_path / "gone", image)), 125)

    assert "gone is not there; install QEMU 10.1 or later" in message


def test_trace_with_mapped_doorbells(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    words = ("--doorbells", "mapped", "--trace", "pci_nvme_*", *line(qemu, image))

    assert "--doorbells mapped excludes --trace" in error_of(nvmelab("run", *words), 125)


def test_more_queues_than_a_doorbell_page_holds(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    words = ("--doorbells", "mapped", *line(qemu, image, device=",max_ioqpairs=512"))

    message = error_of(nvmelab("run", *words), 125)

    assert "511 I/O queue pairs, not 512" in message
    FileBackend(image).close()


def test_trace_pattern_that_matches_nothing(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    message = error_of(nvmelab("run", "--trace", "nvme_*", *line(qemu, image)), 125)

    assert "--trace 'nvme_*' matches no event" in message


def test_trace_file_that_is_the_image_is_refused_and_not_touched(
    nvmelab: Invoke, qemu: Path, image: Path
) -> None:
    words = ("--trace", "pci_nvme_*", "--trace-file", str(image), *line(qemu, image))

    message = error_of(nvmelab("run", *words), 125)

    assert f"--trace-file {image} is an image that is served" in message
    assert image.read_bytes() == bytes(1 << 20)


def test_trace_of_a_run_that_cannot_start_leaves_the_last_one(
    nvmelab: Invoke, qemu: Path, tmp_path: Path
) -> None:
    trace = tmp_path / "run.log"
    trace.write_text("the last one\n")
    words = ("--trace", "pci_nvme_*", "--trace-file", str(trace))

    error_of(nvmelab("run", *words, *line(qemu, tmp_path / "gone.img")), 125)

    assert trace.read_text() == "the last one\n"


def test_option_of_ours_behind_the_dashes(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    message = error_of(nvmelab("run", *line(qemu, image), "--queue-entries", "4"), 125)

    assert message == "--queue-entries is an option of nvmelab; put it before the --"


def test_forgotten_qemu(nvmelab: Invoke) -> None:
    message = error_of(nvmelab("run", "--", "-m", "1G"), 125)

    assert message == "the first word after -- must be a QEMU program, not -m"


def test_one_image_for_two_devices(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    second = [
        *("-drive", f"file={image},if=none,id=e,format=raw"),
        *("-device", "nvme,serial=t,drive=e"),
    ]

    message = error_of(nvmelab("run", *line(qemu, image), *second), 125)

    assert f"serial=s and serial=t use {image}; give each an image of its own" in message


def test_trace_of_qemus_own_device_is_noted(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    result = nvmelab("run", *line(qemu, image), "-trace", "pci_nvme_*")

    assert "QEMU's own nvme device is not used and will log nothing" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--latency", "0.5"), "0.5ms"),
        (("--latency", "1h"), "500us"),
        (("--latency", "11s"), "longer than 10s"),
        (("--schedule", "7"), "seed:7"),
        (("--schedule-file", "x.log"), "--schedule-file needs --schedule"),
        (("--device", "qemu-9.0", "--doorbells", "shadow"), "has no shadow doorbells"),
        (("--device", "qemu-9.0", "--doorbells", "mapped"), "has no mapped doorbells"),
        (("--schedule", "seed:1", "--doorbells", "mapped"), "excludes --schedule"),
        (("--check", "--doorbells", "mapped"), "excludes --check"),
        (("--check=now",), "'now'"),
        (("--device", "other"), "other"),
    ],
)
def test_what_a_device_cannot_be(
    nvmelab: Invoke, qemu: Path, image: Path, words: tuple[str, ...], said: str
) -> None:
    assert said in error_of(nvmelab("run", *words, *line(qemu, image)), 125)


def test_a_schedule_does_not_overwrite_an_image(nvmelab: Invoke, qemu: Path, image: Path) -> None:
    words = ("--schedule", "seed:1", "--schedule-file", str(image))
    assert "is an image" in error_of(nvmelab("run", *words, *line(qemu, image)), 125)


def test_the_summary_says_whose_rules_and_which_schedule(
    nvmelab: Invoke, qemu: Path, image: Path, tmp_path: Path
) -> None:
    log = tmp_path / "schedule.log"
    words = ("--device", "qemu-9.0", "--latency", "0.5ms", "--schedule", "seed:7")
    result = nvmelab("run", *words, "--schedule-file", str(log), *line(qemu, image))
    assert "device qemu-9.0, latency of the storage 500 us" in result.stderr
    assert f"schedule: seed 7, {log}" in result.stderr
    assert json.loads(log.read_text().splitlines()[0])["latency_ns"] == 500_000
    asked = nvmelab("run", "--json", *words, "--schedule-file", str(log), *line(qemu, image))
    said = json.loads(asked.stderr)
    assert (said["device"], said["latency_ns"], said["forgotten"]) == ("qemu-9.0", 500_000, [])
    assert said["schedule"] == {"seed": 7, "file": str(log)}


def test_a_device_of_qemus_own_behind_the_dashes_is_left_alone(
    nvmelab: Invoke, qemu: Path, image: Path
) -> None:
    result = nvmelab("run", *line(qemu, image), "--device", "e1000")
    assert result.exit_code == 7, result.stderr
