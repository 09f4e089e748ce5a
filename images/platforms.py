"""Platforms as OCI names them (image-spec, "Image Index", `platform`), what they are called
elsewhere, and the Python on one.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

GLIBC = (2, 28)  # What wheels for Linux may need: Debian has it since 10, Red Hat since 8.
MACOS = (13, 0)
# The minor version of the interpreter at hand.
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Interpreter(NamedTuple):
    """The Python inside an image: where it is, and where it looks for packages.

    `version` is a minor one (`3.11`), the others are absolute paths: of the executable, of
    packages, and of scripts.
    """

    version: str
    executable: str
    packages: str
    scripts: str


def here() -> str:
    """The platform of this machine: `linux/amd64`, `darwin/arm64`, ..."""
    machine = os.uname().machine
    known = {"x86_64": "amd64", "aarch64": "arm64"}
    return f"{sys.platform}/{known.get(machine, machine)}"


def linux_here() -> str:
    """The platform of containers on this machine: Linux, whatever it runs itself."""
    return f"linux/{architecture(here())}"


def architecture(platform: str) -> str:
    """The second part: `amd64`."""
    return platform.partition("/")[2]


def machine(platform: str) -> str:
    """What `uname -m` says there, and so tags of wheels and markers of requirements."""
    name = architecture(platform)
    return "arm64" if platform == "darwin/arm64" else _MACHINES.get(name, name)


def target(platform: str) -> str:
    """The platform as uv's `--python-platform` takes it."""
    if platform.startswith("darwin/"):
        return f"{_MACHINES.get(architecture(platform))}-apple-darwin"
    return f"{machine(platform)}-manylinux_{GLIBC[0]}_{GLIBC[1]}"
