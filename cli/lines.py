"""A line of the log on standard error as a JSON object, for `--log-format json`."""

from __future__ import annotations

import json
import time
from typing import Any, Literal

Level = Literal["info", "warning", "error"]


def as_json(level: Level, message: str, **more: Any) -> str:
    """The line: `time` (UTC, ISO 8601), `level`, `message`, and `more` of what is not empty. Columns are not kept in it."""
    text = message if "\n" in message else " ".join(message.split())
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"time": now, "level": level, "message": text, **{name: value for name, value in more.items() if value != ""}})
