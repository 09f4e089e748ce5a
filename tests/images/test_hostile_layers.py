"""Layers and documents with false claims are refused before use, whoever sent them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
import zstandard
from docker import APIClient

from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import MEDIA_TYPES
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import RegistryCorrupt
from flyte_build.images.docker.load import load
from flyte_build.images.lock.indexes import Indexes
from flyte_build.images.oci_image import CONFIG
from tests.support.bases import blobs_of
from tests.support.files import write_files
from tests.support.listening import Answer, Exchange, Listener

pytestmark = pytest.mark.quick


class Engine(Listener):
    """The part of an engine's API that loading needs; it has no image, and keeps what it gets."""

    loaded = b""

    def respond(self, exchange: Exchange) -> Answer:
        if exchange.path.endswith("/images/load"):
            self.loaded = b"".join(exchange.body)
            return Answer(200, [("Content-Type", "application/json")], [b'{"stream": "loaded"}'])
        exchange.drain()
        if "/images/json" in exchange.path:
            return Answer.of(200, [("Content-Type", "application/json")], b"[]")
        return Answer.of(
            404, [("Content-Type", "application/json")], b'{"message": "No such image"}'
        )


PLAIN = tarfile.TarInfo("x").tobuf() + bytes(1024)
WIDE = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=False)


def wide() -> bytes:
    """Return a frame that requests a window of 256 MiB."""
    return _stream(WIDE, PLAIN)


def _stream(parameters: zstandard.ZstdCompressionParameters, data: bytes) -> bytes:
    writer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return writer.compress(data) + writer.flush()


def bomb() -> bytes:
    """Return a few bytes that inflate to more than a GiB."""
    writer = zstandard.ZstdCompressor().compressobj()
    block = bytes(1 << 24)
    return b"".join([*(writer.compress(block) for _ in range(70)), writer.flush()])


GOOD = zstandard.compress(PLAIN)
LAYERS = {
    "a window that is too large": (wide, "cannot be decompressed"),
    "no zstd at all": (lambda: b"\x28\xb5\x2f\xfd" + b"junk" * 20, "cannot be decompressed"),
    "a frame that is cut": (lambda: GOOD[:-5], "has the digest"),
    "other content": (lambda: zstandard.compress(b"evil" * 300), "has the digest"),
    "more behind it": (lambda: GOOD + zstandard.compress(b"evil"), "has the digest"),
    "a bomb": (bomb, "but has only"),
}


def image_of(folder: Path, layer: bytes, config: bytes | None = None) -> tuple[object, Manifest]:
    """Return a store with an image of one layer, and its manifest."""
    blobs = blobs_of(folder)
    document = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(PLAIN)]},
    }
    data = json.dumps(document).encode() if config is None else config
    for blob in (data, layer):
        blobs.put(blob)
    return blobs, Manifest.of_layers(
        Descriptor(CONFIG, Digest.of(data), len(data)),
        [Descriptor(MEDIA_TYPES["zstd"], Digest.of(layer), len(layer))],
    )


def given(folder: Path, layer: bytes, config: bytes | None = None) -> bytes:
    """Load an image of this layer, and return the bytes that the engine gets."""
    blobs, manifest = image_of(folder, layer, config)
    with Engine() as engine:
        load(APIClient(engine.url, version="1.40"), manifest, blobs, lambda layers: None)  # type: ignore[arg-type]  # A store.
        loaded: bytes = engine.loaded
        return loaded


def test_an_engine_gets_what_is_in_a_layer(tmp_path: Path) -> None:
    """An engine gets decompressed layers; windows as large as those of zstd's tools are fine."""
    for number, layer in enumerate(
        (
            GOOD,
            _stream(zstandard.ZstdCompressionParameters(window_log=27), PLAIN),
            GOOD + zstandard.compress(b""),
        )
    ):
        with tarfile.open(fileobj=io.BytesIO(given(tmp_path / str(number), layer))) as archive:
            (name,) = json.load(archive.extractfile("manifest.json") or io.BytesIO())[0]["Layers"]
            assert (archive.extractfile(name) or io.BytesIO()).read() == PLAIN


@pytest.mark.parametrize("what", LAYERS)
def test_a_layer_that_is_not_what_its_image_says_is_refused(tmp_path: Path, what: str) -> None:
    """A layer other than its image claims is refused by name, with the reason.

    The engine never gets all of it.
    """
    make, why = LAYERS[what]
    layer = make()
    with pytest.raises(RegistryCorrupt) as error:
        given(tmp_path, layer)
    assert error.value.what == f"Cannot use the layer {Digest.of(layer)}" and why in error.value.why


@pytest.mark.parametrize(
    "config",
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        b"\xff",
        b'{"rootfs": []}',
        b'{"rootfs": {"diff_ids": 5}}',
        b'{"rootfs": {"diff_ids": [5]}}',
        b"[" * 9999,
    ],
)
def test_a_config_of_another_form_is_refused(tmp_path: Path, config: bytes) -> None:
    """A malformed config is refused before the engine gets anything."""
    with pytest.raises(RegistryCorrupt):
        given(tmp_path, GOOD, config)


@pytest.mark.parametrize(
    "text",
    [
        "index = 5",
        "index = [5]",
        "index = [{url = 5}]",
        'index = [{url = "http://["}]',
        'extra-index-url = ["http://[::1"]',
        "pip = 5",
        "pip = {extra-index-url = 5}",
        "no toml",
        "a = " + "[" * 3000,
    ],
)
def test_uv_configuration_of_another_form_is_left_to_uv(tmp_path: Path, text: str) -> None:
    """Malformed configuration of uv is ignored here, where only credentials are read from it."""
    write_files(tmp_path, {"uv.toml": text.encode(), "sub/pyproject.toml": b"[tool]\nuv = 5\n"})
    indexes = Indexes.configured(
        str(tmp_path / "sub"), {"XDG_CONFIG_DIRS": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    )
    assert indexes.of("https://pypi.example.com/simple") is None
