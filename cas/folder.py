"""Folders that hold what is ours, and never belong to a project, even where they lie below its root."""

from __future__ import annotations

import os


def make_own(folder: str) -> None:
    """Make a folder that git and bundles leave out: it holds a `.gitignore` for all that is in it. Raises `OSError`."""
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(f"{folder}/.gitignore"):
        with open(f"{folder}/.gitignore", "w", encoding="ascii") as file:
            file.write("*\n")
