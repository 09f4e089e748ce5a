"""Symbolic links in a project: their targets on disk and in a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flyte_build.errors import ScanError

# Maximum links followed on the way to one path, as in Linux (path_resolution(7)).
_MOST = 40


def target(root: str, path: str, shown: str = "") -> bytes:
    """Return the target of the link at `path` (relative to `root`) for a bundle.

    It is the target on disk, unless that leaves the root on its way, or goes up from the target of
    another link: then it is the relative path of the final target. So it depends on other links,
    and is computed each time. `shown` is a prefix of the path in messages. Raises `ScanError` if
    the link points outside of the root.
    """
    written = os.readlink(f"{root}/{path}")
    real_root, real = os.path.realpath(root), os.path.realpath(f"{root}/{path}")
    if not (real + "/").startswith(real_root + "/"):
        raise ScanError(
            f"The link {shown}{path} points outside of the project, to {written}",
            why=(
                "A bundle contains only files below the root, so its target would be missing when"
                " the task runs."
            ),
            hint=f"Copy the file into the project, or add `/{path}` to `.flyteignore`.",
        )
    if not _is_plain(root, path, written):
        written = os.path.relpath(real, os.path.dirname(f"{real_root}/{path}"))
    return os.fsencode(written)


def _is_plain(root: str, path: str, written: str) -> bool:
    """Whether a target's text alone tells where it points.

    It must never leave the root, and have no `..` after another link.
    """
    if os.path.isabs(written):
        return False
    at, through_link = path.split("/")[:-1], False
    for part in written.split("/"):
        if part == "..":
            if through_link or not at:
                return False
            at.pop()
        elif part not in ("", "."):
            at.append(part)
            through_link = through_link or os.path.islink("/".join((root, *at)))
    return True


def resolve(root: str, path: str) -> Iterator[str]:
    """Yield the relative paths needed to reach `path` below `root`: each link, and the final path.

    It ends early at a link that points outside of the root; `target` refuses that one.
    """
    real_root, followed = os.path.realpath(root), 0
    left, done = path.split("/"), ""
    while left:
        done = f"{done}/{left.pop(0)}".lstrip("/")
        if not os.path.islink(f"{root}/{done}"):
            continue
        yield done
        followed += 1
        written = os.readlink(f"{root}/{done}")
        if followed > _MOST:
            return
        if _is_plain(root, done, written):
            at = os.path.normpath(os.path.join(os.path.dirname(done), written))
        else:
            at = os.path.relpath(os.path.realpath(f"{root}/{done}"), real_root)
        if at == ".." or at.startswith("../"):
            return
        left, done = [part for part in at.split("/") if part != "."] + left, ""
    if done:
        yield done
