"""A log from wherever it is: a file, a pipe, compressed or not."""

from __future__ import annotations

import contextlib
import gzip
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from typing import IO, cast

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class LogError(Exception):
    """The log cannot be read. One line for the user."""


@contextlib.contextmanager
def open_log(path: str) -> Iterator[IO[bytes]]:
    """The log as bytes; `-` is standard input. Raises LogError."""
    with contextlib.ExitStack() as stack:
        try:
            stream: IO[bytes] = (
                sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
            )
            head = stream.peek(4)[:4]  # type: ignore[attr-defined]
            if head.startswith(_GZIP):
                unpacked = gzip.GzipFile(fileobj=stream)
                stack.callback(unpacked.close)
                yield cast(IO[bytes], unpacked)
            elif head.startswith(_ZSTD):
                yield stack.enter_context(_zstd(path))
            else:
                yield stream
        except OSError as error:
            raise LogError(f"{path}: {error.strerror or error}") from None
        except (EOFError, zlib.error) as error:
            raise LogError(f"{path}: the compressed data is damaged: {error}") from None


@contextlib.contextmanager
def _zstd(path: str) -> Iterator[IO[bytes]]:
    """By the program `zstd`: Python 3.11 has no such module."""
    program = shutil.which("zstd")
    if path == "-":
        raise LogError("standard input is compressed with zstd; put this before it: zstd -dc |")
    if program is None:
        raise LogError(f"{path}: compressed with zstd, and there is no program zstd to unpack it")
    words = [program, "-dc", "--", path]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout
        yield child.stdout
        if child.stdout.read(1) == b"" and child.wait():
            raise LogError(f"{path}: the compressed data is damaged")
