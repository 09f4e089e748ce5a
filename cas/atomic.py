"""Atomic writing of a file: a reader sees the old content or the new, never a mixture.

POSIX guarantees this for `rename` and `link`; a file that was synced before the rename also
survives a crash of the machine intact.
"""

from __future__ import annotations

import os

from .folder import mode_in, opener


def replace_file(
    path: str,
    data: bytes,
    *,
    mode: int | None = None,
    keep_mode: bool = True,
    sync: bool = True,
    temporary: str | None = None,
) -> None:
    """Write `data` to `path` atomically, replacing any file that is there.

    An existing file keeps its permissions if `keep_mode` is set; a new one gets `mode` before the
    umask (default: the read and write permissions of its directory). The data is first written to
    `temporary`, which must be on the same file system (default: a new name beside `path`). Raises
    `OSError`, and then leaves everything as it was.
    """
    temporary = temporary or f"{path}.{os.urandom(4).hex()}"
    try:
        kept = os.stat(path).st_mode & 0o7777 if keep_mode else None
    except FileNotFoundError:
        kept = None
    file = os.open(
        temporary,
        os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC,
        mode_in(os.path.dirname(path)) if mode is None else mode,
    )
    try:
        with open(file, "wb") as writer:
            if kept is not None:
                os.fchmod(file, kept)
            writer.write(data)
            writer.flush()
            if sync:
                os.fsync(file)
        os.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):  # It is gone if the interruption came after the replacement.
            os.unlink(temporary)
        raise


def create_file(path: str, data: bytes) -> bool:
    """Write `data` to `path` atomically, unless a file is there; return whether none was.

    Of several processes that create a file at once, one succeeds. The data is not synced.
    """
    temporary = f"{path}.{os.urandom(4).hex()}"
    try:
        with open(temporary, "wb", opener=opener) as writer:
            writer.write(data)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    return True
