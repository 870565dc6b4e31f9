"""Who has the ball, where only the device's side shows: against the explorer, which knows both."""

from __future__ import annotations

import pytest

from nvmelab.check.ball import Standing, seen_by_device
from nvmelab.explore.setting import Setting
from nvmelab.explore.watch import Violation
from nvmelab.standing import standing_of
from tests.check.test_against_explorer import DEVICES, PLANTED, SOUND, rests

SETTINGS = [
    setting
    for setting, _party in DEVICES + SOUND + PLANTED
    if setting.fault != "skips-interrupt"  # its controller is wrong about itself
]


@pytest.mark.parametrize(
    "setting",
    SETTINGS,
    ids=lambda setting: f"{setting.device}-{setting.fault}",
)
def test_the_holder_is_always_among_those_who_may_be(setting: Setting) -> None:
    stuck = 0
    for labels in rests(setting, 150):
        system = setting.system()
        try:
            for label in labels:
                system.take(label)
        except Violation:
            continue
        ball = system.ball()
        seen = seen_by_device(standing_of(system.sq, len(system.cq.finished)))
        if ball is None:
            assert seen is None, labels
            continue
        stuck += 1
        if seen:
            assert ball.party in seen.parties, (labels, ball, seen)
        else:  # a driver that has written and not rung shows nothing
            assert ball.party == "driver", (labels, ball)
    assert stuck or setting in [setting for setting, _party in SOUND + PLANTED]


def standing(**changes: object) -> Standing:
    nothing: dict[str, object] = dict.fromkeys(Standing.__struct_fields__, 0)
    known = {"room": True, "signalled": True, "delivered": False, "free": 4}
    return Standing(**(nothing | known | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "parties", "text"),
    [
        ({"unfetched": 2}, ["device"], "2 commands are rung, 4 requests are free: fetch"),
        ({"working": 1, "free": 3}, ["device"], "1 command is being carried out: finish"),
        ({"finished": 1}, ["device"], "1 command is finished, the CQ has room: post"),
        # What the driver has not released does not excuse the device.
        ({"unfetched": 1, "posted": 3}, ["device"], "1 command is rung"),
        ({"working": 1, "posted": 3}, ["device"], "being carried out"),
        ({"finished": 1, "posted": 2}, ["device"], "the CQ has room: post"),
        # Here it does.
        (
            {"finished": 1, "posted": 3, "room": False},
            ["driver", "platform"],
            "3 entries are posted and not released, the CQ is full: deliver the interrupt, reap",
        ),
        ({"posted": 1}, ["driver", "platform"], "deliver the interrupt, reap, ring the CQ's head"),
        ({"posted": 1, "delivered": True}, ["driver", "platform"], "released: reap, ring"),
        ({"posted": 1, "signalled": False}, ["device"], "no interrupt says so: raise it"),
    ],
)
def test_who_may_have_the_ball(changes: dict[str, object], parties: list[str], text: str) -> None:
    seen = seen_by_device(standing(**changes))
    assert seen and seen.parties == parties and text in seen.text


def test_nobody_has_it_where_nothing_waits() -> None:
    assert seen_by_device(standing()) is None
