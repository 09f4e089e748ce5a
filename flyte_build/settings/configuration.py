"""Values of settings from files and environment variables; read once, and passed as a value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from flyte_build.errors import UsageError

from .places import Places
from .table import BY_VARIABLE, Setting, placed, unknown_variable

T = TypeVar("T")
# Set by workers for tasks, so commands inside a task see them, too.
_FOR_TASKS = ("FLYTE_ACTION", "FLYTE_ATTEMPT_NUMBER", "FLYTE_RUN")


class Configuration:
    """The value and the source of each setting.

    `given` maps keys to values and their sources, without those that have their default.
    """

    def __init__(self, given: Mapping[str, tuple[Any, str]]) -> None:
        self._given = given

    def __getitem__(self, setting: Setting[T]) -> T:
        value: T = self._given[setting.key][0] if setting.key in self._given else setting.default
        return value

    def override(self, options: Mapping[Setting[Any], str | None]) -> Configuration:
        """Return this configuration with the options of a command (None: not given) on top.

        Raises `UsageError` for an invalid value.
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
        """Return the file, variable or option that sets a setting, or `default`."""
        return self._given[setting.key][1] if setting.key in self._given else "default"

    @classmethod
    def load(cls, root: str, note: Callable[[str], None], file: str | None = None) -> Configuration:
        """Return the configuration of a project, from files and environment variables.

        The files are the project's and the user's (or `file` alone, if given). `note` is called
        with messages on settings that have no effect. Raises `UsageError` for an unknown setting
        or an invalid value.
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
                # An empty string is not one of the choices: the variable counts as unset.
                elif os.environ[name] or not setting.kind.choices:
                    try:
                        given[setting.key] = (setting.from_text(os.environ[name]), name)
                    except UsageError as error:
                        raise placed(error, f"The variable {name}") from None
        return cls(given)


def places_of(root: str) -> Iterator[str]:
    """Yield the configuration files of a project, lowest precedence first; most do not exist."""
    yield flyte2_file(root)
    yield Places.find().config
    yield f"{root}/flyte.toml"
    yield f"{root}/pyproject.toml"


def flyte2_file(root: str) -> str:
    """Return the path of Flyte 2's configuration file: the project's, repository's or user's.

    It is the first of these that exists, or else the user's.
    """
    folder = root
    while folder not in ("/", "") and not os.path.exists(f"{folder}/.git"):
        folder = os.path.dirname(folder)
    places = [f"{place}/.flyte/config.yaml" for place in (root, folder, os.path.expanduser("~"))]
    return next(filter(os.path.exists, places), places[-1])


def _may_configure(pyproject: str) -> bool:
    """Whether a pyproject.toml may contain `tool.flyte`.

    Most do not, and this avoids the time to import a parser.
    """
    with open(pyproject, "rb") as file:
        return any(
            (b"tool" in line and b"flyte" in line) or line.replace(b" ", b"").startswith(b"[tool]")
            for line in file
        )
