"""Conversion of wheels to layers (PyPA specifications, "Binary distribution format").

The library `installer` decides the place of each file; here the files become members of an archive.
Equal wheels and interpreters give equal archives, byte by byte: members are sorted by path and have
mode 0644 or 0755 and no times, and the installed RECORD is sorted, too.
"""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

from installer import install
from installer.destinations import WheelDestination
from installer.exceptions import InstallerError
from installer.records import InvalidRecordEntry, RecordEntry, parse_record_file
from installer.scripts import Script
from installer.sources import WheelFile

from flyte_build.cas import tar
from flyte_build.cas.blobs import Batch
from flyte_build.cas.layer import Compression, Layer
from flyte_build.images.lock.pins import Wheel
from flyte_build.images.platforms import Interpreter

from .gzip_members import LayerWriter
from .machine_code import HEAD, check_binaries, refused
from .wheel_member import GeneratedFile, ZipMember

_PYTHON = re.compile(r"pythonw?(\d+(\.\d+)*)?\Z")
FORMAT = 1
"""Version of the layout of a wheel's layer; raise it when the same wheels give another archive."""
# A wheel is refused if it unpacks to more than this many times its size and this many bytes.
_BOMB = (200, 1 << 30)
STANDARD = frozenset(
    {"usr", "usr/lib", "usr/bin", "usr/local", "usr/local/bin", "usr/local/lib", "opt"}
)
"""Directories that every base has; layers do not contain them, so the base's modes stay."""
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")
_MALFORMED = (
    *(InstallerError, InvalidRecordEntry, zipfile.BadZipFile, zlib.error),
    *(KeyError, ValueError, NotImplementedError, EOFError),
)


@dataclass(frozen=True)
class LayerFile:
    """A file of a layer; `path` is absolute, without the leading `/`."""

    path: bytes
    content: GeneratedFile | ZipMember
    executable: bool


def write_layer(
    wheels: Sequence[tuple[Wheel, str]],
    interpreter: Interpreter,
    platform: str,
    batch: Batch,
    compression: Compression,
    note: Callable[[str], None] = lambda sentence: None,
) -> Layer:
    """Write one layer of wheels, each given with the path of its verified file, and return it.

    Raises `ImageBuildError` for a wheel that is malformed, or not for that Python and platform. If
    two wheels contain the same path with different content, the last one by name wins, and `note`
    receives a sentence about it.
    """
    with ExitStack() as stack:
        members: dict[bytes, tuple[Wheel, LayerFile]] = {}
        for wheel, where in sorted(wheels, key=lambda each: each[0].name):
            file = stack.enter_context(open(where, "rb"))
            for member in members_of(wheel, file, interpreter, platform):
                other = members.get(member.path)
                if other and other[1].content.hash != member.content.hash:
                    note(
                        f"{wheel.name} and {other[0].name} both contain"
                        f" {os.fsdecode(member.path)}; the file of {wheel.name} is used."
                    )
                members[member.path] = (wheel, member)
        with batch.writer() as writer:
            layer = LayerWriter(batch, writer, compression)
            seen = set(STANDARD)
            for path in sorted(members):
                for folder in new_folders(path, seen):
                    layer.write(tar.folder(folder))
                member = members[path][1]
                layer.write(tar.header(tar.Member(path, member.content.size, member.executable)))
                member.content.add_to(layer)
                layer.write(tar.padding(member.content.size))
            return layer.finish()


def new_folders(path: bytes, seen: set[str]) -> Iterator[bytes]:
    """Yield the parent directories of a path that are not in `seen`, topmost first; add them to it.

    Without entries of their own, engines would create them with modes of their choice.
    """
    parts = os.fsdecode(path).split("/")[:-1]
    for at in range(1, len(parts) + 1):
        folder = "/".join(parts[:at])
        if folder not in seen:
            seen.add(folder)
            yield os.fsencode(folder)


def check(wheel: Wheel, path: str, interpreter: Interpreter, platform: str) -> None:
    """Raise `ImageBuildError` for a wheel that a layer would refuse.

    It is read completely, so that its installer need not be trusted to check it.
    """
    with open(path, "rb") as file:
        for member in members_of(wheel, file, interpreter, platform):
            if isinstance(member.content, ZipMember):
                member.content.check()


def members_of(
    wheel: Wheel, file: BinaryIO, interpreter: Interpreter, platform: str
) -> list[LayerFile]:
    """Return the files that a wheel installs.

    Raises `ImageBuildError` if the wheel is malformed.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            archive.filename = wheel.filename
            _check_size(wheel, archive, os.fstat(file.fileno()).st_size)
            source = _Source(wheel, archive, file)
            if platform.startswith("linux/"):
                check_binaries(
                    wheel,
                    {name: partial(found.head, HEAD) for name, found in source.files.items()},
                    platform,
                )
            destination = _Destination(wheel, interpreter)
            with warnings.catch_warnings():
                # About files in `__pycache__`, which are left out.
                warnings.simplefilter("ignore", RuntimeWarning)
                install(source, destination, {"INSTALLER": b"flyte-build\n"})
            return destination.members
    except _MALFORMED as error:
        why = str(error).rstrip(".") + "."
        raise refused(wheel, why[:1].upper() + why[1:]) from None


def _check_size(wheel: Wheel, archive: zipfile.ZipFile, size: int) -> None:
    total = sum(info.file_size for info in archive.infolist())
    if total > max(_BOMB[0] * size, _BOMB[1]):
        raise refused(wheel, f"It would unpack to {total:,} bytes, but its file has only {size:,}.")
    for info in archive.infolist():
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise refused(
                wheel, f"Its file {info.filename} is encrypted, or has an unknown compression."
            )
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise refused(wheel, f"Its file {info.filename} is recorded with two sizes.")


class _Source(WheelFile):
    """A wheel whose files are passed on in their stored form.

    Raises `ValueError` if they are not those of its RECORD.
    """

    def __init__(self, wheel: Wheel, archive: zipfile.ZipFile, file: BinaryIO) -> None:
        super().__init__(archive)
        record = f"{self.dist_info_dir}/RECORD"
        self._records = {
            row[0]: row for row in parse_record_file(self.read_dist_info("RECORD").splitlines())
        }
        signatures = [f"{self.dist_info_dir}/{name}" for name in _SIGNATURES]
        self.files: dict[str, ZipMember] = {}
        for info in archive.infolist():
            name = info.filename
            if name.endswith("/") or name == record or name in signatures:
                continue
            _check_path(wheel, name)
            if name in self.files:
                raise ValueError(f"it contains {name} twice")
            if name not in self._records:
                raise ValueError(f"its RECORD does not list {name}")
            entry = RecordEntry.from_elements(*self._records[name])
            if entry.hash_ is None or entry.hash_.name not in ("sha256", "sha384", "sha512"):
                raise ValueError(f"its RECORD has no secure hash of {name}")
            if entry.size is not None and entry.size != info.file_size:
                raise ValueError(f"the size of {name} differs from the one in its RECORD")
            self.files[name] = ZipMember(wheel, file, info, (entry.hash_.name, entry.hash_.value))
        absent = self._records.keys() - self.files.keys() - {record, *signatures}
        if absent := {
            name for name in absent if not name.endswith("/") and "/__pycache__/" not in name
        }:
            raise ValueError(f"its RECORD lists {min(absent)}, which is missing")
        self._infos = {info.filename: info for info in archive.infolist()}

    def get_contents(self) -> Iterator[tuple[tuple[str, str, str], Any, bool]]:
        for name, content in self.files.items():
            mode = self._infos[name].external_attr >> 16
            yield (
                self._records[name],
                content,
                bool(mode & 0o111 and mode & 0o170000 in (0, 0o100000)),
            )


class _Destination(WheelDestination):
    """Collector of the files that `installer` writes."""

    def __init__(self, wheel: Wheel, interpreter: Interpreter) -> None:
        self._wheel, self._interpreter = wheel, interpreter
        prefix = os.path.dirname(interpreter.scripts)
        self._folders: Mapping[str, str] = {
            "purelib": interpreter.packages,
            "platlib": interpreter.packages,
            "scripts": interpreter.scripts,
            "data": prefix,
            "headers": f"{prefix}/include/python{interpreter.version}/{wheel.name}",
        }
        self.members: list[LayerFile] = []

    def write_script(self, name: str, module: str, attr: str, section: Any) -> RecordEntry:
        _, data = Script(name, module, attr, section).generate(
            self._interpreter.executable, "posix"
        )
        return self._add("scripts", name, GeneratedFile(data), True)

    def write_file(
        self, scheme: str, path: str | os.PathLike[str], stream: Any, is_executable: bool
    ) -> RecordEntry:
        content = stream if isinstance(stream, ZipMember) else GeneratedFile(stream.read())
        if scheme == "scripts" and isinstance(content, ZipMember):
            content, is_executable = self._script(content), True
        return self._add(scheme, os.fspath(path), content, is_executable)

    def _script(self, content: ZipMember) -> GeneratedFile | ZipMember:
        """Return a script with the image's interpreter in place of the placeholder `#!python`.

        See the PyPA specifications, "Binary distribution format", "Recommended archiver features".
        """
        if not content.head(8).startswith(b"#!python"):
            return content
        data = b"".join(plain for _, plain in content.inflate())
        _, newline, rest = data.partition(b"\n")
        return GeneratedFile(b"#!" + self._interpreter.executable.encode() + newline + rest)

    def finalize_installation(
        self, scheme: str, record_file_path: str, records: Iterable[tuple[str, RecordEntry]]
    ) -> None:
        base, lines = self._folders[scheme], io.StringIO()
        import csv

        rows = [
            entry.to_row(None if each == scheme else _below(base, self._folders[each]))
            for each, entry in records
        ]
        csv.writer(lines, lineterminator="\n").writerows(sorted(rows))
        self._add(scheme, record_file_path, GeneratedFile(lines.getvalue().encode()), False)

    def _add(
        self, scheme: str, path: str, content: GeneratedFile | ZipMember, executable: bool
    ) -> RecordEntry:
        _check_path(self._wheel, path)
        place = f"{self._folders[scheme]}/{path}"
        folder, _, name = place.rpartition("/")
        if (
            folder == self._interpreter.scripts and _PYTHON.match(name)
        ) or place == f"{self._folders['data']}/pyvenv.cfg":
            raise refused(
                self._wheel,
                f"It contains {place}, which would replace the environment's Python.",
            )
        self.members.append(LayerFile(os.fsencode(place.lstrip("/")), content, executable))
        from installer.records import Hash as RecordHash

        return RecordEntry(path, RecordHash(*content.hash), content.size)


def _check_path(wheel: Wheel, path: str) -> None:
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise refused(wheel, f"Its file {path!r} leads outside its directory.")


def _below(base: str, folder: str) -> str:
    return os.path.relpath(folder, base) + "/"
