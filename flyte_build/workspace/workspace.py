"""Projects: the root of a file, its module name, and the directories its code comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from flyte_build.errors import UsageError

INTERACTIVE = "<interactive>"  # Stands for the file of a task that was defined in no file.
# The reserved directory of a tree for the code of import roots outside of the project's root.
BESIDE = ".flyte-roots"
_MARKS = ("flyte.toml", "flyte.lock", "pyproject.toml", "setup.py", ".git")


class Workspace(NamedTuple):
    """Location of a file: its `root` (absolute), its path below it, and its `module` name.

    All paths but `root` are paths in the tree. Import roots in `roots` come first on `sys.path` (""
    is the root itself), those in `last` after the installed packages. `beside` maps directories of
    the tree to the absolute directories that their files come from: import roots outside of the
    root, and packages whose directories have other names. Inner ones come first (`inner_first`).
    """

    root: str
    file: str
    module: str
    roots: tuple[str, ...] = ("",)
    last: tuple[str, ...] = ()
    beside: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def of(cls, root: str, file: str) -> Workspace:
        """Return the workspace of `file` (relative to `root`), without importing anything."""
        folder = os.path.dirname(file)
        roots = [""]
        if os.path.isdir(f"{root}/src") and not os.path.exists(f"{root}/src/__init__.py"):
            roots.insert(0, "src")
        in_package = os.path.exists(f"{root}/{folder}/__init__.py")
        if folder and folder not in roots and not in_package:
            roots.append(folder)
        parts = file.removesuffix(".py").split("/")
        base = 1 if roots[0] == "src" and parts[0] == "src" else 0
        dotted = all(part.isidentifier() for part in parts[base:])
        if (
            len(parts) > base + 1
            and folder in roots
            and os.path.exists(f"{root}/{folder}/{parts[base]}.py")
        ):
            # jobs/jobs.py: a module `jobs` takes precedence over a directory `jobs` that is not a
            # package, so the module name is just `jobs`.
            dotted = False
            roots.insert(0, roots.pop(roots.index(folder)))
        # A package's own directory must not shadow others.
        last = (folder,) if folder and in_package else ()
        return cls(root, file, ".".join(parts[base:]) if dotted else parts[-1], tuple(roots), last)

    def absolute(self, path: str) -> str:
        """Return the absolute path of a path in the tree."""
        for place, folder in self.beside.items():
            if (path + "/").startswith(place + "/"):
                return folder + path.removeprefix(place)
        return f"{self.root}/{path}" if path else self.root

    def folders(self, roots: Iterable[str]) -> list[str]:
        """Return the absolute directories of import roots."""
        return [self.absolute(root) for root in roots]

    def places(self, path: str) -> list[str]:
        """Return the paths in the tree of an absolute path.

        There is one if it is below the root, and one for each entry of `beside` that contains it.
        """
        found = [path.removeprefix(self.root + "/")] if path.startswith(self.root + "/") else []
        return found + [
            place + path.removeprefix(folder)
            for place, folder in self.beside.items()
            if path.startswith(folder + "/")
        ]

    def shown(self, path: str) -> str:
        """Return a path of the tree as messages show it: relative to the root, as typed there."""
        return os.path.relpath(self.absolute(path), self.root) if self.beside else path


def locate(file: str, root_dir: str | None) -> Workspace:
    """Return the workspace of a file, whatever the current directory is.

    The root is `root_dir` if given, else the nearest directory at or above the file that is marked
    as a project's, else the directory that contains the file's outermost package. Raises
    `UsageError`.
    """
    path = os.path.realpath(file)
    if not os.path.isfile(path):
        what = "is a directory" if os.path.isdir(path) else "does not exist"
        raise UsageError(
            f"The file {file} {what}",
            hint=_near(file) or "Give the Python file that defines the task.",
        )
    if not path.endswith(".py"):
        raise UsageError(
            f"{file} is not a Python file", hint="Give the Python file that defines the task."
        )
    root = (
        given_root(root_dir)
        if root_dir is not None
        else _marked(os.path.dirname(path)) or _above_packages(path)
    )
    if root == "/":
        raise UsageError(
            "The root must be a directory of the project, not /",
            hint="Move the code to a directory of its own, or set the root with `--root-dir`.",
        )
    if not path.startswith(root + "/"):
        raise UsageError(
            f"{file} is not below the root {root_dir}",
            hint="Omit `--root-dir`, or set it to a directory above the file.",
        )
    return Workspace.of(root, os.path.relpath(path, root))


def given_root(root_dir: str) -> str:
    """Return the root given by `--root-dir`. Raises `UsageError` if it is not a directory."""
    root = os.path.realpath(root_dir)
    if not os.path.isdir(root):
        raise UsageError(
            f"The root {root_dir} is not a directory",
            hint="Set `--root-dir` to the directory that contains all of the project's code.",
        )
    return root


def current_folder() -> str:
    """Return the current directory, or "" if it is gone."""
    try:
        return os.path.realpath(os.getcwd())
    except FileNotFoundError:
        return ""


def root_here() -> str:
    """Return the root of the current directory's project, or that directory if it is in none.

    For commands without a file. Raises `UsageError` if the directory is gone.
    """
    if here := current_folder():
        return root_of(here)
    raise UsageError(
        "The current directory no longer exists",
        hint="Change to another one; if it was created again, run: cd .",
    )


def root_of(path: str) -> str:
    """Return the root of the project that contains a directory or file, or else its directory."""
    real = os.path.realpath(path)
    folder = real if os.path.isdir(real) else os.path.dirname(real)
    return _marked(folder) or folder


def is_project(folder: str) -> bool:
    """Whether a directory is marked as the root of a project."""
    return folder not in _never() and any(os.path.exists(f"{folder}/{mark}") for mark in _MARKS)


def _marked(folder: str) -> str | None:
    return next(filter(is_project, _upwards(folder)), None)


def _never() -> tuple[str, ...]:
    return ("/", os.path.realpath(os.path.expanduser("~")))


def _above_packages(path: str) -> str:
    """Return the directory that contains the outermost package of a file, or the file itself."""
    folder = os.path.dirname(path)
    while folder != "/" and os.path.exists(f"{folder}/__init__.py"):
        folder = os.path.dirname(folder)
    return folder


def _near(file: str) -> str:
    """Return a hint that names a similar Python file in the same directory, or ""."""
    from flyte_build.text.wording import nearest

    folder, name = os.path.split(file)
    try:
        near = nearest(name, (each for each in os.listdir(folder or ".") if each.endswith(".py")))
    except OSError:
        return ""
    return f"Did you mean {os.path.join(folder, near)}?" if near else ""


def _upwards(folder: str) -> Iterator[str]:
    while True:
        yield folder
        if folder == "/":
            return
        folder = os.path.dirname(folder)


def inner_first(beside: Mapping[str, str]) -> Mapping[str, str]:
    """Return directories of the tree, each before those that contain it."""
    return dict(sorted(beside.items(), key=lambda item: -len(item[0])))
