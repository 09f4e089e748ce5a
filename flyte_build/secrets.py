"""The values of the secrets that a task asks for. They come from the environment of the command, and stay out of every file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import PreparationError


def values(declared: Any, environment: Mapping[str, str]) -> dict[str, str]:
    """The value of each declared secret, by the variable or the (absolute) file in which the task finds it.

    `declared` is one secret or a list, each a name or the fields of a `Secret`, as JSON values. A secret's value is looked up in
    `environment` under its own variable, or `GROUP_KEY` in capitals. Raises `PreparationError` for one that is not there.
    """
    found = {}
    for secret in declared if isinstance(declared, list) else [declared] if declared else []:
        fields = {"key": secret} if isinstance(secret, str) else secret
        usual = "_".join(filter(None, (fields.get("group"), fields["key"]))).upper().replace("-", "_")
        variable = fields.get("as_env_var") or usual
        text = environment.get(variable, environment.get(usual))
        if text is None:
            raise PreparationError(
                f"The secret {fields['key']!r} is not set",
                why="Its value is taken from the environment of this command.",
                hint=f"Set the variable {variable}.",
            )
        if mount := fields.get("mount"):
            found[f"{mount.rstrip('/')}/{fields['key']}"] = text
        if fields.get("as_env_var") or not mount:
            found[variable] = text
    return found
