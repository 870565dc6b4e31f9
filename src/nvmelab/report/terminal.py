"""What a run did, as a short table for a terminal and as an object for a program."""

from __future__ import annotations

from nvmelab.check.live import LiveMonitor
from nvmelab.check.verdict import Verdict
from nvmelab.corpus.personas import PERSONAS
from nvmelab.report.diagnosis import verdict_json, verdict_lines
from nvmelab.report.units import size_text, time_text
from nvmelab.service import Service
from nvmelab.spec.layout import OpenEnum
from nvmelab.spec.status import Status
from nvmelab.storage.file import CACHE_MODES, CacheMode


def _status_label(field: int) -> str:
    status: OpenEnum = Status(field & 0x7FF)
    return status.label


def _cache_label(cache: CacheMode) -> str:
    """QEMU's word for a cache mode; a combination that has no word, by its parts."""
    words = [word for word, mode in CACHE_MODES.items() if mode == cache]
    return words[0] if words else "+".join(name for name, on in cache._asdict().items() if on)


def summary(service: Service) -> dict[str, object]:
    """What the controller did since it was made, for `--json`."""
    controller = service.controller
    return {
        "image": service.disk.path,
        "serial": service.disk.config.serial,
        "queue_entries": service.disk.config.queue_entries,
        "cache": _cache_label(service.disk.cache),
        "guests": service.server.guests,
        "device": service.disk.persona,
        "latency_ns": service.disk.latency_ns,
        "schedule": (
            {"seed": service.schedule.seed, "file": service.schedule.path}
            if service.schedule
            else None
        ),
        "left_outstanding": service.left_behind,
        "forgotten": service.forgotten,
        "check": verdict_json(service.verdict) if service.verdict else None,
        "aio": service.disk.aio,
        "commands": [
            {
                "command": name,
                "count": counter.commands,
                "bytes": counter.nbytes,
                "median_ns": counter.median_ns,
                "worst_ns": counter.worst_ns,
                "errors": {_status_label(field): n for field, n in counter.errors.items()},
            }
            for name, counter in controller.statistics.rows()
        ],
        "interrupts": controller.statistics.interrupts,
        "trace": service.trace.path if service.trace else None,
        "capture": service.capture.path if service.capture else None,
    }


def _check_lines(live: LiveMonitor, verdict: Verdict | None) -> list[str]:
    """The verdict on the last guest, and the events that it rests on as far as they are kept."""
    if verdict is None:
        return ["  check: no guest was there to be judged"]
    said = verdict_lines(verdict, rest=bool(verdict.stuck), unit="event", text_of=live.text_of)
    lines = [f"  {line}" for paragraph in said for line in paragraph.splitlines()]
    lines.append(f"  check: {live.events:,} events")
    return lines


def summary_table(service: Service) -> str:
    """The same for a person, several lines. Latency is from a command's fetch to its posting."""
    statistics = service.controller.statistics
    disk = service.disk
    lines = [
        f"nvmelab: {disk.path}: serial {disk.config.serial}, "
        f"cache={_cache_label(disk.cache)}, "
        f"I/O queues of at most {disk.config.queue_entries} entries"
    ]
    if disk.persona != "nvmelab" or disk.latency_ns:
        lines.append(
            f"  device {disk.persona}, latency of the storage {time_text(disk.latency_ns)}"
        )
    if disk.aio not in (None, "threads"):
        lines.append(f"  aio={disk.aio} was not used: nvmelab does its own I/O")
    rows = statistics.rows()
    if not rows:
        lines.append(
            "  no command arrived: the guest has no driver for it, or did not get so far"
            if service.server.guests
            else "  no guest was connected"
        )
    else:
        lines.append(
            f"  {'command':<20}{'count':>10}{'data':>12}{'median':>10}{'worst':>10}  errors"
        )
    for name, counter in rows:
        errors = ", ".join(
            f"{count} x {_status_label(field)}" for field, count in counter.errors.items()
        )
        median = time_text(counter.median_ns) if counter.worst_ns else "-"
        worst = time_text(counter.worst_ns) if counter.worst_ns else "-"
        lines.append(
            f"  {name:<20}{counter.commands:>10,}{size_text(counter.nbytes):>12}"
            f"{median:>10}{worst:>10}  {errors or 'none'}"
        )
    lines.append(f"  {statistics.interrupts:,} interrupts")
    lines += [f"  left outstanding: {line}" for line in service.left_behind]
    for line in service.forgotten:
        lines.append(f"  HANG, and it is the device's: {line}")
        lines.append(f"  ({service.disk.persona}: {PERSONAS[service.disk.persona].text})")
    if service.judging:
        lines += _check_lines(service.judging.live, service.verdict)
    if service.schedule:
        lines.append(f"  schedule: seed {service.schedule.seed}, {service.schedule.path}")
    if service.trace:
        lines.append(f"  trace: {service.trace.path}")
    if service.capture:
        lines.append(f"  capture: {service.capture.path}")
    return "\n".join(lines)
