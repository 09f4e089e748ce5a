"""What a task did not find in its bundle although the project has it, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from flyte_build.runner.result import Failure

from .sources import Sources


def hint(error: Failure, sources: Sources, work: str) -> str:
    """Advice about a file that the `error` of a task names and that only the project has; "" if
    there is none. `work` is the directory that the task ran in.
    """
    from flyte_build.workspace.sensitive import by_name

    code = sources.folder
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


def advice(sources: Sources, path: str) -> str:
    """What to do about a file or directory of the project, or beside it (absolute), that is not in
    the bundle.
    """
    include = os.path.relpath(path, os.path.dirname(f"{sources.root}/{sources.file}"))
    remedy = f'Add it to the environment: TaskEnvironment(..., include=["{include}"])'
    return (
        f"{remedy}, or use `--copy-style all`."
        if path.startswith(sources.root + "/")
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
    or relative to a directory of it.
    """
    for place in places:
        if name.startswith(place + "/"):
            return name.removeprefix(place + "/")
    path = os.path.normpath(f"{folder}/{name}" if folder else name)
    return "" if os.path.isabs(path) or path.startswith("..") or path == "." else path
