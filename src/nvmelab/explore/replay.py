"""A run that can be taken again: its file, and what comes of it.

The file is one JSON object. `labels` are the steps; `digests` stand for the state after each, so
that a replay on a system that has changed says at which step it begins to differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Literal

import msgspec

from nvmelab import __version__
from nvmelab.check.ball import Owed
from nvmelab.check.rules import PROGRESS, RULES
from nvmelab.explore.setting import Setting, label_text, parse_label
from nvmelab.explore.system import SUBMIT, Label, System
from nvmelab.explore.watch import Violation
from nvmelab.limits import REPLAY_BYTES_MAX, REPLAY_STEPS_MAX

FORMAT = "nvmelab-replay"
VERSION = 1


class ReplayError(Exception):
    """This is no replay file that we can read. One line for the user."""


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of the file."""

    setting: Setting
    labels: list[str]
    digests: list[str]
    result: Literal["hang", "violation"]
    rule: str
    """Of `watch.RULES`; `progress` for a hang."""
    ball: str
    """The party that must act, or that has broken the rule."""
    shortest: bool = False
    """No shorter run of this setting ends like this."""
    strategy: str = "bfs"
    seed: int | None = None
    format: str = FORMAT
    version: int = VERSION
    made_by: str = f"nvmelab {__version__}"

    def steps(self) -> list[Label]:
        """The labels. Raises ReplayError."""
        try:
            return [parse_label(text) for text in self.labels]
        except ValueError as error:
            raise ReplayError(f"the replay file has a bad step: {error}") from None


class Played(msgspec.Struct, frozen=True):
    """What came of a run."""

    labels: list[Label]
    """The steps that were taken."""
    skipped: int
    """Steps of the schedule that were not enabled when their turn came."""
    ball: Owed | None
    """Who must act, if it came to rest with a command outstanding."""
    violation: Violation | None = None
    differs: int | None = None
    """The first step, from 1, after which the state was not the recorded one."""

    @property
    def failed(self) -> bool:
        return self.ball is not None or self.violation is not None

    @property
    def rule(self) -> str:
        """The rule that is broken; empty if none is."""
        if self.violation:
            return self.violation.rule
        return "progress" if self.ball else ""

    @property
    def party(self) -> str:
        """Who broke it, or has the ball; empty if nobody."""
        if self.violation:
            return self.violation.party
        return self.ball.party if self.ball else ""


def digest(system: System) -> str:
    """A few letters for the present state."""
    return hashlib.blake2b(repr(system.sound_key()).encode(), digest_size=6).hexdigest()


def follow(system: System, labels: Sequence[Label], digests: Sequence[str] = ()) -> Played:
    """Take these steps from the present state, leaving out those that are not enabled; then all
    that anybody owes, the first that is enabled each time, until nothing is left but `submit`."""
    taken: list[Label] = []
    skipped, differs = 0, None
    try:
        for number, label in enumerate(labels, 1):
            if label not in system.enabled():
                skipped += 1
                continue
            taken.append(label)
            system.take(label)
            if differs is None and number <= len(digests) and digest(system) != digests[number - 1]:
                differs = number
        while owed := [label for label in system.enabled() if label != SUBMIT]:
            taken.append(owed[0])
            system.take(owed[0])
    except Violation as violation:
        return Played(taken, skipped, None, violation, differs)
    return Played(taken, skipped, system.ball(), None, differs)


def record(
    setting: Setting,
    labels: Sequence[Label],
    *,
    strategy: str = "bfs",
    seed: int | None = None,
    shortest: bool = False,
) -> Replay:
    """The replay of a run that fails. It is run twice, and both must be the same: one that is not
    would be a defect of ours."""
    digests = _digests(setting, labels)
    assert digests == _digests(setting, labels), "two runs of one schedule differ"
    played = follow(setting.system(), labels)
    assert played.failed and not played.skipped, "the run does not fail when it is taken again"
    return Replay(
        setting=setting,
        labels=[label_text(label) for label in played.labels],
        digests=digests,
        result="violation" if played.violation else "hang",
        rule=played.rule,
        ball=played.party,
        shortest=shortest,
        strategy=strategy,
        seed=seed,
    )


def _digests(setting: Setting, labels: Sequence[Label]) -> list[str]:
    system = setting.system()
    digests = []
    try:
        for label in labels:
            system.take(label)
            digests.append(digest(system))
    except Violation:
        digests.append("")
    return digests


def encode(replay: Replay) -> bytes:
    """The file: indented, for people who look at it."""
    return msgspec.json.format(msgspec.json.encode(replay), indent=1) + b"\n"


def decode(data: bytes) -> Replay:
    """The contents of a file. Raises ReplayError."""
    if len(data) > REPLAY_BYTES_MAX:
        raise ReplayError(f"more than {REPLAY_BYTES_MAX >> 20} MiB: this is no replay file")
    try:
        head = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ReplayError(f"this is no JSON: {error}") from None
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ReplayError(f'this is no replay file of nvmelab: it has no "format": "{FORMAT}"')
    if head.get("version") != VERSION:
        raise ReplayError(
            f"a replay file of version {head.get('version')!r}, and this nvmelab ({__version__}) "
            f"reads version {VERSION}; it was made by {head.get('made_by', 'somebody else')}"
        )
    try:
        replay = msgspec.convert(head, Replay)
    except msgspec.ValidationError as error:
        raise ReplayError(f"the replay file is damaged: {error}") from None
    if not replay.labels or len(replay.digests) != len(replay.labels):
        raise ReplayError("the replay file is damaged: it needs steps, and a digest for each")
    if len(replay.labels) > REPLAY_STEPS_MAX:
        raise ReplayError(f"more than {REPLAY_STEPS_MAX:,} steps")
    if replay.ball not in PROGRESS or (replay.rule != "progress" and replay.rule not in RULES):
        raise ReplayError(
            f"the replay file has no such rule or party: {replay.rule!r}, {replay.ball!r}"
        )
    if (replay.rule == "progress") != (replay.result == "hang"):
        raise ReplayError(f"the replay file is damaged: a {replay.result} by rule {replay.rule}")
    return replay


def rule_text(rule: str, party: str) -> str:
    """What the rule says, and where. `party` has broken it, or has the ball."""
    entry = PROGRESS[party] if rule == "progress" else RULES[rule]
    return f"{entry.text} ({entry.ref})"
