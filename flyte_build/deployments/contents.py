"""Contents of deployments: documents, code, images and files, fetched, verified and cached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from flyte_build.bundler.identity import KIND, blobs_of, bundle_inputs, bundle_key
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Progress, Transfer
from flyte_build.cas.verify import forget
from flyte_build.errors import (
    BlobCorrupt,
    BlobMissing,
    ExtractionRefused,
    NotFound,
    RegistryCorrupt,
)
from flyte_build.images.oci_image import OciImage

from .catalogue import Catalogue, FoundRelease, record_key
from .document import TYPE, Document

if TYPE_CHECKING:
    from flyte_build.bundler.budget import Budget
    from flyte_build.bundler.tree import Tree

_DOCUMENT = 64 << 20  # Maximum size of a deployment's document in bytes.
_SLACK = 1 << 30  # Bytes by which a bundle may be larger than the files that it contains.


class DeploymentContents:
    """Contents of a catalogue's releases, fetched to the `cache`.

    `note` is called with messages on repairs. Methods raise any error of a repository.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        cache: Cache,
        note: Callable[[str], None],
        progress: Progress = lambda done, total: None,
    ) -> None:
        self._catalogue, self._cache, self._note = catalogue, cache, note
        self._transfer = Transfer(cache.blobs, Ledger(cache.database), progress)

    def document(self, found: FoundRelease) -> Document:
        """Return the document of a release, verified against its pin, and cache it.

        Raises `RegistryCorrupt`.
        """
        pin, blobs = found.release.pin, self._cache.blobs
        manifest = (
            self._fetch(pin, found.repository, _DOCUMENT)
            if found.repository
            else Manifest.parse(blobs.read(pin))
        )
        if manifest.artifact_type != TYPE or len(manifest.layers) != 1:
            raise RegistryCorrupt(
                f"{pin} is not a deployment",
                why="It has another artifact type, or does not have exactly one layer.",
            )
        document = Document.parse(blobs.read(manifest.layers[0].digest))
        if (
            document.pin != pin
            or document.name != found.release.environment
            or document.tree != found.release.tree
        ):
            raise RegistryCorrupt(
                f"The deployment {pin} does not match its index",
                hint="Do not use it; deploy again.",
            )
        refs = (pin, *(blob.digest for blob in manifest.blobs()), blobs.put(found.index.data))
        self._cache.records.add(
            Record(
                record_key(pin), "deployment", pin, refs, {"pin": pin, "name": found.release.tag}
            )
        )
        return document

    def _fetch(self, digest: Digest, repository: Repository, most: int) -> Manifest:
        try:
            return self._transfer.pull(digest, repository, most=most)
        except BlobMissing as error:
            raise RegistryCorrupt(
                f"{repository.name} has lost a part of a deployment",
                why=f"{error.what}.",
                hint="List everything that is missing with `flyte doctor`.",
            ) from None

    def code(self, found: FoundRelease, budget: Budget) -> str:
        """Extract the code of a release, and return its directory.

        Its bundle is fetched unless this machine has it. Raises `NotFound` if no place has it, and
        `RegistryCorrupt` or `ExtractionRefused` if it is not the code that was deployed.
        """
        from flyte_build.bundler import bundle, extraction
        from flyte_build.bundler.marker import find

        blobs, tree = self._cache.blobs, Digest.parse(found.release.tree)
        if folder := find(self._cache, tree):
            return folder
        record = self._cache.records.find(bundle_key(tree))
        if record and blobs.has_all(blobs_of(record)):
            try:
                return extraction.extract(self._cache, bundle.read(record.artifact, blobs), budget)
            except (BlobMissing, BlobCorrupt):
                pass  # It was damaged on this machine.
            except ExtractionRefused as error:
                self._note(f"{error.what}; it will be fetched again. {error.why}")
                forget(self._cache, record)
        repository = found.repository
        if repository is None:
            online = self._catalogue.published(found.release.pin)
            if online is None or online.repository is None:
                raise NotFound(
                    f"The code of {found.release.environment}@{found.release.pin.short} is no"
                    " longer available",
                    why=self._catalogue.nowhere(),
                )
            found, repository = online, online.repository
        self._fetch(found.release.bundle.digest, repository, budget.bytes + _SLACK)
        fetched = bundle.read(found.release.bundle.digest, blobs)
        if fetched.tree != tree:
            raise RegistryCorrupt(
                f"The bundle of the deployment {found.release.pin} does not match its index"
            )
        # A bundle is recorded only once it has been verified.
        extraction.take(self._cache, fetched, budget=budget)
        self._cache.records.add(
            Record(bundle_key(tree), KIND, fetched.manifest, fetched.refs, bundle_inputs(tree))
        )
        return extraction.extract(self._cache, fetched, budget)

    def image(self, found: FoundRelease, identity: Digest) -> tuple[OciImage, list[Repository]]:
        """Return a release's image whose config has that digest, and repositories with its layers.

        Its manifest and its config are cached. Raises `RegistryCorrupt`.
        """
        blobs = self._cache.blobs
        if found.repository is None and not blobs.has_all(
            each.digest for each in found.release.images
        ):
            found = self._catalogue.published(found.release.pin) or found
        for each in found.release.images:
            manifest = Manifest.parse(blobs.read(each.digest)) if blobs.has(each.digest) else None
            if manifest is None and found.repository is not None:
                manifest = found.repository.manifest(each.digest)
            if manifest is None or manifest.config.digest != identity:
                continue
            if not blobs.has(identity) and found.repository is not None:
                with blobs.batch() as batch, batch.writer() as writer:
                    found.repository.download(manifest.config, writer, lambda count: None)
                    writer.finish(identity)
            blobs.put(manifest.data)
            return OciImage(manifest, blobs.read(identity)), (
                [found.repository] if found.repository else list(self._catalogue.repositories)
            )
        raise RegistryCorrupt(
            f"The image of {found.release.environment}:{found.release.version} is no longer"
            " available",
            why=f"Its identity is {identity}.",
            hint="List everything that is missing with `flyte doctor`.",
        )

    def tree(self, found: FoundRelease) -> Tree:
        """Return the tree of a release's files; their contents are not fetched.

        Raises `NotFound`.
        """
        from flyte_build.bundler import bundle

        blobs, record = (
            self._cache.blobs,
            self._cache.records.find(bundle_key(Digest.parse(found.release.tree))),
        )
        if record:
            try:
                return bundle.read_tree(bundle.read(record.artifact, blobs), blobs)
            except (BlobMissing, BlobCorrupt, ExtractionRefused):
                pass  # It was damaged on this machine.
        repository, digest = found.repository, found.release.bundle.digest
        manifest = repository.manifest(digest) if repository else None
        if repository is None or manifest is None:
            raise NotFound(
                f"Cannot list the files of {found.release.tag}",
                why=f"Its bundle is missing from {self._catalogue.place(repository)}.",
            )
        with blobs.batch() as batch:
            batch.add(manifest.data)
            for blob in (manifest.config, *manifest.layers[:1]):
                if not blobs.has(blob.digest):
                    with batch.writer() as writer:
                        repository.download(blob, writer, lambda count: None)
                        writer.finish(blob.digest)
        return bundle.read_tree(bundle.read(digest, blobs), blobs)
