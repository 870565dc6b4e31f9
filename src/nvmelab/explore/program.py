"""A run as a Python program that fails when it is run, by the public classes alone."""

from __future__ import annotations

from nvmelab.explore.replay import Replay
from nvmelab.explore.story import Story

_HANG = """
ball = system.ball()
assert ball is None, f"hang: the {ball.party} has the ball: {ball.said}"
"""


def program(replay: Replay, story: Story) -> str:
    """The text of the program. The story is that of the replay."""
    setting = replay.setting
    values = {
        "entries": setting.entries,
        "device": setting.device,
        "commands": setting.commands,
        "grain": setting.grain,
        "doorbells": setting.doorbells,
        "eager": setting.eager,
        "fault": setting.fault,
        "rules": setting.rules,
    }
    lines = [
        f'"""{story.title}. Found by nvmelab; it fails when it is run."""',
        "",
        "from nvmelab.explore.setting import Setting",
        "",
        "system = Setting(",
        *(f"    {name}={value!r}," for name, value in values.items()),
        ").system()",
        "",
    ]
    steps = replay.steps()
    for (name, number), moment in zip(steps, story.moments[1:], strict=True):
        take = f'system.take(("{name}", {number}))'
        lines.append(f"{take:<30}  # {moment.number:>3}  {moment.actor}: {moment.text}")
    text = "\n".join(lines) + "\n"
    return text + (_HANG if replay.result == "hang" else "")
