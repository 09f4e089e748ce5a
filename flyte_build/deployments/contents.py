"""What deployments hold: documents, code, images and files; fetched, verified, and kept on this
machine once they were used.
"""

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

_DOCUMENT = 64 << 20  # Bytes of a deployment's document, at most.
_SLACK = 1 << 30  # Bytes by which a bundle may be larger than the files that it holds.


class DeploymentContents:
    """What the releases of a catalogue hold, brought into the `cache`; `note` is told what was
    repaired. Whatever a repository raises is raised.
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
        """The document of what was found, verified against its pin; it stays on this machine.
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
                f"{pin} is no deployment",
                why="It is of another kind, or has not the one layer that one has.",
            )
        document = Document.parse(blobs.read(manifest.layers[0].digest))
        if (
            document.pin != pin
            or document.name != found.release.environment
            or document.tree != found.release.tree
        ):
            raise RegistryCorrupt(
                f"The deployment {pin} is not what its index says",
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
                hint="`flyte doctor` lists what is missing.",
            ) from None

    def code(self, found: FoundRelease, budget: Budget) -> str:
        """Extract the code of what was found, and return its directory; its bundle is fetched
        unless this machine has it.

        Raises `NotFound` if nobody has it, `RegistryCorrupt` and `ExtractionRefused` for what is
        not the code that was deployed.
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
                pass  # It went bad here.
            except ExtractionRefused as error:
                self._note(f"{error.what}; it is fetched again. {error.why}")
                forget(self._cache, record)
        repository = found.repository
        if repository is None:
            online = self._catalogue.published(found.release.pin)
            if online is None or online.repository is None:
                raise NotFound(
                    f"The code of {found.release.environment}@{found.release.pin.short} is not"
                    " there any more",
                    why=self._catalogue.nowhere(),
                )
            found, repository = online, online.repository
        self._fetch(found.release.bundle.digest, repository, budget.bytes + _SLACK)
        fetched = bundle.read(found.release.bundle.digest, blobs)
        if fetched.tree != tree:
            raise RegistryCorrupt(
                f"The deployment {found.release.pin} has another bundle than its index says"
            )
        # Only what has proven right is recorded.
        extraction.take(self._cache, fetched, budget=budget)
        self._cache.records.add(
            Record(bundle_key(tree), KIND, fetched.manifest, fetched.refs, bundle_inputs(tree))
        )
        return extraction.extract(self._cache, fetched, budget)

    def image(self, found: FoundRelease, identity: Digest) -> tuple[OciImage, list[Repository]]:
        """The image of what was found whose config has that digest, and the repositories that have
        its layers. Raises `RegistryCorrupt`.

        Its manifest and its config are on this machine then.
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
            f"The image of {found.release.environment}:{found.release.version} is not there any"
            " more",
            why=f"Its identity is {identity}.",
            hint="`flyte doctor` lists what is missing.",
        )

    def tree(self, found: FoundRelease) -> Tree:
        """The files of what was found, by name and digest; their bytes are not fetched."""
        from flyte_build.bundler import bundle

        blobs, record = (
            self._cache.blobs,
            self._cache.records.find(bundle_key(Digest.parse(found.release.tree))),
        )
        if record:
            try:
                return bundle.read_tree(bundle.read(record.artifact, blobs), blobs)
            except (BlobMissing, BlobCorrupt, ExtractionRefused):
                pass  # It went bad here.
        repository, digest = found.repository, found.release.bundle.digest
        manifest = repository.manifest(digest) if repository else None
        if repository is None or manifest is None:
            raise NotFound(
                f"The files of {found.release.tag} are not known",
                why=f"The bundle is not in {self._catalogue.place(repository)}.",
            )
        with blobs.batch() as batch:
            batch.add(manifest.data)
            for blob in (manifest.config, *manifest.layers[:1]):
                if not blobs.has(blob.digest):
                    with batch.writer() as writer:
                        repository.download(blob, writer, lambda count: None)
                        writer.finish(blob.digest)
        return bundle.read_tree(bundle.read(digest, blobs), blobs)
