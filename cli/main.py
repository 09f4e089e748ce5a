"""The group of all commands.

A command is imported only when it is used; the help lists commands without importing any.
"""

from __future__ import annotations

import os
import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import click

from flyte_build._version import __version__
from flyte_build.errors import FlyteError, StoreUnavailable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from flyte_build.runner.worker.spawn import Worker

_COMMANDS = {
    "abort": ("abort", "Abort a run, or one of its actions."),
    "build": ("build", "Build the images of environments."),
    "bundle": ("bundle", "Inspect the code bundle of a file."),
    "cache": ("cache", "Manage the cache: why, warm, pull, push, rm, stats, verify, gc."),
    "config": ("config", "Show and change the configuration."),
    "create": ("create", "Create a configuration file."),
    "delete": ("delete", "Delete deployments, or the local cache."),
    "deploy": ("deploy", "Deploy environments, whose tasks then run without their source files."),
    "diff": ("diff", "Show the differences between two deployments."),
    "doctor": ("doctor", "Check that everything that is deployed is still available."),
    "get": (
        "get",
        "Show runs, their logs, inputs, outputs and code; deployments; images; settings.",
    ),
    "graph": ("graph", "Show the graph of everything that a file's tasks need."),
    "image": ("image", "Inspect images."),
    "lock": ("lock", "Pin the contents of images in flyte.lock, and check or upgrade the pins."),
    "registry": ("registry", "Manage credentials for registries: login, logout."),
    "rerun": ("rerun", "Run the task of an earlier run again."),
    "run": ("run", "Run a task from a Python file."),
    "signal": ("signal", "Answer a condition that a run waits for."),
}


class Commands(click.Group):
    """Group that imports a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return the command of that name."""
        if name not in _COMMANDS:
            return None
        import importlib

        command = getattr(importlib.import_module(f".{_COMMANDS[name][0]}", __package__), name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments name; the error suggests a similar name."""
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from flyte_build.text.wording import nearest

            script = args[0].endswith(".py")
            near = f"run {args[0]}" if script else nearest(args[0], _COMMANDS)
            ctx.fail(
                f"There is no command {args[0]!r}." + (f" Did you mean {near!r}?" if near else "")
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Return the commands and options that begin with `incomplete`."""
        from click.shell_completion import CompletionItem

        found = [
            CompletionItem(name, help=text)
            for name, (_, text) in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their one-line help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


_EPILOG = """For tab completion of commands, options, tasks, inputs and runs, add the line
`eval "$(_FLYTE_COMPLETE=bash_source flyte)"`
to ~/.bashrc (other shells: zsh_source, fish_source)."""


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="flyte", message="%(prog)s %(version)s (flyte-build)")
@click.option(
    "-o", "--org", help="Organisation (setting: task.org). Accepted, but has no effect yet."
)
@click.option(
    "-c", "--config", metavar="FILE", help="Configuration file to read instead of all others."
)
@click.option("-v", "--verbose", count=True, help="Print more: each node with its key.")
@click.option(
    "-of",
    "--output-format",
    type=click.Choice(["table", "table-simple", "json", "json-raw"]),
    default="table",
    help="Output format.",
)
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    help="Format of the log on standard error; does not change what tasks print.",
)
@click.option("--no-progress", is_flag=True, help="Do not show progress.")
@click.option("--no-color", is_flag=True, help="Do not use colours (also: NO_COLOR).")
@click.pass_context
def flyte(
    ctx: click.Context,
    /,
    config: str | None,
    org: str | None,
    no_progress: bool,
    no_color: bool,
    **style: Any,
) -> None:
    """Run Python tasks like a build: all they need is content-addressed, and prepared once."""
    from .console import Appearance, Console

    appearance = Appearance(
        format=style.pop("output_format"), progress=not no_progress, color=not no_color, **style
    )
    ctx.obj = Console(appearance, ctx.obj, config, org)
    ctx.call_on_close(ctx.obj.end_progress)


def run_command(args: list[str], spare: Worker | None) -> int:
    """Run the command line `args`, print any error, and return the exit code."""
    if sys.platform == "win32":
        print("flyte-build does not run on Windows. Run it in WSL.", file=sys.stderr)
        return 3
    ctx = None
    from flyte_build.runner.signals import end_in_order

    end_in_order()
    try:
        with flyte.make_context("flyte", list(args), obj=spare) as ctx:
            _refuse_twin()
            flyte.invoke(ctx)
        return 0
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.Abort:  # At a prompt, before anything was done.
        return _print_error(args, "Interrupted", "Interrupted", "", "", 130)
    except KeyboardInterrupt:
        if sys.stderr.isatty():  # The terminal has just shown ^C.
            print(file=sys.stderr)
        return _print_error(
            args, "Interrupted", "Interrupted", "", "Everything prepared so far stays cached.", 130
        )
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        usage = error.ctx.get_usage() if isinstance(error, click.UsageError) and error.ctx else ""
        return _print_error(args, "UsageError", error.format_message(), usage, "", 2)
    except FlyteError as error:
        return _print_error(
            args, type(error).__name__, error.what, error.why, error.hint, error.exit_code
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        known = _known(error)
        if known is None:
            raise
        return _print_error(
            args, type(known).__name__, known.what, known.why, known.hint, known.exit_code
        )
    except BaseException as error:
        from flyte_build.runner.signals import Stopped

        if not isinstance(error, Stopped):
            raise
        return _print_error(
            args,
            "Aborted",
            f"Stopped by {error}",
            "",
            "Everything prepared so far stays cached.",
            5,
        )
    finally:
        _send_away(ctx.obj.spare if ctx is not None and hasattr(ctx.obj, "spare") else spare)


def _known(error: Exception) -> FlyteError | None:
    """Return the error to show for one of the database or the operating system, else None."""
    from sqlite3 import Error

    if isinstance(error, Error):
        return StoreUnavailable(
            "Cannot use the store's database",
            why=str(error),
            hint="Check that the disk is not full, and that the directory is yours.",
        )
    if isinstance(error, OSError):
        from flyte_build.cas.os_errors import unavailable

        return unavailable("continue", error)
    return None


def _send_away(spare: Any) -> None:
    if spare is not None:
        spare.dismiss()


def _refuse_twin() -> None:
    """Raise `click.UsageError` if the other distribution named `flyte` would shadow ours."""
    import flyte_build

    twin = f"{os.path.dirname(os.path.dirname(flyte_build.__file__))}/flyte/__init__.py"
    if os.path.exists(twin):
        raise click.UsageError(
            f"Another distribution named `flyte` is installed beside flyte-build ({twin}):"
            " `import flyte` would import that one.\nUninstall it with `pip uninstall flyte`, or"
            " install flyte-build into a separate environment."
        )


def _asks_for_json(args: list[str], *names: str) -> bool:
    """Whether one of these options has a JSON format; also if the parser refused the line."""
    words = [word for arg in args[:8] for word in arg.split("=", 1)]
    return any(name in names and value in ("json", "json-raw") for name, value in pairwise(words))


def _print_error(args: list[str], kind: str, what: str, why: str, hint: str, code: int) -> int:
    if _asks_for_json(args, "-of", "--output-format", "--format"):
        import json

        try:
            print(
                json.dumps(
                    {
                        "error": {
                            "type": kind,
                            "message": what,
                            "why": why,
                            "hint": hint,
                            "exit_code": code,
                        }
                    }
                ),
                flush=True,
            )
            return code
        except OSError:  # Standard output is unusable: print the error to standard error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if _asks_for_json(args, "--log-format"):
        from .console import as_json

        text = as_json("error", what, type=kind, why=why, hint=hint, exit_code=code)
    else:
        color = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        head = click.style("error:", fg="red", bold=True) if color else "error:"
        text = "\n".join(
            [
                f"{head} {what}",
                *("  " + line for part in (why, hint) if part for line in part.splitlines()),
            ]
        )
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:  # The terminal is gone, or the disk is full: the exit code has to do.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code
