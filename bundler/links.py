"""Symbolic links in a project: where they lead, and whether they may go into a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flyte_build.errors import ScanError


def target(root: str, path: str) -> bytes:
    """What a link at `path` (relative to `root`) is to say in a bundle. Raises `ScanError` when it leads out of the root."""
    from .tree import stays_inside

    written = os.readlink(f"{root}/{path}")
    real_root, real = os.path.realpath(root), os.path.realpath(f"{root}/{path}")
    if not (real + "/").startswith(real_root + "/"):
        raise ScanError(
            f"The link {path} leads out of the project, to {written}",
            why="A bundle holds what is below the root; the file would not be there when the task runs.",
            hint=f"Copy the file into the project, or add `/{path}` to `.flyteignore`.",
        )
    if not stays_inside(os.fsencode(path), os.fsencode(written)):  # It comes back in: written so that it never leaves.
        written = os.path.relpath(real, os.path.dirname(f"{real_root}/{path}"))
    return os.fsencode(written)


def resolve(root: str, path: str) -> Iterator[str]:
    """The relative paths that make `path` reachable below `root`: each link on the way, and where it ends."""
    at, seen = path.split("/"), 0
    done: list[str] = []
    while at:
        done.append(at.pop(0))
        here = "/".join(done)
        if os.path.islink(f"{root}/{here}") and seen < 40:
            seen += 1
            yield here
            leads_to = os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(f"{root}/{here}")), os.readlink(f"{root}/{here}")))
            inside = os.path.relpath(leads_to, os.path.realpath(root))
            if inside.startswith(".."):
                return  # Reported when the link is looked at.
            at, done = [part for part in inside.split("/") if part != "."] + at, []
    yield "/".join(done)
