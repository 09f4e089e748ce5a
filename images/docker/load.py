"""Putting an image into the Docker Engine of this machine: of its layers only those are sent that
the engine has not.

The stream is what `docker load` takes (github.com/moby/moby, image/spec/spec.md: an archive with a
manifest.json). Layers that the engine holds under the same chain of layers may be missing from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from typing import IO, TYPE_CHECKING, cast

from flyte_build.cas import tar
from flyte_build.cas.blobs import Blobs
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import MEDIA_TYPES
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import EngineUnavailable, RegistryCorrupt
from flyte_build.images.oci_image import OciImage

from .client import asking

if TYPE_CHECKING:
    from docker import APIClient

Fetch = Callable[[Sequence[Descriptor]], None]
"""Brings layers to this machine."""
_CHUNK = 1 << 20
# Bytes of zstd window that a layer may ask for: as many as zstd itself takes without being told to.
_WINDOW = 128 << 20
_BOMB = (1000, 1 << 30)  # So many times its own size, and so many bytes, a layer may not come to.


def load(client: APIClient, manifest: Manifest, blobs: Blobs, fetch: Fetch) -> str:
    """The engine's id of an image, which is there then.

    The config is among `blobs`; `fetch` brings those layers there that have to be sent. Raises
    `EngineUnavailable`, and `RegistryCorrupt` for an image whose config or layers are not what its
    manifest says.
    """
    image = manifest.config.digest
    if not has(client, image):
        diff_ids = OciImage(manifest, blobs.read(image)).diff_ids
        known = _known(client, diff_ids)
        fetch(manifest.layers[known:])
        with asking("load an image"):
            for answer in client.load_image(_archive(manifest, diff_ids, blobs, known)):
                if "error" in answer:
                    raise EngineUnavailable("Docker could not load an image", why=answer["error"])
    return image


def has(client: APIClient, image: str) -> bool:
    """Whether the engine has an image of that id or name."""
    from docker.errors import ImageNotFound

    with asking("look for an image"):
        try:
            client.inspect_image(image)
        except ImageNotFound:
            return False
    return True


def _known(client: APIClient, diff_ids: Sequence[str]) -> int:
    """How many of an image's layers, from the first on, the engine holds: as many as some image of
    its own begins with.
    """
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


def _archive(
    manifest: Manifest, diff_ids: Sequence[Digest], blobs: Blobs, known: int
) -> Iterator[bytes]:
    config = manifest.config.digest
    names = [f"{at:03}-{layer.digest.hex}.tar" for at, layer in enumerate(manifest.layers)]
    yield from _member(f"{config.hex}.json", blobs.read(config))
    for name, layer, diff_id in zip(
        names[known:], manifest.layers[known:], diff_ids[known:], strict=True
    ):
        if layer.media_type == MEDIA_TYPES["zstd"]:  # Docker takes it from version 23 on.
            yield from _decompressed(name, layer, diff_id, blobs)
            continue
        yield tar.header(tar.Member(name.encode(), layer.size))
        with blobs.open(layer.digest) as stream:
            yield from pieces(stream)
        yield tar.padding(layer.size)
    yield from _member(
        "manifest.json",
        json.dumps([{"Config": f"{config.hex}.json", "RepoTags": None, "Layers": names}]).encode(),
    )
    yield tar.END


def _member(name: str, data: bytes) -> Iterator[bytes]:
    yield tar.header(tar.Member(name.encode(), len(data))) + data + tar.padding(len(data))


def _decompressed(name: str, layer: Descriptor, diff_id: Digest, blobs: Blobs) -> Iterator[bytes]:
    """A member's size stands before its bytes, so they are written to a file first; and checked, so
    that the engine need not be.
    """
    import tempfile

    import zstandard

    with tempfile.TemporaryFile() as plain:
        diff, size = hashlib.sha256(), 0
        try:
            with blobs.open(layer.digest) as stream:
                reader = zstandard.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(
                    stream, read_across_frames=True
                )
                for piece in pieces(cast(IO[bytes], reader)):
                    diff.update(piece)
                    size += len(piece)
                    if size > max(_BOMB[0] * layer.size, _BOMB[1]):
                        raise _refused(
                            layer,
                            f"It would come to more than {size:,} bytes, which no honest layer of"
                            f" {layer.size:,} does.",
                        )
                    plain.write(piece)
        except zstandard.ZstdError as error:
            raise _refused(layer, f"It cannot be decompressed: {error}.") from None
        if Digest.from_hash(diff) != diff_id:
            raise _refused(
                layer,
                f"What is in it has the digest {Digest.from_hash(diff)}, and its image says"
                f" {diff_id}.",
            )
        plain.seek(0)
        yield tar.header(tar.Member(name.encode(), size))
        yield from pieces(plain)
        yield tar.padding(size)


def _refused(layer: Descriptor, why: str) -> RegistryCorrupt:
    return RegistryCorrupt(
        f"The layer {layer.digest} is refused",
        why=why,
        hint="Build the image again: flyte build --force",
    )


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """All bytes of a stream, some at a time."""
    while piece := stream.read(_CHUNK):
        yield piece
