"""A directory that is not as it is remembered, while it is looked at anew."""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterator
from typing import NamedTuple

from flyte_build.cas.statindex import Row

from .listing import Listing, States
from .snapshot import File, Folder


class Draft:
    """What is known so far of one directory (its path relative to the root); `take` adds what is in
    the tree.

    `seen` has the states in which files and links were met.
    """

    def __init__(self, path: str, names: States) -> None:
        self.path, self._names = path, names
        self.states: States = {}
        self.seen: States = {}
        self.files: dict[bytes, File] = {}
        self.unread: list[Unread] = []
        self.below: list[str] = []
        self.excluded: dict[str, str] = {}
        self.secrets: dict[str, str] = {}

    @property
    def taken(self) -> int:
        """How many files and links are in the tree, with those that are yet to be read."""
        return len(self.files) + len(self.unread)

    @property
    def size(self) -> int:
        """The bytes of all files and links."""
        return sum([file[1] for file in self.files.values()]) + sum(
            [each.state[1] for each in self.unread]
        )

    def take(self, name: str, state: Row, file: File, secret: str = "") -> None:
        """Add a file or link in a state that can be trusted (or none that can)."""
        self.states[name] = state
        self.files[os.fsencode(name)] = file
        if secret:
            self.secrets[name] = secret

    def known(self) -> Iterator[tuple[str, tuple[Row, File, str]]]:
        """What `take` was given, by the path relative to the root."""
        for name, file in self.files.items():
            text = os.fsdecode(name)
            yield self.path + text, (self.states[text] or (), file, self.secrets.get(text, ""))

    def folder(self) -> Folder:
        """What is to be remembered: of the names, those that decide and have not vanished."""
        look: Listing = []
        for name in self._names:
            if name in self.states:
                look += (name, self.states[name])
            elif "/" in name or name in self.excluded:
                look.append(name)
        files = dict(sorted(self.files.items()))
        links = tuple(os.fsdecode(name) for name, file in files.items() if file[0] == "l")
        return Folder(
            pack(look),
            tuple(self.below),
            len(files),
            self.size,
            marshal.dumps(files, 2),
            self.excluded,
            self.secrets,
            links,
        )


class Unread(NamedTuple):
    """A regular file that must be read: the draft that waits for it, its name, and the state in
    which it was seen.
    """

    draft: Draft
    name: str
    state: Row

    @property
    def path(self) -> str:
        """The path relative to the root."""
        return self.draft.path + self.name


def pack(listing: Listing) -> bytes:
    """A listing as bytes that are equal just when it is (version 2 of the format writes nothing
    about object identity).
    """
    return marshal.dumps(listing, 2)


class Drafts:
    """Drafts of the directories that hold files which are asked for by name."""

    def __init__(self) -> None:
        self.drafts: dict[str, Draft] = {}

    def at(self, path: str) -> tuple[Draft, str]:
        """The draft of the directory that a file (by its path) is in, and the file's name."""
        head, slash, name = path.rpartition("/")
        return self.drafts.setdefault(head + slash, Draft(head + slash, {})), name

    def folders(self) -> dict[str, Folder]:
        """All of them, summed up."""
        return {folder: draft.folder() for folder, draft in self.drafts.items()}
