"""A task's code as its worker finds it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple


class Sources(NamedTuple):
    """The user's code: the working tree below `root` ("": there is none, as for a deployed task)
    and the extracted `bundle` that is imported from in its place ("": none is).

    `file` declares the task. `roots` are import roots in the code, in order, `last` those after
    installed packages. `shown` says what directories of the bundle that come from elsewhere are
    called.
    """

    root: str
    bundle: str = ""
    file: str = ""
    roots: Sequence[str] = ()
    last: Sequence[str] = ()
    shown: Mapping[str, str] = MappingProxyType({})

    @classmethod
    def parse(cls, action: Mapping[str, Any]) -> Sources:
        """Those of an action, by its document. Raises `KeyError`."""
        return cls(
            action["root"],
            action["code"],
            action["file"],
            action["roots"],
            action["last"],
            action["shown"],
        )

    @property
    def folder(self) -> str:
        """The directory that is imported from."""
        return f"{self.bundle}/code" if self.bundle else self.root

    def hold(self, file: str) -> bool:
        """Whether a file is the user's."""
        return file.startswith(self.folder + "/")

    def named(self, text: str) -> str:
        """Return a text with the paths in it as the user knows them."""
        text = text.replace(self.folder + "/", "")
        for folder, name in self.shown.items():
            text = text.replace(f'"{folder}/', f'"{name}/')
        return text

    def origin(self, path: str) -> str:
        """Where in the working tree, or beside it, a path in the code is from."""
        for folder, name in self.shown.items():
            if path.startswith(folder + "/"):
                return f"{self.root}/{name}{path.removeprefix(folder)}"
        return f"{self.root}/{path}"
