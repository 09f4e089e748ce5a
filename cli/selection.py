"""Selection of environments: those of a file, or of all files below a directory."""

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
    """The selected environments of a command.

    They are the one in the variable `env_variable` of `file`, or all of that file (`everything`),
    or all of the files below the directory `file` (`recursive`).
    """

    file: str
    env_variable: str | None
    everything: bool
    recursive: bool
    root_dir: str | None

    @classmethod
    def take(cls, command: str, options: dict[str, Any]) -> Selection:
        """Return the selection that `options` make, and remove them from `options`.

        They are those of `of_environments` and `root_dir`. Raises `UsageError`.
        """
        names = ("file", "env_variable", "everything", "recursive", "root_dir")
        chosen = cls(**{name: options.pop(name) for name in names})
        file = chosen.file
        if chosen.env_variable and chosen.is_whole:
            raise UsageError(
                "ENV_VARIABLE cannot be used with --all or -r", hint="Omit one of them."
            )
        if os.path.isdir(file) and not chosen.recursive:
            raise UsageError(
                f"{file} is a directory",
                hint=f"Run `flyte {command} -r {file}` for all files in it, or name a file.",
            )
        if chosen.recursive and not os.path.isdir(file):
            raise UsageError(
                f"{file} is not a directory",
                hint="Use `-r` with a directory, and `--all` with a file.",
            )
        return chosen

    @property
    def is_whole(self) -> bool:
        """Whether all environments of the files are selected."""
        return self.everything or self.recursive

    def workspaces(self) -> list[Workspace]:
        """Return the workspaces of the selected files. Raises `UsageError`."""
        files = task_files(os.path.realpath(self.file)) if self.recursive else [self.file]
        return [locate(each, self.root_dir) for each in files]


def of_environments(verb: str) -> Callable[[F], F]:
    """Return a decorator that adds the options and arguments for `Selection.take`.

    Their help begins with `verb`, such as `Deploy`.
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
