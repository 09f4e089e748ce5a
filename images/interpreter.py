"""The Python inside an image: where it is, and where it looks for packages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """`version` is a minor one (`3.11`), the others are absolute paths: of the executable, of packages, and of scripts."""

    version: str
    executable: str
    packages: str
    scripts: str
