"""Directories that belong to flyte-build: never part of a project, and private to the user.

They are left out even if they lie below a project's root. Only the topmost directory has a mode of
its own: 0700, unless several users share it. Everything created in it is accessible to those who
can access the directory, whatever the umask.
"""

from __future__ import annotations

import os

PRIVATE = 0o700


def make_own(folder: str, *, shared: bool = False) -> None:
    """Create a directory that git and bundles ignore, because of the `.gitignore` in it.

    It is private to the user, and so are the parents created on the way; a `shared` one has the
    permissions that the umask gives. Raises `OSError`.
    """
    _make(folder, 0o777 if shared else PRIVATE)
    if not os.path.exists(f"{folder}/.gitignore"):
        with open(f"{folder}/.gitignore", "wb", opener=opener) as file:
            file.write(b"*\n")


def make_below(folder: str) -> None:
    """Create a directory and its missing parents, with the permissions of the nearest existing one.

    Raises `OSError`.
    """
    above = folder
    while not os.path.isdir(above):
        above = os.path.dirname(above) or "."
    _make(folder, os.stat(above).st_mode & 0o777 | PRIVATE)


def make_private(folder: str) -> None:
    """Remove other users' access to a directory that an older version created, and to its content.

    A directory of another user is left as it is.
    """
    state = os.stat(folder)
    if not state.st_mode & 0o077 or state.st_uid != os.geteuid():
        return
    os.chmod(folder, PRIVATE)
    for place in (folder, *(each.path for each in _inside(folder) if each.is_dir())):
        for each in _inside(place):
            os.chmod(each.path, each.stat().st_mode & PRIVATE)


def opener(path: str, flags: int) -> int:
    """Open a file, creating it if needed, with the read and write permissions of its directory."""
    return os.open(path, flags, mode_in(os.path.dirname(path)))


def mode_in(folder: str) -> int:
    """Return the permissions for files in a directory, before the umask."""
    return os.stat(folder or ".").st_mode & 0o666


def _make(folder: str, mode: int) -> None:
    above = os.path.dirname(folder)
    if above and not os.path.isdir(above):
        _make(above, mode)
    try:
        os.mkdir(folder, mode)
    except FileExistsError:
        if not os.path.isdir(folder):
            raise


def _inside(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [each for each in entries if not each.is_symlink()]
