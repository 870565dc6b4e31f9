"""Commands that error messages tell the user to run: what more than one room suggests."""

from __future__ import annotations

import os
import shlex


def quoted(path: str) -> str:
    """A path as part of a command for the shell, on one line whatever it is called."""
    return shlex.quote(path) if path.isprintable() else repr(path)


def convert_line(path: str) -> str:
    """The command that makes a raw image of this one, under a name of its own."""
    root, extension = os.path.splitext(path)
    raw = (path if extension == ".raw" else root) + ".raw"
    return f"qemu-img convert -O raw {quoted(path)} {quoted(raw)}"
