"""Which environments a command means: those of a file, or of all files below a directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from flyte_build.errors import UsageError
from flyte_build.workspace.task_files import task_files
from flyte_build.workspace.workspace import Workspace, locate

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The environment under `env_variable` of a `file`; or all of them, `recursive`ly those of all
    files below a directory.
    """

    file: str
    env_variable: str | None
    everything: bool
    recursive: bool
    root_dir: str | None

    @classmethod
    def take(cls, command: str, options: dict[str, Any]) -> Selection:
        """What the options of `of_environments` say, which are taken out of `options`. Raises
        `UsageError`.
        """
        names = ("file", "env_variable", "everything", "recursive", "root_dir")
        chosen = cls(**{name: options.pop(name) for name in names})
        file = chosen.file
        if chosen.env_variable and chosen.is_whole:
            raise UsageError(
                "ENV_VARIABLE is given together with --all or -r", hint="Leave one of them out."
            )
        if os.path.isdir(file) and not chosen.recursive:
            raise UsageError(
                f"{file} is a directory",
                hint=f"`flyte {command} -r {file}` takes all that is in it; or name a file.",
            )
        if chosen.recursive and not os.path.isdir(file):
            raise UsageError(
                f"{file} is no directory", hint="`-r` takes a directory; `--all` takes a file."
            )
        return chosen

    @property
    def is_whole(self) -> bool:
        """Whether all environments of its files are meant."""
        return self.everything or self.recursive

    def workspaces(self) -> list[Workspace]:
        """The files. Raises `UsageError`."""
        files = task_files(os.path.realpath(self.file)) if self.recursive else [self.file]
        return [locate(each, self.root_dir) for each in files]


def of_environments(verb: str) -> Callable[[F], F]:
    """Add the options and arguments that `Selection.take` reads; `verb` begins their help, as in
    `Build`.
    """

    def add(command: F) -> F:
        below = f"{verb} all environments of all Python files below the directory FILE."
        for option in (
            click.argument("env_variable", metavar="[ENV_VARIABLE]", required=False),
            click.argument("file", metavar="FILE", type=click.Path()),
            click.option("-r", "--recursive", is_flag=True, help=below),
            click.option(
                "--all", "everything", is_flag=True, help=f"{verb} all environments of FILE."
            ),
        ):
            command = option(command)
        return command

    return add
