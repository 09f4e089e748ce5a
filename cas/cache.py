"""The cache on this machine: blobs, records, stat index, extractions, leases, in one directory.
Deleting it costs time only.

Format 1, below the directory (docs/formats.md):

    v1/oci-layout, v1/index.json, v1/blobs/sha256/<hex>    a valid OCI image layout
    v1/cache.sqlite                                        records, labels, traces, stat index
    v1/extractions/<hex of a tree>/                        trees, extracted
    v1/environments/<hex of a key>/                        virtual environments
    v1/wheels/<hex>/<name>.whl                             links to blobs that are wheels
    v1/runtimes/<hex>/                                     copies of our own package, for tasks
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
# The version of the database: since 2 it has the ledger of repositories, since 3 those that are
# left alone.
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
        """Open the cache below a directory, made if it is new; `note` is told of damage that was
        found and repaired. Raises `StoreUnavailable` and `StoreFormatUnknown`.
        """

        def damaged(aside: str) -> None:
            note(
                f"The cache's database was damaged; it was moved to {aside} and begun anew. Nothing"
                " but time is lost."
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
        with storing("keep the cache's secret"):
            if not os.path.exists(path):
                temporary = f"{path}.{os.urandom(4).hex()}"
                with open(
                    os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
                ) as file:
                    file.write(os.urandom(32))
                try:
                    os.link(temporary, path)
                except FileExistsError:
                    pass  # Another process was first, and its secret counts.
                os.unlink(temporary)
            with open(path, "rb") as file:
                return file.read()

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Hold this around looking up, making, recording and leasing: nothing is collected
        meanwhile.
        """
        with locked(f"{self.folder}/lock", exclusive=False):
            yield

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Hold this, for a short time, around deleting: nobody is preparing meanwhile."""
        with locked(f"{self.folder}/lock", exclusive=True):
            yield

    @contextmanager
    def making(self, what: str) -> Iterator[None]:
        """Hold this around making something, named by a digest, that only one process at a time
        shall make.
        """
        path = f"{self.folder}/making-{what.rpartition(':')[2][:16]}.lock"
        with locked(path, exclusive=True):
            yield

    def lease(self, digests: list[Digest]) -> Lease:
        """Keep `digests` while a run uses them."""
        return Lease(self._leases, digests)

    def leased(self) -> set[Digest]:
        """What is kept by leases now."""
        return set(held(self._leases))

    def statistics(self) -> dict[str, str | int | dict[str, int]]:
        """The cache's directory; how many blobs, records, leases and environments; the bytes that
        all takes on the disk, and by part.
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
        """The directory where the tree of that digest is extracted, or would be."""
        return f"{self.extractions}/{tree.hex}"

    def environment(self, artifact: Digest) -> str:
        """The directory where the environment of that digest is, or would be."""
        return f"{self.environments}/{artifact.hex}"

    def made(self, folder: str) -> list[str]:
        """The names in a directory of things that are made of blobs, or of what others have; those
        that begin with `.` are on their way.
        """
        try:
            return sorted(name for name in os.listdir(folder) if not name.startswith("."))
        except FileNotFoundError:
            return []

    def write_index(self, named: Iterable[tuple[str, Digest]]) -> None:
        """Write `index.json` (image-spec, image-layout.md), in which other tools look: manifests by
        name, as far as they are here.
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
    with storing("make the cache's directory"):
        for name in os.listdir(root) if os.path.isdir(root) else ():
            if name[:1] == "v" and name[1:].isdigit() and int(name[1:]) > FORMAT:
                raise StoreFormatUnknown(
                    f"{root} was written by a newer version of flyte-build",
                    why=f"It holds format {name[1:]}; this version knows {FORMAT}.",
                    hint="Upgrade flyte-build, or set FLYTE_HOME to another directory.",
                )
        make_own(root)
        for name in ("blobs/sha256", "extractions", "leases"):
            make_below(f"{folder}/{name}")
        if not os.path.exists(f"{folder}/index.json"):
            _write(f"{folder}/index.json", {"schemaVersion": 2, "manifests": []})
        # Last: it says that the rest is there.
        _write(f"{folder}/oci-layout", {"imageLayoutVersion": "1.0.0"})


def _write(path: str, document: object) -> None:
    replace_file(path, json.dumps(document).encode(), sync=False)
