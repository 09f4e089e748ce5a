"""Wheels with false claims: layers and local environments refuse the same ones, with reasons."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from flyte_build.errors import ImageBuildError
from flyte_build.images.environments.node import install
from flyte_build.images.lock.pins import Wheel
from flyte_build.images.lock.uv import Uv
from flyte_build.images.platforms import PYTHON
from tests.images.test_wheel_layers import ARM, elf, layer_of
from tests.support.bases import MadeWheel, blobs_of, pinned, sha256
from tests.support.caches import opened

INFO = "pkg-1.0.dist-info"
Change = Callable[[dict[str, bytes]], dict[str, bytes]]


def rewritten(change: Change) -> Callable[[Path], Wheel]:
    """Return a function that makes a wheel with changed files, its RECORD among them."""

    def make(folder: Path) -> Wheel:
        path = Path(MadeWheel().write(folder).url.removeprefix("file://"))
        with zipfile.ZipFile(path) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        files = change(files)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return pinned(path, "pkg", "1.0")

    return make


def without(files: dict[str, bytes], start: str) -> dict[str, bytes]:
    """Return the files without those whose names begin with `start`."""
    return {name: data for name, data in files.items() if not name.startswith(start)}


def patched(old: bytes, new: bytes) -> Callable[[Path], Wheel]:
    """Return a function that makes a wheel in whose bytes `old` is replaced."""

    def make(folder: Path) -> Wheel:
        path = Path(MadeWheel().write(folder).url.removeprefix("file://"))
        data = path.read_bytes()
        assert old in data
        path.write_bytes(data.replace(old, new))
        return pinned(path, "pkg", "1.0")

    return make


def with_files(**more: object) -> Callable[[Path], Wheel]:
    """Return a function that makes a wheel of these fields."""
    return lambda folder: MadeWheel(**more).write(folder)  # type: ignore[arg-type]  # Each line gives its own.


def brings(name: str, data: bytes = b"x") -> Callable[[Path], Wheel]:
    """Return a function that makes a wheel with a file that its RECORD lists."""
    return with_files(files={"pkg/__init__.py": b"", name: data})


def record(change: Callable[[bytes], bytes]) -> Callable[[Path], Wheel]:
    """Return a function that makes a wheel with a changed RECORD."""
    return rewritten(lambda files: {**files, f"{INFO}/RECORD": change(files[f"{INFO}/RECORD"])})


def twice(folder: Path) -> Wheel:
    """Make a wheel with two files of one name."""
    path = Path(MadeWheel().write(folder).url.removeprefix("file://"))
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("pkg/__init__.py", b"evil = 1\n")
    return pinned(path, "pkg", "1.0")


def cut(folder: Path) -> Wheel:
    """Make a wheel without its end."""
    path = Path(MadeWheel().write(folder).url.removeprefix("file://"))
    path.write_bytes(path.read_bytes()[:-30])
    return pinned(path, "pkg", "1.0")


def lying_size(folder: Path) -> Wheel:
    """Make a wheel with a file that claims to be small and inflates to 64 MB."""
    data = bytes(64 << 20)
    made = Path(MadeWheel(files={"pkg/zeros": data}).write(folder).url.removeprefix("file://"))
    raw = made.read_bytes()
    raw = raw.replace(struct.pack("<L", len(data)), struct.pack("<L", 10)).replace(
        b",67108864", b",10"
    )
    made.write_bytes(raw)
    return pinned(made, "pkg", "1.0")


def bzipped(folder: Path) -> Wheel:
    """Make a wheel with a compression that wheels never have."""
    path = Path(MadeWheel().write(folder).url.removeprefix("file://"))
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return pinned(path, "pkg", "1.0")


def no_zip(folder: Path) -> Wheel:
    """Make a file that is a wheel by its name alone."""
    path = folder / "pkg-1.0-py3-none-any.whl"
    path.write_bytes(b"<html>not found</html>")
    return pinned(path, "pkg", "1.0")


RECORDED = b"sha256=" + sha256(b"x = 1\n").encode()
WHEELS: dict[str, tuple[Callable[[Path], Wheel], str]] = {
    "a file that RECORD does not list": (
        rewritten(lambda files: {**files, "pkg/more.py": b"x"}),
        "does not list pkg/more.py",
    ),
    "a file at the top that RECORD does not list": (
        rewritten(lambda files: {**files, "evil.pth": b"import os"}),
        "not list evil.pth",
    ),
    "a script that RECORD does not list": (
        rewritten(lambda files: {**files, "pkg-1.0.data/scripts/ls": b"#!"}),
        "not list",
    ),
    "no RECORD": (rewritten(lambda files: {**files, f"{INFO}/RECORD": b""}), "does not list"),
    "RECORD absent": (rewritten(lambda files: without(files, f"{INFO}/RECORD")), "RECORD"),
    "a RECORD without hashes": (
        record(lambda text: text.replace(RECORDED, b"")),
        "no secure hash of pkg/__init__.py",
    ),
    "a RECORD with a weak hash": (
        record(lambda text: text.replace(RECORDED, b"md5=AAAA")),
        "no secure hash",
    ),
    "a RECORD with an unknown hash": (
        record(lambda text: text.replace(RECORDED, b"rot13=AAAA")),
        "hash algorithm 'rot13'",
    ),
    "a RECORD with another hash": (
        record(lambda text: text.replace(RECORDED, b"sha256=" + b"A" * 43)),
        "does not match its RECORD",
    ),
    "a RECORD with another size": (
        record(lambda text: text.replace(RECORDED + b",6", RECORDED + b",7")),
        "differs from the one in its RECORD",
    ),
    "a RECORD with a size that is none": (
        record(lambda text: text.replace(RECORDED + b",6", RECORDED + b",x")),
        "",
    ),
    "a RECORD that is no table": (record(lambda text: b"\x00\xff\xfe" * 20), ""),
    "a RECORD with a file that is absent": (
        record(lambda text: text + b"\ngone.py,sha256=" + b"A" * 43 + b",1"),
        "lists gone.py, which is missing",
    ),
    "a path that leads up": (brings("../evil.py"), "leads outside its directory"),
    "a path that leads up far": (
        brings("../../../../../../../../tmp/flyte-evil.py"),
        "leads outside its directory",
    ),
    "a path that leads up from within": (
        brings("pkg/../../evil.py"),
        "leads outside its directory",
    ),
    "an absolute path": (brings("/tmp/flyte-evil.py"), "leads outside its directory"),
    "a path with an empty part": (brings("pkg//x.py"), "leads outside its directory"),
    "a path that leads up from scripts": (
        brings("pkg-1.0.data/scripts/../../../evil"),
        "leads outside its directory",
    ),
    "a path that leads up from data": (
        brings("pkg-1.0.data/data/../../evil"),
        "leads outside its directory",
    ),
    "an entry point that leads up": (
        with_files(scripts={"../evil": "pkg:main"}),
        "leads outside its directory",
    ),
    "a script in Python's place": (
        brings("pkg-1.0.data/scripts/python3"),
        "would replace the environment's Python",
    ),
    "an entry point in Python's place": (
        with_files(scripts={"python": "pkg:main"}),
        "would replace the environment's Python",
    ),
    "data in Python's place": (
        brings("pkg-1.0.data/data/bin/python3"),
        "would replace the environment's Python",
    ),
    "data in the place of Python's configuration": (
        brings("pkg-1.0.data/data/pyvenv.cfg"),
        "would replace the environment's Python",
    ),
    "two files of one name": (twice, "pkg/__init__.py twice"),
    "a bomb": (
        with_files(files={f"pkg/{at}.bin": bytes(1 << 28) for at in range(5)}),
        "but its file has only",
    ),
    "a file that is larger than it says": (lying_size, ""),
    "machine code for another machine": (brings("pkg/_x.so", elf(ARM)), "machine code for"),
    "damaged bytes": (
        patched(
            zlib.compress(b"x = 1\n", wbits=-15),
            b"\x07" * len(zlib.compress(b"x = 1\n", wbits=-15)),
        ),
        "",
    ),
    "another checksum": (patched(struct.pack("<L", zlib.crc32(b"x = 1\n")), b"\1\2\3\4"), ""),
    "a file of another compression": (bzipped, "or has an unknown compression"),
    "its end is missing": (cut, ""),
    "not a valid zip file": (no_zip, ""),
    "no metadata": (rewritten(lambda files: without(files, INFO)), ""),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WHEELS)
def test_a_layer_and_an_environment_refuse_it_alike(tmp_path: Path, what: str) -> None:
    """A layer and an environment refuse a wheel with the same error, and leave nothing of it."""
    make, why = WHEELS[what]
    wheel = make(tmp_path)
    with pytest.raises(ImageBuildError) as layer:
        layer_of(blobs_of(tmp_path / "refusing"), wheel)
    with opened(tmp_path / "cache") as cache:
        with pytest.raises(ImageBuildError) as environment:
            install(cache, PYTHON, [wheel], str(tmp_path), Uv())
        kept = [
            path
            for path in Path(cache.environments).rglob("*")
            if "evil" in path.name or "pkg" in path.name
        ]
    assert why in layer.value.why and why in environment.value.why
    assert (
        layer.value.what
        == environment.value.what
        == "Cannot use the wheel pkg-1.0-py3-none-any.whl"
    )
    assert layer.value.why and "Traceback" not in layer.value.why and layer.value.why[-1] == "."
    assert kept == [] and not list(Path("/tmp").glob("flyte-evil*"))


def test_a_good_wheel_is_taken_by_both(tmp_path: Path) -> None:
    """A good wheel with scripts, data and signatures is installed by both.

    It comes from the store when its file is gone.
    """
    files = {
        "pkg/__init__.py": b"x = 1\n",
        "pkg-1.0.data/data/share/pkg/x": b"x",
        "pkg-1.0.data/scripts/pythonic": b"#!python\n",
    }
    wheel = MadeWheel(files=files, scripts={"tool": "pkg:main"}).write(tmp_path)
    layer_of(blobs_of(tmp_path / "layers"), wheel)
    with opened(tmp_path / "cache") as cache:
        record = install(cache, PYTHON, [wheel], str(tmp_path), Uv())
        os.unlink(wheel.url.removeprefix("file://"))
        place = Path(cache.environment(record.artifact)) / "venv"
        assert {"tool", "pythonic"} <= {path.name for path in (place / "bin").iterdir()} and (
            place / "share/pkg/x"
        ).read_bytes() == b"x"
        other = MadeWheel(name="other").write(tmp_path)
        assert (
            install(cache, PYTHON, [wheel, other], str(tmp_path), Uv()).artifact != record.artifact
        )


def test_links_to_wheels_that_were_collected_are_removed(tmp_path: Path) -> None:
    """Links to collected wheels are removed when the next environment is created."""
    one, two = MadeWheel(name="one").write(tmp_path), MadeWheel(name="two").write(tmp_path)
    with opened(tmp_path / "cache") as cache:
        install(cache, PYTHON, [one], str(tmp_path), Uv())
        cache.blobs.delete(one.digest)
        install(cache, PYTHON, [two], str(tmp_path), Uv())
        assert [path.name for path in Path(cache.folder).glob("wheels/*/*")] == [two.filename]
