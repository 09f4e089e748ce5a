"""Platforms in OCI's form (image-spec, "Image Index"), and their names in other tools."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

GLIBC = (2, 28)  # Newest glibc that wheels may need: in Debian since 10, in Red Hat since 8.
MACOS = (13, 0)
# Minor version of the running interpreter.
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Interpreter(NamedTuple):
    """The Python inside an image.

    `version` is a minor version (`3.11`); the others are absolute paths of the executable, of the
    package directory, and of the scripts directory.
    """

    version: str
    executable: str
    packages: str
    scripts: str


def here() -> str:
    """Return the platform of this machine: `linux/amd64`, `darwin/arm64`, ..."""
    machine = os.uname().machine
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    return f"{sys.platform}/{known.get(machine, machine)}"


def linux_here() -> str:
    """Return the platform of containers on this machine, which is always Linux."""
    return f"linux/{architecture(here())}"


def architecture(platform: str) -> str:
    """Return the second part of a platform: `amd64`."""
    return platform.partition("/")[2]


def machine(platform: str) -> str:
    """Return the name in `uname -m`, tags of wheels and markers of requirements."""
    name = architecture(platform)
    return "arm64" if platform == "darwin/arm64" else _MACHINES.get(name, name)


def target(platform: str) -> str:
    """Return a platform in the form of uv's `--python-platform`."""
    if platform.startswith("darwin/"):
        return f"{_MACHINES.get(architecture(platform))}-apple-darwin"
    return f"{machine(platform)}-manylinux_{GLIBC[0]}_{GLIBC[1]}"
