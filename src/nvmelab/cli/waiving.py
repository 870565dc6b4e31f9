"""The option that leaves rules out of a judgment, and the names of rules."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

import click

from nvmelab.check.rules import PROGRESS, RULES


def no_rule(name: str, names: Iterable[str]) -> str:
    """That there is no rule of that name, and which it could have been."""
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    # Of `cq.haed` as of `head`: what the part behind the dot is like, too.
    close += [
        known
        for known in names
        if known not in close
        and difflib.get_close_matches(name.rpartition(".")[2], [known.rpartition(".")[2]], 1, 0.75)
    ]
    meant = f"; is it {' or '.join(close[:4])}?" if close else "; nvmelab rules lists them"
    return f"there is no rule {name!r}{meant}"


class RuleName(click.ParamType[str]):
    """A rule that can be left out."""

    name = "RULE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if value not in RULES:
            party = str(value).removeprefix("progress.")
            if value != party and party in PROGRESS:
                self.fail(f"{value} is the verdict on what stands still, and cannot be left out")
            self.fail(no_rule(str(value), RULES), param, ctx)
        return str(value)


waive_option = click.option(
    "--waive",
    "waived",
    multiple=True,
    type=RuleName(),
    metavar="RULE",
    help="Leave a rule out of the judgment. May be repeated; `nvmelab rules` lists them.",
)
