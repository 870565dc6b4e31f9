"""A recorded run on a real device, for a terminal and for a program."""

from __future__ import annotations

from nvmelab.explore.remote import Outcome
from nvmelab.explore.replay import Replay, rule_text
from nvmelab.report.paragraphs import paragraph


def outcome_text(name: str, replay: Replay, outcome: Outcome) -> str:
    """What became of the run on the device of that name."""
    if outcome.error:
        lines = [f"BROKEN   on {name}: {outcome.error}"]
    elif outcome.hang:
        lines = [f"HANG     on {name}: it is at rest, and a command is left behind"]
    else:
        lines = [f"NO HANG  on {name}: every command was completed"]
    steps = len(replay.labels)
    if outcome.forced == steps:
        said = f"all {steps} forced one by one; after each the device was where the explored one is"
    else:
        said = f"{outcome.forced} of {steps} forced; then {outcome.followed} of the driver and the "
        said += f"storage taken as recorded, {outcome.skipped} not possible"
    lines.append(paragraph("steps", said))
    if outcome.parted:
        lines.append(paragraph("parted", outcome.parted))
    lines.append(paragraph("rings", outcome.rings))
    if outcome.hang:
        lines.append(paragraph("rule", rule_text(replay.rule, replay.ball)))
    if more := _next(replay, outcome):
        lines.append(paragraph("next", more))
    return "\n".join(lines)


def _next(replay: Replay, outcome: Outcome) -> str:
    """How to find a run that can be forced on this device, if that was not one."""
    setting = replay.setting
    if not outcome.parted or setting.eager:
        return ""
    explore = f"nvmelab explore {setting.scenario} --entries {setting.entries}"
    if outcome.forced == 0:
        return (
            f"{explore} --device {setting.device} --eager: a run in which the device is always "
            "first can be forced on a device that goes on by itself"
        )
    if setting.device != "qemu-5.2":
        return f"{explore} --device qemu-5.2: a run in the order of its timers can be forced on it"
    return ""


def outcome_json(target: str, name: str, outcome: Outcome) -> dict[str, object]:
    """The same for a program."""
    return {
        "result": "violation" if outcome.error else "hang" if outcome.hang else "passed",
        "target": target,
        "device": name,
        "forced": outcome.forced,
        "followed": outcome.followed,
        "skipped": outcome.skipped,
        "parted": outcome.parted or None,
        "error": outcome.error or None,
        "rings": outcome.rings,
    }
