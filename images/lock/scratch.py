"""Folders for work that is under way: gone when it ends, and if its process was killed, when the
next one begins.
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
    """Yield a new directory of the user's alone, among the machine's temporary ones; those of dead
    owners are removed. Raises `StoreError`.

    The directory is locked while its owner lives, whatever becomes of its pid.
    """
    with storing("make a temporary directory"):
        _remove_abandoned(prefix)
        folder, lock = _locked(prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _locked(prefix: str) -> tuple[str, int]:
    """Make a directory, and lock it; between the two another process may have taken it for an
    abandoned one.
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
        except OSError:  # It is gone meanwhile, or another user's.
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid() and lockable(lock):
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)
