"""How a command prepares and runs: the configuration, its options and the caller's arguments as one
value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flyte_build.runner.call import RunOptions

from . import table
from .configuration import Configuration
from .registries import Registries
from .table import EngineName

if TYPE_CHECKING:
    from flyte_build.bundler.budget import Budget


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run: what the configuration, the command's options and the caller's arguments say."""

    run: RunOptions
    engine: EngineName
    remake: bool = False
    allow_secrets: frozenset[str]
    budget: Budget | None
    registries: Registries
    image_base: str
    image_compression: table.Compression
    image_registry: str
    builder: str
    network: str = ""
    locked: bool = False
    images: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def configured(cls, config: Configuration, **given: Any) -> Settings:
        """What is `given` (as `change` takes it), and for all else what the configuration says."""
        images = config[table.IMAGE_REFS]
        return cls(
            run=RunOptions(
                project=config[table.PROJECT],
                domain=config[table.DOMAIN],
                copy_style=config[table.COPY_STYLE],
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
        """The same but for what is `given`, by the names of this class's fields and of
        `RunOptions`'s; None: it is not given.
        """
        there = {name: value for name, value in given.items() if value is not None}
        of_run = {name: there.pop(name) for name in _OF_RUN & there.keys()}
        return replace(self, **there, run=self.run._replace(**of_run))


_OF_RUN = frozenset(RunOptions._fields)


def _budget(config: Configuration) -> Budget | None:
    """What is configured, or None for the usual one: only a scan of everything loads that."""
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
