"""Where a deployment comes from: the commit, who made it, and with which interpreter; and how that
differs from the one at hand.
"""

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
    """The git commit of a directory ("" outside of a repository), and whether its files are others
    than that commit holds.
    """
    revision = _git(folder, "rev-parse", "HEAD")
    return revision, bool(revision and _git(folder, "status", "--porcelain", "--", "."))


def user() -> str:
    """The name of who is at it, or "" if there is none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # A user id without a name, as in containers.
        return ""


def interpreter() -> dict[str, Any]:
    """This interpreter as a JSON value: Python's version, the platform, and the installed
    distributions with their versions.
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
    """How the interpreter at hand differs from another one, in a few phrases: the first few
    distributions are named.
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
    except OSError:  # There is no git here.
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
