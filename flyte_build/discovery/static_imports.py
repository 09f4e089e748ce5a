"""Static analysis of imports, including those in functions and for type checking only."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import ModuleSpec

LookUp = Callable[[str, str], None]


class Imports:
    """A finder of modules that works like `import`, without importing them.

    `look_up` is called with the directory and the name of each lookup, so that the appearance of a
    file there can be detected later. `is_own` tells whether a file is the user's: only these are
    followed. `is_ours` tells whether a module is one of flyte-build.
    """

    def __init__(
        self, look_up: LookUp, is_own: Callable[[str], bool], is_ours: Callable[[str], bool]
    ) -> None:
        self._look_up, self._is_own, self._is_ours = look_up, is_own, is_ours
        self._specs: dict[str, ModuleSpec | None] = {}

    def reachable(self, start: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return the modules that these (name, file) import anywhere, directly and indirectly.

        The result maps their files to their names.
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
        """Yield the user's modules (name, file) that an import of `name` loads, packages first."""
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
            except Exception:  # A third-party finder may raise anything.
                continue
            if spec is not None:
                return spec
        return None


def _imported(name: str, file: str) -> Iterator[str]:
    try:
        with open(file, "rb") as source:
            tree = ast.parse(source.read())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return  # The import itself will report it.
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
    """Return the absolute name of a relative import in a package, or "" if it is above the top."""
    parts = package.split(".") if package else []
    if level > len(parts):
        return ""
    return ".".join([*parts[: len(parts) - level + 1], *([module] if module else [])])
