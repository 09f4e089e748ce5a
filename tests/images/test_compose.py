"""Composition: an image and a bundle become one image, and no layer moves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.cas.registry.transfer import Transfer
from flyte_build.errors import ImageBuildError
from flyte_build.images.build.compose import compose
from flyte_build.images.build.publisher import ImagePublisher
from flyte_build.images.oci_image import OciImage
from tests.support.bases import archive, push_image
from tests.support.caches import make_bundle, opened
from tests.support.files import write_files
from tests.support.registries import serve

pytestmark = pytest.mark.quick


class Parts:
    """An image and a bundle in the repositories of a machine."""

    def __init__(self, cache: Cache, image_in: str, bundle_in: str, project: Path) -> None:
        self.cache, self.counters = cache, Counters()
        self.transfer = Transfer(cache.blobs, Ledger(cache.database))
        manifest = push_image(
            image_in,
            [archive({"usr/lib/large": os.urandom(1 << 20)})],
            settings={"User": "7", "Env": ["A=1"]},
        )
        self.transfer.pull(manifest.digest, self.open(image_in))
        self.image = OciImage.read(manifest.digest, cache.blobs)
        write_files(project, {"a.py": os.urandom(300_000).hex().encode(), "b/c.py": b"c"})
        bundle = make_bundle(cache, project)
        self.bundle = OciImage.read(bundle.manifest, cache.blobs)
        self.transfer.push(self.bundle.manifest, self.open(bundle_in))

    def open(self, name: str) -> Repository:
        return open_repository(RepositoryName.parse(name), self.counters, RetryBudget())

    def sent(self) -> int:
        return self.counters.snapshot()["bytes_sent"]


def test_the_composed_image(cache: Cache, repository: str, project: Path) -> None:
    """A composed image has the layers of both, in order, and the settings of the image."""
    parts = Parts(cache, repository, repository, project)
    composed = compose(parts.image, [parts.bundle])
    assert composed.manifest.layers == (*parts.image.manifest.layers, *parts.bundle.manifest.layers)
    assert composed.diff_ids == (*parts.image.diff_ids, *parts.bundle.diff_ids)
    assert composed.settings == parts.image.settings
    assert composed.platform == parts.image.platform
    assert compose(parts.image, [parts.bundle]) == composed


def test_no_layer_moves_in_one_repository(cache: Cache, repository: str, project: Path) -> None:
    """In one repository only config and manifest are sent, in three requests."""
    parts = Parts(cache, repository, repository, project)
    composed = compose(parts.image, [parts.bundle])
    before, asked = parts.sent(), parts.counters.snapshot()["requests"]
    ImagePublisher(parts.open(repository), cache).push(composed, "composed")
    assert parts.sent() - before == len(composed.config) + len(composed.manifest.data)
    assert parts.counters.snapshot()["requests"] - asked == 3
    found = parts.open(repository).manifest("composed")
    assert found is not None
    assert found.digest == composed.manifest.digest


def test_layers_are_mounted_across_repositories(
    cache: Cache, repository: str, project: Path
) -> None:
    """Layers are mounted from another repository, even if this machine has lost them."""
    parts = Parts(cache, f"{repository}/images", repository, project)
    composed = compose(parts.image, [parts.bundle])
    for layer in parts.image.manifest.layers:
        cache.blobs.delete(layer.digest)
    before = parts.sent()
    ImagePublisher(parts.open(repository), cache).push(composed, "composed")
    assert parts.sent() - before == len(composed.config) + len(composed.manifest.data)


def test_where_mounting_is_refused_bytes_are_sent(
    tmp_path: Path, cache: Cache, repository: str, project: Path
) -> None:
    """A registry that cannot mount a layer gets its bytes, fetched from another one if need be."""
    parts = Parts(cache, f"{repository}/images", repository, project)
    composed = compose(parts.image, [parts.bundle])
    for layer in parts.image.manifest.layers:
        cache.blobs.delete(layer.digest)
    # It knows nothing of the first one, so that no layer can be mounted.
    with serve(tmp_path / "other") as other:
        target = parts.open(other.repository("composed"))
        Ledger(cache.database).hold(
            RepositoryName.parse(other.repository("images")),
            [parts.image.manifest.layers[0].digest],
        )
        ImagePublisher(target, cache, [parts.open(f"{repository}/images")]).push(
            composed, "composed"
        )
        found = target.manifest("composed")
        assert found is not None
        with opened(tmp_path / "third") as third:
            Transfer(third.blobs, Ledger(third.database)).pull(found.digest, target)


def test_too_many_layers(cache: Cache, repository: str, project: Path) -> None:
    """An image with more layers than Docker takes is refused."""
    parts = Parts(cache, repository, repository, project)
    with pytest.raises(ImageBuildError, match="too deep"):
        compose(parts.image, [parts.bundle] * 70)
