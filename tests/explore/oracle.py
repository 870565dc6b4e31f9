"""The hang of QEMU's issue 2388 as a model of a few counters, explored by itself.

It knows nothing of nvmelab: what the explorer says of our driver and our controller is compared
with what these few lines say. Two engines that agree on every count are hardly wrong together.

One submission queue of N entries with its completion queue, a device with P slots for requests, K
commands. Commands are interchangeable, so there are numbers of them and no identities. Counters are
absolute, they never wrap. A state of the first grain is a tuple of

    s    driver  entries written and rung
    kn   driver  the SQ's head as the driver knows it from the last completion (SQHD)
    h    device  entries fetched
    f    device  commands at the backend
    w    device  commands finished and not posted, which still hold their slots
    c    device  completions posted
    r    driver  completions reaped, their places in the completion queue given back
    due          which of the device's bottom halves are scheduled: SQ fetches, CQ posts
    q    memory  SQHD of each completion that is posted and not reaped, the oldest first

The second grain splits what the first takes for one step: writing an entry and ringing for it (`t`
is the tail that was rung), reaping, ringing the head (`d`), and believing the SQHD that was read
(`pend`); and it has an interrupt (`irq` is latched, `isr` is being served).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

State = tuple[Any, ...]
Steps = Callable[[State], list[State]]

SQ, CQ = "s", "c"

BEFORE_THE_FIX, FIRST_PATCH, FINAL_FIX, NEVER_SQ = range(4)
"""The variants: whether posting while no slot is free schedules the SQ, and what a ring of the head
of a full CQ schedules.

    before the fix   no    SQ and CQ
    first patch      yes   nothing
    final fix        yes   CQ
    never the SQ     no    CQ
"""


class Grain(Enum):
    M1 = 1
    M2 = 2


class Order(Enum):
    """Which of the scheduled bottom halves may run."""

    FREE = "any"
    PASS = "all, the last scheduled first, in one step; what they schedule waits for the next"
    TIMERS = "the first scheduled; to schedule again is to go to the end"


@dataclass(frozen=True)
class Model:
    entries: int
    slots: int
    commands: int | None
    """None: any number. Counters are then relative, and to submit is never an obligation."""
    variant: int
    grain: Grain = Grain.M1
    order: Order = Order.FREE
    cq_entries: int | None = None
    """None: as many as the submission queue has."""


class Counts(NamedTuple):
    states: int
    transitions: int
    hangs: int
    shortest: int | None
    """Steps to the nearest hang."""


def explore(model: Model) -> Counts:
    """Every state that can be reached, breadth first."""
    first_grain = model.grain is Grain.M1
    steps = steps_of_m1(model) if first_grain else steps_of_m2(model)
    submits = submits_of_m1(model) if first_grain else submits_of_m2(model)
    start: State = (0,) * 7 + ("", ()) if first_grain else (0,) * 9 + ("", (), 0, 0, None)
    relative = None
    if model.commands is None:
        relative = relative_m1 if first_grain else relative_m2

    seen = {start}
    level, depth = [start], 0
    transitions = hangs = 0
    shortest = None
    while level:
        following: list[State] = []
        for state in level:
            obliged, voluntary = steps(state), submits(state)
            if not obliged and outstanding(state, first_grain) and (not voluntary or relative):
                hangs += 1
                shortest = depth if shortest is None else shortest
            for after in obliged + voluntary:
                transitions += 1
                if relative:
                    after = relative(after)
                if after not in seen:
                    seen.add(after)
                    following.append(after)
        level = following
        depth += 1
    return Counts(len(seen), transitions, hangs, shortest)


def outstanding(state: State, first_grain: bool) -> int:
    """Commands written and not reaped: unfetched, at the backend, finished, posted."""
    if first_grain:
        s, _, h, f, w, c, r, _, _ = state
    else:
        s, _, _, h, f, w, c, _, r, *_ = state
    return int(s - h + f + w + c - r)


def schedule(due: str, half: str, order: Order) -> str:
    if order is Order.TIMERS:
        return due.replace(half, "") + half
    if half in due:
        return due
    return "".join(sorted(due + half)) if order is Order.FREE else half + due


def run_due(state: State, at: int, order: Order, run: Callable[[State, str], State]) -> list[State]:
    """The states after each step of the device's bottom halves; `due` is at this place of one."""
    due = state[at]
    if order is Order.FREE:
        return [run(state, half) for half in due]
    if order is Order.TIMERS:
        return [run(state, half) for half in due[:1]]
    for half in due:
        state = run(state, half)
    return [state] if due else []


# The first grain


def submits_of_m1(model: Model) -> Steps:
    room = model.entries - 1

    def submits(state: State) -> list[State]:
        s, kn, h, f, w, c, r, due, q = state
        if (model.commands is None or s < model.commands) and s - kn < room:
            return [(s + 1, kn, h, f, w, c, r, schedule(due, SQ, model.order), q)]
        return []

    return submits


def steps_of_m1(model: Model) -> Steps:
    variant, order, slots = model.variant, model.order, model.slots
    cq_room = (model.cq_entries or model.entries) - 1

    def run(state: State, half: str) -> State:
        s, kn, h, f, w, c, r, due, q = state
        due = due.replace(half, "")
        free = slots - f - w
        if half == SQ:
            n = min(s - h, free)
            return s, kn, h + n, f + n, w, c, r, due, q
        n = min(w, cq_room - (c - r))
        if variant in (FIRST_PATCH, FINAL_FIX) and n > 0 and free == 0 and h < s:
            due = schedule(due, SQ, order)
        return s, kn, h, f, w - n, c + n, r, due, q + (h,) * n

    def steps(state: State) -> list[State]:
        s, kn, h, f, w, c, r, due, q = state
        found = run_due(state, 7, order, run)
        if f > 0:
            found.append((s, kn, h, f - 1, w + 1, c, r, schedule(due, CQ, order), q))
        if c > r:
            if c - r == cq_room:
                due = head_rung(due, variant, order)
            found.append((s, q[0], h, f, w, c, r + 1, due, q[1:]))
        return found

    return steps


def head_rung(due: str, variant: int, order: Order) -> str:
    """What the ring of the head of a full completion queue schedules."""
    if variant == BEFORE_THE_FIX:
        due = schedule(due, SQ, order)
    return due if variant == FIRST_PATCH else schedule(due, CQ, order)


def relative_m1(state: State) -> State:
    """What can happen depends on differences alone, so each side of the device counts from 0 again:
    the submission side from what is fetched, the completion side from what is reaped."""
    s, kn, h, f, w, c, r, due, q = state
    return s - h, kn - h, 0, f, w, c - r, 0, due, tuple(sqhd - h for sqhd in q)


# The second grain


def submits_of_m2(model: Model) -> Steps:
    room = model.entries - 1

    def submits(state: State) -> list[State]:
        s, t, kn = state[:3]
        if (model.commands is None or s < model.commands) and s == t and s - kn < room:
            return [(s + 1, *state[1:])]
        return []

    return submits


def steps_of_m2(model: Model) -> Steps:
    variant, order, slots = model.variant, model.order, model.slots
    cq_room = (model.cq_entries or model.entries) - 1

    def run(state: State, half: str) -> State:
        s, t, kn, h, f, w, c, d, r, due, q, irq, isr, pend = state
        due = due.replace(half, "")
        free = slots - f - w
        if half == SQ:
            n = min(t - h, free)
            return s, t, kn, h + n, f + n, w, c, d, r, due, q, irq, isr, pend
        n = min(w, cq_room - (c - d))
        if variant in (FIRST_PATCH, FINAL_FIX) and n > 0 and free == 0 and h < t:
            due = schedule(due, SQ, order)
        w, c, q = w - n, c + n, q + (h,) * n
        return s, t, kn, h, f, w, c, d, r, due, q, 1 if c > d else irq, isr, pend

    def steps(state: State) -> list[State]:
        s, t, kn, h, f, w, c, d, r, due, q, irq, isr, pend = state
        found = run_due(state, 9, order, run)
        if t < s:
            rung = schedule(due, SQ, order)
            found.append((s, s, kn, h, f, w, c, d, r, rung, q, irq, isr, pend))
        if f > 0:
            finished = schedule(due, CQ, order)
            found.append((s, t, kn, h, f - 1, w + 1, c, d, r, finished, q, irq, isr, pend))
        if irq and not isr:
            found.append((s, t, kn, h, f, w, c, d, r, due, q, 0, 1, pend))
        if isr and pend is None and c > r:
            found.append((s, t, kn, h, f, w, c, d, r + 1, due, q[1:], irq, isr, q[0]))
        if isr and pend is None and c == r:
            found.append((s, t, kn, h, f, w, c, d, r, due, q, irq, 0, pend))
        if isr and pend is not None and d < r:
            rung = head_rung(due, variant, order) if c - d == cq_room else due
            found.append((s, t, kn, h, f, w, c, r, r, rung, q, irq, isr, pend))
        if isr and pend is not None and d == r:
            found.append((s, t, pend, h, f, w, c, d, r, due, q, irq, isr, None))
        return found

    return steps


def relative_m2(state: State) -> State:
    s, t, kn, h, f, w, c, d, r, due, q, irq, isr, pend = state
    sqhds = tuple(sqhd - h for sqhd in q)
    pend = None if pend is None else pend - h
    return s - h, t - h, kn - h, 0, f, w, c - r, d - r, 0, due, sqhds, irq, isr, pend
