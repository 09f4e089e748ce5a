"""Projects: where a file belongs, under which name it is imported, and from which directories its
code comes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from flyte_build.errors import UsageError

INTERACTIVE = "<interactive>"  # Stands for the file of a task that is in none.
# The reserved directory of a tree that holds the code of import roots beside the project's root.
BESIDE = ".flyte-roots"
_MARKS = ("flyte.toml", "flyte.lock", "pyproject.toml", "setup.py", ".git")


@dataclass(frozen=True)
class Workspace:
    """Where a file belongs: its `root` (absolute), the `file` below it, its `module` name, and the
    import roots.

    All paths but `root` are those of the tree. `roots` come first on `sys.path` ("" is the root
    itself), `last` after the installed packages. `beside` maps directories of the tree to the
    absolute directories that their files come from: of import roots outside of the root, and of
    packages whose directories have other names. Inner ones come first.
    """

    root: str
    file: str
    module: str
    roots: tuple[str, ...] = ("",)
    last: tuple[str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.beside:
            object.__setattr__(
                self, "beside", dict(sorted(self.beside.items(), key=lambda item: -len(item[0])))
            )

    @classmethod
    def of(cls, root: str, file: str) -> Workspace:
        """Return the project of `file` (relative to `root`) as far as the disk alone tells, before
        anything is imported.
        """
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
            # jobs/jobs.py: a module `jobs` wins over a directory `jobs` that is no package, so the
            # file is just `jobs`.
            dotted = False
            roots.insert(0, roots.pop(roots.index(folder)))
        # A package's own directory must not shadow others.
        last = (folder,) if folder and in_package else ()
        return cls(root, file, ".".join(parts[base:]) if dotted else parts[-1], tuple(roots), last)

    def absolute(self, path: str) -> str:
        """Return where on disk a path of the tree is."""
        for place, folder in self.beside.items():
            if (path + "/").startswith(place + "/"):
                return folder + path.removeprefix(place)
        return f"{self.root}/{path}" if path else self.root

    def folders(self, roots: Iterable[str]) -> list[str]:
        """Return the absolute directories of import roots."""
        return [self.absolute(root) for root in roots]

    def places(self, path: str) -> list[str]:
        """Return the paths in the tree of an absolute path: one below the root, and one for each
        root beside it that holds the path.
        """
        found = [path.removeprefix(self.root + "/")] if path.startswith(self.root + "/") else []
        return found + [
            place + path.removeprefix(folder)
            for place, folder in self.beside.items()
            if path.startswith(folder + "/")
        ]

    def shown(self, path: str) -> str:
        """Return how a path of the tree is called in messages: relative to the root, as one would
        type it there.
        """
        return os.path.relpath(self.absolute(path), self.root) if self.beside else path


def locate(file: str, root_dir: str | None) -> Workspace:
    """Return the project that a file belongs to, whatever the current directory is. Raises
    `UsageError`.

    The root is `root_dir` if given, else the nearest directory at or above the file that is marked
    as a project's; with none, the directory of the file's outermost package.
    """
    path = os.path.realpath(file)
    if not os.path.isfile(path):
        what = "is a directory" if os.path.isdir(path) else "does not exist"
        raise UsageError(
            f"The file {file} {what}",
            hint=_near(file) or "Give the Python file that holds the task.",
        )
    if not path.endswith(".py"):
        raise UsageError(
            f"{file} is no Python file", hint="Give the Python file that holds the task."
        )
    root = (
        given_root(root_dir)
        if root_dir is not None
        else _marked(os.path.dirname(path)) or _above_packages(path)
    )
    if root == "/":
        raise UsageError(
            "The root / holds all of the machine",
            hint="Move the code into a directory of its own, or name one: `--root-dir`.",
        )
    if not path.startswith(root + "/"):
        raise UsageError(
            f"{file} is not below the root {root_dir}",
            hint="Leave out `--root-dir`, or give a directory above the file.",
        )
    return Workspace.of(root, os.path.relpath(path, root))


def given_root(root_dir: str) -> str:
    """Return the root that `--root-dir` names. Raises `UsageError`."""
    root = os.path.realpath(root_dir)
    if not os.path.isdir(root):
        raise UsageError(
            f"The root {root_dir} is no directory",
            hint="`--root-dir` takes the directory that holds all of the project's code.",
        )
    return root


def current_folder() -> str:
    """Return the current directory, or "" if it is gone."""
    try:
        return os.path.realpath(os.getcwd())
    except FileNotFoundError:
        return ""


def root_here() -> str:
    """Return the root of the project that the current directory is in, or that directory: for what
    names no file. Raises `UsageError`.
    """
    if here := current_folder():
        return root_of(here)
    raise UsageError(
        "The current directory is gone",
        hint="Go to another one, or to this one again if it was made anew: cd .",
    )


def root_of(path: str) -> str:
    """Return the root of the project that a directory or file is in; a directory that is in none is
    its own.
    """
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
    """The directory that holds the outermost package that a file is in, or the file itself."""
    folder = os.path.dirname(path)
    while folder != "/" and os.path.exists(f"{folder}/__init__.py"):
        folder = os.path.dirname(folder)
    return folder


def _near(file: str) -> str:
    """The question whether another Python file in the same directory was meant."""
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
