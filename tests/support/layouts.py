"""A directory as a repository, whose tags and blobs are changed by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

TAG = "org.opencontainers.image.ref.name"


class Layout:
    """The layout in a directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return the entries of the index by their tags."""
        return {
            each["annotations"][TAG]: each
            for each in json.loads((self.folder / "index.json").read_text())["manifests"]
        }

    def write(self, entries: dict[str, dict[str, Any]]) -> None:
        manifests = [{**entry, "annotations": {TAG: tag}} for tag, entry in entries.items()]
        (self.folder / "index.json").write_text(
            json.dumps({"schemaVersion": 2, "manifests": manifests})
        )

    def blob(self, digest: str) -> Path:
        return self.folder / "blobs/sha256" / digest.removeprefix("sha256:")

    def replace(self, tag: str, change: Callable[[Any], object]) -> None:
        """Change the manifest under a tag, and all tags that lead to it."""
        entries = self.entries()
        old = entries[tag]["digest"]
        document = json.loads(self.blob(old).read_text())
        change(document)
        data = json.dumps(document).encode()
        new = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blob(new).write_bytes(data)
        self.write(
            {
                name: (
                    {**entry, "digest": new, "size": len(data)} if entry["digest"] == old else entry
                )
                for name, entry in entries.items()
            }
        )
