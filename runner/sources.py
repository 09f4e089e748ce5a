"""Location of a task's code for its worker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple


class Sources(NamedTuple):
    """The user's code.

    `root` is the working tree ("" for a deployed task). `bundle` is the extracted bundle that
    replaces it for imports ("" without one). `file` declares the task. `roots` are import roots in
    the code, in order, `last` those after installed packages. `shown` maps directories of the
    bundle that come from outside the project to their names in messages.
    """

    root: str
    bundle: str = ""
    file: str = ""
    roots: Sequence[str] = ()
    last: Sequence[str] = ()
    shown: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def parse(cls, action: Mapping[str, Any]) -> Sources:
        """Return the sources in an action's document; raises `KeyError` for a missing field."""
        return cls(
            action["root"],
            action["code"],
            action["file"],
            action["roots"],
            action["last"],
            action["shown"],
        )

    def document(self) -> dict[str, Any]:
        """Return the fields of an action's document."""
        return {
            "root": self.root,
            "code": self.bundle,
            "file": self.file,
            "roots": list(self.roots),
            "last": list(self.last),
            "shown": dict(self.shown),
        }

    @property
    def folder(self) -> str:
        """The directory to import from."""
        return f"{self.bundle}/code" if self.bundle else self.root

    def hold(self, file: str) -> bool:
        """Whether a file is the user's."""
        return file.startswith(self.folder + "/")

    def named(self, text: str) -> str:
        """Return a text with its paths, and the names of our errors, as the user knows them."""
        text = text.replace(self.folder + "/", "").replace("flyte_build.errors.", "flyte.errors.")
        for folder, name in self.shown.items():
            text = text.replace(f'"{folder}/', f'"{name}/')
        return text

    def origin(self, path: str) -> str:
        """Return the path in the working tree, or beside it, that a path in the code comes from."""
        for folder, name in self.shown.items():
            if path.startswith(folder + "/"):
                return f"{self.root}/{name}{path.removeprefix(folder)}"
        return f"{self.root}/{path}"
