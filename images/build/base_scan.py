"""Scan of an image's layers for its Python, its symbolic links, and its C library.

The Python is the one that a plain `python3` starts in a container. It is found by scanning, so the
image is never run and no engine is needed.
"""

from __future__ import annotations

import gzip
import re
import tarfile
from collections.abc import Mapping
from contextlib import ExitStack
from typing import IO, Any, cast

from flyte_build.cas.cache import Cache
from flyte_build.errors import ImageBuildError
from flyte_build.images.oci_image import PATH, OciImage
from flyte_build.images.platforms import Interpreter

_PYTHON = re.compile(r"python3\.([0-9]+)\Z")
_HOPS = 20  # Maximum number of symbolic links to follow.
_MEMBERS = 5_000_000  # Maximum number of members of all layers.
_WINDOW = 128 << 20  # Largest zstd window (bytes) of a layer: that of `zstd --long`.


class BaseScan:
    """The names in an image's file system, each with the target of a symbolic link, or None."""

    def __init__(self, image: OciImage, names: Mapping[str, str | None]) -> None:
        self._image, self._names = image, names

    @classmethod
    def of(cls, cache: Cache, image: OciImage) -> BaseScan:
        """Scan the layers of an image, which are in the cache.

        Names that a later layer deletes do not count (image-spec, layer.md, "Whiteouts"). Raises
        `ImageBuildError` for a layer that cannot be read.
        """
        names: dict[str, str | None] = {}
        count = 0
        for layer in image.manifest.layers:
            with ExitStack() as stack:
                stream = stack.enter_context(cache.blobs.open(layer.digest))
                try:
                    archive = stack.enter_context(
                        tarfile.open(fileobj=_plain(stream, stack), mode="r|")
                    )
                    hidden, new = list[str](), dict[str, str | None]()
                    while member := archive.next():
                        # Otherwise `tarfile` would keep all of them in memory.
                        archive.members = []  # type: ignore[attr-defined]
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
                        f"Cannot read a layer of the base: {layer.digest.short}",
                        why=f"{error}.",
                        hint="Choose another base.",
                    ) from None
            if hidden:
                gone = tuple(hidden)
                names = {name: target for name, target in names.items() if not _hides(gone, name)}
            names.update(new)
        return cls(image, names)

    def found(self) -> dict[str, Any]:
        """Return the findings to record, as a JSON value."""
        interpreter = self._interpreter()
        return {
            "interpreter": interpreter._asdict() if interpreter else None,
            "links": {
                name: target
                for name, target in sorted(self._names.items())
                if target is not None and name.count("/") < 2
            },
            "musl": any(
                name.startswith(("lib/ld-musl-", "usr/lib/ld-musl-")) for name in self._names
            ),
        }

    def _interpreter(self) -> Interpreter | None:
        for folder in self._image.env.get("PATH", PATH).split(":"):
            final = self._resolved(f"{folder}/python3".lstrip("/"))
            if final is None:
                continue
            version = _PYTHON.search(final) or next(
                filter(
                    None,
                    (
                        _PYTHON.search(name)
                        for name in self._names
                        if name.startswith(f"{_prefix(final)}lib/python3.")
                    ),
                ),
                None,
            )
            if version:
                return self._at(folder.rstrip("/"), final, f"3.{version[1]}")
        return None

    def _at(self, folder: str, final: str, version: str) -> Interpreter:
        """Return the interpreter of an executable.

        Its package directory is the one that its `site` module would add.
        """
        prefix, own = folder.rpartition("/")[0].lstrip("/"), _prefix(final).rstrip("/")
        # A virtual environment is identified by the path that it is started with.
        if f"{prefix}/pyvenv.cfg" in self._names:
            return _interpreter(version, f"/{prefix}/bin/python3", f"/{prefix}", "site-packages")
        if own == "usr":
            if self._has("usr/lib/python3/dist-packages"):  # Debian separates local packages.
                return _interpreter(version, f"/{final}", "/usr/local", "dist-packages")
            if self._has(f"usr/lib64/python{version}"):  # So does Fedora's.
                return _interpreter(version, f"/{final}", "/usr/local", "site-packages")
        return _interpreter(version, f"/{final}", f"/{own}", "site-packages")

    def _has(self, folder: str) -> bool:
        return folder in self._names or any(name.startswith(f"{folder}/") for name in self._names)

    def _resolved(self, path: str) -> str | None:
        """Return a path with all symbolic links resolved, or None if there is no such file."""
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
    return Interpreter(
        version=version, executable=executable, packages=where, scripts=f"{prefix}/bin"
    )


def _prefix(path: str) -> str:
    """Return the prefix of an executable: `usr/local/` for `usr/local/bin/python3.11`."""
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
    return any(
        name == each or name.startswith(each if each.endswith("/") else f"{each}/") for each in gone
    )


def _unreadable() -> tuple[type[Exception], ...]:
    """Return the exceptions raised for a layer that is not an archive or is badly compressed."""
    import zlib

    import zstandard

    return (
        tarfile.TarError,
        EOFError,
        OSError,
        ValueError,
        OverflowError,
        RecursionError,
        zlib.error,
        zstandard.ZstdError,
    )


def _plain(stream: IO[bytes], stack: ExitStack) -> IO[bytes]:
    """Return a layer as an uncompressed stream; its first bytes tell the compression."""
    head = stream.read(4)
    stream.seek(0)
    if head[:2] == b"\x1f\x8b":
        return cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=stream)))
    if head == b"\x28\xb5\x2f\xfd":
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        return cast(
            IO[bytes],
            stack.enter_context(decompressor.stream_reader(stream, read_across_frames=True)),
        )
    return stream
