"""Static analysis of imports: the modules below the root that a file may import later, in a function or for types alone."""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterator, Sequence

_OURS = ("flyte", "flyte_build")  # These come with the worker, not with the bundle.


def reachable(root: str, roots: Sequence[str], start: Sequence[str], look_up: Callable[[str, str], None]) -> set[str]:
    """The files (relative to `root`) that `start`'s modules import, at any depth of nesting, and what these import.

    `roots` are the folders (relative, "" is the root itself) where modules are looked for; each look-up of a name in a
    folder is told to `look_up` (an absolute folder, a name), so that a file that appears there later is noticed.
    """
    found: set[str] = set()
    waiting = [path for path in start if path.endswith(".py")]
    seen = set(waiting)
    while waiting:
        path = waiting.pop()
        for name in _imported(root, roots, path):
            if name.partition(".")[0] in _OURS:
                continue
            for file in _files(root, roots, name, look_up):
                found.add(file)
                if file not in seen:
                    seen.add(file)
                    waiting.append(file)
    return found


def _imported(root: str, roots: Sequence[str], path: str) -> Iterator[str]:
    try:
        with open(f"{root}/{path}", "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # Whoever imports it is told.
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for base in [node.module or ""] if not node.level else _absolute(roots, path, node.level, node.module):
                if base:
                    yield base
                yield from (f"{base}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")


def _absolute(roots: Sequence[str], path: str, level: int, module: str | None) -> Iterator[str]:
    for folder in roots:
        prefix = folder + "/" if folder else ""
        if path.startswith(prefix):
            parts = path[len(prefix) :].split("/")[:-level]
            if level < len(path[len(prefix) :].split("/")) + 1 and parts:
                yield ".".join(parts + ([module] if module else []))


def _files(root: str, roots: Sequence[str], name: str, look_up: Callable[[str, str], None]) -> list[str]:
    for folder in roots:
        files: list[str] = []
        here = folder
        parts = name.split(".")
        for at, part in enumerate(parts):
            look_up(f"{root}/{here}" if here else root, part)
            base = f"{here}/{part}" if here else part
            if os.path.isfile(f"{root}/{base}.py"):
                return [*files, f"{base}.py"] if at == len(parts) - 1 else files
            if not os.path.isdir(f"{root}/{base}"):
                break
            if os.path.isfile(f"{root}/{base}/__init__.py"):
                files.append(f"{base}/__init__.py")
            here = base
        if files:
            return files
    return []
