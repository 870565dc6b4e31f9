"""The listening UNIX socket of a server: its path, its mode, and what may be in its way.

Two servers that start on one path in the same instant are not kept apart: the later one wins.
"""

from __future__ import annotations

import os
import socket
import stat

from nvmelab.limits import SOCKET_PATH_BYTES_MAX


class ServerError(Exception):
    """The server cannot listen. One line that says why.

    Usual causes: another server on the same path, a path that is too long or names something that
    is no socket, a directory that does not exist.
    """


def listen(path: str) -> tuple[socket.socket, tuple[int, int]]:
    """A listening socket, and device and inode of its file. Raises ServerError."""
    length = len(os.fsencode(path))
    if not 0 < length <= SOCKET_PATH_BYTES_MAX or "\0" in path:
        raise ServerError(
            f"{path!r} cannot be a socket: a path has 1 to {SOCKET_PATH_BYTES_MAX} bytes, "
            f"this one {length}; use a shorter directory or a relative path"
        )
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise ServerError(f"cannot listen on {path}: there is no directory {folder}")
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        # bind gives the file the mode of the socket's own inode (less the umask). So it is never
        # there with another mode, and the umask of the process is left alone.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        sock.listen()
        found = os.lstat(path)
    except OSError as error:
        sock.close()
        raise ServerError(f"cannot listen on {path}: {error.strerror}") from None
    return sock, (found.st_dev, found.st_ino)


def unlisten(sock: socket.socket, path: str, identity: tuple[int, int]) -> None:
    """Close what `listen` has made, and remove its file if it is still the same."""
    sock.close()
    try:
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) == identity:
            os.unlink(path)
    except OSError:
        pass  # Somebody removed it before us, which is what we want.


def _remove_stale(path: str) -> None:
    """Remove a socket nobody listens on. Raises ServerError if something else is there."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ServerError(f"cannot listen on {path}: {error.strerror}") from None
    if not stat.S_ISSOCK(found.st_mode):
        raise ServerError(f"{path} exists and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # It listens, and its backlog is full.
        except OSError as error:
            raise ServerError(f"cannot listen on {path}: {error.strerror}") from None
    raise ServerError(f"{path} is in use: another server listens on it")
