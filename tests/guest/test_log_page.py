"""The page of a log in a real browser: its states, keys, colours and sizes, and its silence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.check.monitor import Monitor
from nvmelab.report.recorder import snapshot
from nvmelab.trace.qemu_reader import read_log
from tests.browser import Browser
from tests.check.test_diagnosis import EXCERPT, HANG, SOUND
from tests.check.test_monitor import ROUND, START
from tests.guest.lab import LAB
from tests.report.test_log_page import page_of, recorded

pytestmark = pytest.mark.guest

READY_S = 20


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(LAB / "bin/chromium", tmp_path / "profile") as browser:
        yield browser


def show(browser: Browser, folder: Path, log: bytes, **how: object) -> Path:
    """Open the page of a log, and wait until it is unpacked."""
    page = folder / "log.html"
    page.write_text(page_of(log, **how))  # type: ignore[arg-type]
    browser.open(page)
    limit = time.monotonic() + READY_S
    while browser.evaluate("document.body.dataset.ready") != "yes":
        assert time.monotonic() < limit, browser.errors
    return page


def text(browser: Browser, place: str) -> str:
    return str(browser.evaluate(f"document.getElementById({place!r}).innerText"))


@pytest.mark.parametrize("log", [EXCERPT, HANG, SOUND], ids=["excerpt", "hang", "sound"])
def test_every_state_is_the_monitors(browser: Browser, tmp_path: Path, log: bytes) -> None:
    show(browser, tmp_path, log, hung=True)
    shown = json.loads(browser.evaluate("JSON.stringify(rows.map((_row, at) => stateAt(at)))"))
    rows = recorded(log).rows
    lines = log.splitlines(keepends=True)
    assert len(shown) == len(rows)
    for row, states in zip(rows, shown, strict=True):
        monitor = Monitor()
        read_log([b"".join(lines[: row.line])], monitor.handlers)
        if row.sqid >= 0:
            expected = snapshot(monitor.sqs[row.sqid], monitor)
            assert states[str(row.sqid)] == json.loads(json.dumps(expected)), row


def test_keys_walk_through_the_log(browser: Browser, tmp_path: Path) -> None:
    page = show(browser, tmp_path, EXCERPT, hung=True, sq_entries=4)
    assert text(browser, "where") == "12 of 12, line 22"  # a hang is shown from its end
    assert "device 2 rung: fetch them" in text(browser, "ball")
    slots = "[...document.querySelectorAll('#sq .slot')].map((slot) => slot.classList[1])"
    assert browser.evaluate(slots) == ["fetched", "rung", "rung", "free"]
    browser.press("Home")
    assert text(browser, "where") == "1 of 12, line 1"
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    browser.press("ArrowRight")
    assert text(browser, "where") == "4 of 12, line 4"
    assert "fetches CID 0x4 (write) from SQ 1" in text(browser, "now").replace("\n", " ")
    browser.press("ArrowLeft")
    browser.press("p")
    assert text(browser, "where") == "4 of 12, line 4"  # the next line of the proof
    browser.press("p")
    assert text(browser, "where") == "6 of 12, line 12"
    browser.press("[")
    assert text(browser, "where").startswith("5 of 12")
    browser.press("?")
    assert browser.evaluate("document.getElementById('keys').open") is True
    assert browser.errors == [] and browser.requests == [page.as_uri()]


def test_the_lines_of_the_proof_are_links(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, EXCERPT, hung=True, sq_entries=4)
    links = "[...document.querySelectorAll('#proof button')].map((link) => link.textContent)"
    assert browser.evaluate(links) == [
        *(f"line {line}" for line in (12, 13, 17, 22)),
        *(f"line {line}" for line in (12, 22, 4)),
    ]
    browser.evaluate("document.querySelectorAll('#proof button')[2].click()")
    assert text(browser, "where").endswith("line 17")


def test_dark_and_light(browser: Browser, tmp_path: Path) -> None:
    show(browser, tmp_path, HANG, hung=True)
    colour = "getComputedStyle(document.body).backgroundColor"
    before = browser.evaluate(colour)
    browser.press("t")
    assert browser.evaluate(colour) != before
    browser.press("t")
    assert browser.evaluate(colour) == before


def test_a_hundred_thousand_events_are_windowed(browser: Browser, tmp_path: Path) -> None:
    log = (START + ROUND.replace("cid 7", "cid 5") * 20_001).encode()
    show(browser, tmp_path, log, hung=False)
    assert browser.evaluate("rows.length") == 100_000
    assert "events before these are left out" in browser.evaluate("document.body.textContent")
    browser.press("End")
    assert text(browser, "where").startswith("100000 of 100000")
    browser.evaluate("go(50000)")
    assert browser.evaluate("document.querySelectorAll('*').length") < 600
    assert browser.evaluate("document.documentElement.scrollWidth <= window.innerWidth") is True
    assert browser.errors == []
