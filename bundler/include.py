"""`include`: files that an environment adds to its bundle, besides the imported modules."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator

from flyte_build.errors import UsageError
from flyte_build.workspace.workspace import Workspace

from .budget import Budget, Meter

_SKIPPED = ("__pycache__", ".git", "node_modules")


def included(
    workspace: Workspace, patterns: Iterable[tuple[str, str]], budget: Budget
) -> Iterator[str]:
    """Yield the paths in the tree of everything that `include` patterns match.

    Those are files, directories with their content, and links with their targets. Each pattern
    comes with the absolute directory that it is relative to. Raises `UsageError` for a pattern that
    matches nothing, or that is outside of the project and its import roots, and `BudgetExceeded`.
    """
    meter = Meter(budget)
    for folder, pattern in patterns:
        base = os.path.normpath(os.path.join(folder, pattern))
        is_glob = glob.has_magic(pattern)
        place = _root_of(workspace, base)
        if place is None:
            raise UsageError(
                f"include={pattern!r} is outside of the project",
                why=f"The project's root is {workspace.root}.",
                hint=(
                    "To make a parent directory the root, put an empty flyte.toml there, or set"
                    " `--root-dir`."
                ),
            )
        if not os.path.lexists(base) and not is_glob:
            raise UsageError(
                f"include={pattern!r} matches nothing",
                why=f"{base} does not exist.",
                hint="Make it relative to the file that declares it.",
            )
        walk = _Walk(workspace.absolute(place), meter)
        for path in (
            sorted(glob.glob(base, recursive=True, include_hidden=True)) if is_glob else [base]
        ):
            yield from (f"{place}/{each}" if place else each for each in walk.take(path))


def _root_of(workspace: Workspace, path: str) -> str | None:
    """Return the directory of the tree that contains a path on disk ("" for the root), or None."""
    for place in ("", *workspace.beside):
        if (path + "/").startswith(workspace.absolute(place) + "/"):
            return place
    return None


class _Walk:
    """A walk that yields each path below one root at most once, relative to it.

    Links are followed inside of the root.
    """

    def __init__(self, root: str, meter: Meter) -> None:
        self._root, self._meter = root, meter
        self._real = os.path.realpath(root)
        self._given: set[str] = set()

    def take(self, path: str) -> Iterator[str]:
        """Yield a file, a link and its target, or everything in a directory; `path` is absolute."""
        relative = os.path.relpath(path, self._root)
        if relative in self._given:
            return
        self._given.add(relative)
        if os.path.islink(path):
            yield relative
            leads_to = os.path.realpath(path)
            if os.path.isdir(leads_to) and (leads_to + "/").startswith(self._real + "/"):
                yield from self.take(self._root + leads_to.removeprefix(self._real))
        elif os.path.isdir(path):
            try:
                with os.scandir(path) as entries:
                    names = sorted(
                        entry.name
                        for entry in entries
                        if entry.name not in _SKIPPED or not entry.is_dir(follow_symlinks=False)
                    )
            except OSError as error:
                raise UsageError(
                    f"Cannot read the included directory {path}",
                    why=f"{error.strerror}.",
                    hint="Make it readable.",
                ) from None
            self._meter.enter("" if relative == "." else relative + "/", len(names), 0)
            for name in names:
                yield from self.take(f"{path}/{name}")
        else:
            yield relative
