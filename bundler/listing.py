"""Listings of a directory: its names, with states that show whether they have changed.

A listing is a flat list in the file system's order. A directory is its name and "/" (or `VENV` if
it is a virtual environment); a file or link is its name, followed by its state; a name that is
known to be excluded stands alone, since its state does not matter.
"""

from __future__ import annotations

import os
from collections.abc import Container
from typing import Any

from flyte_build.cas.statindex import Row, row

VENV = "/pyvenv.cfg"
RULE_FILES = (".gitignore", ".flyteignore")

Listing = list[Any]
States = dict[str, Row | None]


def look(folder: str, excluded: Container[str]) -> Listing:
    """List the directory `folder`. `excluded` names are known to be excluded. Raises `OSError`."""
    listing: Listing = []
    add = listing.append
    with os.scandir(folder) as entries:
        for entry in entries:  # Keep this minimal: it runs for every file each time.
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                add(name + (VENV if os.path.exists(entry.path + VENV) else "/"))
            elif name in excluded and name not in RULE_FILES:
                add(name)
            else:
                try:
                    state = row(entry.stat(follow_symlinks=False))
                except FileNotFoundError:  # It vanished since the directory was listed.
                    continue
                add(name)
                add(state)
    return listing


def states(listing: Listing) -> States:
    """Return the names of a listing in its order, each with its state, if it has one."""
    found: States = {}
    name = ""
    for item in listing:
        if item.__class__ is str:
            name = item
            found[name] = None
        else:
            found[name] = item
    return found
