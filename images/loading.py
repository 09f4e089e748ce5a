"""Putting an image into the Docker Engine of this machine: of its layers only those are sent that the engine has not.

The stream is what `docker load` takes (github.com/moby/moby, image/spec/spec.md: an archive with a manifest.json). Layers that
the engine holds under the same chain of layers may be missing from it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import IO, TYPE_CHECKING

from flyte_build.cas import tar
from flyte_build.cas.blobs import Blobs
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import MEDIA_TYPES
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import EngineUnavailable

from .docker import asking

if TYPE_CHECKING:
    from docker import APIClient

Fetch = Callable[[Sequence[Descriptor]], None]
"""Brings layers to this machine."""
_CHUNK = 1 << 20


def load(client: "APIClient", manifest: Manifest, blobs: Blobs, fetch: Fetch) -> str:
    """The engine's id of an image, which is there then.

    The config is among `blobs`; `fetch` brings those layers there that have to be sent. Raises `EngineUnavailable`.
    """
    image = manifest.config.digest
    if not has(client, image):
        diff_ids = json.loads(blobs.read(image))["rootfs"]["diff_ids"]
        known = _known(client, diff_ids)
        fetch(manifest.layers[known:])
        with asking("load an image"):
            for answer in client.load_image(_archive(manifest, blobs, known)):
                if "error" in answer:
                    raise EngineUnavailable("Docker could not load an image", why=answer["error"])
    return image


def has(client: "APIClient", image: str) -> bool:
    """Whether the engine has an image of that id or name."""
    from docker.errors import ImageNotFound

    with asking("look for an image"):
        try:
            client.inspect_image(image)
        except ImageNotFound:
            return False
    return True


def _known(client: "APIClient", diff_ids: Sequence[str]) -> int:
    """How many of an image's layers, from the first on, the engine holds: as many as some image of its own begins with."""
    from docker.errors import ImageNotFound

    longest = 0
    with asking("list its images"):
        for each in client.images(all=True):
            try:
                layers = client.inspect_image(each["Id"])["RootFS"].get("Layers") or []
            except ImageNotFound:  # Somebody has removed it meanwhile.
                continue
            same = takewhile(lambda pair: pair[0] == pair[1], zip(layers, diff_ids, strict=False))
            longest = max(longest, sum(1 for _ in same))
    return longest


def _archive(manifest: Manifest, blobs: Blobs, known: int) -> Iterator[bytes]:
    config = manifest.config.digest
    names = [f"{at:03}-{layer.digest.hex}.tar" for at, layer in enumerate(manifest.layers)]
    yield from _member(f"{config.hex}.json", blobs.read(config))
    for name, layer in zip(names[known:], manifest.layers[known:], strict=True):
        if layer.media_type == MEDIA_TYPES["zstd"]:  # Docker takes it from version 23 on.
            yield from _decompressed(name, layer.digest, blobs)
            continue
        yield tar.header(tar.Member(name.encode(), layer.size))
        with blobs.open(layer.digest) as stream:
            yield from pieces(stream)
        yield tar.padding(layer.size)
    yield from _member("manifest.json", json.dumps([{"Config": f"{config.hex}.json", "RepoTags": None, "Layers": names}]).encode())
    yield tar.END


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield tar.header(tar.Member(name.encode(), len(data))) + data + tar.padding(len(data))


def _decompressed(name: str, layer: Digest, blobs: Blobs) -> Iterator[bytes]:
    """A member's size stands before its bytes, so they are written to a file first."""
    import tempfile

    import zstandard

    with tempfile.TemporaryFile() as plain:
        with blobs.open(layer) as stream:
            zstandard.ZstdDecompressor().copy_stream(stream, plain)
        size = plain.tell()
        plain.seek(0)
        yield tar.header(tar.Member(name.encode(), size))
        yield from pieces(plain)
        yield tar.padding(size)


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """All bytes of a stream, some at a time."""
    while piece := stream.read(_CHUNK):
        yield piece
