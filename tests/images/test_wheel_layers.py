"""Wheels become layers: paths of files, reproducible bytes, and refusals."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyte_build.cas.blobs import Blobs
from flyte_build.cas.digest import Digest
from flyte_build.cas.layer import Compression, Layer
from flyte_build.errors import ImageBuildError
from flyte_build.images.layers.grouping import LAYERS, group
from flyte_build.images.layers.machine_code import check_tags
from flyte_build.images.layers.wheel import write_layer
from flyte_build.images.lock.pins import Wheel
from flyte_build.images.platforms import Interpreter
from tests.support.bases import MadeWheel, blobs_of, pinned
from tests.support.checkout import CHECKOUT

DEBIAN = Interpreter(
    version="3.11",
    executable="/usr/bin/python3.11",
    packages="/usr/local/lib/python3.11/dist-packages",
    scripts="/usr/local/bin",
)
PACKAGES = "usr/local/lib/python3.11/dist-packages"
X86, ARM = 62, 183


def elf(machine: int) -> bytes:
    """Return the beginning of a shared library for this machine type."""
    return b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HH", 3, machine) + bytes(44)


def layer_of(
    blobs: Blobs, *wheels: Wheel, compression: Compression = "gzip", said: list[str] | None = None
) -> Layer:
    """Return the layer of some wheels in Debian's Python."""
    paths = [(wheel, wheel.url.removeprefix("file://")) for wheel in wheels]
    with blobs.batch() as batch:
        return write_layer(
            paths,
            DEBIAN,
            "linux/amd64",
            batch,
            compression,
            (said if said is not None else []).append,
        )


def content(blobs: Blobs, layer: Layer) -> dict[str, tarfile.TarInfo]:
    """Return the members of a gzip layer, and check its diff_id."""
    plain = gzip.decompress(blobs.read(layer.digest))
    assert Digest.of(plain) == layer.diff_id
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return {member.name: member for member in archive}


def unpacked(blobs: Blobs, layer: Layer, folder: Path) -> Path:
    """Unpack a layer with tar."""
    folder.mkdir()
    subprocess.run(["tar", "-xzf", blobs.path(layer.digest), "-C", folder], check=True)
    return folder


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    return blobs_of(tmp_path / "store")


def test_files_go_where_the_interpreter_looks(tmp_path: Path, blobs: Blobs) -> None:
    """Modules, data, headers and scripts of a wheel go to their places, with their modes.

    They can be imported.
    """
    files = {
        "pkg/__init__.py": b"def main():\n    print('hello')\n",
        "pkg/large.py": (
            b"# a comment\n" * 4000 + os.urandom(30_000).hex().encode().join([b"X = '", b"'\n"])
        ),
        "pkg-1.0.data/scripts/tool": b"#!python\nprint('tool')\n",
        "pkg-1.0.data/data/share/pkg/data.txt": b"data",
        "pkg-1.0.data/headers/pkg.h": b"int x;",
        "pkg-1.0.data/purelib/other.py": b"y = 2\n",
        "pkg/run.sh": b"#!/bin/sh\n",
    }
    wheel = MadeWheel(
        files=files, scripts={"hello": "pkg:main"}, executable=frozenset({"pkg/run.sh"})
    ).write(tmp_path)
    layer = layer_of(blobs, wheel)
    members = content(blobs, layer)
    folder = unpacked(blobs, layer, tmp_path / "out")
    for name, data in files.items():
        if not name.startswith("pkg-1.0.data"):
            assert (folder / PACKAGES / name).read_bytes() == data
    assert (folder / PACKAGES / "other.py").read_bytes() == b"y = 2\n"
    assert (folder / "usr/local/share/pkg/data.txt").read_bytes() == b"data"
    assert (folder / "usr/local/include/python3.11/pkg/pkg.h").read_bytes() == b"int x;"
    assert (folder / "usr/local/bin/tool").read_bytes() == b"#!/usr/bin/python3.11\nprint('tool')\n"
    assert (folder / "usr/local/bin/hello").read_bytes().startswith(b"#!/usr/bin/python3.11\n")
    executable = {
        name for name, member in members.items() if member.isfile() and member.mode == 0o755
    }
    assert executable == {"usr/local/bin/tool", "usr/local/bin/hello", f"{PACKAGES}/pkg/run.sh"}
    assert all(
        member.mode == 0o644
        for name, member in members.items()
        if member.isfile() and name not in executable
    )
    assert all(
        (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")
        for member in members.values()
    )
    assert [name for name, member in members.items() if member.isfile()] == sorted(
        name for name in members if members[name].isfile()
    )
    code = (
        "import pkg.large, importlib.metadata as m; pkg.main(); print(m.version('pkg'),"
        " m.distribution('pkg').read_text('INSTALLER'))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(folder / PACKAGES)},
        capture_output=True,
        text=True,
    )
    assert ran.stdout == "hello\n1.0 flyte-build\n\n", ran.stderr


def test_installed_record_names_each_file(tmp_path: Path, blobs: Blobs) -> None:
    """The installed RECORD lists every file of the wheel, sorted, with the right hashes."""
    wheel = MadeWheel(scripts={"hello": "pkg:main"}).write(tmp_path)
    folder = unpacked(blobs, layer_of(blobs, wheel), tmp_path / "out") / PACKAGES
    rows = [
        line.split(",") for line in (folder / "pkg-1.0.dist-info/RECORD").read_text().splitlines()
    ]
    assert [row[0] for row in rows] == sorted(
        [
            "../../../bin/hello",
            "pkg/__init__.py",
            "pkg-1.0.dist-info/INSTALLER",
            "pkg-1.0.dist-info/METADATA",
            "pkg-1.0.dist-info/RECORD",
            "pkg-1.0.dist-info/WHEEL",
            "pkg-1.0.dist-info/entry_points.txt",
        ]
    )
    from tests.support.bases import sha256

    for path, hashed, size in rows:
        if not path.endswith("RECORD"):
            data = (folder / path).read_bytes()
            assert (hashed, size) == (f"sha256={sha256(data)}", str(len(data)))


def test_same_wheels_same_layer(tmp_path: Path, blobs: Blobs) -> None:
    """A layer does not depend on order, compression, umask, time zone, locale or hash seed."""
    one = MadeWheel(files={"one/a.py": b"a" * 9000, "one/b.py": b"b"}).write(tmp_path / "1")
    two = MadeWheel(name="two", files={"two/é.py": b"c"}).write(tmp_path / "2")
    found = {
        layer_of(blobs, *order, compression=kind).diff_id
        for order in ((one, two), (two, one))
        for kind in ("gzip", "zstd", "none")
    }
    code = (
        "import sys; from pathlib import Path; from tests.images.test_wheel_layers import *\nws ="
        " [pinned(Path(p), n, '1.0') for p, n in ((sys.argv[2], 'pkg'), (sys.argv[3],"
        " 'two'))]\nprint(layer_of(blobs_of(Path(sys.argv[1])), *ws).diff_id)"
    )
    environment = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    paths = [
        str(tmp_path / "elsewhere"),
        one.url.removeprefix("file://"),
        two.url.removeprefix("file://"),
    ]
    root = CHECKOUT
    ran = subprocess.run(
        [sys.executable, "-c", code, *paths],
        env=environment,
        cwd=root,
        preexec_fn=lambda: os.umask(0o077),
        capture_output=True,
        text=True,
    )
    assert {ran.stdout.strip()} == found, ran.stderr


def test_deflated_files_are_copied(tmp_path: Path, blobs: Blobs) -> None:
    """Deflated files are copied, so a layer is about as large as its wheel."""
    data = os.urandom(200_000).hex().encode()
    wheel = MadeWheel(files={"pkg/data.txt": data}).write(tmp_path)
    layer = layer_of(blobs, wheel)
    assert layer.size < wheel.size + 4096
    assert content(blobs, layer)[f"{PACKAGES}/pkg/data.txt"].size == len(data)


def refused(tmp_path: Path, wheel: Wheel, why: str) -> None:
    """Check that a wheel is refused by name, with this reason, and leaves nothing in the store."""
    store = blobs_of(tmp_path / "refusing")
    with pytest.raises(ImageBuildError) as error:
        layer_of(store, wheel)
    assert wheel.filename in error.value.what
    assert why in error.value.why
    assert os.listdir(store.folder) == []


def test_wrong_record(tmp_path: Path) -> None:
    """A file that differs from its RECORD is refused."""
    wheel = MadeWheel(record={"pkg/__init__.py": "A" * 43}).write(tmp_path)
    refused(tmp_path, wheel, "pkg/__init__.py does not match its RECORD")


def edited(wheel: Wheel, **files: bytes) -> Wheel:
    """Return a wheel with files that its RECORD does not list, pinned anew."""
    path = Path(wheel.url.removeprefix("file://"))
    with zipfile.ZipFile(path, "a") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return pinned(path, wheel.name, wheel.version)


def test_file_without_record(tmp_path: Path) -> None:
    """A file that is not in RECORD is refused."""
    refused(
        tmp_path,
        edited(MadeWheel().write(tmp_path), **{"pkg/more.py": b"x"}),
        "does not list pkg/more.py",
    )


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_file_that_is_there_twice(tmp_path: Path) -> None:
    """Two files of one name are refused."""
    refused(
        tmp_path,
        edited(MadeWheel().write(tmp_path), **{"pkg/__init__.py": b"x"}),
        "pkg/__init__.py twice",
    )


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py",
        "/etc/passwd",
        "pkg/../../evil.py",
        "pkg//x.py",
        "pkg-1.0.data/scripts/../../../evil",
    ],
)
def test_path_that_leads_out(tmp_path: Path, name: str) -> None:
    """A file outside of the directory of its kind is refused."""
    refused(tmp_path, MadeWheel(files={name: b"x"}).write(tmp_path), "leads outside its directory")


def test_script_whose_name_leads_out(tmp_path: Path) -> None:
    """A script outside of its directory is refused, even if an entry point names it."""
    refused(
        tmp_path,
        MadeWheel(scripts={"../evil": "pkg:main"}).write(tmp_path),
        "leads outside its directory",
    )


@pytest.mark.parametrize(
    ("tag", "files"),
    [
        ("cp311-cp311-manylinux_2_17_x86_64", {"pkg/_x.so": elf(ARM)}),
        ("cp311-cp311-manylinux_2_17_x86_64", {"pkg.libs/libfoo.so.1.2": elf(ARM)}),
        ("py3-none-any", {"pkg/_x.abi3.so": elf(ARM)}),
        ("py3-none-any", {"pkg/tool": elf(ARM)}),
        (
            "cp311-cp311-manylinux_2_17_x86_64",
            {"pkg-1.0.data/scripts/x": elf(ARM), "pkg/x.so": elf(X86)},
        ),
        ("py3-none-any", {"pkg/_x.so": b"\xcf\xfa\xed\xfe" + bytes(60)}),
    ],
)
def test_foreign_machine_code(tmp_path: Path, tag: str, files: dict[str, bytes]) -> None:
    """Shared libraries for another machine or system are refused."""
    refused(tmp_path, MadeWheel(tag=tag, files=files).write(tmp_path), "machine code for")


def test_data_that_looks_like_machine_code(tmp_path: Path, blobs: Blobs) -> None:
    """Objects to link, code for a GPU, programs of this machine and truncated headers are fine."""
    files = {
        "pkg/x.o": elf(ARM)[:16] + b"\1\0" + elf(ARM)[18:],
        "pkg/x.cubin": elf(190),
        "pkg/tool": elf(X86),
        "pkg/magic": b"\x7fELF",
        "pkg/tool.exe": b"MZ" + bytes(60),
    }
    layer_of(blobs, MadeWheel(tag="cp311-cp311-manylinux_2_17_x86_64", files=files).write(tmp_path))


def test_wheel_for_several_machines(tmp_path: Path, blobs: Blobs) -> None:
    """A wheel for any platform may have libraries for several machines."""
    layer_of(
        blobs, MadeWheel(files={"pkg/x86.so": elf(X86), "pkg/arm.so": elf(ARM)}).write(tmp_path)
    )


@pytest.mark.slow
def test_zip_bomb(tmp_path: Path) -> None:
    """A wheel that inflates to far more than its size is refused."""
    wheel = MadeWheel(files={f"pkg/{at}.bin": bytes(1 << 28) for at in range(5)}).write(tmp_path)
    assert wheel.size < 3_000_000
    refused(tmp_path, wheel, "but its file has only")


def test_damaged_bytes(tmp_path: Path) -> None:
    """A wheel whose bytes have changed since it was written is refused."""
    wheel = MadeWheel(files={"pkg/data.txt": os.urandom(50_000).hex().encode()}).write(tmp_path)
    path = Path(wheel.url.removeprefix("file://"))
    data = bytearray(path.read_bytes())
    data[20_000] ^= 1
    path.write_bytes(data)
    refused(tmp_path, wheel, "Its file pkg/data.txt")


@pytest.mark.parametrize(
    ("tag", "fits"),
    [
        ("py3-none-any", True),
        ("py2.py3-none-any", True),
        ("cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp38-abi3-manylinux_2_28_x86_64", True),
        ("cp312-abi3-manylinux_2_28_x86_64", False),
        ("cp312-cp312-manylinux_2_17_x86_64", False),
        ("cp311-cp311-manylinux_2_17_aarch64", False),
        ("cp311-cp311-macosx_11_0_x86_64", False),
        ("cp311-cp311-win_amd64", False),
        ("cp311-cp311-musllinux_1_2_x86_64", False),
        ("py2-none-any", False),
        ("py312-none-any", False),
    ],
)
def test_tags(tag: str, fits: bool) -> None:
    """Wheels for another Python or platform are recognised by their names."""
    wheel = Wheel(
        name="pkg", version="1.0", url=f"https://x/pkg-1.0-{tag}.whl", digest=Digest.of(b""), size=0
    )
    if fits:
        check_tags(wheel, "3.11", "linux/amd64")
        return
    with pytest.raises(ImageBuildError, match=r"is not for Python 3\.11 on linux/amd64"):
        check_tags(wheel, "3.11", "linux/amd64")


def test_two_wheels_with_one_path(tmp_path: Path, blobs: Blobs) -> None:
    """Of two wheels with one path, the last by name wins, which is noted if contents differ."""
    said: list[str] = []
    one = MadeWheel(name="aaa", files={"tests/__init__.py": b"", "tests/x.py": b"1"}).write(
        tmp_path
    )
    two = MadeWheel(name="bbb", files={"tests/__init__.py": b"", "tests/x.py": b"2"}).write(
        tmp_path
    )
    folder = unpacked(blobs, layer_of(blobs, two, one, said=said), tmp_path / "out")
    assert (folder / PACKAGES / "tests/x.py").read_bytes() == b"2"
    assert said == [f"bbb and aaa both contain {PACKAGES}/tests/x.py; the file of bbb is used."]


WHEELS = st.lists(
    st.tuples(st.text("abcdefgh", min_size=1, max_size=6), st.integers(1, 1 << 30)),
    unique_by=lambda each: each[0],
    max_size=150,
)


def wheels_of(sizes: list[tuple[str, int]]) -> list[Wheel]:
    return [
        Wheel(
            name=name,
            version="1",
            url=f"https://x/{name}-1-py3-none-any.whl",
            digest=Digest.of(name.encode()),
            size=size,
        )
        for name, size in sizes
    ]


@given(WHEELS, st.integers(0, LAYERS), st.randoms())
def test_groups(sizes: list[tuple[str, int]], room: int, random: object) -> None:
    """Each wheel is in one of at most as many layers as there is room for, in any order."""
    wheels = wheels_of(sizes)
    groups = group(wheels, room)
    assert sorted(wheel.name for each in groups for wheel in each) == sorted(
        wheel.name for wheel in wheels
    )
    assert len(groups) <= max(room, 8)
    random.shuffle(wheels)  # type: ignore[attr-defined]  # A random.Random.
    assert group(wheels, room) == groups


@given(st.integers(1, 69), st.integers(1, 1 << 30), st.randoms())
def test_one_package_more_is_one_layer_more(count: int, size: int, random: object) -> None:
    """While there is room, one more package leaves all other layers as they are."""
    wheels = wheels_of([(f"p{at}", random.randrange(1, 1 << 28)) for at in range(count)])  # type: ignore[attr-defined]
    more = wheels_of([("new", size)])
    assert set(group([*wheels, *more], 70)) - set(group(wheels, 70)) == {tuple(more)}


def test_many_packages_keep_their_layers() -> None:
    """With 300 packages, one more small one changes one layer."""
    wheels = wheels_of([(f"package-{at}", 1000 + at * 7919 % 1_000_000) for at in range(300)])
    before, after = set(group(wheels, 70)), set(group([*wheels, *wheels_of([("new", 5000)])], 70))
    assert len(after - before) == 1
    assert len(before - after) == 1


def test_replaced_version_keeps_its_place() -> None:
    """A new version of about the same size takes the old one's place among the layers."""
    wheels = wheels_of([("a", 100), ("b", 5000), ("c", 5100)])
    newer = [
        replace(wheel, version="2", size=5050) if wheel.name == "b" else wheel for wheel in wheels
    ]
    assert [[wheel.name for wheel in each] for each in group(newer, 70)] == [
        [wheel.name for wheel in each] for each in group(wheels, 70)
    ]


@pytest.mark.slow
def test_memory_does_not_grow_with_a_wheel(tmp_path: Path) -> None:
    """A wheel with files of 300 MB is packed in the memory of small ones."""
    wheel = MadeWheel(
        files={"pkg/zeros.bin": bytes(200 << 20), "pkg/data.bin": os.urandom(100 << 20)}
    ).write(tmp_path)
    code = (
        "import resource, sys; from pathlib import Path; from tests.images.test_wheel_layers import"
        " *\nbefore = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\npath ="
        " Path(sys.argv[2])\nwheel = Wheel(name='pkg', version='1.0', url=path.as_uri(),"
        " digest=Digest.of(b''), size=path.stat().st_size)\nlayer_of(blobs_of(Path(sys.argv[1])),"
        " wheel)\nprint(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    arguments = [str(tmp_path / "store"), wheel.url.removeprefix("file://")]
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) < 30_000  # Kilobytes.
