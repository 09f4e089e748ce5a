"""Repositories in a directory: OCI image layouts (image-spec 1.1, image-layout.md).

Other tools can read and write them:

    oci-layout    index.json (the tags)    blobs/sha256/<hex>
    .lock         (ours: held shared by writers, exclusively by garbage collection)
    .index.lock   (held while index.json is replaced)
    .tags.lock    (held to look at tags and then move them)
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO

from flyte_build.cas.atomic import replace_file
from flyte_build.cas.blobs import TEMPORARY, Blobs, BlobWriter, open_file
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.folder import make_own
from flyte_build.cas.lease import locked
from flyte_build.cas.os_errors import storing
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    RegistryCorrupt,
    RegistryRefused,
    RegistryUnreachable,
    RepositoryCorrupt,
    StoreError,
    StoreUnavailable,
)

from .descriptor import INDEX, Descriptor
from .manifest import LIMIT, Manifest
from .name import RepositoryName
from .repository import Moved

# Annotation with the name of an entry of index.json (image-spec, annotations.md).
TAG = "org.opencontainers.image.ref.name"
_VERSION = "1.0.0"  # The only version (image-layout.md, "oci-layout file").
_OWN = frozenset(
    {".gitignore", ".index.lock", ".lock", ".tags.lock", "blobs", "index.json", "quarantine"}
)
# Prefixes of the files that exist while another process creates the same layout.
_BEING_MADE = ("index.json.", "oci-layout")
_CHUNK = 1 << 20
_INDEX = 256 << 20  # Maximum size of an index, in bytes.


class LayoutRepository:
    """A repository in a directory, which is created when something is first stored in it.

    Many processes can share it. A directory that cannot be used counts as an unreachable registry;
    a corrupt blob is moved to quarantine in it.
    """

    def __init__(self, name: RepositoryName, counters: Counters) -> None:
        self.name = name
        self._folder, self._is_known = name.folder, False
        self._blobs = Blobs(f"{self._folder}/blobs/sha256", f"{self._folder}/quarantine", counters)

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """Return the manifest with a digest or tag, verified, or None if it is missing."""
        if isinstance(reference, Digest):
            digest = reference
        else:
            found = [entry for entry in self._entries() if _tag(entry) == reference]
            if not found:
                return None
            try:
                digest = Descriptor.parse(found[0]).digest
            except RegistryCorrupt as error:
                raise RegistryCorrupt(
                    f"The entry of {reference} in the index of {self.name} is malformed",
                    why=error.why,
                ) from None
        try:
            with self._using(), self._blobs.open(digest) as stream:
                data = stream.read(LIMIT + 1)
        except BlobMissing:
            return None
        if len(data) <= LIMIT and Digest.of(data) != digest:
            raise self._corrupt(digest)
        try:
            return Manifest.parse(data)
        except RegistryCorrupt as error:
            raise RegistryCorrupt(
                error.what, why=f"It is {digest} in {self.name}. {error.why}"
            ) from None

    def put_manifest(self, manifest: Manifest, tag: str | None = None) -> None:
        """Store a manifest under its digest and `tag`.

        Raises `BlobMissing` if something that it refers to is missing.
        """
        named = manifest.manifests if manifest.is_index else manifest.blobs()
        if missing := [each.digest for each in named if not self.has(each)]:
            raise BlobMissing(f"{self.name} does not have {missing[0]}, which a manifest refers to")
        with self.writing(), self._using():
            if not self.has(manifest.descriptor):
                with self._blobs.batch() as batch, batch.writer() as writer:
                    writer.write(manifest.data)
                    writer.finish(manifest.digest)
            if tag is not None:
                entry = {**manifest.descriptor.document(), "annotations": {TAG: tag}}
                with self._changing() as entries:
                    entries[:] = [each for each in entries if _tag(each) != tag] + [entry]

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob of that digest and size exists."""
        with self._using():
            try:
                found = os.stat(self._blobs.path(blob.digest))
            except FileNotFoundError:
                return False
            return stat.S_ISREG(found.st_mode) and found.st_size == blob.size

    def download(self, blob: Descriptor, writer: BlobWriter, moved: Moved) -> None:
        """Write a blob's verified bytes to `writer`, without finishing it. Raises `BlobMissing`."""
        with self._using():
            stream = self._blobs.open(blob.digest)
        with stream:
            if (size := os.fstat(stream.fileno()).st_size) != blob.size:
                raise RegistryCorrupt(
                    f"{self.name} has the wrong bytes for {blob.digest}",
                    why=f"There are {size:,} of them instead of {blob.size:,}.",
                )
            _copy(stream, writer, moved)
        if writer.digest != blob.digest:
            raise self._corrupt(blob.digest)

    def upload(
        self,
        blob: Descriptor,
        source: Callable[[], BinaryIO],
        moved: Moved,
        mount: RepositoryName | None = None,
    ) -> None:
        """Store a blob whose bytes `source` opens."""
        with (
            self.writing(),
            source() as stream,
            self._using(),
            self._blobs.batch() as batch,
            batch.writer() as writer,
        ):
            _copy(stream, writer, moved)
            if writer.digest != blob.digest:
                raise BlobCorrupt(
                    f"Blob {blob.digest} is corrupt", why="Its bytes have a different digest."
                )
            writer.finish(blob.digest)

    def tags(self) -> list[str]:
        """Return all tags, in no particular order."""
        return [tag for entry in self._entries() if (tag := _tag(entry))]

    def delete_manifest(self, digest: Digest) -> None:
        """Delete a manifest and all of its tags, if it exists."""
        with self.writing(), self._using():
            with self._changing() as entries:
                entries[:] = [entry for entry in entries if _digest(entry) != digest]
            self._blobs.delete(digest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the shared lock, from the first blob to the last tag: nothing is collected then."""
        with self._held(".lock", exclusive=False):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold an exclusive lock to look at tags and then move them."""
        with self._held(".tags.lock", exclusive=True):
            yield

    @contextmanager
    def _held(self, name: str, exclusive: bool) -> Iterator[None]:
        """Hold a lock of the layout, which is created if needed."""
        with ExitStack() as stack:
            with self._using():
                self._create()
                stack.enter_context(locked(f"{self._folder}/{name}", exclusive))
            yield

    def sweep(self, without: Collection[Digest], dry_run: bool) -> Iterator[tuple[Digest, int]]:
        """Delete the blobs that no tag refers to, and yield each with its size in bytes.

        Waits until no one is writing. Tags of the manifests `without` do not count.
        """
        if not os.path.isdir(self._blobs.folder):
            return
        with self._using(), locked(f"{self._folder}/.lock", exclusive=True):
            live = self._reachable(without)
            for digest, size in list(self._blobs.names()):
                if digest not in live:
                    if not dry_run:
                        self._blobs.delete(digest)
                    yield digest, size
            for path in () if dry_run else self._blobs.litter():
                os.unlink(path)

    def _reachable(self, without: Collection[Digest]) -> set[Digest]:
        """Return everything that the tags refer to, ignoring the tags of manifests in `without`."""
        live: set[Digest] = set()
        waiting = [
            digest
            for entry in self._entries()
            if (digest := _digest(entry)) and digest not in without
        ]
        while waiting:
            live.add(digest := waiting.pop())
            manifest = self.manifest(digest)
            if manifest is not None:
                live.update(blob.digest for blob in manifest.blobs())
                waiting += (
                    [each.digest for each in manifest.manifests if each.digest not in live]
                    if manifest.is_index
                    else []
                )
        return live

    def _create(self) -> None:
        with storing(f"create the layout {self._folder}"):
            if os.path.exists(f"{self._folder}/oci-layout"):
                # Other tools do not copy empty directories.
                os.makedirs(self._blobs.folder, exist_ok=True)
                return
            os.makedirs(self._folder, exist_ok=True)
            there = set(os.listdir(self._folder))
            strange = {name for name in there - _OWN if not name.startswith(_BEING_MADE)}
            if strange:
                raise RegistryRefused(
                    f"{self.name} is not an image layout",
                    why=f"It contains {min(strange)!r:.100}, but no oci-layout file.",
                    hint=f"Use a directory of its own: oci:{os.path.join(self._folder, 'cache')}",
                )
            if not there:
                make_own(self._folder)
            os.makedirs(self._blobs.folder, exist_ok=True)
            with locked(f"{self._folder}/.index.lock", exclusive=True):
                if not os.path.exists(f"{self._folder}/index.json"):
                    self._write(
                        "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": []}
                    )
                self._write("oci-layout", {"imageLayoutVersion": _VERSION})

    def _entries(self) -> list[Any]:
        """Return the entries of the index as they are, including malformed ones."""
        with self._using():
            found = self._read("index.json")
        if found is None:
            return []
        entries = found.get("manifests")
        if not isinstance(entries, list):
            raise self._malformed("index.json", "Its manifests are not a list.")
        return entries

    def _read(self, name: str) -> dict[str, Any] | None:
        """Read a JSON object from a file of the layout; return None if there is no file."""
        try:
            with open_file(f"{self._folder}/{name}") as file:
                data = file.read(_INDEX + 1)
            if len(data) > _INDEX:
                raise self._malformed(name, f"It is larger than {_INDEX:,} bytes.")
            document = json.loads(data)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, RecursionError):
            raise self._malformed(name, "It is not valid JSON.") from None
        if not isinstance(document, dict):
            raise self._malformed(name, "It is not a JSON object.")
        return document

    def _malformed(self, name: str, why: str) -> RepositoryCorrupt:
        return RepositoryCorrupt(
            f"{name} of {self.name} is malformed",
            why=why,
            hint=f"Fix or delete {name}; the blobs are kept.",
        )

    def _check_version(self) -> None:
        """Raise `RegistryRefused` for a layout of an unsupported version."""
        layout = {} if self._is_known else self._read("oci-layout")
        version = (layout or {}).get("imageLayoutVersion", _VERSION)
        if version != _VERSION:
            raise RegistryRefused(
                f"{self.name} is a layout of version {json.dumps(version):.50}",
                why=f"Only version {_VERSION} is supported.",
            )
        self._is_known = layout is not None

    @contextmanager
    def _using(self) -> Iterator[None]:
        """Raise `RegistryUnreachable` if the directory cannot be used.

        Raises `RegistryRefused` for a layout of another version.
        """
        try:
            self._check_version()
            yield
        except (OSError, StoreUnavailable) as error:
            why = (
                error.why
                if isinstance(error, StoreUnavailable)
                else f"{error.strerror}: {error.filename}"
            )
            raise RegistryUnreachable(f"Cannot use {self.name}", why=why) from error

    def _corrupt(self, digest: Digest) -> RegistryCorrupt:
        """Move a corrupt blob to quarantine, so that it can be uploaded again; return the error."""
        try:
            self._blobs.verify(digest)
        except StoreError:
            pass  # The directory may be read-only, or another process was first.
        return RegistryCorrupt(
            f"{digest} in {self.name} is corrupt", why="Its bytes have a different digest."
        )

    @contextmanager
    def _changing(self) -> Iterator[list[Any]]:
        """Yield the entries of the index under a lock, and write them when the body ends."""
        with locked(f"{self._folder}/.index.lock", exclusive=True):
            entries = self._entries()
            before = list(entries)
            yield entries
            if entries != before:
                self._write(
                    "index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}
                )

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        temporary = f"{self._blobs.folder}/{TEMPORARY}{os.urandom(8).hex()}"
        with storing(f"write {name} of {self.name}"):
            replace_file(
                f"{self._folder}/{name}", json.dumps(document).encode(), temporary=temporary
            )


def _tag(entry: Any) -> str:
    """Return the tag of an entry of the index, or ""."""
    annotations = entry.get("annotations") if isinstance(entry, dict) else None
    return str(annotations.get(TAG, "")) if isinstance(annotations, dict) else ""


def _digest(entry: Any) -> Digest | None:
    """Return the digest of an entry of the index, or None."""
    try:
        return Digest.parse(str(entry.get("digest"))) if isinstance(entry, dict) else None
    except StoreError:
        return None


def _copy(stream: BinaryIO, writer: BlobWriter, moved: Moved) -> None:
    with storing("read a blob"):
        while piece := stream.read(_CHUNK):
            writer.write(piece)
            moved(len(piece))
