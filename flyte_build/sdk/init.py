"""`flyte.init`: settings of all later operations in this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from flyte_build.errors import InitializationError, UsageError
from flyte_build.graph.reporter import Reporter
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import locate, root_here

from .blocking import Blocking

_settings: Settings | None = None
_prepares = False


def begin(path: str | None, *, prepares: bool, **given: str | None) -> None:
    """Set the current settings to the configured ones, overridden by `given`.

    `path` is the only configuration file to read (default: the usual ones); `prepares` tells
    whether `flyte.run` prepares tasks from now on. Raises `UsageError`.
    """
    global _settings, _prepares
    _settings, _prepares = configured(path, **given), prepares


def configured(path: str | None, **given: str | None) -> Settings:
    """Return the settings of the project, overridden by `given`; see `project_root` and `begin`."""
    return Settings.configured(Configuration.load(project_root(), Reporter().note, path), **given)


def project_root() -> str:
    """Return the root of the running script's project, or else of the current directory's."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    return (
        locate(script, None).root
        if script.endswith(".py") and os.path.isfile(script)
        else root_here()
    )


def prepares() -> bool:
    """Whether `flyte.run` prepares tasks, rather than running them in this process."""
    return _prepares


def current() -> Settings:
    """Return the settings set by `flyte.init`, or else the configured ones."""
    return _settings or configured(None)


def initialised() -> Settings:
    """Return the settings set by `flyte.init`.

    Raises `InitializationError` if it was not called.
    """
    if _settings is None:
        raise InitializationError(
            "flyte is not initialised",
            hint="Call `flyte.init()` or `flyte.init_from_config()` first.",
        )
    return _settings


def refuse_while_imported(what: str) -> None:
    """Raise `UsageError` in discovery's child process, which would start itself endlessly."""
    if "flyte_build.discovery.child" in sys.modules:
        raise UsageError(
            f"{what} must not be called while the file is imported",
            why="The file is imported to find its tasks.",
            hint='Call it below `if __name__ == "__main__":`.',
        )


def _init(project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """Set the project and the domain; what is omitted is taken from the configuration.

    `flyte.run` runs tasks in this process, as before; with an `endpoint`, it prepares them, as
    after `init_from_config`. Arguments of Flyte 2 for its control plane are accepted and ignored,
    with a note. Raises `UsageError` for an invalid configuration.
    """
    say_unused("flyte.init", unused)
    begin(None, prepares=bool(unused.get("endpoint")), project=project, domain=domain)


def _init_from_config(
    path: str | None = None, project: str | None = None, domain: str | None = None, **unused: Any
) -> None:
    """Make `flyte.run` prepare tasks and run them in processes of their own, as `flyte run` does.

    `path` is the only configuration file to read: a file of ours, or a `config.yaml` of Flyte 2
    (default: the usual files). Raises `UsageError` if it does not exist.
    """
    say_unused("flyte.init_from_config", unused)
    begin(path, prepares=True, project=project, domain=domain)


init = Blocking(_init)
init_from_config = Blocking(_init_from_config)


def current_project() -> str:
    """Return the project's name. Raises `InitializationError` before `init`."""
    return initialised().run.project


def current_domain() -> str:
    """Return the domain's name. Raises `InitializationError` before `init`."""
    return initialised().run.domain


def say_unused(function: str, given: Mapping[str, Any]) -> None:
    """Note which arguments of a function are ignored, if any are given."""
    if names := [name for name, value in given.items() if value is not None]:
        Reporter().note(f"{function} ignores: {', '.join(names)}.")
