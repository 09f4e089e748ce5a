"""Advice about files that a task did not find in its bundle although the project has them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from flyte_build.runner.result import Failure
from flyte_build.runner.sources import Sources


def hint(error: Failure, sources: Sources, work: str) -> str:
    """Return advice about a file that an error names and that only the project has, or "".

    `work` is the directory that the task ran in.
    """
    from flyte_build.workspace.sensitive import by_name

    if error.message.endswith(" in the bundle"):  # A module: its note has the advice.
        return ""
    code = sources.folder
    if _is_protected(error, code, work):
        return (
            "Files and directories of the bundle are read-only. Write to a new name in the working"
            " directory, or to a path of your own."
        )
    is_missing = "FileNotFoundError" in (error.type, *_types(error.traceback))
    for name in _names(error):
        for folder in ("", os.path.dirname(sources.file)):
            path = _relative(name, (code, work), folder)
            if path and (is_missing or "." in os.path.basename(path)) and not by_name(path):
                there = os.path.normpath(sources.origin(path))
                if os.path.exists(there) and not os.path.exists(f"{code}/{path}"):
                    name = os.path.relpath(there, sources.root)
                    where = "beside" if name.startswith("../") else "in"
                    return (
                        f"{name} is {where} the project, but not in the bundle."
                        f" {advice(sources, there)}"
                    )
    return ""


def _is_protected(error: Failure, code: str, work: str) -> bool:
    """Whether the error is about a write to the bundle: as another user, or in a container."""
    if error.type != "PermissionError" and "[Errno 30]" not in error.message:
        return False
    quoted = error.message.split("'")[1::2]
    paths = [_relative(name, (code, work), "") for name in quoted]
    return any(path and os.path.isdir(f"{code}/{os.path.dirname(path)}") for path in paths)


def advice(sources: Sources, path: str) -> str:
    """Return advice about a file or directory that is not in the bundle.

    `path` is absolute, in the project or beside it.
    """
    include = os.path.relpath(path, os.path.dirname(f"{sources.root}/{sources.file}"))
    remedy = f'Add it to the environment: TaskEnvironment(..., include=["{include}"])'
    return (
        f"{remedy}, or use `--copy-style all`."
        if path.startswith(sources.root + "/")
        else f"{remedy}."
    )


def _said(error: Failure) -> list[str]:
    """Return the lines of an error's exceptions, including earlier ones in its traceback."""
    return [
        error.message,
        *(line for line in error.traceback.splitlines() if not line.startswith(" ")),
    ]


def _types(trace: str) -> list[str]:
    return [line.partition(":")[0] for line in trace.splitlines()]


def _names(error: Failure) -> Iterator[str]:
    """Yield everything that may be a file's name: quoted strings, and single words."""
    import re

    for line in _said(error):
        for quoted, double, word in re.findall(r"""'([^']+)'|"([^"]+)"|([^\s'"]+)""", line):
            yield quoted or double or word.lstrip("(").rstrip(".,:;)")


def _relative(name: str, places: Iterable[str], folder: str) -> str:
    """Return the project path of a name that a task has used, or "" if it is outside.

    The name is absolute below one of the bundle's `places`, or relative to a directory of the
    bundle.
    """
    for place in places:
        if name.startswith(place + "/"):
            return name.removeprefix(place + "/")
    path = os.path.normpath(f"{folder}/{name}" if folder else name)
    return "" if os.path.isabs(path) or path.startswith("..") or path == "." else path
