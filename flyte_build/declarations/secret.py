"""`Secret`: a secret's name, and where a task finds its value."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from os import PathLike

from flyte_build.errors import DeclarationError, DeclarationTypeError

_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*\Z")


@dataclass(frozen=True)
class Secret:
    """The name of a secret, and the file or environment variable in which the task finds it.

    With neither, the variable is `GROUP_KEY` or `KEY`, in capitals. Its value is never part of a
    key, a record or a log. Raises `DeclarationError`.
    """

    key: str
    group: str | None = None
    mount: str | PathLike[str] | None = None
    as_env_var: str | None = field(default=None)

    def __post_init__(self) -> None:
        for name in ("key", "group", "as_env_var"):
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name == "key"):
                raise DeclarationTypeError(f"Secret: {name} must be a string, not {value!r:.100}")
        variable = self.as_env_var or self._default_variable
        if not _VARIABLE.match(variable) and (self.as_env_var or not self.mount):
            raise DeclarationError(
                f"Secret: {variable!r} is not a valid name of an environment variable",
                why="It consists of capital letters, digits and underscores.",
                hint="Choose one with as_env_var=.",
            )

    @property
    def _default_variable(self) -> str:
        return "_".join(filter(None, (self.group, self.key))).upper().replace("-", "_")
