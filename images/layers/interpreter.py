"""The Python for which packages are installed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interpreter:
    """The Python inside an image: where it is, and where it looks for packages.

    `version` is a minor one (`3.11`), the others are absolute paths: of the executable, of
    packages, and of scripts.
    """

    version: str
    executable: str
    packages: str
    scripts: str
