"""A task's inputs, from command-line options that follow its interface, and from a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from flyte_build.declarations.interface import Interface, Parameter
from flyte_build.errors import InputError, UsageError
from flyte_build.values.type import Wire, Wires


class Inputs(click.Command):
    """Command whose options are the inputs of one task."""

    def __init__(self, name: str, interface: Interface) -> None:
        self._interface = interface
        taken = {
            spelling for parameter in interface.inputs for spelling in _spellings(parameter.name)
        }
        options = [
            option for parameter in interface.inputs for option in _options(parameter, taken)
        ]
        help_names = [spelling for spelling in ("-h", "--help") if spelling not in taken]
        super().__init__(
            name,
            params=options,
            help=interface.doc or None,
            context_settings={"help_option_names": help_names, "allow_extra_args": True},
        )

    def parse_inputs(self, path: str, args: list[str], file: str | None = None) -> Wires:
        """Return the inputs as wire values by name.

        They come from the arguments, and those not given there from `file` (`-` is standard input).
        `path` is the command to show in usage errors. `--help` is printed. Raises `UsageError`,
        `InputError`, or click's usage errors.
        """
        with self._context(path, args) as ctx:
            if ctx.args:
                raise InputError(
                    f"Unexpected argument {ctx.args[0]!r}",
                    why="Inputs are given by name, as options.",
                    hint=(
                        f"For example: {self._interface.inputs[0].usage()}"
                        if self._interface.inputs
                        else "Omit it: this task has no inputs."
                    ),
                )
            given = {
                name.removeprefix("input_"): texts for name, texts in ctx.params.items() if texts
            }
        values = _read(file) if file else {}
        self._interface.refuse_unknown(values)

        def wire(parameter: Parameter, value: Any) -> Wire:
            return parameter.parse(value) if parameter.name in given else parameter.check(value)

        return self._interface.complete({**values, **given}, wire, Parameter.usage)

    def _context(self, path: str, args: list[str]) -> click.Context:
        """Parse arguments. Raises `UsageError` for an option of the command that runs the task."""
        try:
            return self.make_context(path, list(args))
        except click.NoSuchOption as error:
            outer = click.get_current_context(silent=True)
            options = {name for each in outer.command.params for name in each.opts} if outer else ()
            if outer is None or error.option_name not in options:
                raise
            raise UsageError(
                f"{error.option_name} is an option of `{outer.command_path}`, not an input of"
                f" {self.name}",
                why="Inputs go after the task, and options of the command before it.",
                hint=f"{outer.get_usage().partition(': ')[2]}",
            ) from None


def _read(file: str) -> Mapping[str, Any]:
    import sys

    from flyte_build.values.documents import read_file, read_text

    try:
        values = read_text(sys.stdin.read()) if file == "-" else read_file(file)
    except OSError as error:
        raise UsageError(
            f"Cannot read --inputs-file {file}",
            why=f"{error.strerror}.",
            hint="Give a file, or `-` for standard input.",
        ) from None
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"Cannot parse --inputs-file {file}",
            why=f"{error}",
            hint="Use JSON, or a file named *.yaml, *.yml or *.toml in that format.",
        ) from None
    if not isinstance(values, dict):
        raise UsageError(
            f"--inputs-file {file} is not an object",
            why="It must be an object with a value for each input.",
            hint='For example: {"name": "World"}',
        )
    return values


def _spellings(name: str) -> list[str]:
    return sorted({f"--{name}", f"--{name.replace('_', '-')}"})


def _options(parameter: Parameter, taken: set[str]) -> list[click.Parameter]:
    spellings, type = _spellings(parameter.name), parameter.type
    default = "required" if parameter.required else f"default: {parameter.default_text}"
    notes = "; ".join(part for part in (type.details, default) if part)
    text = f"{parameter.doc} [{notes}]" if parameter.doc else f"[{notes}]"
    declared = [f"input_{parameter.name}", *spellings]
    settings: dict[str, Any] = {
        "multiple": True,
        "metavar": f"<{type}>",
        "help": text,
        "type": click.UNPROCESSED,
    }

    def words(ctx: click.Context, option: click.Parameter, incomplete: str) -> list[str]:
        return [word for word in type.words if word.startswith(incomplete)]

    if not type.takes("bool"):
        return [click.Option(declared, **settings, shell_complete=words)]
    option = click.Option(
        declared, **settings, shell_complete=words, is_flag=False, flag_value="true"
    )
    no = [
        spelling
        for name in spellings
        if (spelling := f"--no-{name.removeprefix('--')}") not in taken
    ]
    return [
        option,
        *([_No([f"no_{parameter.name}", *no], target=f"input_{parameter.name}")] if no else []),
    ]


class _No(click.Option):
    """The option `--no-x`, which means `--x false`."""

    def __init__(self, names: list[str], target: str) -> None:
        super().__init__(
            names,
            is_flag=True,
            expose_value=False,
            callback=self._set,
            hidden=False,
            help="Same as `false`.",
        )
        self._target = target

    def _set(self, ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.params[self._target] = (*(ctx.params.get(self._target) or ()), "false")
