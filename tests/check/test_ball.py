"""Who has the ball: the rows of the table; and what the device's side shows of it, against the
explorer, which knows both."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nvmelab.check.ball import Ball, Party, Standing, agreed, ball_of, holder, owed
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
        seen = ball_of(owed(standing_of(system.sq, len(system.cq.finished))))
        if ball is None:
            assert seen is None, labels
            continue
        stuck += 1
        if seen:
            assert ball.party in seen.parties, (labels, ball, seen)
        else:  # a driver that has written and not rung shows nothing
            assert ball.party == "driver", (labels, ball)
    assert stuck or setting in [setting for setting, _party in SOUND + PLANTED]


def known(**changes: object) -> Standing:
    """As the explorer sees a queue pair."""
    nothing = dict.fromkeys(("written", "under_way", "rung", "fetched", "finished", "posted"), 0)
    rest = {"free": 4, "room": True, "signalled": True, "delivered": True, "taken": 0}
    return Standing(**{**nothing, **rest, **changes})  # type: ignore[arg-type]


def by_device(**changes: object) -> Standing:
    """As the device does."""
    return known(**{"under_way": None, "delivered": None, "taken": None, **changes})


def in_a_log(**changes: object) -> Standing:
    """As QEMU's log shows it."""
    return by_device(**{"written": None, "free": None, "room": None, **changes})


@pytest.mark.parametrize(
    ("changes", "party", "said"),
    [
        ({"written": 1}, "driver", "1 command is written, not rung: ring the tail doorbell"),
        (
            {"under_way": 1},
            "platform",
            "1 command is rung, the doorbell under way: deliver",
        ),
        (
            {"rung": 2},
            "device",
            "2 commands are rung, not fetched: fetch them (4 requests",
        ),
        (
            {"rung": 1, "free": 1},
            "device",
            "1 command is rung, not fetched: fetch it (1 request is",
        ),
        ({"rung": 1, "free": 0}, "device", "fetch it (no request is free: free one)"),
        ({"rung": 1, "dead": "tail"}, "driver", "delete the queue and create it"),
        ({"fetched": 1, "rung": 9}, "device", "1 command is fetched, not finished: finish it"),
        ({"finished": 1}, "device", "1 command is finished, not posted: post it (the CQ has room)"),
        ({"finished": 1, "room": False, "taken": 3}, "driver", "release entries (the CQ is full)"),
        (
            {"posted": 1, "signalled": False},
            "device",
            "1 completion is posted, not released: rai",
        ),
        (
            {"posted": 2, "delivered": False},
            "platform",
            "2 completions are posted, not released: d",
        ),
        ({"posted": 1, "finished": 1, "fetched": 1}, "driver", "not released: reap and release it"),
        ({"rung": 3, "dead": "shutdown"}, "driver", "reset the controller"),
        ({"posted": 3, "taken": 1, "dead": "shutdown"}, "driver", "reap and release them"),
    ],
)
def test_where_everything_shows_one_party_has_it(
    changes: dict[str, object], party: str, said: str
) -> None:
    row = holder(known(**changes))
    assert row and row.party == party and said in row.said


def test_there_is_a_row_for_each_stage_and_the_one_furthest_on_is_first() -> None:
    stages = ("written", "under_way", "rung", "fetched", "finished", "posted")
    rows = owed(known(**{stage: number for number, stage in enumerate(stages, 1)}))
    assert [(row.stage, row.number) for row in rows] == [
        *(("posted", 6), ("finished", 5), ("fetched", 4), ("rung", 3), ("under way", 2)),
        ("written", 1),
    ]
    assert [row.party for row in rows] == ["driver", *["device"] * 3, "platform", "driver"]


FULL = {"room": False, "free": 0}


@pytest.mark.parametrize(
    ("changes", "parties", "text"),
    [
        # What the driver has not released does not excuse the device.
        ({"rung": 1, "posted": 3}, ["device"], "1 command is rung, not fetched: fetch it"),
        ({"fetched": 1, "posted": 3}, ["device"], "not finished: finish it"),
        ({"finished": 1, "posted": 2}, ["device"], "not posted: post it (the CQ has room)"),
        # Here it does, unless something else waits for the device alone.
        (
            {**FULL, "finished": 1, "posted": 3},
            ["driver", "platform"],
            "3 completions are posted, not released: reap and release them, or deliver the",
        ),
        (
            {**FULL, "finished": 1},  # of another queue
            ["driver", "platform"],
            "not posted: release entries, or deliver the interrupt (the CQ is full)",
        ),
        (
            {**FULL, "finished": 3, "rung": 1},
            ["driver", "platform"],
            "3 commands are finished, not posted: release entries",
        ),
        ({**FULL, "finished": 2, "fetched": 1, "rung": 1}, ["device"], "1 command is fetched"),
        ({"rung": 1, "room": False, "posted": 3, "free": 2}, ["device"], "2 requests are free"),
        ({**FULL, "finished": 1, "signalled": False}, ["driver", "device", "platform"], "raise or"),
        ({"posted": 1}, ["driver", "platform"], "reap and release it, or deliver the interrupt"),
        ({"posted": 1, "delivered": True}, ["driver", "platform"], "or deliver the head doorbell"),
        ({"posted": 1, "signalled": False}, ["device"], "not released: raise the interrupt"),
        ({"written": 1}, ["driver", "platform"], "ring the tail doorbell, or deliver it"),
        # Two that are certain of different parties.
        (
            {"fetched": 1, "rung": 1, "dead": "tail"},
            ["device", "driver"],
            "1 command is fetched, not finished: finish it; 1 command is rung, not fetched: delete",
        ),
        ({"fetched": 1, "rung": 1, "dead": "deletion"}, ["device"], "delete the queue"),
        ({"fetched": 1, "rung": 1, "dead": "bus master"}, ["driver"], "Bus Master Enable"),
    ],
)
def test_who_may_have_it_where_the_devices_side_shows(
    changes: dict[str, object], parties: list[str], text: str
) -> None:
    ball = ball_of(owed(by_device(**changes)))
    assert ball and ball.parties == parties and text in ball.text


@pytest.mark.parametrize(
    ("changes", "parties", "text"),
    [
        ({"rung": 2}, ["device"], "not fetched: fetch them"),
        ({"finished": 2}, ["device"], "not posted: post them"),
        (
            {"rung": 1, "room": False},
            ["driver", "platform"],
            "release entries, or deliver the interrupt (the CQ is full, and its commands hold req",
        ),
        ({"rung": 1, "room": False, "fetched": 1}, ["device"], "finish it"),
        # The completion that was taken for another queue's may have been of this one's.
        ({"fetched": 1, "doubtful": True}, ["driver", "device", "platform"], "finish it"),
        (
            {"rung": 1, "room": False, "fetched": 1, "doubtful": True},
            ["driver", "device", "platform"],
            "finish it",
        ),
    ],
)
def test_who_may_have_it_in_a_log(
    changes: dict[str, object], parties: list[str], text: str
) -> None:
    ball = ball_of(owed(in_a_log(**changes)))
    assert ball and ball.parties == parties and text in ball.text


@pytest.mark.parametrize("seen", [known, by_device, in_a_log])
def test_nobody_has_it_where_nothing_waits(seen: Callable[[], Standing]) -> None:
    assert owed(seen()) == [] and holder(seen()) is None and ball_of([]) is None


@pytest.mark.parametrize(
    ("balls", "parties"),
    [
        ([["device"]], ["device"]),
        ([["driver", "platform"], ["device"], ["device"]], ["device"]),
        ([["driver"], ["driver", "platform"], ["device"]], ["driver", "device"]),
        ([["driver", "platform"], ["driver", "device", "platform"]], ["driver", "platform"]),
        ([["driver", "platform"], ["device", "platform"]], ["platform"]),
        ([["driver", "platform"], ["device"] * 2], []),
    ],
)
def test_who_must_act_of_several(balls: list[list[Party]], parties: list[str]) -> None:
    assert agreed(balls) == parties


def test_of_equal_rows_the_words_are_those_of_what_is_furthest_on() -> None:
    rows = owed(by_device(posted=1, written=1))
    assert ball_of(rows) == Ball(["driver", "platform"], rows[0].said)
