"""Loading of images into the local Docker Engine; only layers that it lacks are sent.

The stream has the format of `docker load` (github.com/moby/moby, image/spec/spec.md: an archive
with a manifest.json). It may omit layers that the engine already holds on top of the same lower
layers.
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
"""Fetches layers into the local store."""
_CHUNK = 1 << 20
# Largest zstd window (bytes) of a layer: the limit of the zstd program without options.
_WINDOW = 128 << 20
# A layer is refused if it decompresses to more than this many times its size and this many bytes.
_BOMB = (1000, 1 << 30)


def load(client: APIClient, manifest: Manifest, blobs: Blobs, fetch: Fetch) -> str:
    """Load an image unless the engine has it, and return its id.

    The config is in `blobs`; `fetch` fetches the layers to send into it. Raises
    `EngineUnavailable`, and `RegistryCorrupt` if the config or a layer contradicts the manifest.
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
    """Return the number of leading layers that one of the engine's images has, too."""
    from docker.errors import ImageNotFound

    longest = 0
    with asking("list its images"):
        for each in client.images(all=True):
            try:
                layers = client.inspect_image(each["Id"])["RootFS"].get("Layers") or []
            except ImageNotFound:  # It was removed meanwhile.
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
        if layer.media_type == MEDIA_TYPES["zstd"]:  # Supported only since Docker 23.
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
    """Yield a layer as an uncompressed member of the archive.

    The size comes before the content, so the layer is decompressed to a file first. It is checked
    there, so that the engine receives only verified content.
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
                            f"It would decompress to more than {size:,} bytes, but has only"
                            f" {layer.size:,}.",
                        )
                    plain.write(piece)
        except zstandard.ZstdError as error:
            raise _refused(layer, f"It cannot be decompressed: {error}.") from None
        if Digest.from_hash(diff) != diff_id:
            raise _refused(
                layer,
                f"Its content has the digest {Digest.from_hash(diff)}, but its image declares"
                f" {diff_id}.",
            )
        plain.seek(0)
        yield tar.header(tar.Member(name.encode(), size))
        yield from pieces(plain)
        yield tar.padding(size)


def _refused(layer: Descriptor, why: str) -> RegistryCorrupt:
    return RegistryCorrupt(
        f"Cannot use the layer {layer.digest}",
        why=why,
        hint="Build the image again with `flyte build --force`.",
    )


def pieces(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield all bytes of a stream, in pieces."""
    while piece := stream.read(_CHUNK):
        yield piece
