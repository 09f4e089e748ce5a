"""Trees, packs and bundles: identities of sets of files, and their carriers."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from flyte_build.bundler import bundle, extraction, marker, packs
from flyte_build.bundler.index import publish_index
from flyte_build.bundler.snapshot import Contents
from flyte_build.bundler.tree import Entry, Tree
from flyte_build.cas import tar
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.errors import ExtractionRefused, FileUnstable
from tests.support.caches import cut, make_bundle, opened, tree_of
from tests.support.files import (
    Executable,
    Files,
    Link,
    archive,
    as_root,
    entries_of,
    read_files,
    same,
    temporary,
    write_files,
)
from tests.support.needs import need
from tests.support.processes import process

LONG = "d" * 90 + "/" + "f" * 200 + ".py"
ODD: dict[str | bytes, bytes] = {
    "a.py": b"print(1)\n",
    "empty.py": b"",
    "tool.sh": Executable(b"#!/bin/sh\n"),
    "with space and \n newline": b"x",
    'quote"back\\slash': b"y",
    "caf\udce9.txt": b"not UTF-8",
    unicodedata.normalize("NFC", "é.txt"): b"nfc",
    unicodedata.normalize("NFD", "é.txt"): b"nfd",
    "Case.txt": b"1",
    "case.txt": b"2",
    "a" * 100: b"exactly 100",
    LONG: b"long",
    "pkg/__init__.py": b"",
    "pkg/sub/m.py": b"m",
    "pkg.py": b"next to its directory",
    "-rf": b"option",
    "link": Link(b"pkg/sub/m.py"),
    "pkg/up": Link(b"../a.py"),
    "pkg/here": Link(b"sub"),
    "long-link": Link(LONG.encode()),
    "dangling": Link(b"nowhere"),
    "block": b"x" * 512,
    "block+1": b"x" * 513,
}

names = st.binary(min_size=1, max_size=12).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
paths = st.lists(
    names | st.sampled_from([b"a", b"b", b"a.py", b"n" * 120]), min_size=1, max_size=3
).map(b"/".join)
contents = (
    st.binary(max_size=600)
    | st.binary(max_size=20).map(Executable)
    | st.sampled_from([b"a", b"x/y", b"n" * 150]).map(Link)
)
trees = st.dictionaries(paths, contents, max_size=12).map(
    lambda files: {path: files[path] for path in files if not _above(path, files)}
)


def _above(path: bytes, files: dict[bytes, bytes]) -> bool:
    return any(other.startswith(path + b"/") for other in files)


# --- Trees


@given(trees, trees)
@example({b"ab/c.py": b""}, {b"a/bc.py": b""})
@example({b"b.py": b"x=1"}, {b".py": b"x=1b"})
@example({b"a": b"", b"b": b"Z"}, {b"aZb": b""})
@example({b"a": b"x"}, {b"a": Executable(b"x")})
@example({b"a": b"x"}, {b"a": Link(b"x")})
@example({b"a": b""}, {})
@example({b"a\n": b""}, {b"a": b""})
@example({b"f1:a": b""}, {b"a": b""})
@example({b"a": Link(b"b\nf1:c1:x")}, {b"a": Link(b"b")})
def test_different_sets_of_files_never_share_a_digest(one: Files, other: Files) -> None:
    """Path, kind, executable bit and content all count in a tree's digest, and are framed."""
    assert (Tree(entries_of(one)).digest == Tree(entries_of(other)).digest) == same(one, other)


@given(trees, st.randoms())
def test_a_tree_survives_being_written_and_read(files: Files, random: Any) -> None:
    """A tree's document decodes to the same entries, in whatever order they came."""
    entries = entries_of(files)
    random.shuffle(entries)
    tree = Tree(entries)
    try:
        decoded = Tree.decode(tree.document)
    except ExtractionRefused:
        assume(False)  # A link out of the tree, which a scan never gives.
    assert decoded.entries == tree.entries == sorted(
        entries
    ) and decoded.digest == tree.digest == Digest.of(tree.document)


@given(trees, st.data())
def test_an_altered_document_is_refused_or_another_tree(files: Files, data: Any) -> None:
    """There is one way to write a tree: an accepted document is encoded to the same bytes."""
    document = bytearray(Tree(entries_of(files)).document)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(document) - 1))
        document[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.binary(max_size=2) | st.sampled_from([b"0", b"1", b" ", b"+", b"_", b"-"])
        )
    try:
        assert Tree.decode(bytes(document)).document == document
    except ExtractionRefused:
        pass


@given(trees, trees)
def test_a_difference_names_each_path_once(old: Files, new: Files) -> None:
    """The difference of two trees names each added, removed and changed path once."""
    before, now = {e.path: e for e in entries_of(old)}, {e.path: e for e in entries_of(new)}
    found = Tree(now.values()).difference(Tree(before.values()))
    assert {*map(os.fsencode, found["added"])} == now.keys() - before.keys()
    assert {*map(os.fsencode, found["removed"])} == before.keys() - now.keys()
    assert {*map(os.fsencode, found["changed"])} == {
        path for path in now.keys() & before.keys() if now[path] != before[path]
    }
    assert all(paths == sorted(paths, key=os.fsencode) for paths in found.values())


def test_odd_names_are_kept_as_they_are(cache: Cache, project: Path) -> None:
    """Odd names are kept as they are.

    They are not UTF-8, or have spaces or newlines, or are long, in NFC or NFD, or in mixed case;
    some files are empty.
    """
    write_files(project, ODD)
    assert tree_of(cache, project).entries == sorted(entries_of(ODD))


def test_empty_folders_are_no_part_of_a_tree(cache: Cache, project: Path) -> None:
    """Empty directories are not part of a tree."""
    write_files(project, {"a.py": b"a"})
    before = tree_of(cache, project).digest
    (project / "empty" / "deeper").mkdir(parents=True)
    assert tree_of(cache, project).digest == before


def test_the_executable_bit_alone_changes_a_tree(cache: Cache, project: Path) -> None:
    """The executable bit is part of a tree; other mode bits, times and owners are not."""
    path = project / "a.sh"
    path.write_bytes(b"#!/bin/sh\n")
    digests = {}
    for mode in (0o644, 0o600, 0o444, 0o666, 0o640, 0o755, 0o700, 0o744, 0o777):
        path.chmod(mode)
        digests[mode] = tree_of(cache, project).digest
    assert (
        len({digests[mode] for mode in digests if mode & 0o100})
        == len({digests[mode] for mode in digests if not mode & 0o100})
        == 1
    )
    assert digests[0o755] != digests[0o644]


@as_root
def test_the_owner_is_no_part_of_a_tree(cache: Cache, project: Path) -> None:
    """Owner and group are not part of a tree."""
    write_files(project, {"a.py": b"a"})
    before = tree_of(cache, project).digest
    os.chown(project / "a.py", 1234, 4321)
    assert tree_of(cache, project).digest == before


# --- Packs


def sized(*sizes: int) -> list[Entry]:
    """Return entries of these sizes."""
    return [
        Entry(b"dir%d/file%d.py" % (n % 7, n), "f", size, Digest.of(b"%d" % n).hex.encode())
        for n, size in enumerate(sizes)
    ]


sizes = st.lists(
    st.sampled_from(
        [0, 1, 5_000, 400_000, packs.LIMIT - 1, packs.LIMIT, packs.LIMIT + 1, 9_000_000]
    ),
    max_size=80,
)


@given(sizes, st.randoms())
def test_packs_are_a_partition(chosen: list[int], random: Any) -> None:
    """Each entry is in exactly one pack, whatever the order of the entries.

    Packs are sorted, none is empty, and there are not too many.
    """
    entries = sized(*chosen)
    found = cut(Tree(entries))
    assert sorted(entry for pack in found for entry in pack) == sorted(entries)
    assert all(pack and pack == sorted(pack) for pack in found) and len(found) <= 41
    random.shuffle(entries)
    assert cut(Tree(entries)) == found


@given(sizes.filter(any), st.data())
def test_an_edit_that_keeps_the_size_remakes_one_pack(chosen: list[int], data: Any) -> None:
    """An edit that keeps the size rebuilds one pack: packs depend on paths and sizes alone."""
    entries = sized(*chosen)
    at = data.draw(st.integers(0, len(entries) - 1))
    edited = [*entries]
    edited[at] = edited[at]._replace(content=b"0" * 64)
    assert len(different(entries, edited)) == 1


def different(old: list[Entry], new: list[Entry]) -> set[tuple[Entry, ...]]:
    """Return the packs of `new` that are not among the packs of `old`."""
    return {*map(tuple, cut(Tree(new)))} - {*map(tuple, cut(Tree(old)))}


@pytest.mark.parametrize("count", [100, 2_000, 10_000])
def test_a_new_file_remakes_few_packs(count: int) -> None:
    """A small file that is added or removed rebuilds one pack, or the two of a split or merge."""
    entries = sized(*[6_000] * count)
    for n in range(8):
        new = entries + [Entry(b"new/%d.py" % n, "f", 6_000, b"0" * 64)]
        assert 1 <= len(different(entries, new)) <= 2 and len(different(new, entries)) <= 2


def test_links_and_empty_trees_are_cut_too() -> None:
    """An empty tree has no packs; a link counts as a small file, whatever its target's length."""
    assert packs.cut([]) == []
    assert len(cut(Tree([Entry(b"a", "l", 3, b"b/c"), *sized(packs.LIMIT + 1)]))) == 2


# --- Bundles


@settings(max_examples=60)
@given(trees)
@example(ODD)
@example({})
def test_what_is_bundled_is_extracted(files: Files) -> None:
    """Scan, pack and extract give the same files, links and executable bits, all read-only."""
    with temporary() as folder, opened(folder / "cache") as cache:
        (folder / "p").mkdir()
        write_files(
            folder / "p", {b"pre" + os.fsencode(path): content for path, content in files.items()}
        )
        try:
            made = make_bundle(cache, folder / "p")
        except Exception as error:
            assert "ignore" in str(error) or any(
                isinstance(content, Link) for content in files.values()
            ), error
            assume(False)
        place = extraction.extract(cache, made)
        assert read_files(f"{place}/code") == {
            os.fsencode(entry.path): content
            for entry in bundle.read_tree(made, cache.blobs).entries
            for content in [read_files(folder / "p")[entry.path]]
        }
        assert all(
            os.lstat(f"{here}/{name}").st_mode & 0o222 == 0
            for here, _, found in os.walk(f"{place}/code")
            for name in (".", *found)
            if not os.path.islink(f"{here}/{name}")
        )
        assert marker.find(cache, made.tree) == place == extraction.extract(cache, made)
        assert extraction.damage(place, bundle.read_tree(made, cache.blobs)) == ""


def layers(cache: Cache, made: bundle.Bundle) -> list[bytes]:
    """Return the tars of a bundle's layers."""
    return [
        zstandard.ZstdDecompressor().decompressobj().decompress(cache.blobs.read(each.digest))
        for each in (made.document, *made.packs)
    ]


def test_every_layer_is_a_tar_that_python_reads(cache: Cache, project: Path) -> None:
    """Every layer is a tar that Python reads, rooted at /opt/flyte, without owners or times.

    Its members are sorted. Together the layers are the tree, and the digests in the config hold.
    """
    write_files(
        project,
        {**ODD, "big.bin": os.urandom(packs.LIMIT + 1), "big2.bin": os.urandom(packs.LIMIT + 9)},
    )
    made = make_bundle(cache, project)
    document, *rest = layers(cache, made)
    assert [Digest.of(data) for data in (document, *rest)] == [
        each.diff_id for each in (made.document, *made.packs)
    ] and len(rest) == 3
    found: dict[bytes, bytes] = {}
    for data in (document, *rest):
        with tarfile.open(fileobj=io.BytesIO(data), errorlevel=2) as archive:
            members = archive.getmembers()
            assert [os.fsencode(m.name) for m in members] == sorted(
                os.fsencode(m.name) for m in members
            )
            for each in members:
                assert (each.uid, each.gid, each.uname, each.gname, each.mtime) == (0, 0, "", "", 0)
                assert each.mode == (
                    0o777 if each.issym() else (each.mode & 0o111 and 0o755) or 0o644
                )
                if each.issym():
                    found[os.fsencode(each.name)] = Link(os.fsencode(each.linkname))
                else:
                    file = archive.extractfile(each)
                    assert file is not None and each.isreg()
                    found[os.fsencode(each.name)] = (
                        Executable(file.read()) if each.mode & 0o100 else file.read()
                    )
    tree = bundle.read_tree(made, cache.blobs)
    assert found.pop(b"opt/flyte/code.tree") == tree.document
    assert found == {packs.CODE + path: content for path, content in read_files(project).items()}
    config = json.loads(cache.blobs.read(made.config))
    assert config["rootfs"]["diff_ids"] == [each.diff_id for each in (made.document, *made.packs)]


def test_gnu_tar_reads_a_pack(cache: Cache, project: Path, tmp_path: Path) -> None:
    """GNU tar reads a pack, long names included."""
    write_files(project, ODD)
    made = make_bundle(cache, project)
    (tmp_path / "out").mkdir()
    for data in layers(cache, made)[1:]:
        subprocess.run(
            ["tar", "-x", "-f", "-", "-C", str(tmp_path / "out"), "--no-same-owner"],
            input=data,
            check=True,
        )
    assert same(
        {os.fsdecode(k): v for k, v in read_files(tmp_path / "out/opt/flyte/code").items()}, ODD
    )


def test_a_pack_is_exactly_these_bytes(cache: Cache, project: Path) -> None:
    """There is one way to write each member, so the tar is a function of its entries."""
    write_files(project, ODD)
    (only,) = layers(cache, make_bundle(cache, project))[1:]
    assert only == archive(ODD)
    assert (
        Digest.of(
            archive({"a.py": b"x", "b": Executable(b""), "c": Link(b"a.py"), "n" * 101: b"y" * 600})
        )
        == "sha256:9d047572e9a327734fdf0153ae9b5c7928e898782cb09ea0f0750c53d882e231"
    )


@given(trees)
def test_a_pack_is_read_as_it_was_written(files: Files) -> None:
    """The reader of archives accepts exactly what the writer produces."""
    data = archive(files)
    reader = tar.Reader(io.BufferedReader(io.BytesIO(data)))
    found: dict[bytes, bytes] = {}
    while each := reader.next():
        content = reader.skim(each.size, None) if each.target is None else Link(each.target)
        found[each.name.removeprefix(packs.CODE)] = (
            Executable(content) if each.executable else content
        )
    assert same(found, files)


def test_a_file_that_changed_since_the_scan_is_never_packed(cache: Cache, project: Path) -> None:
    """Packing a file that changed or vanished since the scan is an error, and leaves nothing.

    Size does not matter.
    """
    for size in (10, packs.LIMIT + 10):
        write_files(project, {"a.bin": b"a" * size})
        (entry,) = tree_of(cache, project).entries
        packer = packs.Packer(f"{project}/".__add__, Contents(), Counters())
        for content in (b"b" * size, b"a" * (size + 1), b"a" * (size - 1), b"", None):
            os.unlink(project / "a.bin")
            if content is not None:
                (project / "a.bin").write_bytes(content)
            with pytest.raises(FileUnstable, match=r"a\.bin"), cache.blobs.batch() as batch:
                packer.pack([entry], batch)
            (project / "a.bin").touch()
        assert not list(cache.blobs.names()) and not list(cache.blobs.litter())


def test_a_file_that_is_touched_while_it_is_packed_is_packed_once(
    cache: Cache, project: Path
) -> None:
    """If a file is touched while it is packed, it is read again and packed once."""
    data = b"x" * 1_000_000
    write_files(project, {"a.bin": data})
    (entry,) = tree_of(cache, project).entries
    toucher = """
import os, sys
print("touching", flush=True)
n = 0
while True:
    n += 1
    for _ in range(n * 7919 % 150_000): pass
    os.utime(sys.argv[1])
"""
    packer = packs.Packer(f"{project}/".__add__, Contents(), Counters())
    with process(toucher, str(project / "a.bin")) as other:
        assert other.stdout is not None and other.stdout.readline() == "touching\n"
        try:
            for _ in range(200):
                try:
                    with cache.blobs.batch() as batch:
                        diff_id = packer.pack([entry], batch).diff_id
                except FileUnstable:
                    continue
                assert diff_id == Digest.of(archive({"a.bin": data}))
        finally:
            other.kill()


def test_the_cache_is_an_oci_layout_that_skopeo_reads_and_copies(
    cache: Cache, project: Path, tmp_path: Path
) -> None:
    """skopeo finds a bundle by its name in `index.json`; its copy extracts to the same files."""
    need("skopeo")
    write_files(project, ODD)
    made = make_bundle(cache, project, "bundle:/home/me/flow.py all")
    publish_index(cache)
    (manifest,) = json.loads(Path(cache.folder, "index.json").read_text())["manifests"]
    source = f"oci:{cache.folder}:{manifest['annotations']['org.opencontainers.image.ref.name']}"
    shown = json.loads(
        subprocess.run(["skopeo", "inspect", source], check=True, capture_output=True).stdout
    )
    assert shown["Digest"] == made.manifest and shown["Os"] == "linux"
    assert shown["Layers"] == [made.document.digest, *(pack.digest for pack in made.packs)]
    with opened(tmp_path / "other") as other:
        target = f"oci:{other.folder}:copied"
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "--preserve-digests", source, target],
            check=True,
            capture_output=True,
        )
        place = extraction.extract(other, bundle.read(made.manifest, other.blobs))
        assert same({os.fsdecode(k): v for k, v in read_files(f"{place}/code").items()}, ODD)
