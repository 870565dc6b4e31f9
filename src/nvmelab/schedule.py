"""What a device may do next, drawn from a seed and recorded: the order of its steps for a guest.

A device may take its steps in any order, and let the host go on between any two. `Schedule` takes
them one by one for a `Controller` that serves a guest: which of those that are enabled, or none for
now. The record is one JSON object, and then the label of each choice on a line of its own, such as
`fetch 1`, `post 1` or `wait`.

The guest has a time of its own, so one seed gives one order of choices, not one run.
"""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import TextIO

from nvmelab.device.controller import Controller
from nvmelab.limits import SCHEDULE_BURST

_log = logging.getLogger("nvmelab.schedule")
_WAIT = 4
"""One choice in so many is to let the host go on."""


class ScheduleError(Exception):
    """The record cannot be written. The message is one line for the user."""


class Schedule:
    """Choices drawn from `seed`, recorded in the file `path`, which `open` overwrites. `facts` go
    into its first line."""

    def __init__(self, seed: int, path: str, facts: dict[str, object]) -> None:
        self.seed = seed
        self.path = path
        self._facts = facts
        self._source = random.Random(seed)
        self._file: TextIO | None = None

    def open(self) -> None:
        """Begin. Raises ScheduleError."""
        head = {"format": "nvmelab-schedule", "version": 1, "seed": self.seed} | self._facts
        try:
            self._file = Path(self.path).open("w", encoding="utf-8")  # noqa: SIM115
            self._file.write(json.dumps(head) + "\n")
        except OSError as error:
            raise ScheduleError(
                f"--schedule-file {self.path}: {error.strerror}; name a file that can be written"
            ) from None

    def turn(self, controller: Controller) -> bool:
        """Take some steps. True if one is still enabled."""
        draw = self._source.randrange
        for _ in range(SCHEDULE_BURST):
            steps = controller.enabled()
            if not steps:
                return False
            if draw(_WAIT) == 0:
                self._record("wait")
                return True
            step = steps[draw(len(steps))]
            controller.take(step)
            self._record(f"{step.name} {step.id}" if step.id else step.name)
        return True

    def _record(self, label: str) -> None:
        if self._file:
            try:
                self._file.write(label + "\n")
            except OSError as error:
                self._give_up(error)

    def close(self) -> None:
        """Safe to call twice."""
        file, self._file = self._file, None
        if file:
            try:
                file.close()
            except OSError as error:
                _log.error("%s: %s; the record is not complete", self.path, error.strerror)

    def _give_up(self, error: OSError) -> None:
        file, self._file = self._file, None
        _log.error("%s: %s; the record ends here", self.path, error.strerror)
        if file:
            try:
                file.close()
            except OSError:
                pass  # what it still held cannot be written either
