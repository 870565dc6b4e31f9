"""`nvmelab rules`: what is judged."""

from __future__ import annotations

import json

import click
import msgspec

from nvmelab.cli.options import Fail
from nvmelab.cli.waiving import no_rule
from nvmelab.report.rules import every_rule, rules_page, rules_text, seen_by, tests_of


@click.command()
@click.argument("names", nargs=-1, metavar="[RULE]...")
@click.option("--page", is_flag=True, help="As the page docs/rules.md.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def rules(names: tuple[str, ...], page: bool, as_json: bool) -> None:
    """Every RULE, or those that are named: who breaks it, whether it decides a verdict (error) or
    is told (note), what it says, where the specification says it, where a breach shows, and the
    tests that trip it.

    \b
    nvmelab rules
    nvmelab rules cq.head sq.tail
    nvmelab rules --json
    nvmelab rules --page > docs/rules.md
    """
    if as_json and page:
        raise Fail("say one form: --page, or --json")
    if names and page:
        raise Fail(f"the page has every rule; leave out {names[0]}, or --page")
    every = every_rule()
    for name in names:
        if name not in every:
            raise Fail(no_rule(name, every))
    chosen = {name: every[name] for name in names} or every
    if as_json:
        said = {
            name: msgspec.to_builtins(rule) | {"seen_by": seen_by(name), "tests": tests_of(name)}
            for name, rule in chosen.items()
        }
        click.echo(json.dumps(said))
    else:
        click.echo(rules_page() if page else rules_text(chosen), nl=not page)
