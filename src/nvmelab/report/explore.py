"""The result of an exploration, for a terminal and for a program."""

from __future__ import annotations

import textwrap

from nvmelab.explore.explore import Result
from nvmelab.explore.reached import SOMETIMES
from nvmelab.explore.story import Moment, Story
from nvmelab.report.paragraphs import paragraph

_MIDDLE_MAX = 60
"""Steps that are printed in full; of a longer run the first and the last ones are."""


def story_lines(story: Story) -> list[str]:
    """The steps of a run, one a line, with what explains a hang: entries that wait, requests that
    are free, and what is scheduled."""
    moments = story.moments[1:]
    width = max((len(moment.text) for moment in moments), default=0)
    width = min(max(width, 20), 54)
    lines = [f"{'':>15}{'':<{width}}  waiting  free  in CQ  scheduled"]
    for moment in moments:
        if len(moments) > _MIDDLE_MAX and _MIDDLE_MAX // 2 < moment.number <= (
            len(moments) - _MIDDLE_MAX // 2
        ):
            if moment.number == _MIDDLE_MAX // 2 + 1:
                lines.append(f"{'...':>4}  {len(moments) - _MIDDLE_MAX} further steps")
            continue
        lines += _step_lines(moment, width)
    return lines


def _step_lines(moment: Moment, width: int) -> list[str]:
    rung = sum(slot.state == "rung" for slot in moment.sq.slots)
    posted = sum(slot.state != "free" for slot in moment.cq.slots)
    pool = moment.pool
    free = (pool.size or 0) - len(pool.in_flight) - len(pool.finished)
    first, *rest = textwrap.wrap(moment.text, width) or [""]
    scheduled = ", ".join(moment.wakeups or []) or "-"
    head = f"{moment.number:>4}  {moment.actor:<9}{first:<{width}}  {rung:>7}{free:>6}{posted:>7}"
    return [f"{head}  {scheduled}", *(f"{'':>15}{line}" for line in rest)]


def verdict_lines(story: Story) -> list[str]:
    """Who has the ball or broke the rule, why, and which rule."""
    lines = [paragraph("ball", f"{story.ball}: {story.owed}")]
    if story.why:
        lines.append(paragraph("why", story.why))
    return [*lines, paragraph("rule", story.rule)]


def effort(result: Result) -> str:
    """How much was looked at."""
    if result.plan.strategy == "bfs":
        return f"{result.states:,} states, {result.transitions:,} transitions"
    text = f"{result.runs:,} runs, {result.transitions:,} steps, seed {result.plan.seed}"
    return text + (f", {result.replays:,} replays to shrink" if result.replays else "")


def verdict_line(result: Result, story: Story | None) -> str:
    """The first line."""
    if story:
        word = story.result.upper()
        steps = len(story.moments) - 1
        what = story.title.partition(": ")[2] or story.title
        said = f"after {steps} steps: {what}"
    elif result.result == "proved":
        word, said = "PROVED", "no reachable state is stuck and no rule is broken"
    elif result.result == "exhausted":
        word, said = "NOTHING", "no hang in any order of these steps (this is no proof)"
    else:
        word, said = "NOTHING", "not found within the budget, which proves nothing"
    return f"{word:<8} {said:<58}  {effort(result)}"


def result_text(result: Result, story: Story | None) -> str:
    """All of it but the files."""
    lines = [verdict_line(result, story)]
    if story:
        lines += story_lines(story)
        best = "no shorter run does this" if story.shortest else "no single step can be left out"
        lines += [*verdict_lines(story), paragraph("run", best)]
    lines.append(paragraph("scope", f"{result.setting.scope}; device {result.setting.device}"))
    if result.plan.graph:
        lines.append(paragraph("graph", f"{result.hangs} hangs, {result.violations} violations"))
    if result.result == "proved" and not result.missed:
        seen = "; ".join(text for text, _is_so in SOMETIMES.values())
        lines.append(paragraph("reached", seen))
    if result.missed:
        lines.append(
            paragraph(
                "missed", "never the case: " + "; ".join(SOMETIMES[n][0] for n in result.missed)
            )
        )
    if result.result == "exhausted":
        if not result.setting.rules:
            why = "the rules are off, so states that differ only by phase or place are one"
        elif result.setting.commands is not None:
            why = "it is about this number of commands; --commands any is about every number"
        else:
            why = "the device had a command twice, or one that it had not fetched: they may differ"
        lines.append(paragraph("no proof", why))
    return "\n".join(lines)


def result_json(result: Result, story: Story | None, replay: str | None) -> dict[str, object]:
    """The same for a program. `replay` is the path of the replay file."""
    setting, plan = result.setting, result.plan
    return {
        "result": result.result,
        "steps": len(story.moments) - 1 if story else None,
        "states": result.states,
        "transitions": result.transitions,
        "seed": plan.seed if plan.strategy != "bfs" else None,
        "replay": replay,
        "ball": story.ball if story else None,
        "rule": result.replay.rule if result.replay else None,
        "owed": story.owed if story else None,
        "why": story.why if story else None,
        "shortest": story.shortest if story else None,
        "runs": result.runs,
        "hangs": result.hangs,
        "violations": result.violations,
        "missed": result.missed,
        "scope": setting.scope,
        "scenario": setting.scenario,
        "device": setting.device,
        "entries": setting.entries,
        "commands": "any" if setting.commands is None else setting.commands,
        "grain": setting.grain,
        "doorbells": setting.doorbells,
        "eager": setting.eager,
        "fault": setting.fault or None,
        "rules": setting.rules,
        "strategy": plan.strategy,
    }
