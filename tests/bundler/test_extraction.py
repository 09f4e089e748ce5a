"""Extraction trusts nothing.

Hostile bundles, built by hand, are refused and leave nothing behind, and edits of an extraction are
detected.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from flyte_build.bundler import bundle, extraction, marker, packs
from flyte_build.bundler.budget import Budget
from flyte_build.bundler.tree import Entry, Tree
from flyte_build.cas import tar
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import Layer
from flyte_build.errors import BlobCorrupt, BlobMissing, ExtractionRefused, StoreError
from tests.support.caches import layer, make_bundle, record_bundle
from tests.support.files import (
    Executable,
    Files,
    Link,
    archive,
    as_root,
    clock_moves,
    entries_of,
    flip,
    member,
    overwrite,
    read_files,
    write_files,
)
from tests.support.processes import run

FILES: dict[str | bytes, bytes] = {
    "a.py": b"a = 1\n",
    "d/b.py": b"b" * 700,
    "tool": Executable(b"#!\n"),
    "link": Link(b"d/b.py"),
}
CODE = packs.CODE.decode()


def plain(cache: Cache, tree: Tree, *tars: bytes) -> bundle.Bundle:
    """Return a bundle of `tree` whose packs are these bytes."""
    with cache.blobs.batch() as batch:
        return bundle.write(tree, [layer(cache, data) for data in tars], batch)


def with_document(
    cache: Cache, document: bytes, *tars: bytes, claimed: Digest | None = None
) -> bundle.Bundle:
    """Return a bundle whose first layer is exactly `document` (a tar)."""
    layers = [layer(cache, data) for data in (document, *tars)]
    with cache.blobs.batch() as batch:
        made = bundle.write(Tree([]), layers, batch)
    manifest = json.loads(cache.blobs.read(made.manifest))
    config = json.loads(cache.blobs.read(made.config))
    del manifest["layers"][0], config["rootfs"]["diff_ids"][0]
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": cache.blobs.put(data), "size": len(data)}
    manifest["annotations"] = {bundle.ANNOTATION: claimed or Digest.of(document[512:])}
    return bundle.read(cache.blobs.put(json.dumps(manifest).encode()), cache.blobs)


def document_tar(document: bytes) -> bytes:
    """Return the tar of a first layer that holds this document."""
    return (
        tar.header(tar.Member(bundle.TREE, len(document)))
        + document
        + tar.padding(len(document))
        + tar.END
    )


def refused(cache: Cache, made: bundle.Bundle, *errors: type[Exception]) -> Exception:
    """Check that extraction raises one of these errors and leaves nothing behind.

    Default: `ExtractionRefused`.
    """
    outside = sorted(os.listdir(os.path.dirname(cache.root)))
    with pytest.raises(errors or ExtractionRefused) as raised:
        extraction.extract(cache, made)
    assert os.listdir(cache.extractions) == [] and marker.find(cache, made.tree) is None
    assert sorted(os.listdir(os.path.dirname(cache.root))) == outside
    return raised.value


def block(name: str | bytes, data: bytes = b"", **fields: Any) -> bytes:
    """Return a member as any tar program may write it, without the end of the archive."""
    info = tarfile.TarInfo(os.fsdecode(name))
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return (
        info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape") + data + tar.padding(len(data))
    )


def patched(name: str, at: int, new: bytes, data: bytes = b"") -> bytes:
    """Return a member with these bytes in its header, and a correct checksum."""
    head = bytearray(tar.header(tar.Member(packs.CODE + name.encode(), len(data))))
    head[at : at + len(new)] = new
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data + tar.padding(len(data))


def test_an_honest_bundle_is_extracted(cache: Cache) -> None:
    """The honest bundle, from which the hostile ones below differ, is extracted."""
    made = plain(cache, Tree(entries_of(FILES)), archive(FILES))
    place = extraction.extract(cache, made)
    assert read_files(f"{place}/code") == {
        os.fsencode(name): content for name, content in FILES.items()
    }
    assert sorted(os.listdir(place)) == ["bytecode", "code", "complete"]
    assert bundle.read(made.manifest, cache.blobs) == made


HONEST = archive(FILES)[: -len(tar.END)]
EVIL: dict[str, bytes] = {
    "up": block(CODE + "../evil", b"x"),
    "far up": block(CODE + "../../../../evil", b"x"),
    "absolute": block("/tmp/evil", b"x"),
    "outside of the code": block("opt/flyte/evil", b"x"),
    "prefix sibling": block("opt/flyte/code-evil/a.py", b"x"),
    "unknown name": block(CODE + "c.py", b"x"),
    "dot": block(CODE + "./a.py", FILES["a.py"]),
    "double slash": block(CODE + "/a.py", FILES["a.py"]),
    "nul in a name": patched("a.py", len(CODE) + 4, b"\0evil", FILES["a.py"]),
    "nul in a long name": (
        tar.header(tar.Member(b"n" * 101, 0))[:512]
        + (CODE + "a.py").encode().ljust(101, b"\0")
        + b"\0" * 411
        + member((b"a.py", b""))
    ),
    "duplicate": member((b"a.py", FILES["a.py"])),
    "duplicate link": member((b"link", FILES["link"])),
    "folder": block(CODE + "d", type=tarfile.DIRTYPE, mode=0o755),
    "hard link": block(CODE + "a.py", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "hard link inside": block(CODE + "c.py", type=tarfile.LNKTYPE, linkname=CODE + "a.py"),
    "link out": block(CODE + "c", type=tarfile.SYMTYPE, linkname="../../../.."),
    "character device": block(CODE + "a.py", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
    "block device": block(CODE + "a.py", type=tarfile.BLKTYPE, devmajor=8),
    "fifo": block(CODE + "a.py", type=tarfile.FIFOTYPE),
    "contiguous": block(CODE + "a.py", FILES["a.py"], type=tarfile.CONTTYPE),
    "unknown type": block(CODE + "a.py", FILES["a.py"], type=b"Z"),
    "old type": block(CODE + "a.py", FILES["a.py"], type=b"\0"),
    "sparse": block(CODE + "a.py", FILES["a.py"], type=tarfile.GNUTYPE_SPARSE),
    "pax header": block("PaxHeaders/a", b"20 path=/etc/passwd\n", type=tarfile.XHDTYPE),
    "pax global header": block("pax", b"12 size=999\n", type=tarfile.XGLTYPE),
    "two long names": tar.header(tar.Member(b"n" * 101, 0))[:-512] * 2,
    "long name at the end": tar.header(tar.Member(b"n" * 101, 0))[:-512],
    "endless long name": block("././@LongLink", b"n" * 5000, type=b"L"),
    "end": b"\0" * 512 + b"x" * 512,
    "garbage": os.urandom(512),
    "bytes after a member": b"x" * 5,
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL)
@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
def test_a_member_that_is_not_in_the_tree_is_refused(
    cache: Cache, evil: bytes, first: bool
) -> None:
    """A member that is not in the tree is refused, whatever its kind and its place in the pack."""
    refused(
        cache,
        plain(
            cache, Tree(entries_of(FILES)), (evil + HONEST if first else HONEST + evil) + tar.END
        ),
    )


INSTEAD: dict[str, Files | bytes] = {
    "missing": {name: FILES[name] for name in FILES if name != "a.py"},
    "missing link": {name: FILES[name] for name in FILES if name != "link"},
    "nothing": {},
    "other bytes": {**FILES, "a.py": b"a = 2\n"},
    "longer": {**FILES, "a.py": b"a = 1\n\n"},
    "shorter": {**FILES, "a.py": b"a = 1"},
    "executable": {**FILES, "a.py": Executable(FILES["a.py"])},
    "not executable": {**FILES, "tool": bytes(FILES["tool"])},
    "link for a file": {**FILES, "a.py": Link(b"d/b.py")},
    "file for a link": {**FILES, "link": b"d/b.py"},
    "other target": {**FILES, "link": Link(b"a.py")},
    "target out": {**FILES, "link": Link(b"../../../../../../etc/passwd")},
    "other name": {
        "A.py": FILES["a.py"],
        **{name: FILES[name] for name in FILES if name != "a.py"},
    },
    "empty": b"",
    "no end": HONEST,
    "half an end": HONEST + b"\0" * 512,
    "trailing zeros": HONEST + tar.END + b"\0" * 512,
    "trailing byte": HONEST + tar.END + b"x",
    "second archive": HONEST + tar.END + HONEST + tar.END,
    "cut off": HONEST[:-700],
    "no archive": b"not a tar at all" * 100,
}


@pytest.mark.parametrize("pack", INSTEAD.values(), ids=INSTEAD)
def test_a_pack_that_disagrees_with_the_tree_is_refused(cache: Cache, pack: Files | bytes) -> None:
    """A pack must hold every path once, with its kind, mode, size and bytes, and end there."""
    refused(
        cache,
        plain(cache, Tree(entries_of(FILES)), pack if isinstance(pack, bytes) else archive(pack)),
    )


HEADERS = {
    "setuid": (100, b"0004755"),
    "sticky": (100, b"0001644"),
    "group writable": (100, b"0000664"),
    "owner": (108, b"0001750"),
    "group": (116, b"0001750"),
    "time": (136, b"00000000001"),
    "user name": (265, b"root"),
    "group name": (297, b"root"),
    "device": (329, b"0000001"),
    "link name": (157, b"/etc/passwd"),
    "ustar": (257, b"ustar\x0000"),
    "no magic": (257, b"\0" * 8),
    "prefix": (345, b"../../evil"),
    "access time": (345, b"00000000001"),
    "size in spaces": (124, b"          6 "),
    "size in base 256": (124, b"\x80" + (6).to_bytes(11, "big")),
    "size without a digit": (124, b"zzzzzzzzzzz"),
    "negative size": (124, b"-0000000001"),
    "very negative size": (124, b"-0000001001"),
    "negative size in base 256": (124, b"\xff" * 12),
    "huge size": (124, b"\x80" + b"\x7f" * 11),
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_is_not_written_our_way_is_refused(
    cache: Cache, header: tuple[int, bytes]
) -> None:
    """A header is refused unless it is in our form: no modes, owners, times, extensions."""
    files = {"a.py": FILES["a.py"]}
    refused(
        cache,
        plain(
            cache, Tree(entries_of(files)), patched("a.py", *header, data=FILES["a.py"]) + tar.END
        ),
    )


@pytest.mark.parametrize("header", ["negative size", "very negative size", "huge size"])
def test_a_document_of_no_possible_size_is_refused(cache: Cache, header: str) -> None:
    """A first layer whose header gives an impossible size is refused without an unbounded read."""
    head = bytearray(tar.header(tar.Member(bundle.TREE, 0)))
    at, new = HEADERS[header]
    head[at : at + len(new)] = new
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    refused(
        cache, with_document(cache, bytes(head) + b"flyte-tree 1\n".ljust(512, b"\0") + tar.END)
    )


@pytest.mark.parametrize("name", [b"a.py", b"n" * 101])
@pytest.mark.parametrize("kind", ["L", "K"])
def test_a_long_name_that_is_not_needed_is_refused(cache: Cache, kind: str, name: bytes) -> None:
    """A long-name record that is not needed is refused, since other readers could misread it."""
    text = packs.CODE + b"a.py" if kind == "L" else b"/etc/passwd"
    long = block("././@LongLink", text + b"\0", type=kind.encode(), mode=0, uid=0, gid=0)
    refused(
        cache, plain(cache, Tree(entries_of({name: b"x"})), long + member((name, b"x")) + tar.END)
    )


DOCUMENT = Tree(entries_of(FILES)).document
HASH = "a" * 64
DOCUMENTS: dict[str, bytes] = {
    "no magic": DOCUMENT[13:],
    "other version": DOCUMENT.replace(b"tree 1", b"tree 2", 1),
    "empty": b"",
    "cut off": DOCUMENT[:-1],
    "trailing byte": DOCUMENT + b"\n",
    "unsorted": b"flyte-tree 1\nf1:b1:" + HASH.encode() + b"\nf1:a1:" + HASH.encode() + b"\n",
    "twice": b"flyte-tree 1\n" + (b"f1:a1:" + HASH.encode() + b"\n") * 2,
    "twice, with other kinds": (
        b"flyte-tree 1\nf1:a1:" + HASH.encode() + b"\nx1:a1:" + HASH.encode() + b"\n"
    ),
    "size with a plus": b"flyte-tree 1\nf1:a+1:" + HASH.encode() + b"\n",
    "size with zeros": b"flyte-tree 1\nf1:a01:" + HASH.encode() + b"\n",
    "negative size": b"flyte-tree 1\nf1:a-1:" + HASH.encode() + b"\n",
    "huge length": b"flyte-tree 1\nf99999999999:a1:" + HASH.encode() + b"\n",
    "negative length": b"flyte-tree 1\nf-1:a1:" + HASH.encode() + b"\n",
    "very long number": b"flyte-tree 1\nf1:a" + b"9" * 5000 + b":" + HASH.encode() + b"\n",
    "upper-case digest": b"flyte-tree 1\nf1:a1:" + HASH.upper().encode() + b"\n",
    "no digest": b"flyte-tree 1\nf1:a1:" + b"z" * 64 + b"\n",
    "unknown kind": b"flyte-tree 1\nd1:a1:" + HASH.encode() + b"\n",
    "kind of two bytes": b"flyte-tree 1\n\xc3\xa91:a1:" + HASH.encode() + b"\n",
}
PATHS = {
    **{
        repr(path): [Entry(path, "f", 1, HASH.encode())]
        for path in (
            b"../a",
            b"/a",
            b"a/../b",
            b"a//b",
            b"a/",
            b"./a",
            b"a/.",
            b".",
            b"..",
            b"a\0b",
        )
    },
    "folder and file": [Entry(b"a", "f", 1, HASH.encode()), Entry(b"a/b", "f", 1, HASH.encode())],
    "folder and file, not adjacent": [
        Entry(path, "f", 1, HASH.encode()) for path in (b"a", b"a.py", b"a/b")
    ],
    "folder and link": [
        Entry(b"a", "l", 4, b"/tmp"[1:] + b"x"),
        Entry(b"a/b", "f", 1, HASH.encode()),
    ],
    **{
        "link to " + repr(target): [Entry(b"d/a", "l", len(target), target)]
        for target in (
            b"/etc/passwd",
            b"../..",
            b"../../evil",
            b"x/../../../y",
            b"a\0b",
            b"//etc",
            b"./../../x",
        )
    },
    # Chains: each link looks harmless as text, since `..` after a link does not undo the name
    # before it (CVE-2025-4517 and others).
    "link through a link": [
        Entry(b"out", "l", 14, b"x/y/up/../evil"),
        Entry(b"x/y/up", "l", 5, b"../.."),
    ],
    "link through two links": [
        Entry(b"a/b/c/up", "l", 8, b"../../.."),
        Entry(b"out", "l", 20, b"a/b/c/up/../../../to"),
        Entry(b"via", "l", 3, b"out"),
    ],
    "huge sizes": [Entry(b"%d" % n, "f", 10**18, HASH.encode()) for n in range(9)],
}


@pytest.mark.parametrize(
    "document",
    [*DOCUMENTS.values(), *(Tree(entries).document for entries in PATHS.values())],
    ids=[*DOCUMENTS, *PATHS],
)
def test_a_document_that_is_no_safe_tree_is_refused(cache: Cache, document: bytes) -> None:
    """A malformed, ambiguous, unsafe or too large document is refused before any pack is read."""
    refused(cache, with_document(cache, document_tar(document), claimed=Digest.of(document)))


def test_a_document_other_than_the_manifest_claims_is_refused(cache: Cache) -> None:
    """A document whose digest is not the one in the manifest is refused."""
    refused(
        cache,
        with_document(cache, document_tar(DOCUMENT), archive(FILES), claimed=Digest.of(b"another")),
    )


FIRST: dict[str, bytes] = {
    "empty": b"",
    "no tar": b"nothing of the kind",
    "no member": tar.END,
    "other name": archive(FILES),
    "document cut off": document_tar(DOCUMENT)[:600],
    "no end": document_tar(DOCUMENT)[:-1024],
    "a second member": document_tar(DOCUMENT)[:-1024] + member((b"evil.py", b"x")) + tar.END,
    "trailing data": document_tar(DOCUMENT) + b"x" * 512,
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_a_first_layer_that_is_not_just_the_document_is_refused(cache: Cache, first: bytes) -> None:
    """A first layer with more or less than the document is refused.

    A bundle may be mounted or appended to an image, and whatever its first layer smuggles in would
    be there.
    """
    refused(cache, with_document(cache, first, archive(FILES), claimed=Digest.of(DOCUMENT)))


def test_layers_that_are_not_compressed_are_refused(cache: Cache) -> None:
    """Layers that are not zstd are refused, even if their digests are right."""
    tree = Tree(entries_of(FILES))
    with cache.blobs.batch() as batch:
        made = bundle.write(tree, [layer(cache, archive(FILES), compress=False)], batch)
    refused(cache, made)
    first = layer(cache, document_tar(DOCUMENT), compress=False)
    refused(cache, bundle.Bundle(made.manifest, made.config, made.tree, first, made.packs))


def test_a_bomb_is_stopped_at_its_first_surprise(cache: Cache) -> None:
    """Gigabytes of zeros after, before or in a member are never written."""
    files: Files = {"a.py": b"x" * 100}
    tree = Tree(entries_of(files))
    zeros = bytes(64 << 20)
    for tars in (
        archive(files) + zeros,
        zeros + archive(files),
        member((b"a.py", zeros)) + tar.END,
        member((b"b.bin", zeros)) + archive(files),
    ):
        made = plain(cache, tree, tars)
        refused(cache, made)


def test_extraction_takes_bounded_memory(cache: Cache, tmp_path: Path) -> None:
    """A layer that inflates to 2 GiB is refused in bounded memory."""
    code = """
import resource, sys, zstandard
resource.setrlimit(resource.RLIMIT_AS, (700 << 20,) * 2)
from flyte_build.bundler import bundle, extraction
from flyte_build.cas import tar
from flyte_build.cas.layer import Layer
from flyte_build.bundler.tree import Tree
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.errors import ExtractionRefused
import hashlib
cache = Cache.open(sys.argv[1], Counters(), print)
def bomb(head):
    compress = zstandard.ZstdCompressor(level=1).compressobj()
    data = compress.compress(head) + b"".join(compress.compress(bytes(1 << 20)) for _ in range(2048)) + compress.flush()
    return Layer(cache.blobs.put(data), len(data), Digest.of(b""))
def refused(made):
    try: extraction.extract(cache, made); print("extracted")
    except ExtractionRefused: print("refused")
tree = Tree([])
with cache.blobs.batch() as batch:
    made = bundle.write(tree, [], batch)
refused(bundle.Bundle(made.manifest, made.config, made.tree, made.document, (bomb(b""),)))
refused(bundle.Bundle(made.manifest, made.config, made.tree, made.document, (bomb(tar.header(tar.Member(b"opt/flyte/code/a", 1 << 31))),)))
refused(bundle.Bundle(made.manifest, made.config, made.tree, bomb(tar.header(tar.Member(bundle.TREE, 1 << 31))), ()))
head = bytearray(tar.header(tar.Member(bundle.TREE, 0)))
head[124:135] = b"-0000000001"
head[148:156] = b" " * 8
head[148:156] = b"%06o\\0 " % sum(head)
refused(bundle.Bundle(made.manifest, made.config, made.tree, bomb(bytes(head)), ()))
"""
    assert run(code, cache.root).splitlines() == ["refused"] * 4


def test_a_window_beyond_what_writing_uses_is_refused(cache: Cache) -> None:
    """A frame that asks for 128 MiB of memory is refused."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters(window_log=27)
    data = archive(FILES)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    blob = stream.compress(data) + stream.flush()
    with cache.blobs.batch() as batch:
        made = bundle.write(
            Tree(entries_of(FILES)), [Layer(batch.add(blob), len(blob), Digest.of(data))], batch
        )
    refused(cache, made)


def test_more_than_the_budget_is_refused(cache: Cache) -> None:
    """A bundle above the budget of files or bytes is refused before anything is written."""
    made = plain(cache, Tree(entries_of(FILES)), archive(FILES))
    for budget in (Budget(files=3), Budget(bytes=100)):
        with pytest.raises(ExtractionRefused, match="too large"):
            extraction.extract(cache, made, budget)
    assert os.listdir(cache.extractions) == []


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda m: [],
    "a number": lambda m: 5,
    "null": lambda m: None,
    "no config": lambda m: {**m, "config": {}},
    "config by number": lambda m: {**m, "config": {"digest": 5}},
    "config by list": lambda m: {**m, "config": {"digest": ["sha256:"]}},
    "no layers": lambda m: {**m, "layers": []},
    "a layer less": lambda m: {**m, "layers": m["layers"][:1]},
    "a layer more": lambda m: {**m, "layers": m["layers"] * 2},
    "layers as text": lambda m: {**m, "layers": "ab"},
    "size of infinity": lambda m: {
        **m,
        "layers": [{**each, "size": float("inf")} for each in m["layers"]],
    },
    "size as text": lambda m: {**m, "layers": [{**each, "size": "many"} for each in m["layers"]]},
    "size that is wrong": lambda m: {
        **m,
        "layers": [{**each, "size": each["size"] + 1} for each in m["layers"]],
    },
    "unknown algorithm": lambda m: {
        **m,
        "layers": [{**each, "digest": "md5:" + "a" * 32} for each in m["layers"]],
    },
    "path as a digest": lambda m: {
        **m,
        "layers": [{**each, "digest": "sha256:../../../etc/passwd"} for each in m["layers"]],
    },
    "no annotation": lambda m: {**m, "annotations": {}},
    "annotation of another type": lambda m: {**m, "annotations": {bundle.ANNOTATION: [1]}},
    "annotation that is no digest": lambda m: {**m, "annotations": {bundle.ANNOTATION: "sha256:"}},
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_is_none_is_refused(
    cache: Cache, change: Callable[[dict[str, Any]], Any]
) -> None:
    """A malformed manifest is refused with a `FlyteError`, whatever the JSON holds."""
    made = plain(cache, Tree(entries_of(FILES)), archive(FILES))
    manifest = cache.blobs.put(
        json.dumps(change(json.loads(cache.blobs.read(made.manifest)))).encode()
    )
    with pytest.raises((ExtractionRefused, StoreError)):
        extraction.extract(cache, bundle.read(manifest, cache.blobs))
    assert os.listdir(cache.extractions) == []


@pytest.mark.parametrize(
    "text", [b"", b"\xff\xfe", b"{", b"[" * 100_000, b'{"a":1' + b"0" * 5000 + b"}", b"nan"]
)
def test_a_manifest_that_is_no_json_is_refused(cache: Cache, text: bytes) -> None:
    """A manifest that is not UTF-8 or not JSON, or is nested too deep, is refused."""
    with pytest.raises(ExtractionRefused):
        bundle.read(cache.blobs.put(text), cache.blobs)


# --- Damage, faults


def blobs_of(made: bundle.Bundle) -> dict[str, Digest]:
    """Return the blobs that extraction itself reads."""
    return {"document": made.document.digest, "pack": made.packs[0].digest}


@pytest.mark.parametrize("which", ["document", "pack"])
@pytest.mark.parametrize(
    "damage", ["first", "middle", "last", "truncated", "empty", "swapped", "gone"]
)
def test_a_damaged_layer_is_found_quarantined_and_made_again(
    cache: Cache, project: Path, which: str, damage: str
) -> None:
    """A damaged layer is detected and rebuilt, and no part of it becomes visible.

    That holds whether or not the damage shows in the compression.
    """
    write_files(project, {**FILES, "random": os.urandom(5000)})
    made = make_bundle(cache, project)
    digest = blobs_of(made)[which]
    path = cache.blobs.path(digest)
    data = Path(path).read_bytes()
    if damage == "gone":
        os.unlink(path)
    elif damage in ("first", "middle", "last"):
        flip(path, {"first": 0, "middle": len(data) // 2, "last": -1}[damage])
    else:
        overwrite(
            path,
            {"truncated": data[:-1], "empty": b"", "swapped": cache.blobs.read(made.config)}[
                damage
            ],
        )
    refused(cache, made, BlobMissing if damage == "gone" else BlobCorrupt)
    assert not cache.blobs.has(digest)
    assert os.path.exists(f"{cache.folder}/quarantine/{digest.hex}") == (damage != "gone")
    assert make_bundle(cache, project) == made
    assert read_files(f"{extraction.extract(cache, made)}/code") == read_files(project)


def test_a_write_that_is_cut_short_is_an_error(cache: Cache) -> None:
    """A short write (a full disk, `ulimit -f`) is an error; no truncated file counts as whole."""
    files: Files = {"a.bin": bytes(800_000)}
    made = plain(cache, Tree(entries_of(files)), archive(files))
    code = """
import resource, sys
from flyte_build.bundler import bundle, extraction
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.errors import StoreUnavailable
cache = Cache.open(sys.argv[1], Counters(), print)
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000,) * 2)
try: extraction.extract(cache, bundle.read(Digest(sys.argv[2]), cache.blobs)); print("extracted")
except StoreUnavailable as error: print("ulimit -f" in str(error))
"""
    assert run(code, cache.root, made.manifest) == "True"
    assert os.listdir(cache.extractions) == []
    assert read_files(f"{extraction.extract(cache, made)}/code") == {b"a.bin": bytes(800_000)}


def test_a_name_that_the_file_system_refuses_is_an_error_of_ours(cache: Cache) -> None:
    """A name that is too long for the file system is a `FlyteError`."""
    files: Files = {"n" * 300: b"x"}
    refused(
        cache, plain(cache, Tree(entries_of(files)), archive(files)), ExtractionRefused, StoreError
    )


# --- Tampering

TAMPER: dict[str, tuple[Callable[[Path], object], str]] = {
    "edit": (lambda code: overwrite(code / "a.py", b"a = 2\n"), "a.py was changed"),
    "append": (lambda code: overwrite(code / "d/b.py", b"b" * 701), "d/b.py was changed"),
    "add": (lambda code: (code / "d/new.py").write_bytes(b""), "d/new.py was added"),
    "add at the top": (lambda code: (code / "new.py").write_bytes(b""), "new.py was added"),
    "add a link": (lambda code: (code / "new").symlink_to("/etc/passwd"), "new was added"),
    "remove": (lambda code: (code / "d/b.py").unlink(), "d/b.py is missing"),
    "replace by rename": (
        lambda code: [(code / "x").write_bytes(b"a = 2\n"), (code / "x").rename(code / "a.py")],
        "a.py was changed",
    ),
    "turn a link": (
        lambda code: [(code / "link").unlink(), (code / "link").symlink_to("a.py")],
        "link was changed",
    ),
    "link for a file": (
        lambda code: [(code / "a.py").unlink(), (code / "a.py").symlink_to("d/b.py")],
        "a.py was changed",
    ),
    "file for a link": (
        lambda code: [(code / "link").unlink(), (code / "link").write_bytes(b"b" * 700)],
        "link was changed",
    ),
}


@as_root
@pytest.mark.parametrize("tamper, what", TAMPER.values(), ids=TAMPER)
def test_a_change_of_what_was_extracted_is_found_and_undone(
    cache: Cache, project: Path, tamper: Callable[[Path], object], what: str
) -> None:
    """An extraction that root has changed is not used again, and `verify` reports the change.

    The store is not affected.
    """
    write_files(project, FILES)
    made = make_bundle(cache, project)
    place = extraction.extract(cache, made)
    assert extraction.verify(cache) == (1, [])
    clock_moves(place)
    tamper(Path(place, "code"))
    tree = bundle.read_tree(made, cache.blobs)
    assert marker.find(cache, made.tree) is None and extraction.damage(place, tree) == what
    checked, bad = extraction.verify(cache)
    assert (
        checked == 1
        and [each.digest for each in bad] == [made.tree]
        and what in bad[0].what
        and not os.path.exists(place)
    )
    assert extraction.extract(cache, made) == place and extraction.damage(place, tree) == ""
    assert read_files(f"{place}/code") == read_files(project)
    tamper(Path(place, "code"))
    assert extraction.extract(cache, made) == place and read_files(f"{place}/code") == read_files(
        project
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b"[]",
        b'{"sealed": [[""]], "boot": 0}',
        b'{"sealed": [[]], "boot": 1}',
        b"\xff",
    ],
)
def test_an_extraction_without_a_good_marker_is_made_again(cache: Cache, content: bytes) -> None:
    """An extraction without a valid marker is made again."""
    made = plain(cache, Tree(entries_of(FILES)), archive(FILES))
    place = extraction.extract(cache, made)
    Path(place, "complete").write_bytes(content)
    assert marker.find(cache, made.tree) is None
    assert extraction.extract(cache, made) == place == marker.find(cache, made.tree)


def test_whatever_stands_at_the_final_place_is_replaced(cache: Cache, tmp_path: Path) -> None:
    """A link or file in the place of an extraction is replaced, and the link is not followed."""
    made = plain(cache, Tree(entries_of(FILES)), archive(FILES))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("mine")
    final = Path(cache.extraction(made.tree))
    for obstacle in (
        lambda: final.symlink_to(tmp_path / "elsewhere"),
        lambda: final.write_text("a file"),
        lambda: final.mkdir(),
    ):
        obstacle()
        place = extraction.extract(cache, made)
        assert not final.is_symlink() and marker.find(cache, made.tree) == place
        assert os.listdir(tmp_path / "elsewhere") == ["mine"] and os.listdir(cache.extractions) == [
            made.tree.hex
        ]
        run(
            "import sys; from flyte_build.cas.gc import remove_tree; remove_tree(sys.argv[1])",
            place,
        )


@pytest.mark.slow
@as_root
def test_verify_finds_an_edit_in_a_tree_too_large_to_be_sealed(cache: Cache, project: Path) -> None:
    """`verify` reads every byte of a large tree, of which only the directories are sealed."""
    write_files(project, {f"d{n % 10}/f{n}.py": b"%d" % n for n in range(2_100)})
    made = make_bundle(cache, project)
    place = extraction.extract(cache, made)
    overwrite(f"{place}/code/d7/f7.py", b"evil")
    _, bad = extraction.verify(cache)
    assert len(bad) == 1 and "d7/f7.py was changed" in bad[0].what
    place = extraction.extract(cache, made)
    Path(place, "code/d3/new.py").write_bytes(b"")
    assert marker.find(cache, made.tree) is None


def test_eight_processes_extract_one_bundle_once(cache: Cache, project: Path) -> None:
    """Eight processes that extract one bundle at once all get the same complete directory."""
    from tests.support.processes import process

    write_files(project, {f"f{n}.py": b"%d" % n for n in range(200)})
    made = make_bundle(cache, project)
    code = """
import sys, os
from flyte_build.bundler import bundle, extraction
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
cache = Cache.open(sys.argv[1], Counters(), print)
made = bundle.read(Digest(sys.argv[2]), cache.blobs)
with cache.preparing():
    place = extraction.extract(cache, made)
print(os.stat(place).st_ino, extraction.damage(place, bundle.read_tree(made, cache.blobs)))
"""
    started = [process(code, cache.root, made.manifest) for _ in range(8)]
    assert {each.communicate() for each in started} == {
        (f"{os.stat(cache.extraction(made.tree)).st_ino} \n", "")
    }
    assert os.listdir(cache.extractions) == [made.tree.hex]


def test_an_extraction_that_nothing_is_known_of_is_removed_by_verify(cache: Cache) -> None:
    """`verify` removes an extraction without a recorded bundle, since there is nothing to compare.

    An extraction whose bundle is recorded under any label stays.
    """
    made = plain(cache, Tree(entries_of(FILES)), archive(FILES))
    extraction.extract(cache, made)
    assert [each.digest for each in extraction.verify(cache)[1]] == [made.tree] and os.listdir(
        cache.extractions
    ) == []
    record_bundle(cache, made)
    extraction.extract(cache, made)
    assert extraction.verify(cache) == (1, [])


def test_archives_of_python_are_refused(cache: Cache) -> None:
    """An archive in PAX, the default format of `tarfile`, is refused."""
    stream = BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as out:
        info = tarfile.TarInfo(CODE + "a.py")
        info.size = 6
        out.addfile(info, BytesIO(FILES["a.py"]))
    refused(cache, plain(cache, Tree(entries_of({"a.py": FILES["a.py"]})), stream.getvalue()))
