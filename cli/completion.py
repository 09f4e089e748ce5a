"""Completion of command lines, with click's scripts for bash, zsh and fish.

For completion, `flyte run FILE` is a group whose commands are FILE's tasks, and `flyte rerun` one
whose commands are the runs. A file whose discovery is cached is not imported.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, shell_complete

from flyte_build.errors import FlyteError
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.rerun import Recorded
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import locate

from .inputs import Inputs
from .main import Commands, flyte
from .options import runs

if TYPE_CHECKING:
    from flyte_build.discovery.node import Discovery
    from flyte_build.workspace.workspace import Workspace


def complete(variable: str) -> int:
    """Print the completions or the completion script of a shell, and return the exit code.

    The environment variable named `variable` holds the shell's request. No errors are printed:
    where completion fails, for example on an invalid file, there are no completions.
    """
    instruction = os.environ.pop(variable)
    if instruction.endswith("_complete"):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        return shell_complete(
            _Flyte("flyte", params=flyte.params), {}, "flyte", variable, instruction
        )
    except (FlyteError, OSError, click.ClickException):
        return 1


class _Flyte(Commands):
    """The `flyte` command, in completion."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the command of that name; `run` and `rerun` become groups."""
        command = super().get_command(ctx, name)
        if command is None or name not in ("run", "rerun"):
            return command
        group = _Tasks if name == "run" else _Runs
        return group(
            name, params=[each for each in command.params if each.name not in ("run", "rest")]
        )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name."""
        if args[:2] == ["run", "python-script"]:
            from .script import python_script

            return python_script.name, python_script, args[2:]
        if args[:2] == ["run", "deployed-task"]:
            from .deployed_task import deployed_task

            return deployed_task.name, deployed_task, args[2:]
        return super().resolve_command(ctx, args)


class _Tasks(click.Group):
    """`flyte run FILE` as a group of tasks."""

    _found: Discovery | None = None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of FILE's tasks."""
        return list(self._discovery(ctx).findings.tasks)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return a task as a command, whose options are its inputs."""
        return Inputs(name, self._discovery(ctx).task(name).interface)

    def _discovery(self, ctx: click.Context) -> Discovery:
        self._found = self._found or _discover(locate(ctx.params["file"], ctx.params["root_dir"]))
        return self._found

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return completions: options, for which FILE need not exist, or tasks."""
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        return super().shell_complete(ctx, incomplete)


class _Runs(click.Group):
    """`flyte rerun` as a group of runs."""

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Return the task of a run as a command, whose options are its inputs."""
        recorded = Recorded.find(name, Stores(RunReporter()).history)
        found = _discover(recorded.workspace())
        return Inputs(name, recorded.interface(found.task(recorded.variable_in(found))))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return completions: runs and options."""
        return [
            *runs(ctx, self.params[0], incomplete),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


def _discover(workspace: Workspace) -> Discovery:
    reporter = RunReporter()
    settings = Settings.configured(Configuration.load(workspace.root, reporter.note))
    return FilePlan(Session(settings, Stores(reporter)), workspace).discover()
