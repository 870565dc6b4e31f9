"""`nvmelab rules`: what is judged."""

from __future__ import annotations

import json

import click
import msgspec

from nvmelab.cli.options import Fail
from nvmelab.report.rules import every_rule, rules_page, rules_text, seen_by, tests_of


@click.command()
@click.option("--page", is_flag=True, help="As the page docs/rules.md.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def rules(page: bool, as_json: bool) -> None:
    """Every rule: its name, who breaks it, whether it decides a verdict (error) or is told (note),
    what it says, where the specification says it, where a breach shows, and the tests that trip it.

    \b
    nvmelab rules
    nvmelab rules --json
    nvmelab rules --page > docs/rules.md
    """
    if as_json and page:
        raise Fail("say one form: --page, or --json")
    if as_json:
        every = {
            name: msgspec.to_builtins(rule) | {"seen_by": seen_by(name), "tests": tests_of(name)}
            for name, rule in every_rule().items()
        }
        click.echo(json.dumps(every))
    else:
        click.echo(rules_page() if page else rules_text(), nl=not page)
