"""Extraction: a bundle's bytes as files again, trusting nothing but the tree's digest.

The tree is verified first, and says every path, size and digest; an archive's member that is not exactly as the tree
says, once, is refused. Files are written into a fresh folder next to the final one, links last, so nothing is written
through a link; then the folder gets its marker and is renamed. There is no sync for each file: an extraction can be made
again, and is, when the machine was started anew since, or when the marker shows that someone has changed it.

    <cache>/extractions/<hex of the tree>/code/       the tree, read-only
    <cache>/extractions/<hex of the tree>/bytecode/   compiled modules of just this tree
    <cache>/extractions/<hex of the tree>/complete    the marker (JSON)
"""

from __future__ import annotations

import hashlib
import io
import os
from typing import BinaryIO

from flyte_build.cas import tar
from flyte_build.cas.blobs import Blobs, write_all
from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest
from flyte_build.cas.faults import storing
from flyte_build.cas.folder import make_below
from flyte_build.cas.gc import remove_tree
from flyte_build.cas.layer import Layer
from flyte_build.cas.lease import locked
from flyte_build.cas.verification import Bad
from flyte_build.errors import ExtractionRefused, StoreError

from .budget import Budget
from .bundle import WINDOW, Bundle, read, read_tree
from .marker import find, mark
from .packs import CODE
from .tree import Entry, Tree, folders

_SMALL = 1 << 20  # Bytes of a file that is checked before any of it is written.
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PARALLEL = 4 << 20  # Bytes from which a second thread pays.


def extract(cache: Cache, bundle: Bundle, budget: Budget = Budget()) -> str:
    """Extract a bundle and return its folder; one that is there and intact is used.

    Raises `BlobCorrupt`, `BlobMissing` or `ExtractionRefused`; then nothing is left at the final place.
    """
    final = cache.extraction(bundle.tree)
    make_below(cache.extractions)
    with locked(f"{cache.folder}/extract.lock", exclusive=True):  # So that twenty commands extract it once.
        if find(cache, bundle.tree):
            return final
        tree = read_tree(bundle, cache.blobs)
        _check(tree, budget)
        temporary = f"{cache.extractions}/.extracting-{os.urandom(8).hex()}"
        try:
            with storing("extract a bundle"):
                _Extraction(cache.blobs, bundle, tree, f"{temporary}/code").run()
                os.mkdir(f"{temporary}/bytecode")
                mark(temporary, tree)
            remove_tree(final)
            with storing("extract a bundle"):
                os.rename(temporary, final)
        except BaseException:
            remove_tree(temporary)
            raise
    return final


def verify(cache: Cache) -> tuple[int, list[Bad]]:
    """Compare every extraction with its bundle; a bad one is removed, and made again when it is needed."""
    bundles = {record.refs[-1]: record.artifact for record in cache.records.of_kind("bundle")}
    bad = []
    names = [name for name in sorted(os.listdir(cache.extractions)) if not name.startswith(".")]
    for name in names:
        tree = Digest("sha256:" + name)
        folder = cache.extraction(tree)
        try:
            known = tree in bundles
            what = damage(folder, read_tree(read(bundles[tree], cache.blobs), cache.blobs)) if known else "no bundle of them is known"
        except StoreError as error:
            what = error.what
        if what or find(cache, tree) is None:
            remove_tree(folder)
            bad.append(
                Bad(tree, f"extracted files: {what or 'changed since they were extracted'}; they are extracted again when needed", True)
            )
    return len(names), bad


def damage(folder: str, tree: Tree) -> str:
    """What is wrong with an extraction (compared with its tree, every byte), or "" if nothing is."""
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
        return os.path.islink(path) and entry.kind == "l" and os.fsencode(os.readlink(path)) == entry.content
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().encode() == entry.content


def _check(tree: Tree, budget: Budget) -> None:
    size = sum(entry.size for entry in tree.entries)
    if len(tree.entries) > budget.files or size > budget.bytes:
        raise ExtractionRefused(
            "A bundle is too large to be extracted",
            why=f"It holds {len(tree.entries):,} files of {size:,} bytes; {budget.files:,} of {budget.bytes:,} are allowed.",
        )


class _Extraction:
    """One extraction, into a folder that does not exist yet."""

    def __init__(self, blobs: Blobs, bundle: Bundle, tree: Tree, folder: str) -> None:
        self._blobs, self._bundle, self._folder = blobs, bundle, os.fsencode(folder)
        self._tree = tree
        self._left = {CODE + entry.path: entry for entry in tree.entries}

    def run(self) -> None:
        make_below(os.path.dirname(os.fsdecode(self._folder)))
        os.mkdir(self._folder, 0o755)
        self._masked = os.stat(self._folder).st_mode & 0o777 != 0o755  # By the umask: users of containers must be able to read all.
        self._folders = sorted(folders(entry.path for entry in self._tree.entries))
        for folder in self._folders:
            os.mkdir(self._folder + b"/" + folder)
        packs = self._bundle.packs
        if len(packs) > 1 and sum(pack.size for pack in packs) > _PARALLEL:
            from concurrent.futures import ThreadPoolExecutor

            with ThreadPoolExecutor(2) as pool:
                for _ in pool.map(self._pack, packs):
                    pass
        else:
            for pack in packs:
                self._pack(pack)
        if self._left:
            raise _refused(self._bundle, f"{next(iter(self._left.values())).name!r} is missing from it")
        for entry in self._tree.entries:
            if entry.kind == "l":  # Last, so that nothing is written through one.
                os.symlink(entry.content, self._folder + b"/" + entry.path)
        for folder in [*self._folders, b""]:
            os.chmod(self._folder + b"/" + folder, 0o555)

    def _pack(self, pack: Layer) -> None:
        import zstandard

        with self._blobs.open(pack.digest) as raw:
            verified = _Verified(raw)
            stream = zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(verified)  # type: ignore[arg-type]  # It only reads.
            try:
                reader = tar.Reader(io.BufferedReader(stream, 1 << 20))
                while member := reader.next():
                    self._member(reader, member)
            except (zstandard.ZstdError, ExtractionRefused) as error:
                if verified.digest() != pack.digest:
                    raise self._blobs.condemn(pack.digest, "its bytes have another digest") from error
                if isinstance(error, ExtractionRefused):
                    raise
                raise _refused(self._bundle, f"a pack is not compressed as it should be ({error})") from error
            if verified.digest() != pack.digest:
                raise self._blobs.condemn(pack.digest, "its bytes have another digest")
            if verified.size != pack.size:
                raise _refused(self._bundle, "a pack is not of the size that its manifest says")

    def _member(self, reader: tar.Reader, member: tar.Member) -> None:
        entry = self._left.get(member.name)
        link = member.target is not None
        if entry is None or (entry.kind == "l") != link or (entry.kind == "x") != member.executable:
            raise _refused(self._bundle, f"the member {member.name[:200]!r} is not in its tree, or is there twice")
        if link:
            if member.target != entry.content:
                raise _refused(self._bundle, f"the link {entry.name!r} leads elsewhere than its tree says")
            del self._left[member.name]
            return
        if member.size != entry.size:
            raise _refused(self._bundle, f"{entry.name!r} is not of the size that its tree says")
        del self._left[member.name]
        small = reader.skim(entry.size, None) if entry.size <= _SMALL else None
        if small is not None and hashlib.sha256(small).hexdigest().encode() != entry.content:
            raise self._other_bytes(entry)
        mode = 0o555 if member.executable else 0o444
        file = os.open(self._folder + b"/" + entry.path, _NEW, mode)
        try:
            if self._masked:
                os.fchmod(file, mode)
            if small is not None:
                write_all(file, small)
                return
            writer = _Writer(file)
            reader.skim(entry.size, writer)
            if writer.sha256.hexdigest().encode() != entry.content:
                raise self._other_bytes(entry)
        finally:
            os.close(file)

    def _other_bytes(self, entry: Entry) -> ExtractionRefused:
        return _refused(self._bundle, f"{entry.name!r} has other bytes than its tree says")


class _Verified(io.RawIOBase):
    """Hashes what is read through it."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw, self._sha256, self.size = raw, hashlib.sha256(), 0

    def read(self, size: int = -1) -> bytes:
        data = self._raw.read(size)
        self._sha256.update(data)
        self.size += len(data)
        return data

    def digest(self) -> Digest:
        """The digest of the whole, read to its end."""
        while self.read(1 << 20):
            pass
        return Digest.from_hash(self._sha256)


class _Writer:
    """Hashes what is written through it."""

    def __init__(self, file: int) -> None:
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        write_all(self._file, data)
        return len(data)


def _refused(bundle: Bundle, why: str) -> ExtractionRefused:
    return ExtractionRefused(f"The bundle {bundle.manifest.short} was refused", why=why, hint="Do not use the place that it came from.")
