"""Pins: what the world answered on a day, kept so that it need not be asked again (`flyte.lock`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_build.cas.digest import Digest


@dataclass(frozen=True, kw_only=True)
class Wheel:
    """One package as a wheel: `digest` and `size` (bytes) are the file's, `url` is where it was seen, without credentials."""

    name: str
    version: str
    url: str
    digest: Digest
    size: int

    @property
    def filename(self) -> str:
        """The wheel's file name (PyPA specifications, "Binary distribution format")."""
        return self.url.rpartition("/")[2].partition("#")[0]


@dataclass(frozen=True, kw_only=True)
class LockedPackages:
    """What requirements came to for one Python (`3.11`) and one platform (`linux/amd64`): wheels, sorted by name.

    `requirements` are the requirements as asked for, sorted; `options` those of the resolver that change its answer.
    """

    requirements: tuple[str, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    python: str
    platform: str
    wheels: tuple[Wheel, ...]


@dataclass(frozen=True, kw_only=True)
class PinnedBase:
    """What a reference named: the digest of an index or a manifest, and the minor version of the Python inside ("" if there is none)."""

    reference: str
    digest: Digest
    python: str


@dataclass(frozen=True, kw_only=True)
class PinnedStep:
    """What executing something came to, which does not repeat: `key` is the digest of what it stood on and of what was executed.

    `digest` is that of the image's config, for one platform.
    """

    key: str
    platform: str
    digest: Digest
