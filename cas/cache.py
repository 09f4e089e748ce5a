"""The cache of this machine: blobs, records, stat index, extractions and leases in one directory.

Deleting it loses nothing but time. Format 1, below the directory (docs/formats.md):

    v1/oci-layout, v1/index.json, v1/blobs/sha256/<hex>    a valid OCI image layout
    v1/cache.sqlite                                        records, labels, traces, stat index
    v1/extractions/<hex of a tree>/                        extracted trees
    v1/environments/<hex of a key>/                        virtual environments
    v1/wheels/<hex>/<name>.whl                             links to blobs that are wheels
    v1/runtimes/<hex>/                                     copies of this package, for tasks
    v1/leases/  v1/lock  v1/quarantine/  v1/collected.json
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property

from flyte_build.errors import StoreFormatUnknown

from . import records, statindex
from .atomic import replace_file
from .blobs import Blobs
from .counters import Counters
from .database import Database, open_database
from .digest import Digest
from .folder import make_below, make_own
from .lease import Lease, held, locked
from .os_errors import storing
from .registry import ledger

FORMAT = 1
# Version of the database: 2 added the ledger of repositories, 3 the repositories that are not
# contacted for a while.
_TABLES = 3


class Cache:
    """An open cache."""

    def __init__(self, root: str, database: Database, counters: Counters) -> None:
        self.root, self.folder, self.database = root, _folder(root), database
        self._leases = f"{self.folder}/leases"
        self.extractions = f"{self.folder}/extractions"
        self.environments = f"{self.folder}/environments"
        self.runtimes = f"{self.folder}/runtimes"
        self.blobs = Blobs(f"{self.folder}/blobs/sha256", f"{self.folder}/quarantine", counters)
        self.records = records.Records(database)
        self.index = statindex.StatIndex(database)

    @classmethod
    def open(cls, root: str, counters: Counters, note: Callable[[str], None]) -> Cache:
        """Open the cache below a directory, creating it if it is new.

        `note` is called with a sentence about any damage that was found and repaired. Raises
        `StoreUnavailable` and `StoreFormatUnknown`.
        """

        def damaged(aside: str) -> None:
            note(
                f"The cache's database was damaged; it was moved to {aside} and replaced with a new"
                " one. Nothing but time is lost."
            )

        if not os.path.exists(f"{_folder(root)}/oci-layout"):
            _create(root)
        schema = records.SCHEMA + statindex.SCHEMA + ledger.SCHEMA
        database = open_database(f"{_folder(root)}/cache.sqlite", _TABLES, schema, damaged)
        return cls(root, database, counters)

    @cached_property
    def secret(self) -> bytes:
        """Random bytes that never leave this cache, for keyed hashes."""
        path = f"{self.folder}/secret"
        with storing("store the cache's secret"):
            if not os.path.exists(path):
                temporary = f"{path}.{os.urandom(4).hex()}"
                with open(
                    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
                ) as file:
                    file.write(os.urandom(32))
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass  # Another process was first; its secret is used.
                os.unlink(temporary)
            with open(path, "rb") as file:
                return file.read()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Hold the shared lock, so that nothing is collected between lookup and lease."""
        with locked(f"{self.folder}/lock", exclusive=False):
            yield

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold the exclusive lock, briefly, around deletions: no one is preparing meanwhile."""
        with locked(f"{self.folder}/lock", exclusive=True):
            yield

    @contextmanager
    def making(self, what: str) -> Iterator[None]:
        """Hold an exclusive lock on `what`, a digest, so that one process at a time creates it."""
        path = f"{self.folder}/making-{what.rpartition(':')[2][:16]}.lock"
        with locked(path, exclusive=True):
            yield

    def lease(self, digests: list[Digest]) -> Lease:
        """Take a lease, which protects `digests` from collection while a run uses them."""
        return Lease(self._leases, digests)

    def leased(self) -> set[Digest]:
        """Return the digests that are protected by leases now."""
        return set(held(self._leases))

    def statistics(self) -> dict[str, str | int | dict[str, int]]:
        """Return the cache's directory, its disk usage, and its number of blobs, records and so on.

        Sizes are in bytes, in total and by part. Raises `StoreUnavailable`.
        """
        from .usage import usage

        with storing("measure the cache"):
            parts = usage(self.folder)
        leases = sum(name.endswith(".lease") for name in os.listdir(self._leases))
        return {
            "path": self.folder,
            "blobs": sum(1 for _ in self.blobs.names()),
            "bytes": sum(parts.values()),
            "parts": parts,
            "records": self.records.count(),
            "leases": leases,
            "environments": len(self.made(self.environments)),
        }

    def extraction(self, tree: Digest) -> str:
        """Return the directory for the extracted tree with that digest, existing or not."""
        return f"{self.extractions}/{tree.hex}"

    def environment(self, artifact: Digest) -> str:
        """Return the directory for the environment with that digest, existing or not."""
        return f"{self.environments}/{artifact.hex}"

    def made(self, folder: str) -> list[str]:
        """Return the names in a directory of finished extractions, environments and the like.

        Names that begin with `.` are unfinished, and left out.
        """
        try:
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def write_index(self, named: Iterable[tuple[str, Digest]]) -> None:
        """Write `index.json`, in which other tools look up manifests by name.

        Manifests that are not in the cache are left out. (image-spec, image-layout.md)
        """
        from .registry.descriptor import MANIFEST
        from .registry.layout import TAG

        manifests = []
        for name, manifest in named:
            try:
                size = os.path.getsize(self.blobs.path(manifest))
            except FileNotFoundError:
                continue
            manifests.append(
                {
                    "mediaType": MANIFEST,
                    "digest": manifest,
                    "size": size,
                    "annotations": {TAG: name},
                }
            )
        with storing("write the index"), locked(f"{self.folder}/index.lock", exclusive=True):
            _write(f"{self.folder}/index.json", {"schemaVersion": 2, "manifests": manifests})


def _folder(root: str) -> str:
    return f"{root}/v{FORMAT}"


def _create(root: str) -> None:
    folder = _folder(root)
    with storing("create the cache's directory"):
        for name in os.listdir(root) if os.path.isdir(root) else ():
            if name[:1] == "v" and name[1:].isdigit() and int(name[1:]) > FORMAT:
                raise StoreFormatUnknown(
                    f"{root} was written by a newer version of flyte-build",
                    why=f"Its format is {name[1:]}; this version supports {FORMAT}.",
                    hint="Upgrade flyte-build, or set FLYTE_HOME to another directory.",
                )
        make_own(root)
        for name in ("blobs/sha256", "extractions", "leases"):
            make_below(f"{folder}/{name}")
        if not os.path.exists(f"{folder}/index.json"):
            _write(f"{folder}/index.json", {"schemaVersion": 2, "manifests": []})
        # Last: its presence means that the rest is complete.
        _write(f"{folder}/oci-layout", {"imageLayoutVersion": "1.0.0"})


def _write(path: str, document: object) -> None:
    replace_file(path, json.dumps(document).encode(), sync=False)
