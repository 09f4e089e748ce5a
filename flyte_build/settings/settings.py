"""Settings of one command: its configuration, options and arguments as one value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from flyte_build.runner.call import RunOptions

from . import table
from .configuration import Configuration
from .registries import Registries
from .table import EngineName

if TYPE_CHECKING:
    from flyte_build.bundler.budget import Budget


class Settings(NamedTuple):
    """Settings of one command, from its configuration, its options and the caller's arguments."""

    run: RunOptions
    engine: EngineName
    allow_secrets: frozenset[str]
    budget: Budget | None
    registries: Registries
    image_base: str
    image_compression: table.Compression
    image_registry: str
    builder: str
    remake: bool = False
    network: str = ""
    locked: bool = False
    images: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def configured(cls, config: Configuration, **given: Any) -> Settings:
        """Return the settings of a configuration, overridden by `given` as in `change`."""
        images = config[table.IMAGE_REFS]
        return cls(
            run=RunOptions(
                project=config[table.PROJECT],
                domain=config[table.DOMAIN],
                copy_style=config[table.COPY_STYLE],
                lost_retries=config[table.LOST_RETRIES],
            ),
            engine=config[table.ENGINE],
            allow_secrets=config[table.ALLOW_SECRETS],
            budget=_budget(config),
            registries=Registries.configured(config),
            network=config[table.NETWORK],
            image_base=config[table.IMAGE_BASE],
            image_compression=config[table.COMPRESSION],
            image_registry=config[table.REGISTRY],
            builder=config[table.BUILDER],
            images=images,
            locked=config[table.LOCKED],
        ).change(**given)

    def change(self, **given: Any) -> Settings:
        """Return these settings with those `given` replaced, and None ignored.

        Names are those of the fields of this class and of `RunOptions`.
        """
        there = {name: value for name, value in given.items() if value is not None}
        of_run = {name: there.pop(name) for name in _OF_RUN & there.keys()}
        return self._replace(**there, run=self.run._replace(**of_run))


_OF_RUN = frozenset(RunOptions._fields)


def _budget(config: Configuration) -> Budget | None:
    """Return the configured budget, or None for the default, to avoid importing its module."""
    if all(
        config.source(each) == "default"
        for each in (table.MAX_FILES, table.MAX_BYTES, table.MAX_SCAN_TIME)
    ):
        return None
    from flyte_build.bundler.budget import Budget

    return Budget(
        files=config[table.MAX_FILES],
        bytes=config[table.MAX_BYTES],
        seconds=config[table.MAX_SCAN_TIME],
    )
