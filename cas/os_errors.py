"""Conversion of operating system errors to `StoreUnavailable`, with a hint for each."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from flyte_build.errors import StoreUnavailable

_HINTS = {
    errno.ENOSPC: (
        "The disk is full. Free some space, or run `flyte cache gc --keep 0s`; nothing that was"
        " stored is lost."
    ),
    errno.EDQUOT: "Your disk quota is used up. Free some space, or run `flyte cache gc --keep 0s`.",
    errno.EIO: "The disk reports an error. Check it, or set FLYTE_HOME to another disk.",
    errno.EROFS: "The file system is read-only. Set FLYTE_HOME to a directory on another one.",
    errno.EACCES: "The directory belongs to someone else. Set FLYTE_HOME to one of your own.",
    errno.EPERM: "The directory is protected. Set FLYTE_HOME to a directory of your own.",
    errno.ENOTDIR: "There is a file where a directory should be. Set FLYTE_HOME to another path.",
    errno.EMFILE: "Too many files are open. Raise the limit with `ulimit -n`.",
    errno.ENFILE: "The machine has too many files open. Try again later.",
    errno.EFBIG: "The file is larger than this process may write (`ulimit -f`).",
}


@contextmanager
def storing(what: str) -> Iterator[None]:
    """Raise `StoreUnavailable` for an `OSError` of the body.

    `what` completes "Cannot ...", as in "write a blob".
    """
    try:
        yield
    except OSError as error:
        raise unavailable(what, error) from error


def unavailable(what: str, error: OSError) -> StoreUnavailable:
    """Return the error to raise when `what`, as in "write a blob", failed with `error`."""
    where = f": {error.filename}" if error.filename else ""
    return StoreUnavailable(
        f"Cannot {what}",
        why=f"{error.strerror or error}{where}",
        hint=_HINTS.get(
            error.errno or 0,
            "Run the command again, or set FLYTE_HOME to another directory.",
        ),
    )
