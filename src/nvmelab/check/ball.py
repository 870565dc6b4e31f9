"""Who must act next: the holder of the ball, for the commands of one queue pair.

A command that waits for something waits for whoever must bring it about; where that is another
command's doing, the chain is followed to its end. Base 2.2, 3.3.1.2 and 3.3.1.2.1; that a device
goes on by itself is derived from what the host may rely on: entries that were submitted are
consumed and completed.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Party = Literal["driver", "device", "platform"]


class Standing(msgspec.Struct, frozen=True):
    """How many commands of a queue pair are where, and what could move them."""

    unrung: int
    """Written, and no doorbell has told of them."""
    under_way: int
    """Rung, and the doorbell write has not reached the device."""
    unfetched: int
    """Rung, not fetched."""
    free: int
    """Further commands that the device could take."""
    working: int
    """Fetched, not finished."""
    finished: int
    """Finished, not posted."""
    room: bool
    """The completion queue has a free slot."""
    posted: int
    """Posted, not taken by the driver."""
    signalled: bool
    """An interrupt was raised for all that is posted, or none is needed."""
    delivered: bool
    """The driver was told, or looks by itself."""
    taken: int
    """Taken by the driver, and not released."""


class Ball(msgspec.Struct, frozen=True):
    """The party that must act, and what it should do, in words."""

    party: Party
    text: str


def holder(standing: Standing) -> Ball | None:
    """Who must act next; None if no command is outstanding. Where several commands wait for
    different parties, the one furthest on decides: the others may be waiting for its end."""
    s = standing
    if s.posted:
        return _posted(s)
    if s.finished:
        if s.room:
            return Ball("device", f"{_count(s.finished)} finished, the CQ has room: post")
        return Ball("driver", "the CQ is full of entries that were taken: write its head doorbell")
    if s.working:
        return Ball("device", f"{_count(s.working)} being carried out: finish")
    if s.unfetched:
        if s.free:
            requests = "request is" if s.free == 1 else "requests are"
            return Ball(
                "device", f"{_count(s.unfetched)} rung, {s.free} {requests} free: fetch from the SQ"
            )
        return Ball("device", f"{_count(s.unfetched)} rung, no request is free: free one")
    if s.under_way:
        return Ball("platform", "a doorbell write is under way: deliver it")
    if s.unrung:
        return Ball("driver", f"{_count(s.unrung)} written: ring the tail doorbell")
    return None


class Holders(msgspec.Struct, frozen=True):
    """The parties that may have the ball, and what should happen, in words."""

    parties: list[Party]
    text: str


def seen_by_device(standing: Standing) -> Holders | None:
    """Who may have the ball where only the device's side shows: the driver may have taken what is
    posted or not, and it may have been told or not. None if nothing waits."""
    s = standing
    own = holder(msgspec.structs.replace(s, posted=0, taken=s.posted))
    if own and own.party == "device":
        return Holders(["device"], own.text)  # whatever the driver has done
    if own and s.unrung and not s.finished:
        return Holders(["driver", "platform"], own.text)  # or the doorbell is under way
    if not s.posted:
        return Holders([own.party], own.text) if own else None
    if not s.signalled:
        return Holders(["device"], _posted(s).text)
    full = "" if s.room else ", the CQ is full"
    told = "" if s.delivered else "deliver the interrupt, "
    text = f"{_entries(s.posted)} posted and not released{full}: {told}reap, ring the CQ's head"
    return Holders(["driver", "platform"], text)


def _posted(s: Standing) -> Ball:
    entries = _entries(s.posted)
    if not s.signalled:
        return Ball("device", f"{entries} posted and no interrupt says so: raise it")
    if not s.delivered:
        return Ball("platform", f"{entries} posted, the interrupt is raised: deliver it")
    return Ball("driver", f"{entries} posted, and the driver was told: reap")


def _entries(number: int) -> str:
    return "1 entry is" if number == 1 else f"{number} entries are"


def _count(number: int) -> str:
    return "1 command is" if number == 1 else f"{number} commands are"
