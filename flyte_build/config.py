"""Where things are kept and what they are called: read at the edge, passed down as values."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from .errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of the cache (deleting it costs time) and of data (runs, outputs, logs)."""

    cache: str
    data: str

    @classmethod
    def find(cls) -> "Places":
        """Below `FLYTE_HOME` if that is set, else where the platform keeps such things."""
        if home := os.environ.get("FLYTE_HOME"):
            home = os.path.abspath(os.path.expanduser(home))
            return cls(cache=f"{home}/cache", data=f"{home}/data")
        if sys.platform == "linux":  # What platformdirs gives here (XDG Base Directory 0.8), without the 20 ms of its import.
            return cls(cache=_xdg("XDG_CACHE_HOME", "~/.cache"), data=_xdg("XDG_DATA_HOME", "~/.local/share"))
        import platformdirs

        return cls(cache=platformdirs.user_cache_dir("flyte-build"), data=platformdirs.user_data_dir("flyte-build"))


def _xdg(variable: str, default: str) -> str:
    return f"{os.environ.get(variable) or os.path.expanduser(default)}/flyte-build"


def allowed_secrets(root: str) -> frozenset[str]:
    """The paths that `bundle.allow_secrets` of the project's `flyte.toml`, or its pyproject.toml's `[tool.flyte]`, names.

    Raises `UsageError` for a file that is not TOML.
    """
    import tomllib

    allowed: set[str] = set()
    for name, sections in (("flyte.toml", ()), ("pyproject.toml", ("tool", "flyte"))):
        try:
            with open(f"{root}/{name}", "rb") as file:
                table: Any = tomllib.load(file)
        except FileNotFoundError:
            continue
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{name} is no valid TOML", why=str(error)) from None
        for section in (*sections, "bundle"):
            table = table.get(section, {}) if isinstance(table, dict) else {}
        paths = table.get("allow_secrets", []) if isinstance(table, dict) else []
        allowed.update(path.lstrip("/") for path in paths if isinstance(path, str))
    return frozenset(allowed)
