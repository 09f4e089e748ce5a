"""Extraction of a bundle to files, trusting nothing but the digest of its tree.

The tree is verified first, and each file is compared with it (`proof`). Files are written to a new
directory next to the final one, links last, so that nothing is written through a link; then the
directory gets its marker and is renamed. Files are not synced: if the machine has booted since, or
if the marker shows that something was changed, the bundle is extracted again.

    <cache>/extractions/<hex of the tree>/code/       the tree, read-only
    <cache>/extractions/<hex of the tree>/bytecode/   compiled modules of just this tree
    <cache>/extractions/<hex of the tree>/complete    the marker (JSON)
    <cache>/extractions/<hex of the tree>-<random>/   another copy, while a changed one is in use
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from flyte_build.cas import tar
from flyte_build.cas.blobs import write_all
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, is_hex
from flyte_build.cas.folder import make_below
from flyte_build.cas.gc import remove_tree
from flyte_build.cas.lease import locked
from flyte_build.cas.os_errors import storing
from flyte_build.cas.verify import Bad
from flyte_build.errors import ExtractionRefused, StoreError

from .budget import Budget
from .bundle import Bundle, read, read_tree
from .identity import KIND, tree_of
from .marker import find, mark
from .proof import Proof
from .tree import Entry, Tree, folders

_UNKNOWN = "their bundle is unknown"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def extract(cache: Cache, bundle: Bundle, budget: Budget = Budget()) -> str:
    """Extract a bundle that was built or proven here, unless it is already; return its directory.

    The caller must hold the cache (`Cache.preparing`). Raises `BlobCorrupt`, `BlobMissing` or
    `ExtractionRefused`, and then leaves nothing at the final path.
    """
    make_below(cache.extractions)
    with _extracting(cache):
        if found := find(cache, bundle.tree):
            return found
        tree = read_tree(bundle, cache.blobs)
        _check(tree, budget)
        return _write(cache, _Extraction(cache.blobs, bundle, tree, is_known=True))


def take(
    cache: Cache, bundle: Bundle, tree: Tree | None = None, budget: Budget | None = None
) -> list[list[bytes]]:
    """Prove a fetched bundle by extracting it, or without writing if its tree is extracted already.

    `tree` is the expected tree, if it is known, and `budget` limits its size. Returns the paths in
    each pack. Raises `BlobCorrupt`, `BlobMissing` or `ExtractionRefused`.
    """
    make_below(cache.extractions)
    tree = read_tree(bundle, cache.blobs, tree)
    if budget:
        _check(tree, budget)
    with _extracting(cache):
        if not find(cache, bundle.tree):
            extraction = _Extraction(cache.blobs, bundle, tree)
            _write(cache, extraction)
            return extraction.paths
    proof = Proof(cache.blobs, bundle, tree)
    proof.run()
    return proof.paths


def _extracting(cache: Cache) -> AbstractContextManager[None]:
    """Return a lock to hold while extracting, so that concurrent commands extract a bundle once."""
    return locked(f"{cache.folder}/extract.lock", exclusive=True)


def _write(cache: Cache, extraction: _Extraction) -> str:
    """Extract a bundle, and return its directory."""
    tree, temporary = extraction.tree, f"{cache.extractions}/.extracting-{os.urandom(8).hex()}"
    final = cache.extraction(tree.digest)
    try:
        with storing("extract a bundle"):
            extraction.write(f"{temporary}/code")
            os.mkdir(f"{temporary}/bytecode")
            mark(temporary, tree)
        if os.path.lexists(final):
            # A task is using the changed copy: this run gets another one.
            if tree.digest in cache.leased():
                final = f"{final}-{os.urandom(4).hex()}"
            else:
                remove_tree(final)
        with storing("extract a bundle"):
            os.rename(temporary, final)
    except BaseException:
        remove_tree(temporary)
        raise
    return final


def verify(cache: Cache) -> tuple[int, list[Bad]]:
    """Compare every extraction with its bundle, and remove bad ones.

    They will be extracted again when needed. Returns the number of extractions, and the defects.
    The caller must not hold the cache. An extraction that a running task uses is kept, but no other
    run will use it if it is bad.
    """
    with cache.preparing():
        bundles = {tree_of(record): record.artifact for record in cache.records.of_kind(KIND)}
        names = [name for name in sorted(os.listdir(cache.extractions)) if is_hex(name)]
        wrong = {
            name: what
            for name in names
            if (what := _wrong(cache, Digest("sha256:" + name), bundles))
        }
    bad = []
    for name, what in wrong.items():
        tree, folder = Digest("sha256:" + name), f"{cache.extractions}/{name}"
        with cache.collecting():
            if tree not in cache.leased():
                remove_tree(folder)
            elif what == _UNKNOWN:
                continue
            elif os.path.exists(f"{folder}/complete"):
                os.unlink(f"{folder}/complete")
        bad.append(
            Bad(tree, f"extracted files: {what}; they will be extracted again when needed", True)
        )
    return len(names), bad


def _wrong(cache: Cache, tree: Digest, bundles: Mapping[Digest, Digest]) -> str:
    """Return what is wrong with the extraction of a tree, or "".

    `bundles` maps trees to manifests.
    """
    if tree not in bundles:
        return _UNKNOWN
    try:
        what = damage(
            cache.extraction(tree), read_tree(read(bundles[tree], cache.blobs), cache.blobs)
        )
    except (StoreError, ExtractionRefused) as error:
        return error.what
    except OSError as error:  # It is being changed right now.
        return f"{error.strerror}: {error.filename}"
    return what or ("" if find(cache, tree) else "changed since they were extracted")


def damage(folder: str, tree: Tree) -> str:
    """Compare every byte of an extraction with its tree; return what is wrong, or ""."""
    expected = {entry.name: entry for entry in tree.entries}
    for here, subfolders, files in os.walk(f"{folder}/code"):
        for name in files + [name for name in subfolders if os.path.islink(f"{here}/{name}")]:
            path = os.path.relpath(f"{here}/{name}", f"{folder}/code")
            entry = expected.pop(path, None)
            if entry is None:
                return f"{path} was added"
            if not _matches(f"{here}/{name}", entry):
                return f"{path} was changed"
    return f"{min(expected)} is missing" if expected else ""


def _matches(path: str, entry: Entry) -> bool:
    if os.path.islink(path) or entry.kind == "l":
        return (
            os.path.islink(path)
            and entry.kind == "l"
            and os.fsencode(os.readlink(path)) == entry.content
        )
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode() == entry.content


def _check(tree: Tree, budget: Budget) -> None:
    size = sum(entry.size for entry in tree.entries)
    if len(tree.entries) > budget.files or size > budget.bytes:
        raise ExtractionRefused(
            "A bundle is too large to be extracted",
            why=(
                f"It contains {len(tree.entries):,} files with {size:,} bytes in total; the limits"
                f" are {budget.files:,} files and {budget.bytes:,} bytes."
            ),
        )


class _Extraction(Proof):
    """A proof that writes the files it has proven to a new directory."""

    def write(self, folder: str) -> None:
        """Write all files, then the links. Raises the errors of `run`."""
        make_below(os.path.dirname(folder))
        os.mkdir(folder, 0o755)
        # The umask may deny access, but users of containers must be able to read everything.
        self._masked = os.stat(folder).st_mode & 0o777 != 0o755
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            below = sorted(folders(entry.path for entry in self.tree.entries))
            for path in below:
                os.mkdir(path, dir_fd=self._root)
            self.run()
            for entry in self.tree.entries:
                if entry.kind == "l":  # Last, so that nothing is written through a link.
                    os.symlink(entry.content, entry.path, dir_fd=self._root)
            for path in below:
                os.chmod(path, 0o555, dir_fd=self._root)
            os.fchmod(self._root, 0o555)
        finally:
            os.close(self._root)

    def small(self, entry: Entry, data: bytes) -> None:
        """Write a file."""
        # A context manager would take a tenth of the time of an extraction.
        file = self._new(entry)
        try:
            write_all(file, data)
        finally:
            os.close(file)

    @contextmanager
    def large(self, entry: Entry) -> Iterator[tar.Writable]:
        """Write a file piece by piece."""
        file = self._new(entry)
        try:
            yield _Writer(file)
        finally:
            os.close(file)

    def _new(self, entry: Entry) -> int:
        mode = 0o555 if entry.kind == "x" else 0o444
        file = os.open(entry.path, _NEW, mode, dir_fd=self._root)
        if self._masked:
            os.fchmod(file, mode)
        return file


class _Writer:
    """A writer to a file descriptor."""

    def __init__(self, file: int) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        write_all(self._file, data)
        return len(data)
