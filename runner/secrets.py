"""The secrets that a task asks for, with their values. They come from the environment of the
command, and stay out of every file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_build.errors import PreparationError


@dataclass(frozen=True, repr=False)
class Secrets:
    """Values by the variable or the (absolute) file in which a task finds them."""

    variables: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def look_up(declared: Any, environment: Mapping[str, str]) -> Secrets:
    """The declared secrets with their values.

    `declared` is one secret or a list, each a name or the fields of a `Secret`, as JSON values. A
    secret's value is looked up in `environment` under its own variable, or `GROUP_KEY` in capitals.
    Raises `PreparationError` for one that is not there.
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
    return Secrets(variables, files)
