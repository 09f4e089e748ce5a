"""Symbolic links in a project: where they lead, and what they say in a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator

from flyte_build.errors import ScanError

# Links that are followed on the way to one path; Linux follows as many (path_resolution(7)).
_MOST = 40


def target(root: str, path: str, shown: str = "") -> bytes:
    """Return what a link at `path` (relative to `root`) is to say in a bundle. Raises `ScanError`
    when it leads out of the root.

    That is what it says on disk, unless this leaves the root on its way, or goes up from where
    another link leads: then it is what it comes to. So it depends on other links too, and is asked
    for each time. `shown` stands before the path in messages.
    """
    written = os.readlink(f"{root}/{path}")
    real_root, real = os.path.realpath(root), os.path.realpath(f"{root}/{path}")
    if not (real + "/").startswith(real_root + "/"):
        raise ScanError(
            f"The link {shown}{path} leads out of the project, to {written}",
            why=(
                "A bundle holds what is below the root; the file would not be there when the task"
                " runs."
            ),
            hint=f"Copy the file into the project, or add `/{path}` to `.flyteignore`.",
        )
    if not _is_plain(root, path, written):
        written = os.path.relpath(real, os.path.dirname(f"{real_root}/{path}"))
    return os.fsencode(written)


def _is_plain(root: str, path: str, written: str) -> bool:
    """Whether text alone tells where a link leads: it never leaves the root, and has no `..` after
    another link.
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
    """Give the relative paths that make `path` reachable below `root`: each link on the way, and
    where it ends.

    It ends at a link that leads out of the root, which is refused when it is looked at.
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
