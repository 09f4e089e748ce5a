"""Where things are kept, and what files and variables say: read at the edge, passed down as values."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from flyte_build.errors import UsageError

from .settings import BY_VARIABLE, SHARED_STORE, Setting, placed, unknown_variable

T = TypeVar("T")
_FOR_TASKS = ("FLYTE_RUN",)  # What a worker tells its task, and a command inside of a task meets.


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of the cache (deleting it costs time) and of data (runs, outputs, logs), and the user's configuration file.

    `shared` says that several users use them.
    """

    cache: str
    data: str
    config: str
    shared: bool = False

    @property
    def executed(self) -> str:
        """The folder, among the data, of what executing steps of images came to."""
        return f"{self.data}/executed"

    @classmethod
    def find(cls) -> "Places":
        """Below `FLYTE_HOME` if that is set, else where the platform keeps such things."""
        if os.environ.get("HOME"):  # An empty one matters only where it is used.
            _check_home()
        shared = SHARED_STORE.from_text(os.environ.get(SHARED_STORE.variable) or "false")
        if home := os.environ.get("FLYTE_HOME"):
            home = os.path.abspath(_expanded(home))
            return cls(cache=f"{home}/cache", data=f"{home}/data", config=f"{home}/config.toml", shared=shared)
        if sys.platform == "linux":  # What platformdirs gives here (XDG Base Directory 0.8), without the 20 ms of its import.
            folders = (("XDG_CACHE_HOME", "~/.cache"), ("XDG_DATA_HOME", "~/.local/share"), ("XDG_CONFIG_HOME", "~/.config"))
            cache, data, config = (f"{_absolute(variable) or _expanded(usual)}/flyte-build" for variable, usual in folders)
        else:
            import platformdirs

            _check_home()
            finders = (platformdirs.user_cache_dir, platformdirs.user_data_dir, platformdirs.user_config_dir)
            cache, data, config = (find("flyte-build") for find in finders)
        return cls(cache=cache, data=data, config=f"{config}/config.toml", shared=shared)


def _absolute(variable: str) -> str:
    """Return what a variable names, or "" if it is no absolute path: such a one is ignored (XDG Base Directory 0.8, "Basics")."""
    place = os.environ.get(variable, "")
    return place if os.path.isabs(place) else ""


def _expanded(path: str) -> str:
    """Return a path with the user's home in place of `~`. Raises `UsageError` if that is no absolute path."""
    if path.startswith("~"):
        _check_home()
    return os.path.expanduser(path)


def _check_home() -> None:
    home = os.environ.get("HOME")
    if home is not None and not os.path.isabs(home):
        raise UsageError(
            f"The variable HOME must be an absolute path, not {home!r}",
            why="Else there would be another home in each folder where a command is started.",
            hint="Set HOME to an absolute path.",
        )


class Configuration:
    """The value of each setting, and where it comes from. `given` has the values and their sources by key, without defaults."""

    def __init__(self, given: Mapping[str, tuple[Any, str]]) -> None:
        self._given = given

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self._given[setting.key][0] if setting.key in self._given else setting.default
        return value

    def override(self, options: Mapping[Setting[Any], str | None]) -> "Configuration":
        """The same, but for the options of a command that are given. Raises `UsageError` for one that makes no sense."""
        given = dict(self._given)
        for setting, text in options.items():
            if text is not None:
                try:
                    given[setting.key] = (setting.from_text(text), setting.option)
                except UsageError as error:
                    raise placed(error, setting.option) from None
        return Configuration(given)

    def source(self, setting: Setting[Any]) -> str:
        """The file or the variable that gives a setting its value, or `default`."""
        return self._given[setting.key][1] if setting.key in self._given else "default"

    @classmethod
    def load(cls, root: str, said: Callable[[str], None], file: str | None = None) -> "Configuration":
        """What holds for a project: its files and the user's (or `file` alone, where that is given), then variables.

        `said` is told what is accepted and not acted on. Raises `UsageError` for what is no setting, or none of its values.
        """
        given: dict[str, tuple[Any, str]] = {}
        for path in [file] if file else filter(os.path.exists, places_of(root)):
            if file or not path.endswith("/pyproject.toml") or _may_configure(path):
                from .files import read_file

                given.update({setting.key: (value, path) for setting, value in read_file(path, said)})
        for name in os.environ:
            if name.startswith("FLYTE_") and name not in _FOR_TASKS:
                if (setting := BY_VARIABLE.get(name)) is None:
                    unknown_variable(name, said)
                elif os.environ[name] or not setting.kind.choices:  # An empty text is no choice: such a variable counts as unset.
                    try:
                        given[setting.key] = (setting.from_text(os.environ[name]), name)
                    except UsageError as error:
                        raise placed(error, f"The variable {name}") from None
        return cls(given)


def places_of(root: str) -> Iterator[str]:
    """The files that are read for a project, those that count less first; most of them are not there."""
    yield flyte2_file(root)
    yield Places.find().config
    yield f"{root}/flyte.toml"
    yield f"{root}/pyproject.toml"


def flyte2_file(root: str) -> str:
    """The configuration file of Flyte 2: the project's, the repository's, or the user's; the last if there is none."""
    folder = root
    while folder not in ("/", "") and not os.path.exists(f"{folder}/.git"):
        folder = os.path.dirname(folder)
    places = [f"{place}/.flyte/config.yaml" for place in (root, folder, os.path.expanduser("~"))]
    return next(filter(os.path.exists, places), places[-1])


def _may_configure(pyproject: str) -> bool:
    """Whether a pyproject.toml can hold `tool.flyte`: most do not, and are not worth the time that loading a parser takes."""
    with open(pyproject, "rb") as file:
        return any((b"tool" in line and b"flyte" in line) or line.replace(b" ", b"").startswith(b"[tool]") for line in file)
