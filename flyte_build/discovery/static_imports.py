"""Static analysis of imports: the modules that a file may import later, in a function or for types
alone.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec

LookUp = Callable[[str, str], None]


class Imports:
    """Finds modules as `import` would, without importing any.

    Each look-up of a name in a directory is told to `look_up` (the directory, the name), so that a
    file that appears there later is noticed; `is_own` says whether a file is the user's: only these
    are followed.
    """

    def __init__(
        self, look_up: LookUp, is_own: Callable[[str], bool], is_ours: Callable[[str], bool]
    ) -> None:
        self._look_up, self._is_own, self._is_ours = look_up, is_own, is_ours
        self._specs: dict[str, ModuleSpec | None] = {}

    def reachable(self, start: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the names of the modules, by their files, that these modules (name, file) import
        in any place, and what these import.
        """
        waiting = [(name, file) for name, file in start if file.endswith(".py")]
        seen = {file for _, file in waiting}
        found: dict[str, str] = {}
        while waiting:
            name, file = waiting.pop()
            for wanted in _imported(name, file):
                for each, origin in self._own(wanted):
                    found[origin] = each
                    if origin not in seen and origin.endswith(".py"):
                        seen.add(origin)
                        waiting.append((each, origin))
        return found

    def _own(self, name: str) -> Iterator[tuple[str, str]]:
        """The user's files that importing a module by this name would load: those of its packages,
        and its own.
        """
        if self._is_ours(name):
            return
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            each = ".".join(parts[:length])
            spec = self._spec(each)
            if spec is None:
                return
            if spec.has_location and spec.origin:
                if not (os.path.isfile(spec.origin) and self._is_own(spec.origin)):
                    return
                yield each, spec.origin

    def _spec(self, name: str) -> ModuleSpec | None:
        if name not in self._specs:
            self._specs[name] = self._find(name)
        return self._specs[name]

    def _find(self, name: str) -> ModuleSpec | None:
        above, _, own = name.rpartition(".")
        path = None
        if above:
            package = sys.modules.get(above)
            spec = self._specs[above]
            places = getattr(package, "__path__", None) or (
                spec.submodule_search_locations if spec else None
            )
            if places is None:
                return None
            path = list(places)
        for folder in sys.path if path is None else path:
            self._look_up(folder, own)
        for finder in sys.meta_path:
            try:
                spec = finder.find_spec(name, path)
            except Exception:  # Somebody else's finder.
                continue
            if spec is not None:
                return spec
        return None


def _imported(name: str, file: str) -> Iterator[str]:
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # Whoever imports it is told.
    package = name if os.path.basename(file) == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(package, node.level, node.module or "") if node.level else node.module
            if base:
                yield base
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _absolute(package: str, level: int, module: str) -> str:
    """The absolute name of what a relative import names in a package, or "" where that is above all
    packages.
    """
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])])
