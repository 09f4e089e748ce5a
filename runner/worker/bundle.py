"""Imports from a bundle, in place of the working tree."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flyte_build.runner.sources import Sources

_used: list[str] = []  # The bundle that is imported from.


def use_bundle(sources: Sources, guarded: bool) -> None:
    """Import the project's modules from its bundle, from now on.

    With `guarded`, on a machine with working trees, modules from those are refused.
    """
    if sources.bundle in _used:
        return
    _used.append(sources.bundle)
    from flyte_build.workspace.import_hooks import (
        Guard,
        install_targets,
        is_ours,
        is_own,
        loaded_modules,
        use_sources,
    )

    code = sources.folder

    def folders(roots: Sequence[str]) -> list[str]:
        return [f"{code}/{root}" if root else code for root in roots]

    install_targets(sources.root)
    removed = [
        entry
        for entry in sys.path
        if guarded and is_own(f"{entry}/x") and not os.path.isfile(entry)
    ]
    kept = [entry for entry in sys.path if entry not in removed]
    roots, last = folders(sources.roots), folders(sources.last)
    sys.path[:] = [*roots, *kept, *last]
    bytecode = f"{sources.bundle}/bytecode"
    use_sources(
        lambda folder: _is_below(folder, code),
        lambda path: f"{bytecode}/{os.path.relpath(path, code)}",
    )
    if guarded:
        # Modules that the interpreter loaded from a working tree at its start.
        for name, file in loaded_modules():
            if is_own(file) and not is_ours(name) and name != "__main__":
                sys.modules.pop(name, None)
        tree = (
            [f"{sources.root}/{root}".rstrip("/") for root in sources.roots] if sources.root else []
        )
        sys.meta_path.insert(
            0, Guard(code, [*roots, *last], [*tree, *removed], lambda path: _advice(sources, path))
        )


def _is_below(folder: str, code: str) -> bool:
    real = os.path.realpath(folder)
    return (real + "/").startswith(code + "/") and "/site-packages/" not in real + "/"


def _advice(sources: Sources, path: str) -> str:
    if not sources.root:
        return (
            f"It is in {path}, but was not deployed: import it at the top of a module, or include"
            " it, then deploy again."
        )
    from .missing_files import advice

    return advice(sources, path)
