"""What a task did not find in its bundle although the project has it, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from flyte_build.runner.result import Failure


def hint(error: Failure, action: Mapping[str, Any]) -> str:
    """Advice about a file that the `error` of a task names and that only the project has; "" if
    there is none.
    """
    from flyte_build.workspace.sensitive import by_name

    code, is_missing = (
        f"{action['code']}/code",
        "FileNotFoundError" in (error.type, *_types(error.traceback)),
    )
    for name in _names(error):
        for folder in ("", os.path.dirname(action["file"])):
            path = _relative(name, (code, f"{action['folder']}/work"), folder)
            if path and (is_missing or "." in os.path.basename(path)) and not by_name(path):
                there = _source(action, path)
                if os.path.exists(there) and not os.path.exists(f"{code}/{path}"):
                    name = os.path.relpath(there, action["root"])
                    where = "beside" if name.startswith("../") else "in"
                    return (
                        f"{name} is {where} the project, but not in the bundle."
                        f" {advice(action, there)}"
                    )
    return ""


def _source(action: Mapping[str, Any], path: str) -> str:
    """Where on disk a path of the bundle is from."""
    for place, name in action["shown"].items():
        if path.startswith(place + "/"):
            return os.path.normpath(f"{action['root']}/{name}{path.removeprefix(place)}")
    return f"{action['root']}/{path}"


def advice(action: Mapping[str, Any], path: str) -> str:
    """What to do about a file or folder of the project, or beside it (absolute), that is not in the
    bundle.
    """
    include = os.path.relpath(path, os.path.dirname(f"{action['root']}/{action['file']}"))
    remedy = f'Add it to the environment: TaskEnvironment(..., include=["{include}"])'
    return (
        f"{remedy}, or use `--copy-style all`."
        if path.startswith(action["root"] + "/")
        else f"{remedy}."
    )


def _said(error: Failure) -> list[str]:
    """The exceptions' own lines, those of a traceback's earlier ones included."""
    return [
        error.message,
        *(line for line in error.traceback.splitlines() if not line.startswith(" ")),
    ]


def _types(trace: str) -> list[str]:
    return [line.partition(":")[0] for line in trace.splitlines()]


def _names(error: Failure) -> Iterator[str]:
    """All that may be a file's name: what stands in quotes, and single words."""
    import re

    for line in _said(error):
        for quoted, double, word in re.findall(r"""'([^']+)'|"([^"]+)"|([^\s'"]+)""", line):
            yield quoted or double or word.lstrip("(").rstrip(".,:;)")


def _relative(name: str, places: Iterable[str], folder: str) -> str:
    """The path in the project of a name that a task has used: absolute below the bundle's places,
    or relative to a folder of it.
    """
    for place in places:
        if name.startswith(place + "/"):
            return name.removeprefix(place + "/")
    path = os.path.normpath(f"{folder}/{name}" if folder else name)
    return "" if os.path.isabs(path) or path.startswith("..") or path == "." else path
