"""Projects: where a file belongs, and under which name it is imported."""

from __future__ import annotations

import os
from collections.abc import Iterator

from .errors import UsageError

INTERACTIVE = "<interactive>"  # Stands for the file of a task that is in none.


class Project:
    """Where a file belongs: its `root` (absolute), the `file` and the import `roots` below it, and its `module` name.

    `last` are folders (absolute) that come at the end of `sys.path`: a package's own folder must not shadow others.
    """

    def __init__(self, root: str, file: str) -> None:
        self.root, self.file = root, file
        folder = os.path.dirname(file)
        self.roots = [""]
        if os.path.isdir(f"{root}/src") and not os.path.exists(f"{root}/src/__init__.py"):
            self.roots.insert(0, "src")
        in_package = os.path.exists(f"{root}/{folder}/__init__.py")
        if folder and folder not in self.roots and not in_package:
            self.roots.append(folder)
        self.last = [f"{root}/{folder}"] if folder and in_package else []
        parts = file.removesuffix(".py").split("/")
        base = 1 if self.roots[0] == "src" and parts[0] == "src" else 0
        dotted = all(part.isidentifier() for part in parts[base:])
        if len(parts) > base + 1 and folder in self.roots and os.path.exists(f"{root}/{folder}/{parts[base]}.py"):
            # jobs/jobs.py: a module `jobs` wins over a folder `jobs` that is no package, so the file is just `jobs`.
            dotted = False
            self.roots.insert(0, self.roots.pop(self.roots.index(folder)))
        self.module = ".".join(parts[base:]) if dotted else parts[-1]

    @classmethod
    def deployed(cls, file: str, module: str, roots: list[str], last: list[str]) -> "Project":
        """The project of a deployed task, which is on no disk: its root is "", and `last` are relative too."""
        project = cls.__new__(cls)
        project.root, project.file, project.module, project.roots, project.last = "", file, module, roots, last
        return project


def locate(file: str, root_dir: str | None) -> Project:
    """The project that a file belongs to. Raises `UsageError`.

    The root is `root_dir` if given, else the current folder; a file outside of that takes the nearest folder above it
    that holds `pyproject.toml`, `.git` or `flyte.toml`, else its own.
    """
    path = os.path.realpath(file)
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "does not exist"
        raise UsageError(f"The file {file} {what}", hint=_near(file) or "Give the Python file that holds the task.")
    if not path.endswith(".py"):
        raise UsageError(f"{file} is no Python file", hint="Give the Python file that holds the task.")
    root = os.path.realpath(root_dir or os.getcwd())
    if not os.path.isdir(root):
        raise UsageError(f"The root {root_dir} is no folder", hint="`--root-dir` takes the folder that holds all of the project's code.")
    if not path.startswith(root.rstrip("/") + "/"):
        if root_dir:
            raise UsageError(f"{file} is not below the root {root_dir}", hint="Leave out `--root-dir`, or give a folder above the file.")
        root = next(filter(_is_root, _above(path)), os.path.dirname(path))
    return Project(root, os.path.relpath(path, root))


def _near(file: str) -> str:
    """The question whether another Python file in the same folder was meant."""
    from difflib import get_close_matches

    folder, name = os.path.split(file)
    try:
        near = get_close_matches(name, [each for each in os.listdir(folder or ".") if each.endswith(".py")], 1)
    except OSError:
        return ""
    return f"Did you mean {os.path.join(folder, near[0])}?" if near else ""


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path


def _is_root(folder: str) -> bool:
    return any(os.path.exists(f"{folder}/{mark}") for mark in ("pyproject.toml", ".git", "flyte.toml"))
