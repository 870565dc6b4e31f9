"""How often the judge names the side that was changed: at every rest of every planted breach.

    python bench/verdicts.py

A rest is a state in which neither side has anything left to do by itself. `named` is the changed
side, `undecided` and `clean` are nobody, `wrong` is the other side. Also what is said when each run
ends, which is what a user sees.
"""

from __future__ import annotations

from collections import Counter

from nvmelab.corpus.breaches import BREACHES
from nvmelab.pair import Pair


def column(word: str, party: str) -> str:
    """What a verdict is worth, when that side was changed."""
    if word in ("undecided", "clean"):
        return word
    return "named" if word == party or party == "both" else "wrong"


def main() -> None:
    """Print the counts."""
    rests: dict[str, Counter[str]] = {"driver": Counter(), "device": Counter(), "both": Counter()}
    ends: dict[str, Counter[str]] = {party: Counter() for party in rests}
    found = 0
    for breach in BREACHES.values():
        pair = Pair(breach.device)
        pair.run(breach.act)
        verdict, at_rest = pair.verdict(rest=False), pair.verdict(rest=True)
        rules = {finding.rule for finding in verdict.findings}
        found += breach.rule in rules or at_rest.verdict == breach.party
        for said in pair.rests:
            rests[breach.party][column(said.verdict, breach.party)] += 1
        end = at_rest if at_rest.stuck else verdict
        ends[breach.party][column(end.verdict, breach.party)] += 1
    print(f"breaches {len(BREACHES)}, found {found}")
    print(f"{'':22}{'named':>10}{'undecided':>11}{'clean':>8}{'wrong':>8}")
    for title, table in (("at rest", rests), ("at the end", ends)):
        for party, counts in table.items():
            row = [counts[word] for word in ("named", "undecided", "clean", "wrong")]
            cells = f"{row[0]:>10}{row[1]:>11}{row[2]:>8}{row[3]:>8}"
            print(f"{title + ', ' + party:22}{cells}")


if __name__ == "__main__":
    main()
