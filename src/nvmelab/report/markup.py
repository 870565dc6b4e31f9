"""HTML put together from text."""

from __future__ import annotations

import html


def escape(text: object) -> str:
    """Text as it stands, never markup."""
    return html.escape(str(text))


def tag(name: str, *children: str, **attributes: str) -> str:
    """An element. `children` are markup already, attributes are not; `class_` is `class`."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{words}>{''.join(children)}</{name}>"
