"""The page of a log: what is recorded of it, and what is put into the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from html.parser import HTMLParser
from typing import Any
from unittest import mock

import msgspec
import pytest

from nvmelab.check.ball import owed
from nvmelab.check.model import Command, Cq
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.report import log_lines
from nvmelab.report import recorder as recorder_module
from nvmelab.report.log_page import log_page
from nvmelab.report.recorder import Recorder
from nvmelab.trace.qemu_reader import Counts, read_log
from tests.check.scrambled import scrambled
from tests.check.test_diagnosis import EXCERPT, HANG, SOUND
from tests.check.test_monitor import IRQ, ROUND, START, STARTED, fetch, finish, release, ring


def recorded(log: bytes, sq_entries: int | None = None) -> Recorder:
    recorder = Recorder(Monitor(sq_entries))
    read_log([log], recorder.handlers, recorder.line)
    return recorder


def page_of(log: bytes, *, hung: bool, sq_entries: int | None = None, name: str = "a.log") -> str:
    recorder = Recorder(Monitor(sq_entries))
    counts = read_log([log], recorder.handlers, recorder.line)
    verdict = judge(recorder.monitor, rest=hung)
    return log_page(recorder, verdict, counts, name=name, hung=hung)


def data_in(page: str) -> dict[str, Any]:
    (packed,) = re.findall(r'<script id="data" type="text/plain">([^<]*)</script>', page)
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return data


class Page(HTMLParser):
    """The tags of a page, its links, and its text outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self._quiet = False
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._quiet = tag in ("script", "style")
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        self._quiet = False

    def handle_data(self, data: str) -> None:
        if not self._quiet:
            self.text += data


State = dict[str, Any]


def state_of(monitor: Monitor) -> dict[str, State]:
    """What a page must show of each queue pair: read from the monitor, in the words of the page."""
    found: dict[str, State] = {}
    for sqid, sq in monitor.sqs.items():
        cq = sq.cq
        assert cq
        exact = monitor.exact and cq.from_start
        flight = sorted(sq.flight.values(), key=lambda command: command.fetched)
        found[str(sqid)] = {
            "entries": sq.entries,
            "tail": sq.tail,
            "head": sq.head,
            "taken": sq.taken,
            "rung": len(sq.rung),
            "rung_lines": list(sq.rung),
            "fetched": [command.cid for command in flight if not command.parked],
            "parked": [command.cid for command in flight if command.parked],
            "finished": [command.cid for command in cq.finished if command.sq is sq],
            "posted": [command.cid for command in cq.posted if command.sq is sq],
            "told": sq.told if exact else None,
            "cq": cq.id,
            "cq_entries": cq.entries,
            "cq_head": cq.head,
            "cq_tail": cq.tail if exact else None,
            "phase": cq.phase if exact else None,
            "owes_interrupt": cq.unsignalled > 0 if exact else None,
            "ball": [
                [row.stage, list(row.parties), row.text] for row in owed(monitor.standing(sq))
            ],
        }
    return found


def states_of(log: bytes, sq_entries: int | None = None) -> dict[int, dict[str, State]]:
    """By line, the state after each event that a page shows. Where a later line tells that another
    command was finished than the one that the monitor took for it, the page knows that already: of
    the lines between, that is left out."""
    monitor = Monitor(sq_entries)
    states: dict[int, dict[str, State]] = {}
    unknown: list[tuple[int, int]] = []
    now = 0

    def noting(name: str) -> Any:
        def noted(at: int, values: tuple[int, ...]) -> None:
            nonlocal now
            now = at
            monitor.handlers[name](at, values)
            if name in recorder_module.KINDS:
                states[at] = state_of(monitor)

        return noted

    def take_back(cq: Cq, command: Command) -> None:
        unknown.append((command.finished, now))
        original(cq, command)

    original = Cq.take_back
    with mock.patch.object(Cq, "take_back", take_back):
        read_log([log], {name: noting(name) for name in monitor.handlers})
    for begin, end in unknown:
        for at in states.keys() & set(range(begin, end)):
            for state in states[at].values():
                for field in ("fetched", "finished", "rung_lines"):
                    state.pop(field, None)
    return states


def rounds(count: int) -> str:
    """Commands of queue 1 one after the other, from its creation on."""
    return "".join(
        ring(number % 4) + fetch(7) + finish(7) + IRQ + release(number % 4)
        for number in range(1, count + 1)
    )


def test_a_page_keeps_the_last_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    log = (START + rounds(40)).encode()
    monkeypatch.setattr(log_lines, "PAGE_LINES_MAX", 30)
    page = page_of(log, hung=False)
    data = data_in(page)
    whole = log.count(b"\n")
    assert (len(data["numbers"]), data["first"]) == (30, whole - 29)
    assert f"lines 1 to {whole - 30} are left out" in Page(page).text
    # Of the commands, those that were under way in the window.
    assert all(not 0 < command[11] <= whole - 30 for command in data["commands"])
    assert len(data["commands"]) >= 6


def test_lines_before_the_window_that_prove_a_hang_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(log_lines, "PAGE_LINES_MAX", 30)
    log = START + ring(3) + fetch(7) + "pci_nvme_map_addr addr 0x0 len 1\n" * 60
    page = page_of(log.encode(), hung=True)
    data = data_in(page)
    numbers = [sum(data["numbers"][: i + 1]) for i in range(len(data["numbers"]))]
    assert numbers[:2] == [STARTED + 1, STARTED + 2] and len(numbers) == 32
    assert data["text"].splitlines()[0] == ring(3).strip()
    found = Page(page)
    assert f"#line={STARTED + 1}" in found.links and f"#line={STARTED + 2}" in found.links


def test_a_line_that_is_left_out_is_no_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "PAGE_LINES_MAX", 30)
    monkeypatch.setattr(log_lines, "PAGE_KEPT_MAX", 0)
    noise = "pci_nvme_map_addr addr 0x0 len 1\n" * 100
    found = Page(page_of((START + ring(1) + noise).encode(), hung=True))
    assert f"line {STARTED + 1}" in found.text and f"#line={STARTED + 1}" not in found.links
    assert "1 that the verdict rests on are left out too" in found.text


def test_of_something_else_only_the_first_lines_are_shown() -> None:
    noise = "[    1.5] nvme nvme0: I/O tag 1 timeout\n" * 50
    rows = recorded((START + noise + "\n\n" + ring(1) + noise).encode()).lines.rows
    assert [row.number for row in rows if row.kind == log_lines.OTHER] == [
        *range(STARTED + 1, STARTED + 11),
        *range(STARTED + 54, STARTED + 64),
    ]


def test_a_line_that_only_looks_like_one_of_the_device() -> None:
    noise = "[    1.5] nvme_core: loading out-of-tree module\n" * 20
    rows = recorded((noise + EXCERPT.decode()).encode()).lines.rows
    kinds = {row.number: row.kind for row in rows}
    assert {kinds[number] for number in range(1, 21)} == {log_lines.OTHER}
    assert recorder_module.KINDS[kinds[23]] == "pool_after_fetch"


def test_a_deep_queue_is_no_slower_to_record_than_a_shallow_one() -> None:
    # By the calls of what would grow, as times are no test.
    deep = START.replace("qsize=3", "qsize=65535")
    log = deep + ring(60_000) + "".join(fetch(cid) for cid in range(60_000))
    recorder = recorded(log.encode())
    assert sum(stay.sqid == 1 for stay in recorder.stays()) == 60_000
    assert recorder.queues[1].fields["rung"][1][:3] == [0, 60_000, 59_999]


def test_what_is_kept_of_a_long_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_lines, "PAGE_LINES_MAX", 100)
    monkeypatch.setattr(recorder_module, "PAGE_LINES_MAX", 100)
    monkeypatch.setattr(recorder_module, "PAGE_COMMANDS_MAX", 50)
    recorder = recorded((START + rounds(2000)).encode())
    assert len(recorder.lines.rows) == 100
    assert len(recorder.stays()) <= 50
    assert all(len(lines) < 400 for lines, _values in recorder.queues[1].fields.values())


def test_text_of_the_log_is_no_markup() -> None:
    bad = "</script><script>alert(1)</script><!--<img src=x onerror=alert(1)>@@DATA@@"
    plain = START + ring(1)
    hostile = START + ring(1).strip() + bad + "\n"
    page = page_of(hostile.encode(), hung=True, name="<b>.log")
    assert Page(page).tags == Page(page_of(plain.encode(), hung=True)).tags
    assert "<script>alert" not in page and "<img" not in page and "<b>.log" not in page
    data = data_in(page)
    assert bad in data["text"] and data["name"] == "<b>.log"


def test_a_text_of_several_lines_is_one_row() -> None:
    recorder = Recorder(Monitor())
    recorder.line(1, b"pci_nvme_rw_cb cid 1 blk 'a\nb'", 5)
    page = log_page(recorder, judge(recorder.monitor, rest=False), Counts(), name="x", hung=False)
    assert data_in(page)["text"] == "pci_nvme_rw_cb cid 1 blk 'a b'"


def test_no_script_but_its_own_may_run_and_nothing_is_loaded() -> None:
    page = page_of(EXCERPT, hung=True)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src" in page
    assert f"script-src 'sha256-{digest}'\"" in page
    assert all(link.startswith(("#line=", "data:")) for link in Page(page).links)
    assert "@import" not in page and "url(" not in page and "http" not in script


def test_times_are_those_of_the_lines() -> None:
    for stamp in ("77@1795357333.{:06}:", "2026-11-22T14:22:14.{:06}Z "):
        lines = (START + ROUND).splitlines()
        log = "".join(stamp.format(100 + 7 * i) + line + "\n" for i, line in enumerate(lines))
        data = data_in(page_of(log.encode(), hung=False))
        assert data["us"] == [0] + [7] * (len(lines) - 1)
    plain = page_of((START + ROUND).encode(), hung=False)
    assert data_in(plain)["us"] is None and "it has none, so the timeline is by lines" in plain
    odd = "2026-99-99T99:99:99Z " + ring(1)
    assert data_in(page_of(odd.encode(), hung=False))["us"] is None


def test_time_never_runs_back() -> None:
    lines = (START + ROUND).splitlines()
    log = "".join(
        f"1@100.{(5 * i) % 7:06}:{line}\n" if i % 4 else line + "\n" for i, line in enumerate(lines)
    )
    assert min(data_in(page_of(log.encode(), hung=False))["us"]) >= 0


def test_a_hang_is_told_in_words() -> None:
    page = page_of(EXCERPT, hung=True, sq_entries=4)
    text = Page(page).text
    assert "device The device has the ball: 2 commands of SQ 1 are rung, not fetched" in text
    assert "line 17 a request becomes free, and the device does not look again" in text
    said = "SQ 1 (4 entries), 2 commands: rung, not fetched; device: fetch them. (line 12, line 22)"
    assert said in text
    assert "issue 2388" in text and "3.3.1.2" in text
    assert "Completion queue entries: such a log has no line for them" in text
    assert "it begins in the middle" in text
    data = data_in(page)
    assert [mark[:2] for mark in data["marks"]] == [
        *([4, "1"], [12, "2"], [13, "3"], [17, "4"], [22, "5"])
    ]
    (command,) = [command for command in data["commands"] if command[3] == 4]
    assert command[7:12] == [1, 4, 0, 0, 0]


BAD_HEAD = "pci_nvme_ub_db_wr_invalid_cqhead x, cqid=1, new_head=4\n"
STOPPED = "pci_nvme_mmio_stopped cleared controller enable bit\n"
GAP = ring(2) + fetch(7) + finish(8)


def test_a_breach_that_decides_is_the_heading() -> None:
    log = START + ring(1) + fetch(7) + finish(7) + IRQ + BAD_HEAD
    page = Page(page_of(log.encode(), hung=True)).text
    wrong = "head 4 for CQ 1, which cannot be: the queue has 4 entries"
    assert f"driver The driver breaks the rules: {wrong}" in page
    first, then = page.index("What came first"), page.index("What stands still since")
    assert first < page.index(f"driver : {wrong}".replace(" :", ":")) < then
    assert "driver or platform: reap and release it, or deliver the interrupt" in page


def test_what_is_known_of_a_pointer_is_said_with_the_one_that_cannot_be() -> None:
    entry = "pci_nvme_cqe cqid 1 slot 0 dw0 0x0 dw1 0x0 sqhd 1 sqid 1 cid 7 phase 1 status 0x0\n"
    head = BAD_HEAD.replace("new_head=4", "new_head=2")
    log = START + ring(1) + fetch(7) + finish(7) + entry + IRQ + head
    page = Page(page_of(log.encode(), hung=True)).text
    assert "head 2 for CQ 1, which cannot be: it was 0, with 1 entry posted" in page
    tail = "pci_nvme_ub_db_wr_invalid_sqtail x, sqid=1, new_head=0\n"
    page = Page(page_of((START + ring(2) + tail).encode(), hung=False)).text
    assert "tail 0 for SQ 1, which cannot be: it was 2, with 1 entry free" in page


def test_a_breach_of_the_other_side_comes_before_what_stands_still() -> None:
    page = Page(page_of((START + BAD_HEAD + ring(1)).encode(), hung=True)).text
    said = "undecided The driver breaks a rule, and then it stands still: whose fault that is"
    assert said in page
    assert page.index("What came first") < page.index("What stands still since")


def test_a_breach_after_the_hang_began_is_not_its_cause() -> None:
    page = Page(page_of((START + ring(1) + fetch(7) + BAD_HEAD).encode(), hung=True)).text
    assert "undecided It stands still, and whose fault that is does not show" in page
    assert page.index("Where it stands") < page.index("Rules that were broken")


def test_of_many_breaches_the_first_one_is_shown() -> None:
    later = "".join(f"pci_nvme_ub_db_wr_invalid_cq x, cqid={n}\n" for n in range(5, 10))
    page = page_of((START + BAD_HEAD + later).encode(), hung=False)
    shown, _, folded = page.partition('class="folded"')
    assert "head 4 for CQ 1" in shown.partition("</h1>")[2]
    assert "4 more findings" in Page(folded).text


def test_what_the_host_took_back_is_told_on_top_and_in_the_proof() -> None:
    log = "".join(
        f"1@{100 + 9 * (number >= STARTED + 6)}.{number:06}:{line}\n"
        for number, line in enumerate((START + ROUND + ring(3) + STOPPED + START).splitlines())
    )
    at = STARTED + 7
    recorder = recorded(log.encode())
    verdict = judge(recorder.monitor, rest=False, time_of=lambda line: 9.0 * (line >= at))
    assert verdict.taken_back == at
    page = log_page(recorder, verdict, Counts(), name="x", hung=False)
    text = Page(page).text
    assert f"line {at} resets the controller, after 9.0 s: what is stuck was so before" in text
    assert text.index("resets the controller") < text.index("Where it stands")
    assert f"line {at} the host gives up: what waits had waited until then" in text
    data = data_in(page)
    assert (data["taken"], data["open"], data["stuck"]) == (at, at - 1, [1])
    assert [mark[:2] for mark in data["marks"]] == [[at - 1, "1"], [at, "2"]]
    (entry,) = [command for command in data["commands"] if command[3] < 0]
    assert entry[13] == at and entry[2] == 2


def test_nothing_is_simply_clean_where_the_host_gave_something_up() -> None:
    log = START + ROUND + ring(3) + STOPPED + START + ROUND
    page = page_of(log.encode(), hung=False)
    at = STARTED + 7
    said = f"clean No rule is broken, but 2 commands were outstanding where line {at} resets"
    assert said in Page(page).text
    assert 'class="badge clean-but"' in page and 'class="badge clean"' not in page
    assert '<ul class="hints"><li>2 commands were outstanding where <a href=' in page
    data = data_in(page)
    assert (data["open"], data["open_queue"]) == (at - 1, 1)
    assert [mark[:2] for mark in data["marks"]] == [[at - 1, "."], [at, "x"]]


def test_a_gap_is_marked_and_told_on_top() -> None:
    page = page_of((START + GAP).encode(), hung=False)
    text = Page(page).text
    assert "undecided Nothing is decided: this log lacks lines" in text
    assert f"line {STARTED + 3} cannot follow from those before it" in text
    data = data_in(page)
    assert data["open"] == STARTED + 3
    assert [mark[:2] for mark in data["marks"]] == [[STARTED + 3, "?"]]
    text = Page(page_of((START + GAP).encode(), hung=True)).text
    assert "undecided It stands still, and whose fault that is does not show: this log" in text


def test_every_hint_is_on_top() -> None:
    recorder = recorded(EXCERPT)
    verdict = msgspec.structs.replace(
        judge(recorder.monitor, rest=False), notes=["one <b>", "event 12 is two", "three"]
    )
    page = log_page(recorder, verdict, Counts(), name="x", hung=False)
    top = page.partition("</h1>")[2].partition('class="columns"')[0]
    assert "<li>One &lt;b&gt;.</li>" in top and "<li>Three.</li>" in top
    assert '<a href="#line=12">line 12</a> is two' in top
    assert "3 commands are under way where it ends" in top


def test_many_lines_of_one_kind_are_one_step_of_the_proof() -> None:
    log = START + "".join(ring(n) for n in (1, 2, 3))
    page = Page(page_of(log.encode(), hung=True)).text
    assert "what it told of here still waits; so it is with 2 later ones" in page
    data = data_in(page_of(log.encode(), hung=True))
    assert [mark[1] for mark in data["marks"]] == ["1", ".", "."]


def test_a_clean_log_has_a_page_too() -> None:
    page = Page(page_of(SOUND, hung=False))
    assert "clean No rule is broken that this can show" in page.text
    assert "clean Nothing stands still here" in Page(page_of(SOUND, hung=True)).text
    text = START + ring(1) + fetch(7) + finish(7) + IRQ + release(1)
    (command,) = [c for c in data_in(page_of(text.encode(), hung=True))["commands"] if c[0] == 1]
    assert command[7:12] == [STARTED + number for number in range(1, 6)]


def test_a_broken_rule_is_told_with_its_lines() -> None:
    log = START + "pci_nvme_ub_db_wr_invalid_sqtail x, sqid=1, new_head=4\n"
    page = Page(page_of(log.encode(), hung=False))
    assert "The driver breaks the rules" in page.text
    assert "Rule doorbell.value: " in page.text and f"#line={STARTED + 1}" in page.links


def test_a_log_that_ends_in_a_hang_that_nobody_declared() -> None:
    page = Page(page_of(EXCERPT, hung=False))
    assert "undecided This may be a hang, or it just ends here" in page.text
    assert "How it may have come about" in page.text
    assert "say so with --hung" in page.text


def test_queues_that_are_gone_end_their_commands() -> None:
    log = START + ring(3) + fetch(7) + fetch(8) + finish(7) + "pci_nvme_mmio_stopped x\n"
    stays = [stay for stay in recorded(log.encode()).stays() if stay.sqid == 1]
    assert sorted((stay.command.cid if stay.command else -1, stay.gone) for stay in stays) == [
        *((-1, STARTED + 5), (7, STARTED + 5), (8, STARTED + 5))
    ]


@pytest.mark.parametrize("seed", range(12))
def test_bars_of_one_place_do_not_overlap(seed: int) -> None:
    data = data_in(page_of(scrambled(seed), hung=True))
    ends: dict[tuple[int, int], int] = {}
    for command in data["commands"]:
        sqid, place, begin = command[0], command[1], command[7] or command[8]
        if place < 0:
            continue
        assert ends.get((sqid, place), 0) <= begin, command
        ends[sqid, place] = command[13] or command[11] or 1 << 60


def test_states_are_there_for_every_log() -> None:
    for log in (EXCERPT, HANG, SOUND, scrambled(1)):
        assert len(states_of(log)) >= 10
