"""Temporary directories, removed at the end.

Directories of killed processes are removed when the next one is created.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from flyte_build.cas.lease import lockable
from flyte_build.cas.os_errors import storing


@contextmanager
def scratch(prefix: str) -> Iterator[str]:
    """Yield a new private directory among the machine's temporary ones.

    Directories with the same prefix whose owners are dead are removed first. The directory is
    locked while its owner lives, which does not depend on process ids. Raises `StoreError`.
    """
    with storing("create a temporary directory"):
        _remove_abandoned(prefix)
        folder, lock = _locked(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(prefix: str) -> tuple[str, int]:
    """Create a directory and lock it.

    Tries again if another process took it for an abandoned one before it was locked.
    """
    while True:
        folder = tempfile.mkdtemp(prefix=prefix)
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(folder):
            return folder, lock
        os.close(lock)


def _remove_abandoned(prefix: str) -> None:
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [
            each.path
            for each in entries
            if each.name.startswith(prefix) and each.is_dir(follow_symlinks=False)
        ]
    for folder in found:
        try:
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:  # It was removed meanwhile, or is another user's.
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid() and lockable(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
