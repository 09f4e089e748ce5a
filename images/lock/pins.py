"""Pins: answers of indexes and registries, kept in `flyte.lock` so that builds repeat them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from flyte_build.cas.digest import Digest
from flyte_build.text.wording import listed


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """A pinned package, as a wheel.

    `digest` and `size` (bytes; 0 if the index does not tell) describe the file. `url` is its
    original location, without credentials; for a file below the project root, a path relative to
    that root.
    """

    name: str
    version: str
    url: str
    digest: Digest
    size: int

    @property
    def filename(self) -> str:
        """The wheel's file name (PyPA specifications, "Binary distribution format").

        In a URL it is percent-decoded, in a path it is used as it is.
        """
        if "://" not in self.url:
            return self.url.rpartition("/")[2]
        return unquote(self.url.partition("#")[0].partition("?")[0].rpartition("/")[2])


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Request for a resolution; its answer is stored under it in flyte.lock.

    `requirements` are sorted and as declared: `numpy>=2`, `-r requirements.txt`, `--project
    pyproject.toml`. `files` maps the files that they name to digests of the parts that matter to
    the resolver; `options` are the resolver's. `python` is a minor version (`3.11`), `platform` one
    platform (`linux/amd64`).
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
    """A request, and the wheels it resolved to, sorted by name."""

    wanted: Wanted
    wheels: tuple[Wheel, ...]

    @property
    def python(self) -> str:
        """The minor version of the Python that the wheels are for."""
        return self.wanted.python

    @property
    def platform(self) -> str:
        """The platform that the wheels are for."""
        return self.wanted.platform


@dataclass(frozen=True, kw_only=True)
class PinnedBase:
    """A base image, pinned by digest.

    `digest` is that of the index or manifest that `reference` named; `python` is the minor version
    of the Python inside, or "".
    """

    reference: str
    digest: Digest
    python: str


@dataclass(frozen=True, kw_only=True)
class PinnedStep:
    """The pinned result of a command, since executing it again would give another one.

    `key` is the digest of the image before the command and of the command itself; `digest` is that
    of the resulting image's config, for one platform.
    """

    key: str
    platform: str
    digest: Digest
