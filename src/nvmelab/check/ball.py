"""Who must act next: the ball, for the commands of one queue pair.

The one table of that. The explorer knows all that it asks for; `nvmelab top` sees the device's side
only, and a log less; where a source does not show what parts two holders, the table names both.

A command that waits for something waits for whoever must bring it about; where that is another
command's doing, the chain is followed to its end. Base 2.2, 3.3.1.2 and 3.3.1.2.1; that a device
goes on by itself is derived from what the host may rely on: entries that were submitted are
consumed and completed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import msgspec

Party = Literal["driver", "device", "platform"]
Parties = tuple[Party, ...]
Stage = Literal["written", "under way", "rung", "fetched", "finished", "posted"]

STAGES: dict[Stage, str] = {
    "written": "written, not rung",
    "under way": "rung, the doorbell under way",
    "rung": "rung, not fetched",
    "fetched": "fetched, not finished",
    "finished": "finished, not posted",
    "posted": "posted, not released",
}
"""Where a command waits, in the order in which it gets there, and in words."""

_DRIVER: Parties = ("driver",)
_DEVICE: Parties = ("device",)
_PLATFORM: Parties = ("platform",)
_HOST: Parties = ("driver", "platform")
_ANYBODY: Parties = ("driver", "device", "platform")

Dead = Literal["tail", "deletion", "bus master", "shutdown"]
_DEAD: dict[Dead, tuple[Parties, str]] = {
    "tail": (_DRIVER, "delete the queue and create it (its tail doorbell cannot have that value)"),
    "deletion": (_DEVICE, "delete the queue (it was told to, and has begun)"),
    "bus master": (_DRIVER, "set Bus Master Enable (the device cannot reach memory)"),
    "shutdown": (_DRIVER, "reset the controller (it was told to shut down)"),
}
"""What ends all work of a queue, and who must do what about it."""
_NOT_TAKEN = ("written", "under way", "rung")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How many commands of a queue pair are where, and what could move them. None is what the
    source does not show."""

    written: int | None
    """Written, and no doorbell has told of them."""
    under_way: int | None
    """Rung, and the doorbell has not reached the device. None if doorbells may be under way."""
    rung: int
    """Not fetched."""
    free: int | None
    """Further commands that the device could take."""
    fetched: int
    """Not finished."""
    doubtful: bool = False
    """Those may be finished, and a completion of theirs was taken for that of another queue."""
    finished: int
    """Not posted."""
    room: bool | None
    """The completion queue has a free slot."""
    posted: int
    """Not taken by the driver, as far as the source shows."""
    signalled: bool
    """An interrupt was raised for all that is posted, or none is needed."""
    delivered: bool | None
    """The driver was told, or looks by itself."""
    taken: int | None
    """Taken by the driver, and not released."""
    dead: Dead | None = None
    """Why nothing of this queue goes on; after a `tail` that cannot be, what was fetched does."""


class Owed(NamedTuple):
    """Commands that wait at one stage, and who must act."""

    stage: Stage
    number: int
    """Of the commands."""
    parties: Parties
    """More than one where the source cannot tell."""
    text: str
    """What the one or the other should do."""

    @property
    def party(self) -> Party:
        """The one, where everything shows."""
        (party,) = self.parties
        return party

    @property
    def said(self) -> str:
        """All but the parties, as a sentence."""
        what = "completion" if self.stage == "posted" else "command"
        what = f"1 {what} is" if self.number == 1 else f"{self.number} {what}s are"
        return f"{what} {STAGES[self.stage]}: {self.text}"


class Ball(msgspec.Struct, frozen=True):
    """Who must act for several rows, and what should happen, in words."""

    parties: list[Party]
    text: str


def owed(standing: Standing) -> list[Owed]:
    """A row for each stage at which commands wait, the one furthest on first: the others may be
    waiting for its end. Takes no longer for many commands than for few."""
    s = standing
    rows = []
    if s.posted:
        rows.append(Owed("posted", s.posted, *_told(s, f"reap and release {_them(s.posted)}")))
    if s.finished:
        rows.append(Owed("finished", s.finished, *_finished(s)))
    if s.fetched:
        parties = _ANYBODY if s.doubtful else _DEVICE
        rows.append(Owed("fetched", s.fetched, parties, f"finish {_them(s.fetched)}"))
    if s.rung:
        rows.append(Owed("rung", s.rung, *_rung(s)))
    if s.under_way:
        rows.append(Owed("under way", s.under_way, _PLATFORM, "deliver the doorbell"))
    if s.written:
        text = "ring the tail doorbell"
        if s.under_way is None:
            rows.append(Owed("written", s.written, _HOST, f"{text}, or deliver it"))
        else:
            rows.append(Owed("written", s.written, _DRIVER, text))
    if s.dead:
        return [_ended(row, s.dead) for row in rows]
    return rows


def holder(standing: Standing) -> Owed | None:
    """Who must act next where everything shows: for what is furthest on. None if no command is
    outstanding."""
    rows = owed(standing)
    return rows[0] if rows else None


def agreed(balls: Iterable[Sequence[Party]]) -> list[Party]:
    """Who must act, of several that wait: those who certainly have a ball, or, where none is
    certain, those who may have all of them. What a driver has taken and not released yet often does
    not show, so a ball that may be its, or the platform's, says nothing against one that is
    certain."""
    balls = list(balls)
    certain = [ball[0] for ball in balls if len(ball) == 1]
    may = certain or [party for party in balls[0] if all(party in ball for ball in balls)]
    return list(dict.fromkeys(may))


def ball_of(rows: Sequence[Owed]) -> Ball | None:
    """Who must act for all of them, in the words of the rows that decide; None if none waits."""
    if not rows:
        return None
    parties = agreed(row.parties for row in rows)
    said = {row.parties: row.said for row in reversed(rows)}  # of equals, what is furthest on
    texts = [said[(party,)] for party in parties if (party,) in said] or [rows[0].said]
    return Ball(parties, "; ".join(texts))


def _told(s: Standing, act: str) -> tuple[Parties, str]:
    """Who must act on what is posted; `act` is for the driver, once it is told."""
    if not s.signalled:
        return _DEVICE, "raise the interrupt"
    if s.delivered is False:
        return _PLATFORM, "deliver the interrupt"
    if s.delivered is None:
        return _HOST, f"{act}, or deliver the interrupt"
    if s.under_way is None:
        return _HOST, f"{act}, or deliver the head doorbell"
    return _DRIVER, act


def _finished(s: Standing) -> tuple[Parties, str]:
    if s.room is False:
        return _full(s, "the CQ is full")
    return _DEVICE, f"post {_them(s.finished)}" + " (the CQ has room)" * bool(s.room)


def _full(s: Standing, why: str) -> tuple[Parties, str]:
    """Who must make room in the full CQ. What does not show is whether the driver was told of the
    oldest entry, where it was not told of all, nor whether it has taken any."""
    act = "release entries"
    if s.taken:
        parties, text = _DRIVER, act
    elif s.taken is None and not s.signalled:
        parties, text = _ANYBODY, f"{act}, or raise or deliver the interrupt"
    else:
        parties, text = _told(s, act)
    return parties, f"{text} ({why})"


def _rung(s: Standing) -> tuple[Parties, str]:
    """A device may be out of requests only because of commands that it does not finish itself, or
    that a full CQ holds back."""
    if s.free:
        free = "1 request is" if s.free == 1 else f"{s.free} requests are"
        return _DEVICE, f"fetch {_them(s.rung)} ({free} free)"
    if s.room is False and (not s.fetched or s.doubtful) and (s.free is None or s.finished):
        parties, text = _full(s, "the CQ is full, and its commands hold requests")
        return _ANYBODY if s.fetched else parties, text
    return _DEVICE, f"fetch {_them(s.rung)}" + " (no request is free: free one)" * (s.free == 0)


def _ended(row: Owed, dead: Dead) -> Owed:
    if dead == "tail" and row.stage not in _NOT_TAKEN:
        return row
    if dead == "shutdown" and row.stage == "posted":
        return row  # nobody need release an entry of a controller that is shut down
    parties, text = _DEAD[dead]
    return row._replace(parties=parties, text=text)


def _them(count: int) -> str:
    return "it" if count == 1 else "them"
