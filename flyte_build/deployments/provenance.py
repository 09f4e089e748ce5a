"""Provenance of a deployment: its commit, user and interpreter; and comparison of interpreters."""

from __future__ import annotations

import getpass
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from flyte_build.discovery.trace import distributions

_SHOWN = 5


def commit(folder: str) -> tuple[str, bool]:
    """Return the git commit of a directory, and whether it has uncommitted changes.

    The commit is "" outside of a repository.
    """
    revision = _git(folder, "rev-parse", "HEAD")
    return revision, bool(revision and _git(folder, "status", "--porcelain", "--", "."))


def user() -> str:
    """Return the name of the current user, or "" if there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A user id without a name, as in containers.
        return ""


def interpreter() -> dict[str, Any]:
    """Describe this interpreter: Python's version, the platform and installed distributions.

    The result is a JSON value.
    """
    found: dict[str, str] = {}
    for folder in sys.path:
        for name in distributions(folder) if folder else ():
            stem, _, kind = name.rpartition(".")
            if kind != "pth":
                project, _, version = re.sub(r"-py\d+\.\d+$", "", stem).partition("-")
                # PEP 503: one spelling of a name.
                found.setdefault(re.sub(r"[-_.]+", "-", project).lower(), version)
    return {
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
        "platform": f"{platform.system()} {platform.machine()}",
        "distributions": found,
    }


def interpreter_differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return how the current interpreter (`now`) differs from another (`then`), in phrases.

    Only the first few distributions are named.
    """
    found = [
        f"{label} {now.get(key)} instead of {then.get(key)}"
        for key, label in (("implementation", ""), ("python", "Python"), ("platform", ""))
        if then.get(key) and then.get(key) != now.get(key)
    ]
    wanted, here = then.get("distributions") or {}, now.get("distributions") or {}
    other = [
        f"{name} {here[name]} instead of {version}" if name in here else f"no {name} ({version})"
        for name, version in sorted(wanted.items())
        if here.get(name) != version
    ]
    found += other[:_SHOWN]
    if len(other) > _SHOWN:
        found.append(f"{len(other) - _SHOWN:,} other packages")
    return [phrase.strip() for phrase in found]


def _git(folder: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", folder, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError:  # git is not installed.
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
