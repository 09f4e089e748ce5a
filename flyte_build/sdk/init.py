"""`flyte.init`: the settings of all that is done from Python from then on."""

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

_settings: Settings | None = None


def begin(path: str | None, **given: str | None) -> None:
    """Begin with what is given, and for all else with what is configured; `path` is the one file to
    read. Raises `UsageError`.
    """
    global _settings
    _settings = configured(path, **given)


def configured(path: str | None, **given: str | None) -> Settings:
    """What is given and configured for the project of the script that is running, or of the current
    directory.
    """
    return Settings.configured(Configuration.load(project_root(), Reporter().note, path), **given)


def project_root() -> str:
    """The root of the project of the script that is running, or of the current directory."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    return (
        locate(script, None).root
        if script.endswith(".py") and os.path.isfile(script)
        else root_here()
    )


def has_begun() -> bool:
    """Whether `flyte.init` was called."""
    return _settings is not None


def current() -> Settings:
    """What `flyte.init` has said, or else what is configured."""
    return _settings or configured(None)


def initialised() -> Settings:
    """What `flyte.init` has said. Raises `InitializationError` if it was not called."""
    if _settings is None:
        raise InitializationError(
            "flyte is not initialised",
            hint="Call `flyte.init()` or `flyte.init_from_config()` first.",
        )
    return _settings


def refuse_while_imported(what: str) -> None:
    """Raise `UsageError` in the process that finds the tasks of a file by importing it: it would
    start that process again, without end.
    """
    if "flyte_build.discovery.child" in sys.modules:
        raise UsageError(
            f"{what} is called while the file is imported",
            why="The file is imported to find its tasks.",
            hint='Call it below `if __name__ == "__main__":`.',
        )


def init(project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """From now on `flyte.run` prepares tasks and runs them in processes of their own, as `flyte
    run` does.

    What is not given is as configured. Arguments about a control plane are accepted, and said to be
    unused. Raises `UsageError` for a configuration that makes no sense.
    """
    say_unused("flyte.init", unused)
    begin(None, project=project, domain=domain)


def init_from_config(
    path: str | None = None, project: str | None = None, domain: str | None = None, **unused: Any
) -> None:
    """The same; `path` is the one configuration file to read (ours, or a `config.yaml` of Flyte 2).

    Raises `UsageError` when it is not there.
    """
    say_unused("flyte.init_from_config", unused)
    begin(path, project=project, domain=domain)


def current_project() -> str:
    """The project's name. Raises `InitializationError` before `init`."""
    return initialised().run.project


def current_domain() -> str:
    """The domain's name. Raises `InitializationError` before `init`."""
    return initialised().run.domain


def say_unused(function: str, given: Mapping[str, Any]) -> None:
    """Say which arguments of a function are not acted on, if any are given."""
    if names := [name for name, value in given.items() if value is not None]:
        Reporter().note(f"{function} does not act on: {', '.join(names)}.")
