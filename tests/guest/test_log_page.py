"""The page of a log in a real browser: its states, keys, colours and sizes, and its silence."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nvmelab.check.ball import STAGES
from nvmelab.check.monitor import Monitor
from nvmelab.check.verdict import judge
from nvmelab.pair import Pair, workload
from nvmelab.report.log_page import log_page
from nvmelab.report.recorder import Recorder
from nvmelab.trace.qemu_log import QemuLogWriter
from nvmelab.trace.qemu_reader import read_log
from tests.browser import Browser
from tests.check.scrambled import scrambled
from tests.check.test_diagnosis import EXCERPT, HANG, SOUND
from tests.check.test_monitor import IRQ, START, STARTED, fetch, finish, release, ring
from tests.guest.lab import LAB
from tests.report.test_log_page import page_of, rounds, states_of

pytestmark = pytest.mark.guest

OURS = (
    START + ring(2) + "pci_nvme_sqe sqid 1 slot 0" + " dw0 0x0" + "".join(
        f" dw{number} 0x0" for number in range(1, 16)
    ) + "\n" + fetch(7) + fetch(8) + finish(8)
    + "pci_nvme_cqe cqid 1 slot 0 dw0 0x0 dw1 0x0 sqhd 2 sqid 1 cid 8 phase 1 status 0x0\n"
    + IRQ + release(1) + finish(7)
    + "pci_nvme_cqe cqid 1 slot 1 dw0 0x0 dw1 0x0 sqhd 2 sqid 1 cid 7 phase 1 status 0x0\n"
).encode()  # fmt: skip
"""What our own device shows: the entries of both queues."""


def of_a_pair() -> bytes:
    """The log of our driver on our device: resets, shadow doorbells, several queues."""
    pair, lines = Pair(), io.StringIO()
    writer = QemuLogWriter(lines)
    pair.device.trace = lambda name, *values: writer(name, values)
    workload(pair.driver)
    return lines.getvalue().encode()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(LAB / "bin/chromium", tmp_path / "profile") as browser:
        browser.look(1280, 720)
        yield browser


def show(browser: Browser, folder: Path, log: bytes, fragment: str = "", **how: Any) -> Path:
    """Open the page of a log, and wait until it is unpacked and drawn."""
    page = folder / "log.html"
    page.write_text(page_of(log, **how))
    browser.open(page, fragment)
    browser.until("document.body.dataset.ready === 'yes' && !walk.dirty")
    return page


def text(browser: Browser, place: str) -> str:
    said = browser.evaluate(f"document.getElementById({place!r}).innerText")
    return " ".join(str(said).split())


def line(browser: Browser) -> int:
    return int(browser.evaluate("rows.number[walk.at]"))


STATES = """JSON.stringify(Object.fromEntries(rows.number.map((line, row) => [line, row])
  .filter(([line, row]) => isEvent(row))
  .map(([line]) => [line, Object.fromEntries([...lanes.keys()]
    .map((sqid) => [sqid, stateAt(sqid, line)])
    .filter(([, s]) => s).map(([sqid, s]) => [sqid, {
      ...Object.fromEntries(["entries", "tail", "head", "taken", "rung", "told", "cq", "cq_entries",
        "cq_head", "cq_tail", "phase", "owes_interrupt", "ball"].map((name) => [name, s[name]])),
      rung_lines: s.commands.rung.flatMap((c) => Array(c.entries).fill(c.rung)),
      ...Object.fromEntries(["fetched", "parked", "finished", "posted"]
        .map((stage) => [stage, s.commands[stage].map((c) => c.cid)])),
    }]))])))"""
"""The state of every queue after every event, as the page knows it."""

LOGS = {
    "excerpt": (EXCERPT, 4),
    "excerpt-unknown": (EXCERPT, None),
    "hang": (HANG, None),
    "sound": (SOUND, None),
    "ours": (OURS, None),
    "rounds": ((START + rounds(30)).encode(), None),
    "pair": (of_a_pair(), None),
    **{f"scrambled-{seed}": (scrambled(seed), None) for seed in range(12)},
}


@pytest.mark.parametrize("name", LOGS)
def test_every_state_is_the_monitors(browser: Browser, tmp_path: Path, name: str) -> None:
    log, sq_entries = LOGS[name]
    show(browser, tmp_path, log, hung=True, sq_entries=sq_entries)
    shown = json.loads(browser.evaluate(STATES))
    expected = states_of(log, sq_entries)
    assert len(expected) >= 10
    assert list(map(int, shown)) == list(expected)
    for number, states in expected.items():
        known = {
            sqid: {name: state[name] for name in states.get(sqid, state)}
            for sqid, state in shown[str(number)].items()
        }
        assert known == json.loads(json.dumps(states)), number
    assert browser.errors == []


def test_what_is_drawn_is_that_state(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, EXCERPT, hung=True, sq_entries=4)
    expected = states_of(EXCERPT, 4)
    slots = "[...document.querySelectorAll('#sq .slot')].map((slot) => slot.classList[1])"
    chips = "[...document.querySelectorAll('#flight .chip')].map((chip) => chip.textContent)"
    browser.press("Home")
    for number, states in expected.items():
        assert line(browser) == number
        state = states["1"]
        assert text(browser, "sq-say").startswith(
            f"tail {state['tail']}, head {'not known' if state['head'] is None else state['head']}:"
        )
        if state["tail"] is not None:
            assert browser.evaluate(slots).count("rung") == state["rung"]
        assert len(browser.evaluate(chips)) == len(state["fetched"]) + len(state["finished"])
        for stage, (party, *_more), owed in state["ball"]:
            said = text(browser, "ball")
            assert f"{party}: " in said and f"{STAGES[stage]}: {owed}" in said
        browser.press("ArrowRight")
    assert browser.evaluate(slots) == ["fetched", "rung", "rung", "free"]


def test_keys_walk_through_the_log(browser: Browser, tmp_path: Path) -> None:
    page = show(browser, tmp_path, EXCERPT, hung=True, sq_entries=4)
    assert line(browser) == 22  # a hang is shown from its end
    assert text(browser, "ball") == (
        "It stood still here. Who must act device: 1 command is fetched, not finished: finish it "
        "device: 2 commands are rung, not fetched: fetch them"
    )
    seen = []
    for key in (
        "Home",
        "ArrowRight",
        "ArrowDown",
        "ArrowRight",
        "ArrowRight",
        "ArrowLeft",
        "ArrowUp",
    ):
        browser.press(key)
        seen.append(line(browser))
    assert seen == [1, 2, 3, 4, 9, 4, 3]
    browser.press("ArrowRight")
    assert text(browser, "now") == "line 4: device fetches CID 4, write, from SQ 1"
    seen = []
    for key in ("p", "p", "P", "]", "[", "End", "p"):
        browser.press(key)
        seen.append(line(browser))
    assert seen == [12, 13, 12, 13, 12, 22, 4]
    for key, dialog in (("?", "keys"), ("/", "jump")):
        browser.press(key)
        assert browser.evaluate(f"document.getElementById('{dialog}').open") is True
        browser.evaluate(f"document.getElementById('{dialog}').close()")
    assert browser.errors == [] and browser.requests == [page.as_uri()]


def test_a_line_is_gone_to_by_its_number(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, EXCERPT, hung=True, sq_entries=4)
    browser.press("/")
    for key in "16":
        browser.press(key)
    browser.press("Enter")
    browser.until("rows.number[walk.at] === 16")
    assert str(browser.evaluate("location.hash")) == "#line=16"
    # A line that is something else leads to the last one before it.
    browser.evaluate("toLine('11')")
    assert line(browser) == 10


def test_keys_of_a_queue_leave_out_the_others(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    queues = set()
    for _ in range(60):
        browser.press("[")
        queues.add(tuple(browser.evaluate("rows.queue[walk.at]")))
    assert queues == {(1,)}
    browser.press("q")
    assert browser.evaluate("walk.queue") == 0
    browser.press("[")
    assert browser.evaluate("rows.queue[walk.at]") == [0]


def test_the_lines_of_the_proof_are_links(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, EXCERPT, hung=True, sq_entries=4)
    links = "[...document.querySelectorAll('ol.proof a')]"
    assert browser.evaluate(f"{links}.map((link) => link.textContent)") == [
        f"line {number}" for number in (4, 12, 13, 17, 22)
    ]
    for number, place in ((4, 0), (17, 3), (22, 4)):
        browser.evaluate(f"{links}[{place}].click()")
        browser.until(f"rows.number[walk.at] === {number}")
    browser.press("Home")
    browser.evaluate(f"{links}[4].click()")
    browser.until("rows.number[walk.at] === 22")


def test_an_address_with_a_line_opens_there(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, EXCERPT, "#line=12", hung=True, sq_entries=4)
    assert line(browser) == 12


def test_the_line_under_way_is_in_view(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    for key in ("Home", "PageDown", "End"):
        browser.press(key)
        browser.until("!walk.dirty")
        box = "document.getElementById('log').getBoundingClientRect()"
        row = "document.querySelector('#rows .now').getBoundingClientRect()"
        assert browser.evaluate(f"{row}.top >= {box}.top && {row}.bottom <= {box}.bottom + 1")


def test_the_timeline_zooms_moves_and_follows(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    span = "time.view[1] - time.view[0]"
    whole = browser.evaluate("time.end - time.begin")
    browser.press("0")
    assert browser.evaluate(span) == whole
    browser.press("+")
    browser.press("+")
    assert browser.evaluate(span) == pytest.approx(whole / 4)
    browser.press(",")
    before = browser.evaluate("time.view[0]")
    browser.press(".")
    assert browser.evaluate("time.view[0]") > before
    browser.press("Home")
    assert browser.evaluate("time.view[0] <= xOfRow(walk.at) && xOfRow(walk.at) <= time.view[1]")
    browser.press("-")
    assert browser.evaluate(span) == pytest.approx(whole / 2)


def test_a_click_into_a_lane_goes_there(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    place = "document.getElementById('canvas').getBoundingClientRect()"
    for event in ("pointerdown", "pointerup"):
        browser.evaluate(
            f"document.getElementById('canvas').dispatchEvent(new PointerEvent('{event}', "
            f"{{pointerId: 1, clientX: {place}.left + time.px(xOfLine(101)) + 1, "
            f"clientY: {place}.top + TOP + time.lanes[1].y + 2}}))"
            if event == "pointerup"
            else "document.getElementById('canvas').setPointerCapture = () => {};"
            f"document.getElementById('canvas').dispatchEvent(new PointerEvent('{event}', "
            f"{{pointerId: 1, clientX: {place}.left + time.px(xOfLine(101)) + 1, clientY: 0}}))"
        )
    assert (line(browser), browser.evaluate("walk.queue")) == (101, 1)


def test_what_our_own_device_shows_is_shown(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, OURS, f"#line={STARTED + 6}", hung=True)
    assert "posts CID 8 to slot 0 of CQ 1: SQHD 2, phase 1" in text(browser, "now")
    assert "next phase 1" in text(browser, "cq-say")
    assert "SQHD 2 is the last that a completion said" in text(browser, "knows-driver")
    assert "no interrupt says so" in text(browser, "knows-driver")
    assert browser.evaluate("document.querySelector('#cq .slot').classList[1]") == "posted"
    assert "not released: raise the interrupt" in text(browser, "ball")


def test_what_a_log_does_not_show_is_not_made_up(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, EXCERPT, hung=True)
    assert "its size is not in this log" in text(browser, "sq")
    assert "(SQHD) does not show here" in text(browser, "knows-driver")
    assert "phase" not in text(browser, "cq-say") and "requests free" not in text(
        browser, "flight-say"
    )


@pytest.mark.parametrize("dark", [False, True])
def test_dark_and_light(browser: Browser, tmp_path: Path, dark: bool) -> None:
    browser.look(1280, 720, dark=dark)
    show(browser, tmp_path, HANG, hung=True)
    colour = "getComputedStyle(document.body).backgroundColor"
    dark_one, light = "rgb(18, 22, 28)", "rgb(245, 246, 248)"
    assert browser.evaluate(colour) == (dark_one if dark else light)
    assert browser.evaluate("time.colors.panel") == (
        "rgb(26, 32, 41)" if dark else "rgb(255, 255, 255)"
    )
    browser.press("t")
    assert browser.evaluate(colour) == (light if dark else dark_one)
    browser.evaluate("document.getElementById('theme').click()")
    assert browser.evaluate(colour) == (dark_one if dark else light)


@pytest.mark.parametrize("width", [1280, 900, 400])
def test_it_fits_the_window(browser: Browser, tmp_path: Path, width: int) -> None:
    browser.look(width, 720)
    show(browser, tmp_path, HANG, hung=True)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    if width == 1280:
        assert browser.evaluate("document.documentElement.scrollHeight") <= 720
    assert browser.errors == []


def test_everything_has_a_name_and_can_be_reached_by_keys(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    nameless = (
        "[...document.querySelectorAll('button, select, input, section, [tabindex], nav')]"
        ".filter((e) => !(e.textContent.trim().length > 1 || e.ariaLabel || e.labels?.length))"
        ".map((e) => e.outerHTML)"
    )
    assert browser.evaluate(nameless) == []
    browser.evaluate("document.getElementById('first').focus()")
    ring_of_focus = "getComputedStyle(document.activeElement).outlineStyle"
    browser.press("Tab")
    browser.evaluate("document.getElementById('log').focus({focusVisible: true})")
    assert browser.evaluate(ring_of_focus) == "solid"


def test_a_large_queue_is_drawn_around_its_pointers(browser: Browser, tmp_path: Path) -> None:
    text_ = START.replace("qsize=3", "qsize=65535")
    log = text_ + ring(60_000) + "".join(fetch(cid) for cid in range(5000))
    show(browser, tmp_path, log.encode(), hung=True)
    slots = browser.evaluate(
        "[...document.querySelectorAll('#sq .slot i')].map((e) => Number(e.textContent))"
    )
    assert 5000 in slots and 60_000 in slots and len(slots) <= 64
    assert "more" in text(browser, "sq")
    assert "65536 entries" in text(browser, "sq-name")
    assert browser.evaluate("document.querySelectorAll('*').length") < 1000
    assert browser.evaluate("time.bars") < 84 * 1300
    assert browser.errors == []


def test_a_hundred_thousand_events_are_windowed(browser: Browser, tmp_path: Path) -> None:
    log = (START + rounds(20_001)).encode()
    page = show(browser, tmp_path, log, hung=False)
    assert page.stat().st_size < 3_000_000
    assert browser.evaluate("rows.count") == 100_000
    assert "are left out, to keep the page small" in browser.evaluate("document.body.textContent")
    for jump in ("End", "Home", "0"):
        browser.press(jump)
        browser.until("!walk.dirty")
        assert browser.evaluate("document.querySelectorAll('*').length") < 700
        # At most one bar for a pixel in each place of a lane.
        assert 0 < browser.evaluate("time.bars") < 2 * 1280
    browser.evaluate("go(50000)")
    browser.until("!walk.dirty")
    assert browser.evaluate("document.querySelectorAll('#rows div').length") < 100
    assert browser.evaluate("document.querySelectorAll('*').length") < 700
    assert browser.evaluate("document.documentElement.scrollWidth") <= 1280
    assert browser.errors == [] and browser.requests == [page.as_uri()]


def test_many_queues_are_drawn_as_far_as_they_are_seen(browser: Browser, tmp_path: Path) -> None:
    log = "".join(ring(1, sqid) + fetch(3, sqid) for sqid in range(1, 2001))
    show(browser, tmp_path, log.encode(), hung=True)
    assert browser.evaluate("time.lanes.length") == 2000
    assert browser.evaluate("document.getElementById('canvas').clientHeight") <= 200
    assert browser.evaluate("time.bars") < 20
    browser.evaluate("choose(2000)")
    browser.until("!walk.dirty && time.bars > 0")
    assert "SQ 2000" in text(browser, "sq-name")
    assert browser.errors == []


def test_a_log_without_a_queue_says_so(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, b"pci_nvme_mmio_read addr 0x0 size 4\n", hung=False)
    assert "No queue is seen in this log" in text(browser, "broken")
    assert browser.errors == []


def test_times_that_cannot_be_do_not_stop_the_page(browser: Browser, tmp_path: Path) -> None:
    stamps = ("1@1.000000:", "1@999999999999.000000:", "2026-01-01T00:00:00Z ", "")
    lines = (START + rounds(3)).splitlines()
    log = "".join(f"{stamps[i % 4]}{line}\n" for i, line in enumerate(lines))
    show(browser, tmp_path, log.encode(), hung=True)
    for key in ("Home", *"+" * 60, "ArrowRight", "End", ",", ".", "0", "-"):
        browser.press(key)
        browser.until("!walk.dirty")
    assert browser.errors == []


HEALTHY = START + "".join(
    ring(n % 4) + fetch(n % 4) + finish(n % 4) + IRQ + release(n % 4) for n in range(1, 1201)
)
STOPPED = "pci_nvme_mmio_stopped cleared controller enable bit\n"


def timed(log: str, waits: dict[int, float]) -> bytes:
    """With times: 50 us from line to line, and so many seconds before some of them."""
    now, lines = 100.0, []
    for number, line_ in enumerate(log.splitlines(), 1):
        now += waits.get(number, 0.00005)
        lines.append(f"1@{now:.6f}:{line_}\n")
    return "".join(lines).encode()


def places(browser: Browser, *lines: int) -> list[float]:
    """Where these lines are on the timeline, from 0 at its left edge to 1 at the right one."""
    share = "(xOfLine(line) - time.view[0]) / (time.view[1] - time.view[0])"
    found: list[float] = browser.evaluate(f"{list(lines)}.map((line) => {share})")
    return found


@pytest.mark.parametrize("waits", [None, {}, {6040: 30.0}, {3000: 60.0, 6035: 2.0, 6040: 30.0}])
def test_a_hang_after_much_traffic_opens_at_its_evidence(
    browser: Browser, tmp_path: Path, waits: dict[int, float] | None
) -> None:
    begin = HEALTHY.count("\n") + 1
    log = HEALTHY + ring(1) + fetch(1) + 9 * IRQ + ring(2) + 9 * IRQ + ring(3)
    show(browser, tmp_path, log.encode() if waits is None else timed(log, waits), hung=True)
    first, last = begin + 1, begin + 21
    assert [mark[0] for mark in browser.evaluate("data.marks")] == [first, begin + 11, last]
    left, middle, right = places(browser, first, begin + 11, last)
    assert 0.02 < left < 0.6 and left + 0.15 < middle and middle + 0.15 < right <= 1
    assert line(browser) == last
    assert browser.evaluate("time.bars") >= 3


def test_flags_that_would_lie_on_one_another_are_one(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    browser.evaluate(
        "window.said = []; CanvasRenderingContext2D.prototype.fillText = (t) => said.push(t)"
    )
    browser.evaluate("drawTime()")
    assert {"1", "2"} <= set(browser.evaluate("said"))
    log = (HEALTHY + ring(1) + IRQ + ring(2)).encode()
    show(browser, tmp_path, log, hung=True)
    browser.evaluate(
        "window.said = []; CanvasRenderingContext2D.prototype.fillText = (t) => said.push(t)"
    )
    browser.press("0")
    browser.until("!walk.dirty")
    assert "1 2" in browser.evaluate("said")


def test_quiet_times_are_drawn_shorter_and_said(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, timed(START + rounds(30), {100: 30.0}), hung=False)
    browser.press("0")
    assert "hatched: quiet" in text(browser, "axis")
    before, after = places(browser, 99, 100)
    assert 0.003 < after - before < 0.2
    # Times are found again where they were.
    for at in (5, 99, 100, 120):
        row = f"rowOf({at})"
        assert browser.evaluate(f"Math.abs(placeOf(rows.us[{row}]) - rows.place[{row}])") < 1e-6
        assert browser.evaluate(f"timeAt(rows.place[{row}]) - rows.us[{row}]") < 1e-6
        assert browser.evaluate(f"rowAt(rows.place[{row}]) - {row}") == 0


@pytest.mark.parametrize("stamped", [False, True])
def test_a_healthy_log_opens_at_its_last_work(
    browser: Browser, tmp_path: Path, stamped: bool
) -> None:
    end = ring(4, 0) + "pci_nvme_admin_cmd cid 3 sqid 0 opc 0x6 opname 'x'\n" + IRQ * 300
    log = HEALTHY + end
    show(browser, tmp_path, timed(log, {5000: 9.0}) if stamped else log.encode(), hung=False)
    assert line(browser) == HEALTHY.count("\n")
    assert browser.evaluate("walk.queue") == 1
    assert browser.evaluate("time.bars") >= 12
    # Not hair-thin ones.
    a, b = places(browser, HEALTHY.count("\n") - 4, HEALTHY.count("\n"))
    assert b - a > 0.02


def test_a_whole_line_is_shown_and_the_rings_are_in_view(browser: Browser, tmp_path: Path) -> None:
    browser.look(1280, 800)
    bad = "pci_nvme_ub_db_wr_invalid_cqhead x, cqid=1, new_head=4\n"
    log = START.replace("qsize=3", "qsize=15") + bad.replace("=4", "=99") * 3
    log += ring(9) + OURS.decode().splitlines()[STARTED + 1] + "\n" + fetch(7)
    show(browser, tmp_path, log.encode(), "#line=" + str(STARTED + 5), hung=True)
    whole = log.splitlines()[STARTED + 4]
    assert len(whole) > 150 and text(browser, "line") == whole
    assert browser.evaluate("$('line').scrollHeight <= $('line').clientHeight + 1")
    assert browser.evaluate("getComputedStyle($('line')).overflowWrap") == "anywhere"
    ring_, pane = "$('cq').getBoundingClientRect()", "$('state').getBoundingClientRect()"
    assert browser.evaluate(f"{ring_}.bottom <= {pane}.bottom && {pane}.bottom <= 800")
    assert browser.evaluate("document.querySelectorAll('#cq .slot').length") == 16


def test_what_the_host_took_back_is_shown_as_it_was(browser: Browser, tmp_path: Path) -> None:
    log = HEALTHY + ring(2) + IRQ * 2 + STOPPED + START + rounds(3)
    at = HEALTHY.count("\n") + 4
    data = timed(log, {at: 31.0})
    recorder = Recorder(Monitor())
    counts = read_log([data], recorder.handlers, recorder.line)
    verdict = judge(recorder.monitor, rest=False, time_of=lambda line: 31.0 * (line >= at))
    page = tmp_path / "log.html"
    page.write_text(log_page(recorder, verdict, counts, name="x", hung=False))
    browser.open(page)
    browser.until("document.body.dataset.ready === 'yes' && !walk.dirty")
    assert line(browser) == at - 1 and browser.evaluate("walk.queue") == 1
    assert "until the host gave up in line" in text(browser, "ball")
    assert "2 commands are rung, not fetched: fetch them" in text(browser, "ball")
    stuck = "[...lanes.get(1).places.flat()].filter(isStuck)"
    assert browser.evaluate(f"{stuck}.map((c) => [c.entries, c.gone])") == [[2, at]]
    assert f"not fetched, given up {at}" in browser.evaluate(f"storyOf({stuck}[0])")
    begin, end = places(browser, at - 3, at)
    assert 0 < begin < 0.6 and begin + 0.3 < end <= 1
    browser.press("ArrowRight")
    assert line(browser) == at and "The host gives up" in text(browser, "why")
    assert "There is no SQ 1 at this point" in text(browser, "missing")
    assert browser.errors == []


def test_what_was_given_up_opens_before_it(browser: Browser, tmp_path: Path) -> None:
    log = HEALTHY + ring(2) + STOPPED + START + rounds(3)
    show(browser, tmp_path, log.encode(), hung=False)
    at = HEALTHY.count("\n") + 2
    assert line(browser) == at - 1 and browser.evaluate("walk.queue") == 1
    given_up = "[...lanes.get(1).places.flat()].filter(isGivenUp).map((c) => c.gone)"
    assert browser.evaluate(given_up) == [at]
    browser.press("p")
    assert line(browser) == at and "2 commands were outstanding" in text(browser, "why")


def test_where_lines_are_missing_is_marked(browser: Browser, tmp_path: Path) -> None:
    log = HEALTHY + ring(1) + fetch(7) + finish(8) + "".join(rounds(30).splitlines(True)[5:])
    show(browser, tmp_path, log.encode(), hung=False)
    at = HEALTHY.count("\n") + 3
    assert line(browser) == at
    assert browser.evaluate("document.querySelectorAll('#rows .missing').length") == 1
    assert "Lines are missing before this one" in text(browser, "why")
    assert "lines are missing" in text(browser, "legend")
