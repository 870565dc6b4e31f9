"""What is called with an event, and several such one after the other."""

from __future__ import annotations

from collections.abc import Callable

from nvmelab.check.model import Values

Handler = Callable[[int, Values], None]
"""Called with the number of the event and the values that the judge takes of it."""


def chain(steps: list[Handler]) -> Handler:
    """One after the other."""
    if len(steps) == 1:
        return steps[0]
    if len(steps) > 3:
        steps = [*steps[:2], chain(steps[2:])]
    first, *others = steps
    second, last = others[0], others[-1]

    def two(at: int, values: Values) -> None:
        first(at, values)
        last(at, values)

    def three(at: int, values: Values) -> None:
        first(at, values)
        second(at, values)
        last(at, values)

    return three if len(steps) == 3 else two
