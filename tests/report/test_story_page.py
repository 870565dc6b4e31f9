"""The page of a run: complete in itself, and safe with whatever the story says."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import msgspec

from nvmelab.explore.explore import Plan, explore
from nvmelab.explore.narrate import tell
from nvmelab.explore.setting import Setting
from nvmelab.explore.story import Story
from nvmelab.report.story_page import story_page


def story_of(entries: int = 3, device: str = "qemu-9.0", strategy: str = "bfs") -> Story:
    plan = msgspec.convert({"strategy": strategy}, Plan)
    replay = explore(Setting(entries=entries, device=device), plan).replay
    assert replay
    return tell(replay.setting, replay.steps(), shortest=replay.shortest)


def data_of(page: str) -> object:
    found = re.search(r'<script id="story" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


class Tags(HTMLParser):
    """Start tags, and what would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


def test_the_page_has_the_whole_story_and_loads_nothing() -> None:
    story = story_of()
    page = story_page(story)
    tags = Tags()
    tags.feed(page)
    assert data_of(page) == msgspec.to_builtins(story)
    assert [load for load in tags.loads if not load.startswith("data:")] == []
    assert "@import" not in page and "url(" not in page


def test_no_word_of_a_story_becomes_markup() -> None:
    bad = "</script><script>alert(1)</script><!-- \u2028 &amp; \" ' @STORY@"
    story = msgspec.structs.replace(story_of(), title=bad, owed=bad, why=bad, device=bad)
    page, plain = story_page(story), story_page(story_of())
    found, usual = Tags(), Tags()
    found.feed(page)
    usual.feed(plain)
    assert found.tags == usual.tags
    assert data_of(page) == msgspec.to_builtins(story)


def test_a_long_run_is_a_page_of_reasonable_size() -> None:
    story = story_of(entries=64, strategy="pct")
    assert len(story.moments) > 200
    assert len(story_page(story)) < 4_000_000
