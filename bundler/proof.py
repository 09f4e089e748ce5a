"""Proof of a bundle: every byte of its packs is compared with its tree, the only trusted part.

The tree has every path, size and digest; each must occur as a member of a pack exactly once, and
nothing else may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from flyte_build.cas import tar
from flyte_build.cas.blobs import Blobs
from flyte_build.cas.cache import Cache
from flyte_build.cas.layer import Layer
from flyte_build.cas.verify import Bad, forget
from flyte_build.errors import BlobCorrupt, BlobMissing, ExtractionRefused

from .bundle import Bundle, read, read_tree
from .layer_stream import read_blob
from .packs import CODE
from .tree import Entry, Tree

_SMALL = 1 << 20  # Bytes; a smaller file is verified before any of it is passed on.
_PARALLEL = 4 << 20  # Minimum bytes for which a second thread pays.


class Proof:
    """Proof of a bundle with `tree`.

    If the bundle `is_known` to be right, only bytes that may have changed since are proven.
    Subclasses store the files that `small` and `large` receive.
    """

    def __init__(self, blobs: Blobs, bundle: Bundle, tree: Tree, is_known: bool = False) -> None:
        self._blobs, self._bundle, self.tree, self._is_known = blobs, bundle, tree, is_known
        self._left = {CODE + entry.path: entry for entry in tree.entries}
        self.paths: list[list[bytes]] = []  # The paths in each pack, once it was read.

    def run(self) -> None:
        """Read all packs.

        Raises `BlobMissing`, `BlobCorrupt`, or `ExtractionRefused` if something does not match the
        tree.
        """
        packs = self._bundle.packs
        if len(packs) > 1 and sum(pack.size for pack in packs) > _PARALLEL:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(2) as pool:
                self.paths = list(pool.map(self._pack, packs))
        else:
            self.paths = list(map(self._pack, packs))
        if self._left:
            raise self._refused(f"{next(iter(self._left.values())).name!r} is missing from it")

    def small(self, entry: Entry, data: bytes) -> None:
        """Receive the bytes of a file, which are already verified."""

    @contextmanager
    def large(self, entry: Entry) -> Iterator[tar.Writable]:
        """Receive the bytes of a file piece by piece; the body raises if they prove wrong."""
        yield _Nowhere()

    def _pack(self, pack: Layer) -> list[bytes]:
        paths = []
        with read_blob(pack, self._blobs, self._is_known) as reader:
            while member := reader.next():
                paths.append(self._member(reader, member).path)
        return paths

    def _member(self, reader: tar.Reader, member: tar.Member) -> Entry:
        entry = self._left.pop(
            member.name, None
        )  # Immediately, since another thread may find the same name.
        link = member.target is not None
        if entry is None or (entry.kind == "l") != link or (entry.kind == "x") != member.executable:
            raise self._refused(
                f"the member {member.name[:200]!r} is not in its tree, or occurs twice"
            )
        if link:
            if member.target != entry.content:
                raise self._refused(f"the link {entry.name!r} does not have the target in its tree")
            return entry
        if member.size != entry.size:
            raise self._refused(f"{entry.name!r} does not have the size in its tree")
        if entry.size <= _SMALL:
            data = reader.skim(entry.size, None)
            self._compare(entry, hashlib.sha256(data))
            self.small(entry, data)
            return entry
        with self.large(entry) as into:
            writer = _Hashed(into)
            reader.skim(entry.size, writer)
            self._compare(entry, writer.sha256)
        return entry

    def _compare(self, entry: Entry, sha256: hashlib._Hash) -> None:
        if sha256.hexdigest().encode() != entry.content:
            raise self._refused(f"{entry.name!r} does not have the digest in its tree")

    def _refused(self, why: str) -> ExtractionRefused:
        return ExtractionRefused(
            f"The bundle {self._bundle.manifest.short} was refused",
            why=f"{why}.",
            hint="Do not use the source that it came from.",
        )


class _Hashed:
    """A writer that hashes everything written through it."""

    def __init__(self, into: tar.Writable) -> None:
        self._into, self.sha256 = into, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        return self._into.write(data)


class _Nowhere:
    """A writer that discards everything."""

    def write(self, data: bytes) -> int:
        return len(data)


def verify(cache: Cache) -> tuple[int, list[Bad]]:
    """Prove every recorded bundle; delete the records of bad ones and their packs.

    They will be rebuilt when needed. Returns the number of bundles, and the defects. Bundles whose
    blobs are missing or corrupt are skipped.
    """
    records, bad = cache.records.of_kind("bundle"), []
    for record in records:
        try:
            bundle = read(record.artifact, cache.blobs)
            Proof(cache.blobs, bundle, read_tree(bundle, cache.blobs)).run()
        except (BlobMissing, BlobCorrupt):
            continue
        except ExtractionRefused as error:
            forget(cache, record)
            bad.append(
                Bad(
                    record.artifact,
                    f"a bundle: {error.why.rstrip('.')}; it will be rebuilt when needed",
                    True,
                )
            )
    return len(records), bad
