"""A run told step by step: what the page, the terminal and `--json` show. Of the explored system,
which knows everything, or of a log, which does not: what is None is not known.

Plain data: `msgspec.to_builtins` and `msgspec.json` work on it. Commands have letters, in the order
in which they were submitted: A, B, ... Z, AA, ...
"""

from __future__ import annotations

from typing import Literal

import msgspec

Lane = Literal["driver", "sq", "device", "cq", "interrupt"]
"""The columns of the sequence diagram. The storage is a part of the device there."""

Actor = Literal["driver", "device", "storage", "platform"]


class Arrow(msgspec.Struct, frozen=True):
    """Something that goes from one lane to another within a step."""

    source: Lane
    target: Lane
    text: str
    """A few words, such as `tail 3` or `C: sqhd 2, phase 1`."""


class SqSlot(msgspec.Struct, frozen=True):
    """One slot of a submission queue."""

    command: str = ""
    """The letter of what was last written there; empty if nothing was."""
    state: Literal["free", "written", "rung", "fetched"] = "free"
    """`written`: not rung yet. `fetched`: the device has it, and the driver does not know yet. When
    it knows, the slot is free again."""


class CqSlot(msgspec.Struct, frozen=True):
    """One slot of a completion queue."""

    command: str = ""
    """The letter of what was last posted there; empty if nothing was."""
    sqhd: int = 0
    phase: int | None = 0
    state: Literal["free", "posted", "reaped"] = "free"
    """`reaped`: read by the driver, and not released by the head doorbell yet."""


class Sq(msgspec.Struct, frozen=True):
    """A submission queue, as both sides see it. Positions are slots, 0 to entries - 1."""

    qid: int
    slots: list[SqSlot]
    tail: int
    """Where the driver writes next."""
    tail_doorbell: int
    """What the device was last told."""
    head: int | None
    """What the device fetches next."""
    known_head: int | None
    """The last SQ Head Pointer that the driver has from a completion."""


class Cq(msgspec.Struct, frozen=True):
    """A completion queue, as both sides see it."""

    qid: int
    slots: list[CqSlot]
    tail: int | None
    """Where the device posts next."""
    phase: int | None
    """The phase tag that the device gives to what it posts next."""
    head: int
    """What the driver looks at next."""
    head_doorbell: int
    """What the device was last told: from there on slots are in use."""


class Pool(msgspec.Struct, frozen=True):
    """The requests of a submission queue inside the device: a command holds one from its fetch to
    the posting of its completion."""

    size: int | None
    in_flight: list[str]
    """Letters of the commands at the storage, oldest fetch first."""
    finished: list[str]
    """Letters of the commands that wait for a place in the completion queue."""


class Moment(msgspec.Struct, frozen=True):
    """One step, and the state after it. Number 0 is the start, which has no actor's words."""

    number: int
    label: str
    """The step as a schedule names it, such as `complete 0`."""
    actor: Actor
    text: str
    """What happened, as a sentence without its subject: `submits C, rings tail 3`."""
    arrows: list[Arrow]
    sq: Sq
    cq: Cq
    pool: Pool
    wakeups: list[str] | None
    """Steps of the device that something has scheduled and that were not taken yet, in words:
    `fetch sq 1`. What a device decides from its state alone is listed when it is enabled."""
    interrupt: Literal["none", "raised", "in service"]
    outstanding: list[str]
    """Letters of the commands submitted and not reaped."""
    line: int | None = None
    """The line of the log that tells of it."""


class Story(msgspec.Struct, frozen=True):
    """A run, and what is wrong with it."""

    title: str
    """One line, such as `Hang after 21 steps: 2 commands rung, not fetched`."""
    scenario: str
    device: str
    """The persona."""
    driver: str
    """The driver's behaviour."""
    parameters: dict[str, str | int]
    """What else defines the system: entries, requests, commands, grain..."""
    result: Literal["hang", "violation"]
    ball: str
    """The party that holds the ball: `device`, `driver` or `platform`."""
    owed: str
    """What is stuck, and what that party should do: `1 command is rung, not fetched: fetch it
    (4 requests are free)`. Of a violation: what was seen."""
    why: str
    """Why it does not happen, in two or three sentences; empty if there is no more to say."""
    rule: str
    """The rule that is broken, with document, revision and section."""
    shortest: bool | None
    """No shorter run shows this (found by exhaustive search). None: nobody looked for one."""
    moments: list[Moment]
    glossary: dict[str, str] = {}
    """Terms that a driver author may not know, each in a sentence."""
