"""Import roots: the directories that modules were imported from, and their places in the tree.

A module's import root is the path of its file without the part that corresponds to its name. Roots
at or below the project's root keep their path in the tree. A root outside of it gets a directory
below the reserved one, numbered in the order of `sys.path`, so that the tree contains no path of
the machine. So does a package that an editable install maps to a directory of another name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from flyte_build.workspace.import_hooks import is_own, is_stdlib
from flyte_build.workspace.workspace import BESIDE, Workspace, inner_first


@dataclass(frozen=True)
class Module:
    """A module of the user: its name, and the absolute path of its file.

    `found` is whether the import system looked it up by name; otherwise it was loaded by path.
    """

    name: str
    file: str
    found: bool = True

    def origin(self) -> tuple[str, str]:
        """Return the import root and "", or the directory and the name of a package.

        The latter is the case if the directory of the package has another name than the package.
        """
        at, parts = self.file, self.name.split(".")
        folder, name = os.path.split(at)
        at = (
            folder if name.partition(".")[0] == "__init__" else f"{folder}/{name.partition('.')[0]}"
        )
        while parts:
            above, last = os.path.split(at)
            if last != parts[-1]:
                return at, ".".join(parts)
            at = above
            parts.pop()
        return at, ""


def named(workspace: Workspace, path: Sequence[str]) -> Workspace:
    """Return the workspace with the module name that its file has below an entry of `path`.

    That is the first of the user's directories in `path` that is below the root and contains the
    file, if no module of that name in the project's own roots would shadow it. Otherwise the
    workspace is returned unchanged.
    """
    own = {workspace.absolute(root) for root in workspace.roots}
    file = f"{workspace.root}/{workspace.file}"
    for folder in map(os.path.realpath, path):
        if (
            folder in own
            or not folder.startswith(workspace.root + "/")
            or not file.startswith(folder + "/")
            or not is_own(f"{folder}/x")
        ):
            continue
        parts = file.removeprefix(folder + "/").removesuffix(".py").split("/")
        shadowed = any(
            os.path.exists(f"{root}/{parts[0]}{ending}") for root in own for ending in ("", ".py")
        )
        if (
            not shadowed
            and not os.path.exists(f"{folder}/__init__.py")
            and all(part.isidentifier() for part in parts)
        ):
            return workspace._replace(module=".".join(parts))
    return workspace


def real_files(workspace: Workspace, modules: Iterable[Module]) -> Iterator[Module]:
    """Yield the modules, with symbolic links resolved for files that are not below the root.

    Links outside of the root are specific to the machine.
    """
    for module in modules:
        is_below = module.file.startswith(workspace.root + "/")
        yield module if is_below else replace(module, file=os.path.realpath(module.file))


def with_roots(
    workspace: Workspace, modules: Sequence[Module], path: Sequence[str], here: str
) -> tuple[Workspace, dict[str, str]]:
    """Return the workspace with all its import roots, and the files of modules by path in the tree.

    `path` is `sys.path` without the project's own roots; `here` is the current directory if it is
    the last entry of `sys.path`, else "". Modules that were loaded by path from outside of the root
    are in no import root, and left out.
    """
    found = _found(modules, {os.path.realpath(entry) for entry in path} | {here}, workspace.root)
    fixed = next((at for at, entry in enumerate(path) if is_stdlib(entry)), len(path))
    entries = [os.path.realpath(entry) for entry in path]
    used = [
        [entry for entry in part if entry in found.bases or _below(workspace, entry)]
        for part in (entries[:fixed], entries[fixed:])
    ]
    listed = {*used[0], *used[1], *workspace.folders((*workspace.roots, *workspace.last)), here}
    more = sorted(found.bases.keys() - listed, key=found.bases.__getitem__)
    ends = [here] if here in found.bases else []
    places = _Places(workspace, found.plainly)
    roots = [*workspace.roots, *map(places.of, used[0])]
    last = [*map(places.of, used[1]), *map(places.of, more)]
    last += [places.of_package(*each) for each in sorted(found.mapped.items(), key=_name)]
    last += [*workspace.last, *map(places.of, ends)]
    roots = list(dict.fromkeys(roots))
    workspace = workspace._replace(
        roots=tuple(roots),
        last=tuple(root for root in dict.fromkeys(last) if root not in roots),
        beside=inner_first(places.beside),
    )
    return workspace, dict(_in_tree(workspace, found.modules))


class _Found(NamedTuple):
    """Origins of modules.

    `modules` are pairs of a module and the directory that it was found in. `bases` maps import
    roots to the (alphabetically) first module in them. `mapped` maps directories of packages that
    have other names to the names of the packages. `plainly` maps modules whose names correspond to
    their files to their import roots.
    """

    modules: list[tuple[Module, str]]
    bases: dict[str, str]
    mapped: dict[str, str]
    plainly: dict[str, str]


def _found(modules: Sequence[Module], known: Collection[str], root: str) -> _Found:
    plainly = {
        module.name: base
        for module in modules
        for base, package in [module.origin()]
        if not package
    }
    found = _Found([], {}, {}, plainly)
    for module in sorted(modules, key=lambda each: each.name):
        base, package = module.origin()
        # Found by way of a package's own `__path__`.
        if package in plainly and module.file.startswith(plainly[package] + "/"):
            base = plainly[package]
        elif package and module.found and os.path.isdir(base):
            found.mapped.setdefault(base, package)
        elif not package and (module.found or base in known):
            found.bases.setdefault(base, module.name)
        else:
            base = root
        found.modules.append((module, base))
    return found


class _Places:
    """Places of import roots in the tree.

    Directories below the root keep their path. Others get a numbered one, and `beside` maps these
    to the directories.
    """

    def __init__(self, workspace: Workspace, plainly: Mapping[str, str]) -> None:
        self._workspace, self._plainly = workspace, plainly
        self._numbered: dict[str, str] = {}
        self._renamed: dict[str, str] = {}
        self.beside: dict[str, str] = {}

    def of(self, folder: str) -> str:
        """Return the place of an import root."""
        root = self._workspace.root
        if _below(self._workspace, folder):
            return os.path.relpath(folder, root) if folder != root else ""
        place = self._number(folder)
        self.beside[place] = folder
        return place

    def of_package(self, folder: str, package: str) -> str:
        """Return the import root for a package whose directory has another name.

        The package is placed below its parent package if that was found, or else in a root of its
        own.
        """
        parent, _, name = package.rpartition(".")
        if parent in self._renamed:
            root, place = "", f"{self._renamed[parent]}/{name}"
        elif parent in self._plainly:
            root = self.of(self._plainly[parent])
            place = "/".join(filter(None, (root, *package.split("."))))
        else:
            root = self._number(folder)
            place = f"{root}/{package.replace('.', '/')}"
        self._renamed[package] = place
        self.beside[place] = folder
        return root

    def _number(self, folder: str) -> str:
        return self._numbered.setdefault(folder, f"{BESIDE}/{len(self._numbered)}")


def _in_tree(
    workspace: Workspace, places: Iterable[tuple[Module, str]]
) -> Iterator[tuple[str, str]]:
    folders = {folder: place for place, folder in workspace.beside.items()}
    for module, base in places:
        if base in folders:
            yield folders[base] + module.file.removeprefix(base), module.file
        # A file below the root always keeps its own path as well.
        if module.file.startswith(workspace.root + "/"):
            yield module.file.removeprefix(workspace.root + "/"), module.file


def _below(workspace: Workspace, folder: str) -> bool:
    return (folder + "/").startswith(workspace.root + "/") and is_own(f"{folder}/x")


def _name(item: tuple[str, str]) -> str:
    return item[1]


def left_out(modules: Iterable[Module], files: Collection[str]) -> list[str]:
    """Return the sorted files of modules that are in no import root: they were loaded by path."""
    return sorted({module.file for module in modules} - set(files))


def own_path(workspace: Workspace) -> list[str]:
    """Return the directories of this process's `sys.path` without the project's own roots."""
    own = set(workspace.folders((*workspace.roots, *workspace.last)))
    return [
        entry
        for entry in sys.path
        if isinstance(entry, str) and os.path.isabs(entry) and entry not in own
    ]
