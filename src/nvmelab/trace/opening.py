"""A log from wherever it is: a file, a pipe, compressed or not."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import IO

_UNPACKERS: dict[bytes, Callable[[IO[bytes]], gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_ZSTD = b"\x28\xb5\x2f\xfd"
_NOT_READ = {
    b"\xff\xfe": "UTF-16 text; make it UTF-8: iconv -f UTF-16 -t UTF-8",
    b"\xfe\xff": "UTF-16 text; make it UTF-8: iconv -f UTF-16 -t UTF-8",
    b"PK\x03\x04": "a ZIP archive; unpack it: unzip -p",
    b"\x04\x22\x4d\x18": "compressed with lz4; unpack it: lz4 -dc",
    b"\x17\x08Dtracing": "the file of trace-cmd; make text of it: trace-cmd report -i",
    b"PERFILE2": "the file of perf; make text of it: perf script -i",
}
"""What a log is not, by its first bytes, and the command that makes a log of it."""
_HEAD = max(map(len, (*_UNPACKERS, _ZSTD, *_NOT_READ)))
_CUT = "the compressed data ends too early"
_PIECE = 1 << 16


class LogError(Exception):
    """The log cannot be read. One line for the user."""


class Log:
    """The bytes of a log."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self.cut = ""
        """Why the end of it is missing, once all was read: in words."""

    def read(self, size: int) -> bytes:
        """At most so many bytes, as soon as there are some; none at the end. Raises LogError."""
        try:
            return self._read(size)
        except EOFError:
            self.cut = _CUT
            return b""


@contextlib.contextmanager
def open_log(path: str) -> Iterator[Log]:
    """The log at that path; `-` is standard input. Raises LogError, from what is done with it as
    well."""
    name = "standard input" if path == "-" else path
    with contextlib.ExitStack() as stack:
        try:
            stream: IO[bytes] = (
                sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
            )
            head = stream.peek(_HEAD)[:_HEAD]  # type: ignore[attr-defined]
            for begin, what in _NOT_READ.items():
                if head.startswith(begin):
                    raise LogError(f"{name} is {what}")
            magic = next((magic for magic in _UNPACKERS if head.startswith(magic)), None)
            if magic:
                unpacked = _UNPACKERS[magic](stream)
                stack.callback(unpacked.close)
                yield Log(unpacked.read1)  # it keeps what came before an error
            elif head.startswith(_ZSTD):
                yield stack.enter_context(_zstd(name, stream))
            else:
                yield Log(stream.read)
        except BrokenPipeError:
            raise  # of standard output
        except OSError as error:
            raise LogError(f"{name}: {error.strerror or error}") from None
        except (zlib.error, lzma.LZMAError) as error:
            raise LogError(f"{name}: the compressed data is damaged: {error}") from None


@contextlib.contextmanager
def _zstd(name: str, stream: IO[bytes]) -> Iterator[Log]:
    """By the program `zstd`: Python 3.11 has no such module."""
    program = shutil.which("zstd")
    if program is None:
        raise LogError(f"{name}: compressed with zstd, and there is no program zstd to unpack it")
    pipe = subprocess.PIPE
    with subprocess.Popen([program, "-dc"], stdin=pipe, stdout=pipe, stderr=pipe) as child:
        assert child.stdin and child.stdout and child.stderr
        # Nobody waits for this thread: where reading ends early, it may hang on a pipe for ever.
        words = (stream.peek(), stream.fileno(), child.stdin)  # type: ignore[attr-defined]
        threading.Thread(target=_feed, args=words, daemon=True).start()
        source, complaints = child.stdout, child.stderr

        def read(size: int) -> bytes:
            data = source.read(size)
            if not data and child.wait():
                if b"premature" in complaints.read():
                    raise EOFError
                raise LogError(f"{name}: the compressed data is damaged")
            return data

        yield Log(read)
        source.close()  # or it would wait for a reader


def _feed(begin: bytes, number: int, target: IO[bytes]) -> None:
    """Write what was read already, and then the file with that number. Not through its stream: the
    lock of standard input must be free when Python ends."""
    with contextlib.suppress(OSError):  # the other one has enough
        while begin:
            target.write(begin)
            target.flush()
            begin = os.read(number, _PIECE)
    with contextlib.suppress(OSError):
        target.close()
