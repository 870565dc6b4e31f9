"""The option that leaves rules out of a judgment."""

from __future__ import annotations

import click

from nvmelab.check.rules import RULES

waive_option = click.option(
    "--waive",
    "waived",
    multiple=True,
    type=click.Choice(list(RULES)),
    metavar="RULE",
    help="Leave a rule out of the judgment. May be repeated; `nvmelab rules` lists them.",
)
