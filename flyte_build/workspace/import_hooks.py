"""Imports of a user's modules from chosen directories, with bytecode in chosen places.

Python checks a `.pyc` by its source's mtime and size alone, and the files of a bundle may all have
the same mtime. So modules in such a directory never use the `.pyc` files around them, but those in
a bytecode directory of their own, or none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    PathFinder,
    SourceFileLoader,
)
from types import ModuleType
from typing import Any


def use_sources(takes: Callable[[str], bool], bytecode: Callable[[str], str | None]) -> None:
    """Import from source in all directories that `takes` accepts, with bytecode only where chosen.

    `bytecode` maps the path of a `.pyc` file to the path that is used instead, or to None: then the
    source is compiled each time.
    """

    class Loader(SourceFileLoader):
        def get_data(self, path: str) -> bytes:
            if path.endswith(".pyc"):
                place = bytecode(path)
                if place is None:
                    raise FileNotFoundError(path)
                return super().get_data(place)
            return super().get_data(path)

        def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
            place = bytecode(path)
            if place is None:
                return
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                super().set_data(place, data, _mode=0o644)
                # On a full disk, Python mistakes a partial write for a complete one.
                if os.path.getsize(place) != len(data):
                    os.unlink(place)
            except OSError:
                return  # It will be compiled again.

    hook = FileFinder.path_hook(
        (ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, SOURCE_SUFFIXES)
    )

    def taken(path: str) -> Any:
        if not takes(path):
            raise ImportError("left to the other hooks", path=path)
        return hook(path)

    sys.path_hooks.insert(0, taken)
    sys.path_importer_cache.clear()


def distrust_bytecode(of: Callable[[str], bool]) -> None:
    """Compile the sources that `of` accepts each time from now on, whichever finder finds them.

    Editable installs have finders with Python's own loader, which trusts a `.pyc` with the right
    time and size. This affects the whole process.
    """
    import importlib._bootstrap_external as loading

    usual = loading.cache_from_source  # Every source loader calls it.

    def cache_from_source(path: Any, *arguments: Any, **options: Any) -> Any:
        if of(os.fspath(path)):
            raise NotImplementedError  # As on a Python that writes no bytecode (PEP 3147).
        return usual(path, *arguments, **options)

    loading.cache_from_source = cache_from_source


def is_installed(path: str) -> bool:
    """Whether a path lies in an interpreter's own directories, or among installed packages."""
    whole = path + "/"
    return (
        "/site-packages/" in whole
        or "/dist-packages/" in whole
        or whole.startswith((*_STDLIB, *_targets))
    )


def is_stdlib(path: str) -> bool:
    """Whether a path belongs to the standard library."""
    whole = path + "/"
    return (
        path.startswith("<frozen")
        or (whole.startswith(_STDLIB) and "/site-packages/" not in whole)
        or path in _ZIPS
    )


def install_targets(root: str) -> None:
    """Treat directories of `PYTHONPATH` with installed packages (`pip install --target`) as such.

    Directories below `root` are not treated so.
    """
    for entry in filter(os.path.isabs, os.environ.get("PYTHONPATH", "").split(os.pathsep)):
        try:
            holds = any(name.endswith(".dist-info") for name in os.listdir(entry))
        except OSError:
            continue
        if holds and not (root and f"{os.path.realpath(entry)}/".startswith(root + "/")):
            _targets.extend((os.path.normpath(entry) + "/", os.path.realpath(entry) + "/"))


_FOLDER = os.path.dirname(os.__file__)
# The interpreter may be reached through a link.
_STDLIB = tuple({_FOLDER + "/", os.path.realpath(_FOLDER) + "/"})
_ZIPS = {
    f"{os.path.dirname(folder[:-1])}/python{sys.version_info[0]}{sys.version_info[1]}.zip"
    for folder in _STDLIB
}
_targets: list[str] = []


def is_own(path: str) -> bool:
    """Whether a file belongs to the user: not to the standard library or an installed package.

    An editable install belongs to the user, even one that is a link in `site-packages`.
    """
    if os.path.islink(path):
        return not _is_fixed(os.path.realpath(path))
    folder = os.path.dirname(path)
    if (known := _own.get(folder)) is None:
        known = _own[folder] = not (_is_fixed(folder) and _is_fixed(os.path.realpath(folder)))
    return known


_own: dict[str, bool] = {}  # By directory: `realpath` is slow, and most files share one.


def _is_fixed(path: str) -> bool:
    return is_installed(path) or is_stdlib(path)


def is_ours(name: str) -> bool:
    """Whether a module of that name comes with flyte-build, and so with every worker."""
    return name.partition(".")[0] in ("flyte", "flyte_build")


def loaded_modules() -> set[tuple[str, str]]:
    """Return names and absolute paths of loaded modules from files outside the standard library."""
    found = set()
    for name, module in list(sys.modules.items()):
        try:
            spec = getattr(module, "__spec__", None)
            origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
        except Exception:  # A module's own `__getattr__` may raise anything.
            continue
        if (
            isinstance(origin, str)
            and os.path.isabs(origin)
            and not is_stdlib(origin)
            and os.path.isfile(origin)
        ):
            found.add((getattr(spec, "name", None) or name, plain(origin)))
    return found


def plain(path: str) -> str:
    """Return an absolute path without `.` and `..`, resolving links that a `..` goes up from."""
    if f"{path}/" == f"{os.path.normpath(path)}/":
        return path
    return f"{os.path.realpath(os.path.dirname(path))}/{os.path.basename(path)}"


class Guard:
    """The first finder of a worker: it allows modules of the bundle and of installed packages only.

    `code` is the bundle's directory, `roots` are the import roots in it. `removed` are the entries
    taken out of `sys.path`, in which a missing module is looked for to give advice: `hint(path)`
    returns it for a file or directory. Editable installs have finders that may come before Python's
    own; a module that they find in a working tree is looked up again in the bundle.
    """

    def __init__(
        self, code: str, roots: Sequence[str], removed: Sequence[str], hint: Callable[[str], str]
    ) -> None:
        self._code, self._roots, self._removed, self._hint = (
            code + "/",
            list(roots),
            list(removed),
            hint,
        )

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the result of the other finders, unless it is in a working tree.

        Raises `ModuleNotFoundError` if the module is in a working tree only.
        """
        spec = next(
            (
                spec
                for finder in sys.meta_path
                if finder is not self and (spec := finder.find_spec(name, path, target))
            ),
            None,
        )
        if spec is None or is_ours(name):
            if spec is None and (place := self._elsewhere(name, path)):
                raise self._missing(name, place)
            return spec
        if spec.submodule_search_locations is not None and not spec.has_location:
            spec = self._inside(spec)
        if place := self._outside(spec):
            spec = PathFinder.find_spec(name, self._roots if path is None else path)
            if spec is None or self._outside(spec):
                raise self._missing(name, place)
        return spec

    def _missing(self, name: str, place: str) -> ModuleNotFoundError:
        """Return the error for a module that is at `place` only; its note has the advice.

        Of a package the whole is advised: what is imported by name at run time may be any part.
        """
        if os.path.basename(place) == "__init__.py":
            place = os.path.dirname(place)
        while os.path.exists(f"{os.path.dirname(place)}/__init__.py"):
            place = os.path.dirname(place)
        error = ModuleNotFoundError(f"No module named {name!r} in the bundle", name=name)
        error.add_note(self._hint(place))
        return error

    def _outside(self, spec: ModuleSpec) -> str:
        """Return the path of a module outside of the bundle and installed packages, or ""."""
        if not spec.has_location and spec.submodule_search_locations is None:
            return ""
        places = (
            [spec.origin]
            if spec.has_location and spec.origin
            else list(spec.submodule_search_locations or ())
        )
        outside = [
            place
            for place in places
            if not place.startswith(self._code) and os.path.exists(place) and is_own(place)
        ]
        return outside[0] if len(outside) == len(places) and outside else ""

    def _inside(self, spec: ModuleSpec) -> ModuleSpec:
        """Remove the portions of a namespace package in working trees, unless it has no others."""
        portions = list(spec.submodule_search_locations or ())
        inside = [
            each
            for each in portions
            if each.startswith(self._code) or not os.path.exists(each) or not is_own(f"{each}/x")
        ]
        if len(inside) in (0, len(portions)):
            return spec
        reduced = ModuleSpec(spec.name, None, is_package=True)
        reduced.submodule_search_locations = inside
        return reduced

    def _elsewhere(self, name: str, path: Sequence[str] | None) -> str:
        """Return the path of a missing module in the working tree, or ""."""
        if path is None:
            places: list[str] = self._removed
        else:
            below = [
                entry.removeprefix(self._code) for entry in path if entry.startswith(self._code)
            ]
            places = [f"{folder}/{inner}" for inner in below for folder in self._removed]
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            return ""
        if spec.has_location and spec.origin:
            return spec.origin
        # A directory without code was not meant.
        folders = list(spec.submodule_search_locations or ())
        return next(
            (
                folder
                for folder in folders
                if any(each.endswith(".py") for each in os.listdir(folder))
            ),
            "",
        )
