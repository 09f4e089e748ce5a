"""Where things are kept on this machine."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from flyte_build.errors import UsageError

from .table import SHARED_STORE


class Places(NamedTuple):
    """The directories of the cache (deleting it costs time) and of data (runs, outputs, logs), and
    the user's configuration file.

    `shared` says that several users use them.
    """

    cache: str
    data: str
    config: str
    shared: bool = False

    @property
    def executed(self) -> str:
        """The directory, among the data, of what executing steps of images came to."""
        return f"{self.data}/executed"

    @classmethod
    def find(cls) -> Places:
        """Below `FLYTE_HOME` if that is set, else where the platform keeps such things."""
        if os.environ.get("HOME"):  # An empty one matters only where it is used.
            _check_home()
        shared = SHARED_STORE.from_text(os.environ.get(SHARED_STORE.variable) or "false")
        if home := os.environ.get("FLYTE_HOME"):
            home = os.path.abspath(_expanded(home))
            return cls(
                cache=f"{home}/cache",
                data=f"{home}/data",
                config=f"{home}/config.toml",
                shared=shared,
            )
        # What platformdirs gives here (XDG Base Directory 0.8), without the 20 ms of its import.
        if sys.platform == "linux":
            folders = (
                ("XDG_CACHE_HOME", "~/.cache"),
                ("XDG_DATA_HOME", "~/.local/share"),
                ("XDG_CONFIG_HOME", "~/.config"),
            )
            cache, data, config = (
                f"{_absolute(variable) or _expanded(usual)}/flyte-build"
                for variable, usual in folders
            )
        else:
            import platformdirs

            _check_home()
            finders = (
                platformdirs.user_cache_dir,
                platformdirs.user_data_dir,
                platformdirs.user_config_dir,
            )
            cache, data, config = (find("flyte-build") for find in finders)
        return cls(cache=cache, data=data, config=f"{config}/config.toml", shared=shared)


def _absolute(variable: str) -> str:
    """Return what a variable names, or "" if it is no absolute path: such a one is ignored (XDG
    Base Directory 0.8, "Basics").
    """
    place = os.environ.get(variable, "")
    return place if os.path.isabs(place) else ""


def _expanded(path: str) -> str:
    """Return a path with the user's home in place of `~`. Raises `UsageError` if that is no
    absolute path.
    """
    if path.startswith("~"):
        _check_home()
    return os.path.expanduser(path)


def _check_home() -> None:
    home = os.environ.get("HOME")
    if home is not None and not os.path.isabs(home):
        raise UsageError(
            f"The variable HOME must be an absolute path, not {home!r}",
            why="Else there would be another home in each directory where a command is started.",
            hint="Set HOME to an absolute path.",
        )
