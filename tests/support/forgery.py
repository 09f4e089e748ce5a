"""Bad copies of a good bundle, in a repository whose digests all fit.

They are what a lying or broken writer can leave behind.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from flyte_build.bundler import bundle
from flyte_build.bundler.tree import Tree
from flyte_build.cas import tar
from flyte_build.cas.registry.published_record import CREATED, INPUTS, KEY, KIND, PROJECT
from tests.support.layouts import Layout

ESCAPES = "\x1b]0;evil\x07\x1b[31mevil\x1b[0m\r\n"
HUGE = 64 << 20


class Forger:
    """A directory with one bundle and its record, copied from a good one, to replace parts in."""

    def __init__(self, good: Path, folder: Path) -> None:
        shutil.copytree(good, folder)
        self.layout = Layout(folder)
        (self.tag,) = [tag for tag in self.layout.entries() if tag.startswith("record.")]
        self.record = json.loads(self._blob(self.layout.entries()[self.tag]["digest"]))
        self.manifest = json.loads(self._blob(self.record["manifests"][0]["digest"]))
        self.config = json.loads(self._blob(self.manifest["config"]["digest"]))
        self.packs = [
            zstandard.ZstdDecompressor().decompressobj().decompress(self._blob(each["digest"]))
            for each in self.manifest["layers"]
        ]

    def _blob(self, digest: str) -> bytes:
        return self.layout.blob(digest).read_bytes()

    def put(self, data: bytes) -> dict[str, Any]:
        """Store a blob, and return its digest and size."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.layout.blob(digest).write_bytes(data)
        return {"digest": digest, "size": len(data)}

    def set_layer(self, at: int, plain: bytes, blob: bytes | None = None) -> None:
        """Set a layer to this archive with its diff_id, compressed as `blob` or as usual."""
        blob = zstandard.ZstdCompressor(level=1).compress(plain) if blob is None else blob
        self.manifest["layers"][at] |= self.put(blob)
        self.config["rootfs"]["diff_ids"][at] = "sha256:" + hashlib.sha256(plain).hexdigest()

    def recut(self) -> None:
        """Cut the last pack into packs of one member each, the last one first."""
        members: list[bytes] = []
        pack = self.packs[-1][: -len(tar.END)]
        while pack:
            rest = _without_first(pack)
            members.insert(0, pack[: len(pack) - len(rest)])
            pack = rest
        layer = self.manifest["layers"][-1]
        del self.manifest["layers"][1:], self.config["rootfs"]["diff_ids"][1:]
        for number, member in enumerate(members, 1):
            self.manifest["layers"].append(dict(layer))
            self.config["rootfs"]["diff_ids"].append("")
            self.set_layer(number, member + tar.END)

    def publish(
        self,
        config: bytes | None = None,
        manifest: bytes | None = None,
        record: bytes | None = None,
    ) -> None:
        """Write all documents, or the given bytes instead, each with the digest of the next one."""
        self.manifest["config"] |= (
            self.put(_json(self.config) if config is None else config)
            if "config" in self.manifest
            else {}
        )
        self.record["manifests"][0] |= self.put(
            _json(self.manifest) if manifest is None else manifest
        )
        entries = self.layout.entries()
        entries[self.tag] |= self.put(_json(self.record) if record is None else record)
        self.layout.write(entries)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


Forge = Callable[[Forger], None]


def packs() -> Iterator[tuple[str, Forge]]:
    """Yield packs and first layers that contradict their tree, by the kind of mistake.

    The last layer is a pack.
    """
    from tests.bundler.test_extraction import EVIL, HEADERS

    def last(change: Callable[[bytes], bytes]) -> Forge:
        def forge(forger: Forger) -> None:
            forger.set_layer(-1, change(forger.packs[-1]))
            forger.publish()

        return forge

    def compressed(change: Callable[[bytes], bytes]) -> Forge:
        def forge(forger: Forger) -> None:
            forger.set_layer(-1, forger.packs[-1], change(forger.packs[-1]))
            forger.publish()

        return forge

    def header(at: int, new: bytes) -> Forge:
        def change(pack: bytes) -> bytes:
            head = bytearray(pack[:512])
            head[at : at + len(new)] = new
            head[148:156] = b" " * 8
            head[148:156] = b"%06o\0 " % sum(head)
            return bytes(head) + pack[512:]

        return last(change)

    for name, (at, new) in HEADERS.items():
        yield f"header: {name}", header(at, new)
    for name, evil in EVIL.items():
        yield f"first: {name}", last(lambda pack, evil=evil: evil + pack)  # type: ignore[misc]  # No lambda with a default is inferred.
    for size in (0, 1, 100, 512, 600, 1024, 1500):
        yield f"cut off to {size}", last(lambda pack, size=size: pack[:size])  # type: ignore[misc]
    yield "no end", last(lambda pack: pack[: -len(tar.END)])
    yield "trailing", last(lambda pack: pack + b"x")
    yield "twice", last(lambda pack: pack[: -len(tar.END)] + pack)
    yield "other bytes of a file", last(lambda pack: pack.replace(b"Hello", b"Howdy"))
    yield "a file left out", last(_without_first)
    yield "only an end", last(lambda pack: tar.END)
    yield "no mode to execute", last(lambda pack: _moded(pack, b"0000755", b"0000644"))
    yield "a mode to execute", last(lambda pack: _moded(pack, b"0000644", b"0000755"))
    zstd = zstandard.ZstdCompressor(level=1)
    yield "not compressed", compressed(lambda pack: pack)
    yield "gzip", compressed(gzip.compress)
    yield "cut off compression", compressed(lambda pack: zstd.compress(pack)[:-20])
    yield "bytes after the compression", compressed(lambda pack: zstd.compress(pack) + b"evil")
    yield "a second frame", compressed(lambda pack: zstd.compress(pack) + zstd.compress(pack))
    yield "empty blob", compressed(lambda pack: b"")
    yield "a large window", compressed(_wide)
    yield "a bomb", compressed(lambda pack: zstd.compress(pack + bytes(HUGE)))

    def twist(name: str, forge: Forge) -> tuple[str, Forge]:
        def forged(forger: Forger) -> None:
            forge(forger)
            forger.publish()

        return name, forged

    yield twist(
        "a wrong diff_id",
        lambda forger: forger.config["rootfs"]["diff_ids"].__setitem__(-1, "sha256:" + "a" * 64),
    )
    yield twist("diff_ids exchanged", lambda forger: forger.config["rootfs"]["diff_ids"].reverse())
    yield twist("a pack less", _shorten)
    yield twist("a pack twice", _double)
    yield twist("a wrong size", lambda forger: forger.manifest["layers"][-1].update(size=7))
    yield twist("40 GB", lambda forger: forger.manifest["layers"][-1].update(size=40 << 30))
    yield twist(
        "a blob that is not there",
        lambda forger: forger.manifest["layers"][-1].update(digest="sha256:" + "b" * 64),
    )
    yield twist(
        "bytes under another name",
        lambda forger: _swap(forger, forger.manifest["layers"][-1]["digest"]),
    )
    yield twist("no tree", lambda forger: forger.set_layer(0, tar.END))
    yield twist("another tree", lambda forger: forger.set_layer(0, _document(Tree([]).document)))
    yield twist(
        "a tree that is none", lambda forger: forger.set_layer(0, _document(b"flyte-tree 9\n"))
    )
    yield twist(
        "a tree and more",
        lambda forger: forger.set_layer(0, forger.packs[0][:-1024] + forger.packs[1]),
    )
    yield twist("an empty bundle", _empty)


def _without_first(pack: bytes) -> bytes:
    return pack[512 + (size := int(pack[124:135], 8)) + -size % 512 :]


def _moded(pack: bytes, old: bytes, new: bytes) -> bytes:
    at = pack.index(old, 100)
    start = at - 100
    head = bytearray(pack[start : start + 512])
    head[100:107] = new
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return pack[:start] + bytes(head) + pack[start + 512 :]


def _wide(pack: bytes) -> bytes:
    compress = zstandard.ZstdCompressor(
        compression_params=zstandard.ZstdCompressionParameters(window_log=27)
    ).compressobj()
    return compress.compress(pack) + compress.flush()


def _shorten(forger: Forger) -> None:
    del forger.manifest["layers"][-1], forger.config["rootfs"]["diff_ids"][-1]


def _double(forger: Forger) -> None:
    forger.manifest["layers"].append(dict(forger.manifest["layers"][-1]))
    forger.config["rootfs"]["diff_ids"].append(forger.config["rootfs"]["diff_ids"][-1])


def _swap(forger: Forger, digest: str) -> None:
    forger.layout.blob(digest).chmod(0o644)
    forger.layout.blob(digest).write_bytes(os.urandom(100))


def _document(document: bytes) -> bytes:
    return (
        tar.header(tar.Member(bundle.TREE, len(document)))
        + document
        + tar.padding(len(document))
        + tar.END
    )


def _empty(forger: Forger) -> None:
    """Forge the bundle of no files, with the annotation of the original tree."""
    forger.set_layer(0, _document(Tree([]).document))
    del forger.manifest["layers"][1:], forger.config["rootfs"]["diff_ids"][1:]


_VALUES: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a list": ["x"],
    "an object": {"x": "y"},
    "no text": "",
    "escapes": ESCAPES,
    "a malformed digest": "sha256:../../evil",
    "another algorithm": "md5:" + "a" * 32,
    "an upper-case digest": "sha256:" + "A" * 64,
    "another digest": "sha256:" + "c" * 64,
}
_PATHS: dict[str, list[tuple[Any, ...]]] = {
    "record": [
        ("mediaType",),
        ("artifactType",),
        ("manifests",),
        ("annotations",),
        ("manifests", 0, "digest"),
        ("manifests", 0, "mediaType"),
        *(("annotations", name) for name in (KEY, KIND, PROJECT, INPUTS, CREATED)),
    ],
    "manifest": [
        ("mediaType",),
        ("layers",),
        ("config",),
        ("annotations",),
        ("annotations", bundle.ANNOTATION),
        ("config", "mediaType"),
        ("config", "digest"),
        ("layers", -1, "digest"),
        ("layers", -1, "size"),
        ("layers", -1, "mediaType"),
    ],
    "config": [
        ("rootfs",),
        ("rootfs", "diff_ids"),
        ("rootfs", "diff_ids", 0),
        ("config",),
        ("architecture",),
    ],
}
_RAW: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"\x1b[31mnot JSON",
    "not UTF-8": b'{"a": "\xff"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "deep": b"[" * 100_000,
    "a huge number": b'{"schemaVersion": 1' + b"0" * 5000 + b"}",
    "huge": b" " * (5 << 20) + b"{}",
    "a list": b"[]",
    "a name twice": (
        b'{"mediaType": "application/vnd.oci.image.manifest.v1+json", "mediaType": "x"}'
    ),
    "NaN": b'{"schemaVersion": NaN}',
}


def documents() -> Iterator[tuple[str, Forge]]:
    """Yield malformed or false records, manifests and configs, by the kind of mistake."""

    def with_value(which: str, path: tuple[Any, ...], value: Any, is_gone: bool) -> Forge:
        def forge(forger: Forger) -> None:
            if which == "config":
                _set(forger.config, path, value, is_gone)
                forger.publish()
                return
            forger.publish()
            _set(getattr(forger, which), path, value, is_gone)
            if which == "manifest":
                forger.record["manifests"][0] |= forger.put(_json(forger.manifest))
            entries = forger.layout.entries()
            entries[forger.tag] |= forger.put(_json(forger.record))
            forger.layout.write(entries)

        return forge

    def with_bytes(which: str, data: bytes) -> Forge:
        return lambda forger: forger.publish(**{which: data})

    for which, paths in _PATHS.items():
        for number, path in enumerate(paths):
            name = f"{which}: {'.'.join(map(str, path))}"
            yield f"{name} is gone", with_value(which, path, None, True)
            # Each place meets some of the values, and each value meets some of the places.
            for shift in range(3):
                what = list(_VALUES)[(number * 3 + shift) % len(_VALUES)]
                yield f"{name} is {what}", with_value(which, path, _VALUES[what], False)
        for what, data in _RAW.items():
            yield f"{which}: {what}", with_bytes(which, data)
    for name in (KIND, PROJECT, INPUTS, CREATED):
        yield (
            f"record: {name} with escapes",
            with_value("record", ("annotations", name), ESCAPES, False),
        )
    yield "record: another kind", with_value("record", ("annotations", KIND), "environment", False)
    yield (
        "record: other inputs",
        with_value("record", ("annotations", INPUTS), '{"tree": "sha256:' + "d" * 64 + '"}', False),
    )
    yield (
        "record: inputs with NaN",
        with_value("record", ("annotations", INPUTS), '{"tree": NaN}', False),
    )
    yield (
        "record: of the year 9999",
        with_value("record", ("annotations", CREATED), "9999-12-31T23:59:59+00:00", False),
    )


def _set(document: Any, path: tuple[Any, ...], value: Any, is_gone: bool) -> None:
    for step in path[:-1]:
        document = document[step]
    if is_gone:
        del document[path[-1]]
    else:
        document[path[-1]] = value
