"""Nodes of images, and of their layers.

The key of an image contains only digests that are known without a network: those of the base, the
wheels, the files, and the executed steps. So a lookup reads one record, and only building an image
reads the base and layers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from flyte_build.cas.blobs import Blobs
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import Value, key
from flyte_build.cas.layer import Compression, Layer
from flyte_build.cas.records import Record
from flyte_build.errors import ImageBuildError
from flyte_build.graph.explain import difference
from flyte_build.graph.node import Made, Node, Outcomes, Resolve
from flyte_build.images.layers.files import Copied
from flyte_build.images.layers.wheel_download import Fetcher
from flyte_build.images.oci_image import Added, OciImage

from .base import BaseSource
from .plan import FORMAT, Part, Plan


class _LayerNode(Node):
    """Node of a layer.

    The artifact is the digest of the uncompressed layer, which does not depend on the compression.
    """

    kind = "layer"

    def __init__(self, part: Part, label: str, cache: Cache) -> None:
        super().__init__(part.what, f"{label} {part.what}")
        self._part, self._cache = part, cache

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return everything that decides the layer."""
        return self._part.inputs

    def usable(self, record: Record) -> bool:
        """Whether the layer's blob is in the store."""
        return self._cache.blobs.has_all(record.refs)

    def is_here(self, wanted: Key) -> bool:
        """Whether the layer with a key is on this machine."""
        record = self._cache.records.find(wanted)
        return record is not None and self.usable(record)

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Write the layer."""
        with self._cache.blobs.batch() as batch:
            layer = self._part.make(batch)
        return Made(layer.diff_id, (layer.digest,))


class Offers(Protocol):
    """Source of published images by tag."""

    def tagged(self, tag: str) -> Iterable[tuple[Digest, str]]:
        """Return the manifests under a tag, each with its repository.

        The manifests and their configs are in the store then.
        """


@dataclass(frozen=True)
class TaggedLayers:
    """Layers of the published images under a tag."""

    offers: Offers
    tag: str
    blobs: Blobs

    def find(self, wanted: Collection[Key]) -> dict[Key, tuple[Added, str]]:
        """Return the layers with some of these keys, each with its repository."""
        found: dict[Key, tuple[Added, str]] = {}
        for manifest, place in self.offers.tagged(self.tag) if wanted else ():
            known = OciImage.read(manifest, self.blobs).layers_by_key()
            found.update(
                {
                    each: (known[each], place)
                    for each in wanted
                    if each in known and each not in found
                }
            )
        return found


@dataclass(frozen=True)
class ImageTarget:
    """An image to build for one platform: a plan on a base, and the compression of its layers."""

    ground: BaseSource
    plan: Plan
    platform: str
    compression: Compression


class ImageNode(Node):
    """Node of an image on a base.

    The artifact is the digest of the manifest, which depends on the compression; the identity is
    that of the config. Layers that are `offered` are used without fetching them; `places`, complete
    after `make`, are their repositories.
    """

    kind, format = "image", FORMAT
    shared, whole = True, False

    def __init__(
        self,
        label: str,
        target: ImageTarget,
        cache: Cache,
        fetcher: Fetcher,
        note: Callable[[str], None],
        offered: TaggedLayers | None = None,
    ) -> None:
        super().__init__(target.platform, label)
        self._target, self._cache, self._fetcher, self._note, self._offered = (
            target,
            cache,
            fetcher,
            note,
            offered,
        )
        self.places: list[str] = []

    def inputs(self, outcomes: Outcomes) -> Mapping[str, Value]:
        """Return everything that decides the image, including the compression of its layers."""
        plan = self._target.plan
        steps: list[Value] = []
        packages: dict[str, Value] = {}
        for step in plan.steps:
            if isinstance(step, Copied):
                steps.append({"copy": step.step.src, "to": step.step.dst, "files": step.identity})
            else:
                steps.append("packages")
                packages.update(
                    {f"{each.name}=={each.version}": each.digest for each in step.wheels}
                )
        return {
            "base": self._target.ground.identity,
            "platform": self._target.platform,
            "packages": packages,
            "steps": steps,
            "env": dict(plan.env),
            "workdir": plan.workdir,
            "compression": self._target.compression,
        }

    def usable(self, record: Record) -> bool:
        """Whether the manifest, the config, and the layers built here are still in the store."""
        return self._cache.blobs.has_all(record.refs)

    def accept(self, artifact: Digest, inputs: Mapping[str, Value]) -> tuple[Digest, ...]:
        """Return the manifest and the config of an image from another machine.

        Its layers stay remote. Raises `ImageBuildError` if it is for another platform.
        """
        image = OciImage.read(artifact, self._cache.blobs)
        if image.platform != self._target.platform:
            raise ImageBuildError(f"{artifact} is not an image for {self._target.platform}")
        return (artifact, image.identity)

    def explain(self, inputs: Mapping[str, Value], last: Record) -> str:
        """Return what changed; packages appear as `+name==version` and `-name==version`."""
        old, new = last.inputs.get("packages", {}), inputs["packages"]
        assert isinstance(new, Mapping)
        parts = [f"+{name}" for name in sorted(new.keys() - old.keys())] + [
            f"-{name}" for name in sorted(old.keys() - new.keys())
        ]
        parts += [
            f"{name} has another wheel"
            for name in sorted(new.keys() & old.keys())
            if new[name] != old[name]
        ]
        rest = {name: value for name, value in inputs.items() if name != "packages"}
        before = {name: value for name, value in last.inputs.items() if name != "packages"}
        if parts and rest == before:
            return " ".join(parts)
        return "; ".join(filter(None, [" ".join(parts), difference(before, rest)]))

    def make(self, outcomes: Outcomes, resolve: Resolve) -> Made:
        """Build the missing layers, then the config and the manifest."""
        base = self._target.ground.load()
        parts = self._target.plan.parts(base, self._target.compression, self._fetcher, self._note)
        nodes = [_LayerNode(part, self.label, self._cache) for part in parts]
        keys = [key(node.kind, node.format, node.inputs({})) for node in nodes]
        absent = [
            wanted for node, wanted in zip(nodes, keys, strict=True) if not node.is_here(wanted)
        ]
        taken = self._offered.find(absent) if self._offered else {}
        self.places += dict.fromkeys(place for _, place in taken.values())
        offered = {wanted: layer for wanted, (layer, _) in taken.items()}
        found = resolve(
            [node for node, wanted in zip(nodes, keys, strict=True) if wanted not in offered]
        )
        layers = []
        for node, wanted, part in zip(nodes, keys, parts, strict=True):
            if wanted in offered:
                layers.append(offered[wanted])
                continue
            record = found[node].record
            assert record is not None
            (blob,) = record.refs
            layer = Layer(blob, os.path.getsize(self._cache.blobs.path(blob)), record.artifact)
            layers.append(Added.of(layer, self._target.compression, part.what, wanted))
        image = self._target.plan.assemble(base, layers)
        with self._cache.blobs.batch() as batch:
            manifest = image.write(batch)
        own = (layer.blob.digest for layer in layers if layer not in offered.values())
        return Made(manifest, (manifest, image.identity, *own))
