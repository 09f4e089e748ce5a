"""What files and variables say of the settings: read at the edge, passed down as values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from flyte_build.errors import UsageError

from .places import Places
from .table import BY_VARIABLE, Setting, placed, unknown_variable

T = TypeVar("T")
_FOR_TASKS = ("FLYTE_RUN",)  # What a worker tells its task, and a command inside of a task meets.


class Configuration:
    """The value of each setting, and where it comes from. `given` has the values and their sources
    by key, without defaults.
    """

    def __init__(self, given: Mapping[str, tuple[Any, str]]) -> None:
        self._given = given

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self._given[setting.key][0] if setting.key in self._given else setting.default
        return value

    def override(self, options: Mapping[Setting[Any], str | None]) -> Configuration:
        """The same, but for the options of a command that are given. Raises `UsageError` for one
        that makes no sense.
        """
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
    def load(cls, root: str, note: Callable[[str], None], file: str | None = None) -> Configuration:
        """What holds for a project: its files and the user's (or `file` alone, where that is
        given), then variables.

        `note` is told what is accepted and not acted on. Raises `UsageError` for what is no
        setting, or none of its values.
        """
        given: dict[str, tuple[Any, str]] = {}
        for path in [file] if file else filter(os.path.exists, places_of(root)):
            if file or not path.endswith("/pyproject.toml") or _may_configure(path):
                from .files import read_file

                given.update(
                    {setting.key: (value, path) for setting, value in read_file(path, note)}
                )
        for name in os.environ:
            if name.startswith("FLYTE_") and name not in _FOR_TASKS:
                if (setting := BY_VARIABLE.get(name)) is None:
                    unknown_variable(name, note)
                # An empty text is no choice: such a variable counts as unset.
                elif os.environ[name] or not setting.kind.choices:
                    try:
                        given[setting.key] = (setting.from_text(os.environ[name]), name)
                    except UsageError as error:
                        raise placed(error, f"The variable {name}") from None
        return cls(given)


def places_of(root: str) -> Iterator[str]:
    """The files that are read for a project, those that count less first; most of them are not
    there.
    """
    yield flyte2_file(root)
    yield Places.find().config
    yield f"{root}/flyte.toml"
    yield f"{root}/pyproject.toml"


def flyte2_file(root: str) -> str:
    """The configuration file of Flyte 2: the project's, the repository's, or the user's; the last
    if there is none.
    """
    folder = root
    while folder not in ("/", "") and not os.path.exists(f"{folder}/.git"):
        folder = os.path.dirname(folder)
    places = [f"{place}/.flyte/config.yaml" for place in (root, folder, os.path.expanduser("~"))]
    return next(filter(os.path.exists, places), places[-1])


def _may_configure(pyproject: str) -> bool:
    """Whether a pyproject.toml can hold `tool.flyte`: most do not, and are not worth the time that
    loading a parser takes.
    """
    with open(pyproject, "rb") as file:
        return any(
            (b"tool" in line and b"flyte" in line) or line.replace(b" ", b"").startswith(b"[tool]")
            for line in file
        )
