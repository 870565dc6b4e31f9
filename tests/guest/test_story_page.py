"""The page of a run in a real browser: keys, colours, sizes, and silence."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nvmelab.report.story_page import story_page
from tests.browser import Browser
from tests.guest.lab import LAB
from tests.report.test_story_page import story_of

pytestmark = pytest.mark.guest


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with Browser(LAB / "bin/chromium", tmp_path / "profile") as browser:
        yield browser


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "hang.html"
    path.write_text(story_page(story_of()))
    return path


def step_of(browser: Browser) -> str:
    return str(browser.evaluate("document.getElementById('at').textContent"))


def test_keys_walk_through_the_run(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert step_of(browser) == "step 24 of 24"  # where the hang is
    assert browser.evaluate("document.querySelectorAll('.row.later').length") == 0
    browser.press("Home")
    assert step_of(browser) == "step 0 of 24"
    for key in ("ArrowRight", "ArrowRight", "j", "ArrowLeft"):
        browser.press(key)
    assert step_of(browser) == "step 2 of 24"
    assert "submits B" in browser.evaluate("document.getElementById('now').textContent")
    slots = "[...document.querySelectorAll('#sq .slot')].map((slot) => slot.classList[1])"
    assert browser.evaluate(slots) == ["rung", "rung", "free"]
    browser.press("End")
    assert step_of(browser) == "step 24 of 24"
    assert "F" in browser.evaluate("document.getElementById('end').innerText")
    assert "nothing is scheduled" in browser.evaluate("document.getElementById('wake').textContent")
    browser.press("Home")
    assert step_of(browser) == "step 0 of 24"
    assert browser.evaluate("document.getElementById('end').hidden") is True
    assert browser.errors == []


def test_the_page_of_the_demo_opens(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "demo.html"
    done = subprocess.run(
        [sys.executable, "-m", "nvmelab", "demo", "--page", str(page)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"page     {page}: the hang step by step" in done.stdout
    browser.open(page)
    assert step_of(browser) == "step 21 of 21"
    assert "The device has the ball" in browser.evaluate("document.body.innerText")
    assert browser.errors == [] and browser.requests == [page.as_uri()]


def test_the_address_keeps_the_step(browser: Browser, page: Path) -> None:
    browser.open(page, "#step=7")
    assert step_of(browser) == "step 7 of 24"
    browser.press("ArrowRight")
    assert str(browser.evaluate("location.hash")) == "#step=8"


def test_a_click_on_a_step_goes_there(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.evaluate(
        "document.querySelector('[data-step=\"5\"]').dispatchEvent(new MouseEvent('click'))"
    )
    assert step_of(browser) == "step 5 of 24"


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 700, 400])
def test_it_fits_the_window(browser: Browser, page: Path, width: int, dark: bool) -> None:
    browser.look(width, 720, dark=dark)
    browser.open(page, "#step=12")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    colour = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (colour == "rgb(18, 22, 28)") is dark
    assert browser.errors == []


def test_the_step_under_way_is_in_view(browser: Browser, page: Path) -> None:
    browser.look(1280, 720)
    browser.open(page)
    browser.press("End")
    box = "document.getElementById('flow').getBoundingClientRect()"
    row = "document.querySelector('.row.now').getBoundingClientRect()"
    assert browser.evaluate(f"{row}.top >= {box}.top && {row}.bottom <= {box}.bottom + 1")


def test_the_network_is_left_alone(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.press("End")
    loaded = [url for url in browser.requests if not url.startswith(("about:", "data:"))]
    assert loaded == [page.resolve().as_uri()]
