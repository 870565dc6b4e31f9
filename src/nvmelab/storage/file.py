"""A raw disk image in a file, or on a block device of the host.

`FileBackend` transfers straight between the image and the given memory, with one system call where
it can. It expresses QEMU's cache modes (`CACHE_MODES`), among them those that go past the host's
page cache (O_DIRECT): there, requests of any alignment work, and only aligned ones are fast.

Whatever keeps an image from being served is an `ImageError` when it is opened; afterwards, errors
of the host are OSErrors. Opening also locks the image (`locks.py`) and makes sure that it is raw
(`probe.py`).

Not here: other formats than raw, and growing or shrinking an image.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from nvmelab.advice import convert_line, quoted
from nvmelab.limits import (
    BOUNCE_BYTES,
    DIRECT_ALIGN_MAX,
    DIRECT_ALIGN_MIN,
    IO_PIECES_MAX,
    ZERO_PIECE_BYTES,
)
from nvmelab.storage.base import ImageError
from nvmelab.storage.locks import LockConflict, lock_fd
from nvmelab.storage.probe import PROBE_BYTES, format_of

assert BOUNCE_BYTES >= 2 * DIRECT_ALIGN_MAX

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_ZERO_RANGE = 0x10


class CacheMode(NamedTuple):
    """What one of QEMU's `cache=` words means."""

    direct: bool
    """Past the page cache of the host (O_DIRECT)."""
    write_cache: bool
    """Written data is durable only after a flush; otherwise at once."""
    ignore_flush: bool
    """A flush does nothing: fast, and a power failure may cost the image."""


CACHE_MODES = {
    "writeback": CacheMode(direct=False, write_cache=True, ignore_flush=False),
    "none": CacheMode(direct=True, write_cache=True, ignore_flush=False),
    "writethrough": CacheMode(direct=False, write_cache=False, ignore_flush=False),
    "directsync": CacheMode(direct=True, write_cache=False, ignore_flush=False),
    "unsafe": CacheMode(direct=False, write_cache=True, ignore_flush=True),
}


class FileBackend:
    """The raw image at `path`, which has a size of its own and keeps it.

    `cache` is a mode, such as one of CACHE_MODES. With `discard=False`, space once used stays
    used: discards are ignored, and zeroes are written without making holes. With `lock=False`,
    others may open the image meanwhile, or have done so. With `probe=False`, the image is served
    as raw whatever it looks like, as a guest may write anything to its first block.

    Raises ImageError if the image cannot be opened so.

        disk = FileBackend("disk.img", cache=CACHE_MODES["none"])
        block = memoryview(bytearray(4096))
        disk.read(0, [block])
        disk.close()
    """

    __slots__ = (
        "_bounce",
        "_direct",
        "_discard",
        "_fd",
        "_flush_error",
        "_ignore_flush",
        "_lock",
        "_mask",
        "name",
        "read_only",
        "size",
        "write_cache",
    )

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        cache: CacheMode = CACHE_MODES["writeback"],
        read_only: bool = False,
        discard: bool = True,
        lock: bool = True,
        probe: bool = True,
    ) -> None:
        self._direct, self.write_cache, self._ignore_flush = cache
        self.name = os.fspath(path)
        self.read_only = read_only
        self._discard = discard
        self._flush_error: OSError | None = None
        # The block past the page cache, as a mask of the bits within a block.
        self._mask = DIRECT_ALIGN_MIN - 1 if self._direct else 0
        # Whoever has it may use the bounce buffer, read-modify-write blocks, and set O_DIRECT off.
        self._lock = threading.Lock()
        self._bounce = memoryview(mmap.mmap(-1, BOUNCE_BYTES) if self._direct else b"")
        self._fd = _open_image(self.name, read_only=read_only, direct=self._direct)
        try:
            if lock:
                _lock_image(self._fd, self.name, write=not read_only)
            self.size = os.lseek(self._fd, 0, os.SEEK_END)
            if self.size == 0:
                raise ImageError(
                    f"{_shown(self.name)}: is empty; give it a size: {_create(self.name)}"
                )
            self._check_start(probe)
        except BaseException:
            self.close()
            raise

    def _check_start(self, probe: bool) -> None:
        """Read the image's first block, which shows the alignment needed and the format."""
        head = bytearray(min(PROBE_BYTES, self.size))
        try:
            self.read(0, [memoryview(head)])
        except OSError as error:
            raise ImageError(
                f"{_shown(self.name)}: cannot be read ({error.strerror}); "
                f"check the disk it is on, or try cache=writeback"
            ) from None
        found = format_of(bytes(head), self.name)
        if probe and found != "raw":
            raise ImageError(
                f"{_shown(self.name)}: is a {found} image, and only raw ones are served; convert "
                f"it: {convert_line(self.name)}"
            )

    def read(self, offset: int, views: Sequence[memoryview]) -> None:
        """Fill `views` from byte `offset` on. Raises OSError, with EIO also where the file ends
        because somebody truncated it."""
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        assert 0 <= offset <= self.size - length
        done = 0  # and so it stays for what the kernel calls invalid: too many pieces, not aligned
        try:
            done = os.preadv(self._fd, views, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        if done == length:
            return
        if self._direct:
            with self._lock:
                self._read_bounced(offset + done, _after(views, done))
        else:
            self._finish(os.preadv, offset + done, _after(views, done))

    def write(self, offset: int, views: Sequence[memoryview]) -> None:
        """Store the contents of `views` from byte `offset` on. Raises OSError."""
        length = len(views[0]) if len(views) == 1 else sum(map(len, views))
        assert 0 <= offset <= self.size - length
        assert not self.read_only
        if self._direct:
            with self._lock:
                self._write_direct(offset, views)
        else:
            done = 0  # as in `read`
            try:
                done = os.pwritev(self._fd, views, offset)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            if done != length:
                self._finish(os.pwritev, offset + done, _after(views, done))
        if not self.write_cache:
            self.flush()

    def _finish(
        self,
        transfer: Callable[[int, list[memoryview], int], int],
        offset: int,
        views: list[memoryview],
    ) -> None:
        """Transfer `views` by as many calls of preadv or pwritev as it takes."""
        while views:
            done = transfer(self._fd, views[:IO_PIECES_MAX], offset)
            self._check_progress(done, offset)
            offset += done
            views = _after(views, done)

    def _read_bounced(self, offset: int, views: list[memoryview]) -> None:
        """Read past the page cache where offset, length or memory are not aligned: whole blocks go
        to the bounce buffer, and from there what was asked for."""
        end = offset + sum(map(len, views))
        while offset < end:
            start = offset & ~self._mask
            stop = min((end + self._mask) & ~self._mask, start + BOUNCE_BYTES)
            try:
                done = os.preadv(self._fd, [self._bounce[: stop - start]], start)
            except OSError as error:
                self._need_larger_alignment(error)
                continue
            usable = min(start + done, end) - offset
            self._check_progress(usable, offset)
            at = offset - start
            for view in _first(views, usable):
                view[:] = self._bounce[at : at + len(view)]
                at += len(view)
            offset += usable
            views = _after(views, usable)

    def _write_direct(self, offset: int, views: Sequence[memoryview]) -> None:
        """Write past the page cache. Where offset, length or memory are not aligned, whole blocks
        come from the bounce buffer; of the first and the last one, the rest is read before.

        That is why all direct writes exclude each other: what one stores into a block while another
        holds a copy of the block would be lost."""
        end = offset + sum(map(len, views))
        done = 0
        try:
            done = os.pwritev(self._fd, views, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        offset += done
        views = _after(views, done)
        while offset < min(end, self.size & ~self._mask):
            start = offset & ~self._mask
            stop = min(end + self._mask, self.size) & ~self._mask
            stop = min(stop, start + BOUNCE_BYTES)
            taken = min(stop, end)
            try:
                if offset > start:
                    self._read_block(start, 0)
                last = stop - self._mask - 1
                if taken < stop and (last > start or offset == start):
                    self._read_block(last, last - start)
                at = offset - start
                for view in _first(views, taken - offset):
                    self._bounce[at : at + len(view)] = view
                    at += len(view)
                done = os.pwritev(self._fd, [self._bounce[: stop - start]], start)
            except OSError as error:
                self._need_larger_alignment(error)
                continue
            written = min(start + done, taken) - offset
            self._check_progress(written, offset)
            offset += written
            views = _after(views, written)
        if views:
            # The file ends within a block. To write all of the block would make the file longer,
            # and less is possible only through the page cache, which the kernel keeps coherent.
            with self._page_cache():
                self._finish(os.pwritev, offset, views)

    def _read_block(self, offset: int, at: int) -> None:
        """Read the block at byte `offset` of the image to byte `at` of the bounce buffer."""
        block = self._mask + 1
        done = os.preadv(self._fd, [self._bounce[at : at + block]], offset)
        if done < block:
            self._check_progress(0, offset + done)

    def _need_larger_alignment(self, error: OSError) -> None:
        """Expect larger blocks after an aligned request was called invalid; raise `error` if it
        was another one or there are none. To ask once, when opening, would not do: where a file
        has a hole, some file systems accept what the disk refuses later."""
        if error.errno != errno.EINVAL or self._mask + 1 >= DIRECT_ALIGN_MAX:
            raise error
        self._mask = self._mask * 2 + 1

    def _check_progress(self, done: int, offset: int) -> None:
        if done <= 0:
            raise OSError(errno.EIO, f"the image ends early, at byte {offset}", self.name)

    @contextlib.contextmanager
    def _page_cache(self) -> Iterator[None]:
        """Switch O_DIRECT off for a moment."""
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        fcntl.fcntl(self._fd, fcntl.F_SETFL, flags & ~os.O_DIRECT)
        try:
            yield
        finally:
            fcntl.fcntl(self._fd, fcntl.F_SETFL, flags)

    def flush(self) -> None:
        """Everything written before is durable when it returns. Raises OSError.

        Once that failed it fails for ever: Linux drops the data that it could not write, and would
        report success the next time.
        """
        if self._ignore_flush:
            return
        if self._flush_error is not None:
            raise OSError(*self._flush_error.args)
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            self._flush_error = error
            raise

    def discard(self, offset: int, length: int) -> None:
        """Make a hole, where the file system can; it reads as zeroes. Raises OSError."""
        assert 0 <= offset <= offset + length <= self.size
        assert not self.read_only
        if self._discard and length:
            _fallocate(self._fd, _PUNCH_HOLE | _KEEP_SIZE, offset, length)

    def write_zeroes(self, offset: int, length: int, *, may_unmap: bool) -> None:
        """The range reads as zeroes: by a hole if that is permitted, else by whatever is quickest
        on this file system. Raises OSError."""
        assert 0 <= offset <= offset + length <= self.size
        assert not self.read_only
        if length == 0:
            return
        ways = (_PUNCH_HOLE, _ZERO_RANGE) if may_unmap and self._discard else (_ZERO_RANGE,)
        # Zeroes in a part of a block could be lost to a write that has read the block before.
        # Whole blocks do not wait for the lock: with some devices, zeroing takes seconds.
        with self._lock if (offset | length) & self._mask else contextlib.nullcontext():
            zeroed = any(_fallocate(self._fd, way | _KEEP_SIZE, offset, length) for way in ways)
        if zeroed:
            if not self.write_cache:
                self.flush()
            return
        # Memory that is only read stays one page of zeroes, whatever its size.
        piece = min(length, ZERO_PIECE_BYTES)
        zeroes = memoryview(mmap.mmap(-1, piece, mmap.MAP_PRIVATE, mmap.PROT_READ))
        for at in range(offset, offset + length, piece):
            self.write(at, [zeroes[: offset + length - at]])

    def close(self) -> None:
        """Release the file and its locks. Safe to call twice. It does not flush."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _first(views: Sequence[memoryview], length: int) -> Iterator[memoryview]:
    """The first `length` bytes of `views`."""
    for view in views:
        if length <= 0:
            return
        yield view[:length]
        length -= len(view)


def _after(views: Sequence[memoryview], length: int) -> list[memoryview]:
    """All but the first `length` bytes of `views`, without empty pieces."""
    rest: list[memoryview] = []
    for view in views:
        if length < len(view):
            rest.append(view[length:])
        length = max(0, length - len(view))
    return rest


@functools.cache
def _libc_fallocate() -> Callable[[int, int, int, int], int]:
    """The C library's function. Python itself offers none with a mode."""
    libc = ctypes.CDLL(None, use_errno=True)
    # Where there are two, the plain one has 32-bit offsets on 32-bit machines.
    function = libc.fallocate64 if hasattr(libc, "fallocate64") else libc.fallocate
    function.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)
    return function


def _fallocate(fd: int, mode: int, offset: int, length: int) -> bool:
    """Linux's fallocate. False if this file system, or a block device for this range, cannot do
    it. Raises OSError."""
    while _libc_fallocate()(fd, mode, offset, length) != 0:
        code = ctypes.get_errno()
        if code in (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            return False
        if code != errno.EINTR:
            raise OSError(code, os.strerror(code))
    return True


def _open_image(name: str, *, read_only: bool, direct: bool) -> int:
    """A descriptor of the image. Raises ImageError."""
    shown = _shown(name)
    flags = os.O_RDONLY if read_only else os.O_RDWR
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"{shown}: is a directory; name an image file or a block device")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise ImageError(
                f"{shown}: is neither a file nor a block device; name one that is an image"
            )
        return os.open(name, flags | os.O_CLOEXEC | (os.O_DIRECT if direct else 0))
    except FileNotFoundError:
        folder = os.path.dirname(name) or "."
        if os.path.isdir(folder):
            advice = f"there is no such image; create it: {_create(name)}"
        else:
            advice = f"there is no directory {_shown(folder)}; correct the path"
    except OSError as error:
        if error.errno == errno.EINVAL and direct:
            advice = "its file system has no O_DIRECT; use cache=writeback"
        elif not read_only and os.access(name, os.R_OK, effective_ids=True):
            advice = (
                f"cannot be opened for writing ({error.strerror}); open it read-only "
                f"(readonly=on or --read-only), or check its mode: ls -l {quoted(name)}"
            )
        else:
            advice = f"cannot be opened ({error.strerror}); check it: ls -l {quoted(name)}"
    raise ImageError(f"{shown}: {advice}")


def _lock_image(fd: int, name: str, *, write: bool) -> None:
    """Lock the image as QEMU does. Raises ImageError."""
    try:
        lock_fd(fd, write=write)
    except LockConflict as conflict:
        who = ", ".join(conflict.who) or "another process"
        how = "writing" if conflict.writing else "reading"
        advice = "stop that first, or serve a copy"
        if write and not conflict.writing:
            advice += ", or open it read-only (readonly=on or --read-only)"
        raise ImageError(f"{_shown(name)}: in use by {who}, open for {how}; {advice}") from None
    except OSError as error:
        raise ImageError(
            f"{_shown(name)}: cannot be locked ({error.strerror}); if nothing else uses it, "
            f"open it without locking (locking=off)"
        ) from None


def _create(name: str) -> str:
    return f"truncate -s 1G {quoted(name)}"


def _shown(name: str) -> str:
    """The name as it stands at the start of a message, which is one line."""
    return name if name and name.isprintable() else repr(name)
