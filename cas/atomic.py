"""Replacing a file at once: whoever reads it sees what was there before or what is there now, and
never a part.

As POSIX says of `rename`; a file that is synced before survives a crash of the machine whole.
"""

from __future__ import annotations

import os

from .folder import mode_in


def replace_file(
    path: str,
    data: bytes,
    *,
    mode: int | None = None,
    keep_mode: bool = True,
    sync: bool = True,
    temporary: str | None = None,
) -> None:
    """Put `data` in place of what is at `path`, if anything is. Raises `OSError`; then all is as
    before.

    A file that is there keeps its permissions, with `keep_mode`; a new one has `mode` before the
    umask, as its directory by default. `temporary` is where it is written first, on the same disk;
    beside it by default.
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
        if os.path.lexists(temporary):  # Not if the interruption came after the replacing.
            os.unlink(temporary)
        raise
