"""Where a deployment comes from: the commit, and who made it."""

from __future__ import annotations

import getpass
import subprocess


def commit(folder: str) -> tuple[str, bool]:
    """The git commit of a folder ("" outside of a repository), and whether its files are others than that commit holds."""
    revision = _git(folder, "rev-parse", "HEAD")
    return revision, bool(revision and _git(folder, "status", "--porcelain", "--", "."))


def user() -> str:
    """The name of who is at it, or "" if there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A user id without a name, as in containers.
        return ""


def _git(folder: str, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, errors="replace", check=False)
    except OSError:  # There is no git here.
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
