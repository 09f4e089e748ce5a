"""Pins: what the world answered on a day, kept so that it need not be asked again
(`flyte.lock`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from flyte_build.cas.digest import Digest
from flyte_build.text.wording import listed


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One package as a wheel: `digest` and `size` (bytes; 0 if the index does not say) are the
    file's.

    `url` is where it was seen, without credentials; a path relative to the project's root for a
    file below it.
    """

    name: str
    version: str
    url: str
    digest: Digest
    size: int

    @property
    def filename(self) -> str:
        """The wheel's file name (PyPA specifications, "Binary distribution format"); a path's
        stands in it as it is.
        """
        if "://" not in self.url:
            return self.url.rpartition("/")[2]
        return unquote(self.url.partition("#")[0].partition("?")[0].rpartition("/")[2])


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be resolved, which names what it came to in flyte.lock: requirements, for one
    Python (`3.11`) and one platform.

    `requirements` are as asked for, sorted: `numpy>=2`, `-r requirements.txt`, `--project
    pyproject.toml`. `files` are the digests of what the files say that these name, `options` those
    of the resolver.
    """

    requirements: tuple[str, ...]
    files: Mapping[str, Digest] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str
    platform: str

    def __str__(self) -> str:
        return f"{listed(self.requirements, 5)} (Python {self.python}, {self.platform})"


@dataclass(frozen=True, kw_only=True)
class LockedPackages:
    """What was wanted, and the wheels that it came to, sorted by name."""

    wanted: Wanted
    wheels: tuple[Wheel, ...]

    @property
    def python(self) -> str:
        """The minor version of the Python that the wheels are for."""
        return self.wanted.python

    @property
    def platform(self) -> str:
        """The platform that they are for."""
        return self.wanted.platform


@dataclass(frozen=True, kw_only=True)
class PinnedBase:
    """What a reference named: the digest of an index or a manifest, and the minor version of the
    Python inside ("" if there is none).
    """

    reference: str
    digest: Digest
    python: str


@dataclass(frozen=True, kw_only=True)
class PinnedStep:
    """What executing something came to, which does not repeat: `key` is the digest of what it stood
    on and of what was executed.

    `digest` is that of the image's config, for one platform.
    """

    key: str
    platform: str
    digest: Digest
