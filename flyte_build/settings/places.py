"""Directories of the cache, the data and the configuration on this machine."""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

from flyte_build.errors import UsageError

from .table import SHARED_STORE


class Places(NamedTuple):
    """Directories of the cache and the data, and the path of the user's configuration file.

    The cache can be deleted at the price of rebuilding; the data are runs, outputs and logs.
    `shared` is whether several users share both.
    """

    cache: str
    data: str
    config: str
    shared: bool = False

    @property
    def executed(self) -> str:
        """Directory, among the data, of the results of executing steps of images."""
        return f"{self.data}/executed"

    @classmethod
    def find(cls) -> Places:
        """Return the places below `FLYTE_HOME` if that is set, else the platform's defaults.

        Raises `UsageError` if `HOME` is needed and is not an absolute path.
        """
        if os.environ.get("HOME"):  # An empty one is an error only where it is used.
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
        # As platformdirs does (XDG Base Directory 0.8), without the 20 ms of its import.
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
    """Return the path in a variable, or "" if it is not absolute.

    A relative path must be ignored (XDG Base Directory 0.8, "Basics").
    """
    place = os.environ.get(variable, "")
    return place if os.path.isabs(place) else ""


def _expanded(path: str) -> str:
    """Return a path with `~` replaced by the user's home directory.

    Raises `UsageError` if that is not an absolute path.
    """
    if path.startswith("~"):
        _check_home()
    return os.path.expanduser(path)


def _check_home() -> None:
    home = os.environ.get("HOME")
    if home is not None and not os.path.isabs(home):
        raise UsageError(
            f"The variable HOME must be an absolute path, not {home!r}",
            why="A relative home would be a different one in each current directory.",
            hint="Set HOME to an absolute path.",
        )
