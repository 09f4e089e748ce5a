"""Drafts of directories that have changed, while they are scanned again."""

from __future__ import annotations

import marshal
import os
from collections.abc import Iterator
from typing import NamedTuple

from flyte_build.cas.statindex import Row

from .listing import Listing, States
from .snapshot import File, Folder


class Draft:
    """The state of one directory's scan; `path` is relative to the root, and `take` adds files.

    `seen` maps files and links to the states in which they were first seen.
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
        """Number of files and links in the tree, including those still to be read."""
        return len(self.files) + len(self.unread)

    @property
    def size(self) -> int:
        """Total bytes of all files and links."""
        return sum([file[1] for file in self.files.values()]) + sum(
            [each.state[1] for each in self.unread]
        )

    def take(self, name: str, state: Row, file: File, secret: str = "") -> None:
        """Add a file or link and its state, which is `UNTRUSTED` if it must be read next time."""
        self.states[name] = state
        self.files[os.fsencode(name)] = file
        if secret:
            self.secrets[name] = secret

    def known(self) -> Iterator[tuple[str, tuple[Row, File, str]]]:
        """Yield the arguments of all `take` calls, by path relative to the root."""
        for name, file in self.files.items():
            text = os.fsdecode(name)
            yield self.path + text, (self.states[text] or (), file, self.secrets.get(text, ""))

    def folder(self) -> Folder:
        """Return the summary to remember: only the names that matter and still exist."""
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
    """A regular file that must be read: its draft, its name, and the state in which it was seen."""

    draft: Draft
    name: str
    state: Row

    @property
    def path(self) -> str:
        """Path relative to the root."""
        return self.draft.path + self.name


def pack(listing: Listing) -> bytes:
    """Serialize a listing: equal listings have equal bytes.

    Version 2 of marshal's format does not encode object identity.
    """
    return marshal.dumps(listing, 2)


class Drafts:
    """Drafts of the directories of files that are requested by name."""

    def __init__(self) -> None:
        self.drafts: dict[str, Draft] = {}

    def at(self, path: str) -> tuple[Draft, str]:
        """Return the draft of the directory that contains a file, and the file's name."""
        head, slash, name = path.rpartition("/")
        return self.drafts.setdefault(head + slash, Draft(head + slash, {})), name

    def folders(self) -> dict[str, Folder]:
        """Return the summaries of all directories."""
        return {folder: draft.folder() for folder, draft in self.drafts.items()}
