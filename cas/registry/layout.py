"""A folder as a repository: an OCI image layout (image-spec 1.1, image-layout.md), which other tools can read and write.

oci-layout    index.json (the tags)    blobs/sha256/<hex>    .lock (ours: who writes holds it shared, who collects alone)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

from flyte_build.cas.blobs import Blobs, BlobWriter
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.faults import storing
from flyte_build.cas.folder import make_own
from flyte_build.cas.lease import locked
from flyte_build.errors import BlobCorrupt, BlobMissing, RegistryCorrupt

from .descriptor import INDEX, Descriptor
from .manifest import LIMIT, Manifest
from .name import RepositoryName
from .repository import Moved

TAG = "org.opencontainers.image.ref.name"  # image-spec, annotations.md: the name of an entry of index.json.
_CHUNK = 1 << 20


class LayoutRepository:
    """The repository in a folder, which is made when something is first kept in it. Many processes can share it."""

    def __init__(self, name: RepositoryName, counters: Counters) -> None:
        self.name = name
        self._folder = name.folder
        self._blobs = Blobs(f"{self._folder}/blobs/sha256", f"{self._folder}/quarantine", counters)

    def manifest(self, reference: Digest | str) -> Manifest | None:
        """The manifest of a digest or under a tag, verified; None if it is not there."""
        if isinstance(reference, Digest):
            digest = reference
        else:
            found = [entry for entry in self._entries() if _tag(entry) == reference]
            if not found:
                return None
            digest = Descriptor.parse(found[0]).digest
        try:
            with self._blobs.open(digest) as stream:
                data = stream.read(LIMIT + 1)
        except BlobMissing:
            return None
        if Digest.of(data) != digest:
            raise RegistryCorrupt(f"{digest} in {self.name} is corrupt", why="Its bytes have another digest.")
        return Manifest.parse(data)

    def put_manifest(self, manifest: Manifest, tag: str | None = None) -> None:
        """Keep a manifest, under its digest and the tag. Raises `BlobMissing` if something that it names is not there."""
        named = manifest.manifests if manifest.is_index else manifest.blobs()
        if missing := [each.digest for each in named if not self._blobs.has(each.digest)]:
            raise BlobMissing(f"{self.name} does not have {missing[0]}, which a manifest names")
        with self.writing():
            self._blobs.put(manifest.data)
            if tag is not None:
                entry = {**manifest.descriptor.document(), "annotations": {TAG: tag}}
                with self._changing() as entries:
                    entries[:] = [each for each in entries if _tag(each) != tag] + [entry]

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob is there."""
        return self._blobs.has(blob.digest)

    def download(self, blob: Descriptor, writer: BlobWriter, moved: Moved) -> None:
        """Write a blob's bytes, verified: `writer` holds all of them then, and is not finished. Raises `BlobMissing`."""
        with self._blobs.open(blob.digest) as stream:
            _copy(stream, writer, moved)
        if writer.digest != blob.digest:
            raise RegistryCorrupt(f"{blob.digest} in {self.name} is corrupt", why="Its bytes have another digest.")

    def upload(self, blob: Descriptor, source: Callable[[], BinaryIO], moved: Moved, mount: RepositoryName | None = None) -> None:
        """Keep a blob whose bytes `source` opens."""
        with self.writing(), source() as stream, self._blobs.batch() as batch, batch.writer() as writer:
            _copy(stream, writer, moved)
            if writer.digest != blob.digest:
                raise BlobCorrupt(f"Blob {blob.digest} is corrupt", why="Its bytes have another digest.")
            writer.finish(blob.digest)

    def tags(self) -> list[str]:
        """All tags, in no order."""
        return [tag for entry in self._entries() if (tag := _tag(entry))]

    def delete_manifest(self, digest: Digest) -> None:
        """Remove a manifest and all of its tags; one that is gone already is fine."""
        with self.writing():
            with self._changing() as entries:
                entries[:] = [entry for entry in entries if entry.get("digest") != digest]
            self._blobs.delete(digest)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold this from the first blob to the last tag: nothing is collected meanwhile."""
        self._create()
        with locked(f"{self._folder}/.lock", exclusive=False):
            yield

    def sweep(self, without: Collection[Digest], dry_run: bool) -> Iterator[tuple[Digest, int]]:
        """Remove the blobs that no tag leads to, and give each with its size in bytes. Waits for those who write.

        The manifests `without` are counted as gone, and are not among those that are given.
        """
        if not os.path.isdir(self._blobs.folder):
            return
        with locked(f"{self._folder}/.lock", exclusive=True):
            live = self._reachable(without)
            for digest, size in list(self._blobs.names()):
                if digest not in live and digest not in without:
                    if not dry_run:
                        self._blobs.delete(digest)
                    yield digest, size

    def _reachable(self, without: Collection[Digest]) -> set[Digest]:
        """All that the tags lead to, but for what only the manifests `without` do."""
        live: set[Digest] = set()
        waiting = [digest for entry in self._entries() if (digest := Descriptor.parse(entry).digest) not in without]
        while waiting:
            live.add(digest := waiting.pop())
            manifest = self.manifest(digest)
            if manifest is not None:
                live.update(blob.digest for blob in manifest.blobs())
                waiting += [each.digest for each in manifest.manifests if each.digest not in live] if manifest.is_index else []
        return live

    def _create(self) -> None:
        if os.path.exists(f"{self._folder}/oci-layout"):
            return
        with storing(f"make the layout {self._folder}"):
            make_own(self._folder)
            os.makedirs(self._blobs.folder, exist_ok=True)
            with locked(f"{self._folder}/.index.lock", exclusive=True):
                if not os.path.exists(f"{self._folder}/index.json"):
                    self._write("index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": []})
                self._write("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def _entries(self) -> list[dict[str, Any]]:
        try:
            with open(f"{self._folder}/index.json", "rb") as file:
                entries = json.load(file)["manifests"]
                if not all(isinstance(entry, dict) for entry in entries):
                    raise ValueError("an entry is no object")
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise RegistryCorrupt(
                f"The index of {self.name} is malformed",
                why=f"{error!r:.200}",
                hint="Mend or delete index.json; the blobs are not touched.",
            ) from None

    @contextmanager
    def _changing(self) -> Iterator[list[dict[str, Any]]]:
        """The entries of the index, written when the body ends; one process at a time."""
        with locked(f"{self._folder}/.index.lock", exclusive=True):
            entries = self._entries()
            before = list(entries)
            yield entries
            if entries != before:
                self._write("index.json", {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})

    def _write(self, name: str, document: Mapping[str, Any]) -> None:
        temporary = f"{self._folder}/{name}.{os.urandom(4).hex()}"
        with storing(f"write {name} of {self.name}"):
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(document, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, f"{self._folder}/{name}")


def _tag(entry: Mapping[str, Any]) -> str:
    return str((entry.get("annotations") or {}).get(TAG, ""))


def _copy(stream: BinaryIO, writer: BlobWriter, moved: Moved) -> None:
    with storing("read a blob"):
        while piece := stream.read(_CHUNK):
            writer.write(piece)
            moved(len(piece))
