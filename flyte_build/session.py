"""What `flyte.init` has said: the settings of all that is done from Python from then on."""

from __future__ import annotations

import os
import sys

from .errors import InitializationError, UsageError
from .graph.reporter import Listener
from .settings.configuration import Configuration
from .settings.settings import Settings
from .workspace.workspace import locate, root_here

_settings: Settings | None = None


def begin(path: str | None, **given: str | None) -> None:
    """Begin with what is given, and for all else with what is configured; `path` is the one file to read. Raises `UsageError`."""
    global _settings
    _settings = configured(path, **given)


def configured(path: str | None, **given: str | None) -> Settings:
    """What is given and configured for the project of the script that is running, or of the current folder."""
    return Settings.configured(Configuration.load(project_root(), Listener().said, path), **given)


def project_root() -> str:
    """The root of the project of the script that is running, or of the current folder."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    return locate(script, None).root if script.endswith(".py") and os.path.isfile(script) else root_here()


def has_begun() -> bool:
    """Whether `flyte.init` was called."""
    return _settings is not None


def current() -> Settings:
    """What `flyte.init` has said, or else what is configured."""
    return _settings or configured(None)


def initialised() -> Settings:
    """What `flyte.init` has said. Raises `InitializationError` if it was not called."""
    if _settings is None:
        raise InitializationError("flyte is not initialised", hint="Call `flyte.init()` or `flyte.init_from_config()` first.")
    return _settings


def refuse_while_imported(what: str) -> None:
    """Raise `UsageError` in the process that finds the tasks of a file by importing it: it would start that process again, without end."""
    if "flyte_build.discovery.child" in sys.modules:
        raise UsageError(
            f"{what} is called while the file is imported",
            why="The file is imported to find its tasks.",
            hint='Call it below `if __name__ == "__main__":`.',
        )
