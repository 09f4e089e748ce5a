"""A task's inputs as options of a command, made from its interface."""

from __future__ import annotations

from typing import Any

import click

from flyte_build.interface import Interface, Parameter
from flyte_build.types import ListOf


class Inputs(click.Command):
    """The options of one task. `parse_inputs` gives wire by name."""

    def __init__(self, name: str, interface: Interface) -> None:
        self._interface = interface
        options: list[click.Parameter] = []
        for parameter in interface.inputs:
            options += _options(parameter)
        super().__init__(name, params=options, help=interface.doc or None, context_settings={"help_option_names": ["-h", "--help"]})

    def parse_inputs(self, path: str, args: list[str]) -> dict[str, Any]:
        """Wire of what the arguments say. Raises `InputError` or click's usage errors; `--help` is printed."""
        with self.make_context(path, list(args)) as ctx:
            given = {name: value for name, value in ctx.params.items() if value not in (None, ())}
        wire = {}
        for parameter in self._interface.inputs:
            texts = given.get(f"input_{parameter.name}")
            if texts is None:
                if parameter.required:
                    raise parameter.missing()
            elif isinstance(parameter.type, ListOf) and not (len(texts) == 1 and _is_whole(texts[0])):
                item = Parameter(parameter.name, parameter.type.item)
                wire[parameter.name] = [item.parse(text) for text in texts]
            elif len(texts) > 1:
                raise click.UsageError(f"--{parameter.name} was given {len(texts)} times; it is a {parameter.type}.")
            else:
                wire[parameter.name] = parameter.parse(texts[0])
        return wire


def _options(parameter: Parameter) -> list[click.Parameter]:
    names = sorted({f"--{parameter.name}", f"--{parameter.name.replace('_', '-')}"})
    is_bool = "bool" in (parameter.type.name, *(member.name for member in getattr(parameter.type, "members", ())))
    default = f"default: {parameter.default_text}" if not parameter.required else "required"
    text = f"{parameter.doc} [{default}]" if parameter.doc else f"[{default}]"
    declared, metavar = [f"input_{parameter.name}", *names], f"<{parameter.type}>"
    if not is_bool:
        return [click.Option(declared, multiple=True, metavar=metavar, help=text, type=click.UNPROCESSED)]
    option = click.Option(declared, multiple=True, metavar=metavar, help=text, type=click.UNPROCESSED, is_flag=False, flag_value="true")
    no = [f"--no-{name.removeprefix('--')}" for name in names]
    return [option, _No([f"no_{parameter.name}", *no], target=f"input_{parameter.name}")]


class _No(click.Option):
    """`--no-x`: another way to write `--x false`."""

    def __init__(self, names: list[str], target: str) -> None:
        super().__init__(names, is_flag=True, expose_value=False, callback=self._set, hidden=False, help="The same as `false`.")
        self._target = target

    def _set(self, ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        if value:
            ctx.params[self._target] = (*(ctx.params.get(self._target) or ()), "false")


def _is_whole(text: str) -> bool:
    """Whether a text is a whole list (JSON, or a file with one), not an item."""
    return text[:1] in "[@" or text.rpartition(".")[2].lower() in ("json", "yaml", "yml", "toml")
