"""Importing a user's modules from folders that we choose, with bytecode where we choose.

Python checks a `.pyc` by its source's mtime and size alone, and a bundle's files may all have one mtime: so modules below
such a folder never use the `.pyc` files that lie around them, but a bytecode folder of their own, or none.
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


def use_folder(root: str, bytecode: str | None) -> None:
    """Import what lies below `root` with bytecode kept below the folder `bytecode` (None: compiled each time).

    Installed packages (a virtual environment below the root) are not touched.
    """

    class Loader(SourceFileLoader):
        def get_data(self, path: str) -> bytes:
            return super().get_data(_place(path, root, bytecode))

        def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
            if bytecode is None:
                return
            place = _place(path, root, bytecode)
            try:
                os.makedirs(os.path.dirname(place), exist_ok=True)
                super().set_data(place, data, _mode=0o644)
                if os.path.getsize(place) != len(data):  # On a full disk Python takes a short write for a whole one.
                    os.unlink(place)
            except OSError:
                return  # It will be compiled again.

    hook = FileFinder.path_hook((ExtensionFileLoader, EXTENSION_SUFFIXES), (Loader, SOURCE_SUFFIXES))

    def below(path: str) -> Any:
        real = os.path.realpath(path)
        if not (real + "/").startswith(root + "/") or is_installed(real):
            raise ImportError("not below the root", path=path)
        return hook(path)

    sys.path_hooks.insert(0, below)
    sys.path_importer_cache.clear()


def _place(path: str, root: str, bytecode: str | None) -> str:
    if not path.endswith(".pyc"):
        return path
    if bytecode is None:
        raise FileNotFoundError(path)
    return f"{bytecode}/{os.path.relpath(path, root)}"


def is_installed(path: str) -> bool:
    """Whether a path lies in an interpreter's own folders, or among installed packages."""
    return "/site-packages/" in path + "/" or "/dist-packages/" in path + "/" or (path + "/").startswith(_STDLIB + "/")


def is_stdlib(path: str) -> bool:
    """Whether a path belongs to the standard library."""
    return path.startswith("<frozen") or (path.startswith(_STDLIB) and "/site-packages/" not in path) or path == _ZIP


_STDLIB = os.path.realpath(os.path.dirname(os.__file__))
_ZIP = f"{os.path.dirname(_STDLIB)}/python{sys.version_info[0]}{sys.version_info[1]}.zip"


def root_folders(root: str, roots: Sequence[str]) -> list[str]:
    """The absolute folders of a project's import roots, which are relative to its root ("" is the root itself)."""
    return [f"{root}/{folder}" if folder else root for folder in roots]


def loaded_files() -> set[str]:
    """The absolute paths of all modules' files, but for the standard library's and what is built in."""
    found = set()
    for module in list(sys.modules.values()):
        spec = getattr(module, "__spec__", None)
        origin = getattr(spec, "origin", None) or getattr(module, "__file__", None)
        if isinstance(origin, str) and os.path.isabs(origin) and not is_stdlib(origin) and os.path.isfile(origin):
            found.add(origin)
    return found


def below(root: str, path: str) -> str | None:
    """A path relative to the root, or None when it is not the project's own."""
    return os.path.relpath(path, root) if path.startswith(root + "/") and not is_installed(path) else None


class Guard:
    """The last finder: refuses modules of the working tree, which are not what was prepared, and says what to do.

    `tree` is the project's root, whose entries were taken from `sys.path`; `hint(path)` gives the advice for a file or folder. Finders that
    editable installs have added come after this one, and are asked by it.
    """

    def __init__(self, tree: str, removed: Sequence[str], hint: Callable[[str], str]) -> None:
        self._tree, self._removed, self._hint = tree, list(removed), hint

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the finders after this one find, unless it is in the working tree; raises `ModuleNotFoundError` then."""
        after = sys.meta_path[sys.meta_path.index(self) + 1 :]
        spec = next((spec for finder in after if (spec := finder.find_spec(name, path, target))), None)
        if spec is None and path is None:
            spec = PathFinder.find_spec(name, self._removed)
        elif spec is None and path is not None:
            spec = PathFinder.find_spec(name, [f"{self._tree}/{self._relative(entry)}" for entry in path if self._relative(entry)])
        if spec is None:
            return None
        places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
        for place in map(os.path.realpath, places):
            if (place + "/").startswith(self._tree + "/") and not is_installed(place):
                raise ModuleNotFoundError(f"No module named {name!r} in the bundle. {self._hint(place)}", name=name)
        return spec

    def _relative(self, entry: str) -> str:
        _, found, rest = entry.partition("/code/")
        return rest if found else ""
