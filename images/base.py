"""Bases: images that others made. What is behind a reference, and which Python is inside: found out once for each digest.

The Python is what a plain `python3` starts in a container: so the base's layers are looked through for it, and the base is never
run, nor asked of anybody.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import IO, Any, cast

from flyte_build.cas.cache import Cache
from flyte_build.cas.digest import Digest, Key
from flyte_build.cas.encoding import key
from flyte_build.cas.records import Record
from flyte_build.cas.registry.ledger import Ledger
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.transfer import Progress, Transfer
from flyte_build.errors import BlobMissing, ImageBuildError, RegistryCorrupt

from .config import PATH, Image, check
from .interpreter import Interpreter
from .loading import Fetch
from .pins import PinnedBase
from .platforms import linux_here
from .reference import Reference

KIND, _FORMAT = "base", 1
_PYTHON = re.compile(r"python3\.([0-9]+)\Z")
_HOPS = 20  # Links that are followed at most.
_MEMBERS = 5_000_000  # Members of all layers, at most.
_WINDOW = 128 << 20  # Bytes of zstd window that a layer may ask for: what `zstd --long` writes.
Open = Callable[[RepositoryName], Repository]


@dataclass(frozen=True, kw_only=True)
class Base:
    """A base for one platform: the image, where it is (None: on this machine alone), and what was found in it.

    `interpreter` is its Python, if it has one; `links` are its links in `/` and one folder below, by path, with their targets;
    `musl` says that its C library is not the one that manylinux wheels need.
    """

    image: Image
    place: RepositoryName | None
    interpreter: Interpreter | None
    links: Mapping[str, str]
    musl: bool


class Bases:
    """Bases by reference. What was found out is recorded in the cache; repositories are opened when they are needed."""

    def __init__(self, cache: Cache, open_repository: Open, progress: Progress = lambda done, total: None) -> None:
        self._cache, self._open = cache, open_repository
        self._transfer = Transfer(cache.blobs, Ledger(cache.database), progress)

    def look_up(self, reference: str, with_python: bool = True) -> PinnedBase:
        """What is behind a reference today, and the Python in it, for which its layers are looked through, once.

        Raises `ImageBuildError` if it is not there, and `RegistryError`."""
        found = Reference.parse(reference)
        manifest = self._open(found.name).manifest(found.digest or found.tag)
        if manifest is None:
            raise _absent(found)
        if not with_python:
            return PinnedBase(reference=reference, digest=manifest.digest, python="")
        platforms = _platforms(manifest)
        platform = linux_here() if not platforms or linux_here() in platforms else next(iter(platforms))
        pinned = PinnedBase(reference=reference, digest=manifest.digest, python="")
        interpreter = self.get(pinned, platform if platforms else "").interpreter
        return PinnedBase(reference=reference, digest=manifest.digest, python=interpreter.version if interpreter else "")

    def get(self, pinned: PinnedBase, platform: str) -> Base:
        """The base of that digest, for one platform ("": for its only one). Raises `ImageBuildError` and `RegistryError`."""
        reference = Reference.parse(pinned.reference)
        record = self._cache.records.find(_key(pinned.digest, platform))
        if record is None or not all(map(self._cache.blobs.has, record.refs)):
            record = self._inspect(reference, pinned.digest, platform)
        image = Image.read(record.refs[1], self._cache.blobs)
        return Base(image=image, place=reference.name, **_read(self._cache.blobs.read(record.artifact)))

    def of_image(self, image: Image, fetch: Fetch) -> Base:
        """The same of an image whose manifest and config are on this machine; its layers are fetched if they have to be looked through."""
        known = key(KIND, _FORMAT, {"config": image.identity})
        record = self._cache.records.find(known)
        if record is None or not all(map(self._cache.blobs.has, record.refs)):
            fetch(image.manifest.layers)
            record = self._record(image, known, {"config": image.identity})
        return Base(image=image, place=None, **_read(self._cache.blobs.read(record.artifact)))

    def _inspect(self, reference: Reference, digest: Digest, platform: str) -> Record:
        repository = self._open(reference.name)
        manifest = repository.manifest(digest)
        if manifest is not None and manifest.is_index:
            manifest = repository.manifest(_chosen(manifest, reference, platform))
        if manifest is None:
            raise _absent(reference)
        try:
            self._transfer.pull(manifest.digest, repository)
        except BlobMissing as error:
            raise ImageBuildError(f"The base {reference} is not whole", why=f"{error.what}.", hint="Push it again.") from None
        image = Image.read(manifest.digest, self._cache.blobs)
        check(image, str(reference), platform or image.platform)
        return self._record(image, _key(digest, image.platform), {"digest": digest, "platform": image.platform})

    def _record(self, image: Image, known: Key, inputs: Mapping[str, str]) -> Record:
        document = json.dumps(_Names(self._cache, image).found(), sort_keys=True).encode()
        artifact = self._cache.blobs.put(document)
        record = Record(known, KIND, artifact, (artifact, image.manifest.digest, image.identity), inputs)
        self._cache.records.add(record)
        return record


def _key(digest: Digest, platform: str) -> Key:
    return key(KIND, _FORMAT, {"digest": digest, "platform": platform})


def _read(document: bytes) -> dict[str, Any]:
    found = json.loads(document)
    return {**found, "interpreter": Interpreter(**found["interpreter"]) if found["interpreter"] else None}


def _platforms(manifest: Manifest) -> dict[str, Digest]:
    """The platforms of an index, with their manifests; none for what is no index."""
    found: dict[str, Digest] = {}
    for each, descriptor in zip(manifest.document["manifests"], manifest.manifests, strict=True) if manifest.is_index else ():
        said = each.get("platform") or {}
        if not isinstance(said, dict) or not (name := f"{said.get('os')}/{said.get('architecture')}").isprintable():
            raise RegistryCorrupt(f"{manifest.digest} is no index of images", why="A platform in it is none.")
        found.setdefault(name, descriptor.digest)
    return found


def _chosen(manifest: Manifest, reference: Reference, platform: str) -> Digest:
    platforms = _platforms(manifest)
    if platform in platforms:
        return platforms[platform]
    if not platform and len(platforms) == 1:
        return next(iter(platforms.values()))
    raise ImageBuildError(
        f"The base {reference} is not there for {platform or 'one platform alone'}",
        why=f"It is for {', '.join(sorted(platforms))}.",
        hint="Name another base, or another platform: platform=...",
    )


def _absent(reference: Reference) -> ImageBuildError:
    return ImageBuildError(
        f"There is no image {reference}",
        why=f"{reference.name} does not have it.",
        hint="Push it first, or mend its name.",
    )


class _Names:
    """The names in an image's file system: of each layer in turn, without what later ones took away (image-spec, layer.md, "Whiteouts")."""

    def __init__(self, cache: Cache, image: Image) -> None:
        self._image = image
        self._names: dict[str, str | None] = {}  # The target of a link, else None.
        count = 0
        for layer in image.manifest.layers:
            with ExitStack() as stack:
                stream = stack.enter_context(cache.blobs.open(layer.digest))
                try:
                    archive = stack.enter_context(tarfile.open(fileobj=_plain(stream, stack), mode="r|"))
                    hidden, new = list[str](), dict[str, str | None]()
                    while member := archive.next():
                        archive.members = []  # type: ignore[attr-defined]  # It would keep them all.
                        count += 1
                        if count > _MEMBERS:
                            raise tarfile.TarError("it has too many members")
                        name = _normal(member.name)
                        folder, _, last = name.rpartition("/")
                        if last == ".wh..wh..opq":
                            hidden.append(f"{folder}/")
                        elif last.startswith(".wh."):
                            hidden.append(f"{folder}/{last[4:]}".lstrip("/"))
                        else:
                            new[name] = member.linkname if member.issym() else None
                except _unreadable() as error:
                    raise ImageBuildError(
                        f"A layer of the base cannot be read: {layer.digest.short}", why=f"{error}.", hint="Name another base."
                    ) from None
            if hidden:
                gone = tuple(hidden)
                self._names = {name: target for name, target in self._names.items() if not _hides(gone, name)}
            self._names.update(new)

    def found(self) -> dict[str, Any]:
        """What is worth remembering, as a JSON value."""
        interpreter = self._interpreter()
        return {
            "interpreter": asdict(interpreter) if interpreter else None,
            "links": {name: target for name, target in sorted(self._names.items()) if target is not None and name.count("/") < 2},
            "musl": any(name.startswith(("lib/ld-musl-", "usr/lib/ld-musl-")) for name in self._names),
        }

    def _interpreter(self) -> Interpreter | None:
        for folder in self._image.env.get("PATH", PATH).split(":"):
            final = self._resolved(f"{folder}/python3".lstrip("/"))
            if final is None:
                continue
            version = _PYTHON.search(final) or next(
                filter(None, (_PYTHON.search(name) for name in self._names if name.startswith(f"{_prefix(final)}lib/python3."))), None
            )
            if version:
                return self._at(folder.rstrip("/"), final, f"3.{version[1]}")
        return None

    def _at(self, folder: str, final: str, version: str) -> Interpreter:
        """Where the Python of that executable looks for packages (its `site` module)."""
        prefix, own = folder.rpartition("/")[0].lstrip("/"), _prefix(final).rstrip("/")
        if f"{prefix}/pyvenv.cfg" in self._names:  # A virtual environment: known by the path that it is started by.
            return _interpreter(version, f"/{prefix}/bin/python3", f"/{prefix}", "site-packages")
        if own == "usr":
            if self._has("usr/lib/python3/dist-packages"):  # Debian's own keeps ours apart.
                return _interpreter(version, f"/{final}", "/usr/local", "dist-packages")
            if self._has(f"usr/lib64/python{version}"):  # So does Fedora's.
                return _interpreter(version, f"/{final}", "/usr/local", "site-packages")
        return _interpreter(version, f"/{final}", f"/{own}", "site-packages")

    def _has(self, folder: str) -> bool:
        return folder in self._names or any(name.startswith(f"{folder}/") for name in self._names)

    def _resolved(self, path: str) -> str | None:
        """The path of the file behind a path, with all links followed; None if there is none."""
        for _ in range(_HOPS):
            parts = path.split("/")
            for at in range(1, len(parts) + 1):
                here = "/".join(parts[:at])
                target = self._names.get(here)
                if target is not None:
                    rest = "/".join(parts[at:])
                    start = "" if target.startswith("/") else here.rpartition("/")[0]
                    path = _normal(f"{start}/{target}/{rest}")
                    break
            else:
                return path if path in self._names else None
        return None


def _interpreter(version: str, executable: str, prefix: str, packages: str) -> Interpreter:
    where = f"{prefix}/lib/python{version}/{packages}"
    return Interpreter(version=version, executable=executable, packages=where, scripts=f"{prefix}/bin")


def _prefix(path: str) -> str:
    """`usr/local/` for `usr/local/bin/python3.11`."""
    return path.rpartition("/")[0].rpartition("/")[0] + "/"


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _hides(gone: tuple[str, ...], name: str) -> bool:
    return any(name == each or name.startswith(each if each.endswith("/") else f"{each}/") for each in gone)


def _unreadable() -> tuple[type[Exception], ...]:
    """What reading a layer raises that is no archive, or is compressed as it should not be."""
    import zlib

    import zstandard

    return (tarfile.TarError, EOFError, OSError, ValueError, OverflowError, RecursionError, zlib.error, zstandard.ZstdError)


def _plain(stream: IO[bytes], stack: ExitStack) -> IO[bytes]:
    """The bytes of a layer without its compression, which its first bytes tell."""
    head = stream.read(4)
    stream.seek(0)
    if head[:2] == b"\x1f\x8b":
        return cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=stream)))
    if head == b"\x28\xb5\x2f\xfd":
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return cast(IO[bytes], stack.enter_context(decompressor.stream_reader(stream, read_across_frames=True)))
    return stream
