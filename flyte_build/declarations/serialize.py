"""Conversion of declared options and images to JSON values that do not depend on the machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from enum import Enum
from os import PathLike, fspath
from os.path import commonpath, expanduser, isabs, realpath, relpath
from typing import Any

from .image import Image, Step

# Steps whose options are not paths in the project.
_VERBATIM = frozenset(("env_vars", "commands", "workdir"))
# Options that are paths of files on this machine.
_FILES = frozenset(("file", "path", "pyproject_file", "script", "src", "uvlock"))
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Documented:
    """Base class of declared values that define their own JSON value."""

    def document(self) -> Any:
        """Return this as a JSON value, or as a declared value that `json_value` accepts."""
        raise NotImplementedError


def json_value(value: Any, root: str) -> Any:
    """Return a declared value as a JSON value, with paths below `root` relative to it.

    A timedelta becomes seconds, and a dataclass an object of its fields that are set. A value of
    any other type becomes its `repr`, without memory addresses.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str | PathLike):
        text = str(fspath(value))
        return text.removeprefix(f"{root}/") if root else text
    if isinstance(value, Documented):
        return json_value(value.document(), root)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Mapping):
        return {str(name): json_value(each, root) for name, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted((json_value(each, root) for each in value), key=repr)
    if isinstance(value, list | tuple):
        return [json_value(each, root) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        found = {field.name: getattr(value, field.name) for field in fields(value)}
        return {
            name: json_value(each, root)
            for name, each in found.items()
            if each not in (None, "", ())
        }
    return _ADDRESS.sub("", repr(value))


def image_value(image: str | Image | None, root: str) -> Any:
    """Return an image as a JSON value: `auto`, the reference of an image, or its declaration."""
    if image is None or isinstance(image, str):
        return image or "auto"
    kind, options = image.base
    if kind == "reference" and not image.steps:
        return dict(options)["uri"]
    named = {"registry": image.registry, "name": image.name}
    return {
        "base": _step(image.base, root),
        "steps": [_step(step, root) for step in image.steps],
        **{name: text for name, text in named.items() if text},
    }


def _of_workspace(path: str, root: str) -> str:
    """Return a path outside of `root` relative to it, so that it is the same in every checkout.

    A path that has only `/` or a parent of the home directory in common with `root` is returned
    unchanged: it belongs to the machine.
    """
    if not (root and isabs(path)):
        return path
    shared = commonpath((root, path))
    is_workspace = shared != "/" and not f"{realpath(expanduser('~'))}/".startswith(f"{shared}/")
    return relpath(path, root) if is_workspace else path


def _step(step: Step, root: str) -> dict[str, Any]:
    what, options = step
    below = "" if what in _VERBATIM else root
    found = {
        name: (
            _of_workspace(json_value(value, below), root)
            if name in _FILES
            else json_value(value, below)
        )
        for name, value in options
    }
    # Mark a directory below the root as a path: "pkg" would be the package of that name.
    if what == "pip_packages":
        given = dict(options)["packages"]
        found["packages"] = [
            new if new == old else f"./{new}"
            for new, old in zip(found["packages"], given, strict=True)
        ]
    return {"step": what, **found}
