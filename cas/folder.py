"""Folders that hold what is ours: they never belong to a project, even where they lie below its
root, and are the user's alone.

What is made in such a directory is open to those for whom the directory is open, whatever the
umask: only its topmost directory has a mode of its own, 0700 unless several users share it.
"""

from __future__ import annotations

import os

PRIVATE = 0o700


def make_own(folder: str, *, shared: bool = False) -> None:
    """Make a directory that git and bundles leave out: it holds a `.gitignore` for all that is in
    it.

    It is the user's alone, and so are those above it that are made on the way; a `shared` one is as
    the umask says. Raises `OSError`.
    """
    _make(folder, 0o777 if shared else PRIVATE)
    if not os.path.exists(f"{folder}/.gitignore"):
        with open(f"{folder}/.gitignore", "wb", opener=opener) as file:
            file.write(b"*\n")


def make_below(folder: str) -> None:
    """Make a directory, and those above it, open to those for whom the nearest that is there is
    open. Raises `OSError`.
    """
    above = folder
    while not os.path.isdir(above):
        above = os.path.dirname(above) or "."
    _make(folder, os.stat(above).st_mode & 0o777 | PRIVATE)


def make_private(folder: str) -> None:
    """Close a directory of the user's that an older version has made, and what is in it, to others.
    Others' directories stay as they are.
    """
    state = os.stat(folder)
    if not state.st_mode & 0o077 or state.st_uid != os.geteuid():
        return
    os.chmod(folder, PRIVATE)
    for place in (folder, *(each.path for each in _inside(folder) if each.is_dir())):
        for each in _inside(place):
            os.chmod(each.path, each.stat().st_mode & PRIVATE)


def opener(path: str, flags: int) -> int:
    """Open a file, made if need be, readable by those who can read its directory."""
    return os.open(path, flags, mode_in(os.path.dirname(path)))


def mode_in(folder: str) -> int:
    """Return the permissions of files in a directory, before the umask."""
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
