"""Caches, and bundles made in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from flyte_build.bundler import bundle, packs
from flyte_build.bundler.scan import Scanner, ScanOptions
from flyte_build.bundler.snapshot import Scan
from flyte_build.bundler.tree import Entry, Tree
from flyte_build.cas.cache import Cache
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import key
from flyte_build.cas.layer import Layer
from flyte_build.cas.records import Record
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.places import Places
from flyte_build.settings.settings import Settings
from flyte_build.workspace.workspace import Workspace


@contextmanager
def opened(
    folder: str | Path, said: Callable[[str], None] | None = None, counters: Counters | None = None
) -> Iterator[Cache]:
    """Open a cache, and close it at the end.

    Without `said`, any note fails the test.
    """

    def nothing(sentence: str) -> None:
        raise AssertionError(sentence)

    cache = Cache.open(os.fspath(folder), counters or Counters(), said or nothing)
    try:
        yield cache
    finally:
        cache.database.close()


class Recorder(RunReporter):
    """A reporter that records notes, and passes nothing on."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Record a sentence."""
        self.notes.append(sentence)

    def output(self, stream: int, data: bytes) -> int:
        """Drop the output."""
        return len(data)


@contextmanager
def planned(
    cache: str | Path,
    file: str,
    style: str,
    counters: Counters | None = None,
    reporter: Recorder | None = None,
    **given: object,
) -> Iterator[FilePlan]:
    """Plan a file at the root of its project, with its cache in that directory.

    `given` are settings.
    """
    places = Places(cache=os.fspath(cache), data=f"{cache}-data", config="")
    stores = Stores(reporter or Recorder(), places, counters)
    settings = Settings.configured(Configuration({}), copy_style=style, **given)
    root, name = os.path.split(file)
    try:
        yield FilePlan(Session(settings, stores), Workspace.of(root, name))
    finally:
        stores.close()


def scan(cache: Cache, root: str | Path, **options: Any) -> tuple[Scan, Counters]:
    """Scan everything below `root`, and return the scan and its counters."""
    counters = Counters()
    return (
        Scanner(os.fspath(root), cache.index, counters, ScanOptions(**options)).scan_all(),
        counters,
    )


def tree_of(cache: Cache, root: str | Path, **options: Any) -> Tree:
    """Return the tree of everything below `root`."""
    return Tree(scan(cache, root, **options)[0].entries())


def cut(tree: Tree) -> list[list[Entry]]:
    """Return the entries of each pack of a tree."""
    return [[tree.entries[at] for at in part] for part in packs.cut(tree.sizes())]


def make_bundle(cache: Cache, root: str | Path, label: str = "bundle:project") -> bundle.Bundle:
    """Scan, pack and record a bundle as preparing does, under the cache's lock."""
    with cache.preparing():
        found, counters = scan(cache, root)
        tree = Tree(found.entries())
        packer = packs.Packer(f"{os.fspath(root)}/".__add__, found.contents, counters)
        with cache.blobs.batch() as batch:
            layers = [packer.pack(part, batch) for part in cut(tree)]
            made = bundle.write(tree, layers, batch)
        record_bundle(cache, made, label)
    return made


def record_bundle(cache: Cache, made: bundle.Bundle, label: str = "bundle:project") -> Record:
    """Record a bundle that is in the store."""
    record = Record(
        key("bundle", 1, {"tree": made.tree}),
        "bundle",
        made.manifest,
        (*made.blobs(), made.tree),
        {"tree": made.tree},
    )
    cache.records.add(record)
    cache.records.set_last(label, record.key)
    return record


def record_blob(cache: Cache, name: str, *refs: Digest) -> Record:
    """Record that `name` needs these blobs."""
    record = Record(key("test", 1, {"name": name}), "test", refs[0], refs, {"name": name})
    cache.records.add(record)
    return record


def layer(cache: Cache, data: bytes, compress: bool = True) -> Layer:
    """Return a layer of exactly these bytes (of a tar, or any others)."""
    blob = zstandard.ZstdCompressor(level=1).compress(data) if compress else data
    return Layer(cache.blobs.put(blob), len(blob), Digest.of(data))
