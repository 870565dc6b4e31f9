"""A story as one HTML page that needs nothing else: no network, no font, no script from outside."""

from __future__ import annotations

import html
import importlib.resources

import msgspec

from nvmelab.explore.story import Story

_TEMPLATE = importlib.resources.files("nvmelab.report") / "templates" / "story.html"


def story_page(story: Story) -> str:
    """The page. All text of the story is data to it, never markup."""
    data = msgspec.json.encode(story).decode()
    # Inside a script element only these could end it or begin a comment.
    for char in "<>&\u2028\u2029":
        data = data.replace(char, f"\\u{ord(char):04x}")
    page = _TEMPLATE.read_text(encoding="utf-8")
    before, _, after = page.partition("@STORY@")
    return before.replace("@TITLE@", html.escape(story.title)) + data + after
