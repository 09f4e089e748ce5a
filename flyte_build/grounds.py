"""What an image stands on: a base that is pinned, or an image that was made here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from flyte_build.cas.digest import Digest
from flyte_build.images.base import Base, Bases
from flyte_build.images.config import Image
from flyte_build.images.loading import Fetch
from flyte_build.images.pins import PinnedBase


class Ground(Protocol):
    """What an image stands on."""

    @property
    def identity(self) -> Digest:
        """The digest that it is known by."""

    def load(self) -> Base:
        """The base itself."""


@dataclass(frozen=True)
class OfReference:
    """A base that is pinned."""

    pinned: PinnedBase
    platform: str
    bases: Bases

    @property
    def identity(self) -> Digest:
        """The pinned digest."""
        return self.pinned.digest

    def load(self) -> Base:
        """Fetch of it what is not here."""
        return self.bases.get(self.pinned, self.platform)


@dataclass(frozen=True)
class OfImage:
    """An image that was made here."""

    image: Image
    bases: Bases
    fetch: Fetch

    @property
    def identity(self) -> Digest:
        """The config's digest."""
        return self.image.identity

    def load(self) -> Base:
        """Look into it."""
        return self.bases.of_image(self.image, self.fetch)
