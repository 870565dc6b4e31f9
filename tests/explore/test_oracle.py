"""The oracle counts what other engines have counted, and its hangs follow the law we found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.explore.constants import (
    BOUNDED,
    FEWEST,
    FINER,
    ORDERED,
    UNBOUNDED,
    law,
    law_of_first_patch,
)
from tests.explore.oracle import (
    BEFORE_THE_FIX,
    FINAL_FIX,
    FIRST_PATCH,
    NEVER_SQ,
    Counts,
    Grain,
    Model,
    Order,
    explore,
)

SMALL_CELLS = [(n, p) for n in (3, 4, 5) for p in range(1, n + 3)]


def name_of(value: object) -> str | None:
    if not isinstance(value, Model):
        return None
    commands = value.commands or "any"
    words = f"{value.entries}-{value.slots}-{commands}-V{value.variant}-{value.grain.name}"
    return words if value.order is Order.FREE else f"{words}-{value.order.name}"


@pytest.mark.parametrize(
    ("model", "counts"), (BOUNDED | UNBOUNDED | FINER | ORDERED).items(), ids=name_of
)
def test_counts_are_those_of_other_engines(model: Model, counts: Counts) -> None:
    assert explore(model) == counts


@pytest.mark.parametrize(("entries", "slots"), SMALL_CELLS)
def test_the_fewest_commands_that_hang_follow_the_law(entries: int, slots: int) -> None:
    commands, steps = law(entries, slots)
    model = Model(entries, slots, commands, BEFORE_THE_FIX)
    assert explore(model).shortest == steps
    assert explore(replace(model, commands=commands - 1)).hangs == 0
    assert explore(replace(model, commands=None)).shortest == steps


@pytest.mark.parametrize("cell", [cell for cell, fewest in FEWEST.items() if fewest])
def test_the_table_follows_the_law(cell: tuple[int, int]) -> None:
    assert FEWEST[cell] == law(*cell)


@pytest.mark.parametrize("variant", [BEFORE_THE_FIX, FIRST_PATCH, FINAL_FIX, NEVER_SQ])
@pytest.mark.parametrize("slots", [slots for entries, slots in FEWEST if entries == 2])
def test_two_entries_never_hang(slots: int, variant: int) -> None:
    assert explore(Model(2, slots, None, variant)).hangs == 0


@pytest.mark.parametrize(("entries", "slots"), [(3, 2), (3, 3), (3, 5), (4, 3), (4, 4), (5, 5)])
def test_the_first_patch_hangs_whatever_the_slots(entries: int, slots: int) -> None:
    commands, steps = law_of_first_patch(entries)
    model = Model(entries, slots, commands, FIRST_PATCH)
    assert explore(model).shortest == steps
    assert explore(replace(model, commands=commands - 1)).hangs == 0


@pytest.mark.parametrize(("entries", "slots"), SMALL_CELLS)
def test_the_final_fix_never_hangs(entries: int, slots: int) -> None:
    assert explore(Model(entries, slots, None, FINAL_FIX)).hangs == 0


@pytest.mark.parametrize(("entries", "slots"), [(3, 2), (3, 3), (3, 4), (4, 4)])
@pytest.mark.parametrize("variant", [BEFORE_THE_FIX, FIRST_PATCH, FINAL_FIX, NEVER_SQ])
def test_the_finer_grain_says_the_same(entries: int, slots: int, variant: int) -> None:
    coarse = Model(entries, slots, None, variant)
    fine = replace(coarse, grain=Grain.M2)
    assert explore(fine).hangs == explore(coarse).hangs


@pytest.mark.parametrize(("cq_entries", "hangs"), [(2, False), (3, True), (5, True), (8, True)])
def test_only_a_completion_queue_of_two_entries_hides_the_hang(
    cq_entries: int, hangs: bool
) -> None:
    model = Model(4, 4, None, BEFORE_THE_FIX, cq_entries=cq_entries)
    assert (explore(model).hangs > 0) is hangs
