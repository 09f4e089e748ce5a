"""Secrets of a task, with their values.

The values come from the environment of the command, and no file contains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from flyte_build.errors import PreparationError


class Secrets(NamedTuple):
    """Values of secrets, by the variable or the (absolute) file in which a task finds them."""

    variables: Mapping[str, str] = MappingProxyType({})
    files: Mapping[str, str] = MappingProxyType({})

    def __repr__(self) -> str:
        return f"<secrets: {', '.join([*self.variables, *self.files])}>"


def look_up(declared: Any, environment: Mapping[str, str]) -> Secrets:
    """Return the declared secrets with their values.

    `declared` is one secret or a list of them, each a name or the fields of a `Secret`, as JSON
    values. The value of a secret is looked up in `environment`, under its own variable or under
    `GROUP_KEY` in capitals. Raises `PreparationError` for a missing value.
    """
    variables, files = dict[str, str](), dict[str, str]()
    for secret in declared if isinstance(declared, list) else [declared] if declared else []:
        fields = {"key": secret} if isinstance(secret, str) else secret
        usual = (
            "_".join(filter(None, (fields.get("group"), fields["key"]))).upper().replace("-", "_")
        )
        variable = fields.get("as_env_var") or usual
        text = environment.get(variable, environment.get(usual))
        if text is None:
            raise PreparationError(
                f"The secret {fields['key']!r} is not set",
                why="Its value is taken from the environment of this command.",
                hint=f"Set the variable {variable}.",
            )
        if mount := fields.get("mount"):
            files[f"{mount.rstrip('/')}/{fields['key']}"] = text
        if fields.get("as_env_var") or not mount:
            variables[variable] = text
    return Secrets(variables, files) if variables or files else Secrets()
