"""`nvmelab rules`: what is judged."""

from __future__ import annotations

import json

import click
import msgspec

from nvmelab.check.rules import PROGRESS, RULES
from nvmelab.report.rules import rules_page, rules_text


@click.command(short_help="What is judged, with the specification's sections.")
@click.option("--page", is_flag=True, help="As the page docs/rules.md.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def rules(page: bool, as_json: bool) -> None:
    """Every rule: its name, whose it is, what it says, where the specification says it, and which
    of explore, run --check and diagnose can see it broken.

    \b
    nvmelab rules
    nvmelab rules --json
    nvmelab rules --page > docs/rules.md
    """
    if as_json:
        every = {**RULES, **{f"progress.{party}": rule for party, rule in PROGRESS.items()}}
        click.echo(json.dumps(msgspec.to_builtins(every)))
    else:
        click.echo(rules_page() if page else rules_text(), nl=not page)
