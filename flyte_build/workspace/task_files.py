"""Search for the Python files of a project that may define tasks, without importing any."""

from __future__ import annotations

import os
import re

from .ignore import RuleFile, Rules

_DECLARES = re.compile(rb"^\s*(?:import|from)\s+flyte\b|^\s*@[\w.]+\.task\b|\.clone_with\(", re.M)
_RULES = (".gitignore", ".flyteignore")


def task_files(root: str) -> list[str]:
    """Return the files below `root` that mention flyte or tasks (absolute paths, sorted).

    Files that the ignore rules exclude are left out.
    """
    found = []
    rules = {"": Rules.built_in()}
    for here, folders, names in os.walk(root):
        folder = "" if here == root else os.path.relpath(here, root) + "/"
        own = [
            RuleFile.parse(folder, name, _text(f"{here}/{name}"))
            for name in _RULES
            if name in names
        ]
        held = rules.pop(folder).within(own)
        folders[:] = sorted(
            name
            for name in folders
            if not held.excludes(folder + name, True) and not os.path.islink(f"{here}/{name}")
        )
        rules.update({f"{folder}{name}/": held for name in folders})
        for name in names:
            path = f"{here}/{name}"
            if (
                name.endswith(".py")
                and os.path.isfile(path)
                and not held.excludes(folder + name, False)
                and _may_declare(path)
            ):
                found.append(path)
    return sorted(found)


def _may_declare(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(_DECLARES.search(file.read()))
    except OSError:
        return False


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()
