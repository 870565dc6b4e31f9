"""Running checks: results, a fresh link after trouble, selection, expectations."""

from __future__ import annotations

from pathlib import Path

import pytest

from nvmelab.check.rules import RULES
from nvmelab.corpus.breaches.device import UnknownStatus
from nvmelab.device.controller import Controller, ControllerConfig
from nvmelab.device.namespaces import Namespace
from nvmelab.host.errors import DeviceError, NotOffered
from nvmelab.link.base import HostLink, LinkError
from nvmelab.memory import GuestMemory
from nvmelab.storage.held import HeldWorker
from nvmelab.suite.base import Bench, Check, Finding, Skip
from nvmelab.suite.expectations import Expectations, ExpectationsError, Known, read_expectations
from nvmelab.suite.runner import Result, Runner, select
from nvmelab.targets import Target, open_target


class Opened:
    """Counts how often a link was opened and closed."""

    def __init__(self) -> None:
        self.links: list[HostLink] = []
        self.closed = 0

    def __call__(self) -> HostLink:
        link = open_target(Target("inproc"))
        close = link.close

        def closing() -> None:
            self.closed += 1
            close()

        link.close = closing  # type: ignore[method-assign]
        self.links.append(link)
        return link


def unknown_status(
    config: ControllerConfig, namespaces: list[Namespace], worker: HeldWorker
) -> Controller:
    """Reads end with a status code type that is reserved."""
    return UnknownStatus(config, namespaces, GuestMemory(), worker=worker)


def failing(error: Exception | None) -> Check:
    def run(bench: Bench) -> None:
        if error:
            raise error

    return Check("group.name", "does it", "it is so", "Base 2.2, 1.1", run)


def results(*errors: Exception | None) -> tuple[list[Result], Opened]:
    opened = Opened()
    found = list(Runner(opened, seed=1).run([failing(error) for error in errors]))
    return found, opened


def test_check_that_raises_nothing_passes() -> None:
    (result,), _ = results(None)
    assert result == Result("group.name", "pass", "it is so", "as expected", "Base 2.2, 1.1")


def test_the_judge_finds_what_a_check_does_not_look_for() -> None:
    def connect() -> HostLink:
        return open_target(Target("inproc"), controller=unknown_status)

    def run(bench: Bench) -> None:
        bench.nvme.create_qpair(entries=4).read(slba=0).wait()

    check = Check("group.name", "does it", "it is so", "Base 2.2, 1.1", run)
    (result,) = Runner(connect, seed=1).run([check])
    assert (result.result, result.ref) == ("finding", RULES["commands.status-type"].ref)
    assert "commands.status-type" in result.seen and result.verdict is None


def test_finding_keeps_what_the_check_says_unless_it_says_more() -> None:
    plain, own = results(Finding("a"), Finding("b", expected="c", ref="d"))[0]
    assert (plain.seen, plain.expected, plain.ref) == ("a", "it is so", "Base 2.2, 1.1")
    assert (own.seen, own.expected, own.ref) == ("b", "c", "d")


@pytest.mark.parametrize(
    ("error", "outcome", "seen"),
    [
        (DeviceError("odd", ref="Base 2.2, 9.9"), "finding", "odd"),
        (Skip("cannot"), "skipped", "cannot"),
        (NotOffered("wings"), "skipped", "the device does not offer wings"),
        (LinkError("it is gone"), "error", "it is gone"),
        (
            AssertionError("oops"),
            "error",
            "a bug of nvmelab, please report it: AssertionError: oops",
        ),
        (MemoryError("full"), "error", "a bug of nvmelab, please report it: MemoryError: full"),
    ],
)
def test_outcome_follows_from_what_is_raised(error: Exception, outcome: str, seen: str) -> None:
    (result,), _ = results(error)
    assert (result.result, result.seen) == (outcome, seen)


def test_device_error_brings_its_reference() -> None:
    (result,), _ = results(DeviceError("odd", ref="Base 2.2, 9.9"))
    assert result.ref == "Base 2.2, 9.9"


def test_checks_share_a_link_until_one_does_not_pass() -> None:
    _, opened = results(None, None, Skip("no"), Finding("a"), None, LinkError("b"), None)
    assert (len(opened.links), opened.closed) == (3, 3)


def test_link_is_closed_when_the_caller_stops_early() -> None:
    opened = Opened()
    running = Runner(opened, seed=1).run([failing(None), failing(None)])
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert opened.closed == 1


def test_target_that_cannot_be_opened_at_first_is_the_callers_error() -> None:
    def nothing() -> HostLink:
        raise LinkError("nobody there")

    with pytest.raises(LinkError, match="nobody there"):
        list(Runner(nothing, seed=1).run([failing(None)]))


def test_each_check_draws_from_the_seed_and_its_own_name() -> None:
    drawn: dict[tuple[int, str], float] = {}

    def run(bench: Bench) -> None:
        drawn[bench.seed, str(bench.random.random())] = 1

    for seed in (1, 1, 2):
        check = Check("g.n", "", "", "", run)
        list(Runner(Opened(), seed=seed).run([check]))
    assert len(drawn) == 2


# Selection.


CHECKS = [Check(id, "", "", "", lambda bench: None) for id in ("a.x", "a.y", "b.x")]


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        ([], ["a.x", "a.y", "b.x"]),
        (["a"], ["a.x", "a.y"]),
        (["b.x", "a.y"], ["a.y", "b.x"]),
        (["*.x"], ["a.x", "b.x"]),
    ],
)
def test_checks_are_chosen_by_group_id_or_wildcard(patterns: list[str], ids: list[str]) -> None:
    assert [check.id for check in select(CHECKS, patterns)] == ids


def test_pattern_that_names_nothing_is_an_error() -> None:
    with pytest.raises(LookupError, match="c"):
        select(CHECKS, ["a", "c"])


# Expectations.


def finding(id: str = "a.x") -> Result:
    return Result(id, "finding", "e", "s", "r")


def test_known_finding_has_its_reason() -> None:
    known = Expectations([Known("a.x", "an old bug", "QEMU 5.2.*")], "QEMU 5.2.0")
    assert known.apply(finding()).known == "an old bug"
    assert known.apply(finding("a.y")).known == ""


def test_expectation_of_another_device_does_not_count() -> None:
    known = Expectations([Known("a.x", "an old bug", "QEMU 5.2.*")], "QEMU 11.1.2")
    assert known.apply(finding()).known == ""


def test_expectation_that_is_not_met_any_more_is_named() -> None:
    known = Expectations([Known("a.x", "w"), Known("a.y", "w")], "any")
    passed = Result("a.x", "pass", "e", "s", "r")
    assert known.unmet([passed, finding("a.y")]) == ["a.x"]


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "known.toml"
    path.write_text('[[known]]\ncheck = "a.x"\nwhy = "w"\n')
    assert read_expectations(str(path), {"a.x"}) == [Known("a.x", "w")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[known]]\ncheck = 'a.x'", "missing required field `why`"),
        ("[[known]]\ncheck = 'c.c'\nwhy = ''", "no check 'c.c'; nvmelab test --list"),
        ("[[known]\n", "known.toml: "),
        ("[[known]]\ncheck = 'a.x'\nwhy = ''\nversion = 1", "unknown field `version`"),
    ],
)
def test_file_that_is_wrong_is_an_error_that_says_where(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "known.toml"
    path.write_text(text)
    with pytest.raises(ExpectationsError) as caught:
        read_expectations(str(path), {"a.x"})
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExpectationsError, match="No such file"):
        read_expectations(str(tmp_path / "none.toml"), set())
