"""Unix sockets, also at paths that are longer than the system's limit.

The limit is 108 bytes on Linux, and 104 on macOS: unix(7), "Address format".
"""

from __future__ import annotations

import _socket  # The module `socket` takes too long to import for runs that use no socket.
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socket import socket

_LONGEST = 100


def listen(path: str, kind: int = _socket.SOCK_STREAM) -> int:
    """Return the descriptor of a socket of some kind that listens at a path.

    It is for this user only, unless all may search its directory.
    """
    listener = _socket.socket(_socket.AF_UNIX, kind)
    try:
        with _short(path) as address:
            listener.bind(address)
        is_open = os.stat(os.path.dirname(path)).st_mode & stat.S_IXOTH
        os.chmod(path, 0o666 if is_open else 0o600)
        listener.listen(128)
        return listener.detach()
    finally:
        listener.close()


def connect(path: str) -> socket:
    """Return a socket that is connected to the one at a path. Raises `OSError`."""
    import socket

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short(path) as address:
            connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection


def shut_down(descriptor: int) -> None:
    """Let the other end of a socket read its end, while this one can still be read."""
    import socket

    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as own:
        own.shutdown(socket.SHUT_WR)


@contextmanager
def _short(path: str) -> Iterator[str]:
    """Yield an address of a path; on Linux, a long one is found from its directory."""
    if len(os.fsencode(path)) <= _LONGEST or not os.path.isdir("/proc/self/fd"):
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
