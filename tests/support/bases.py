"""Bases and wheels for images: tiny made-up ones, and a real one of Debian's packages."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flyte_build.cas.blobs import Blobs
from flyte_build.cas.counters import Counters
from flyte_build.cas.digest import Digest
from flyte_build.cas.registry import open_repository
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.cas.registry.name import RepositoryName
from flyte_build.cas.registry.repository import Repository
from flyte_build.cas.registry.retry_budget import RetryBudget
from flyte_build.images.lock.pins import LockedPackages, PinnedBase, PinnedStep, Wanted, Wheel
from flyte_build.images.recipe import Recipe
from tests.support.needs import need

CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
PYTHON = "3.11"
DEBIAN: Mapping[str, bytes | str] = {
    "usr/bin/python3.11": b"ELF",
    "usr/bin/python3": "python3.11",
    "usr/lib/python3/dist-packages/README": b"",
    "bin": "usr/bin",
}
"""A made-up file system with Debian's Python: contents, and (as strings) the targets of links."""


def archive(files: Mapping[str, bytes | str]) -> bytes:
    """Return a tar of files, and of links (strings)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size, member.mode = len(content), 0o755
                tar.addfile(member, io.BytesIO(content))
    return data.getvalue()


def opened(name: str) -> Repository:
    """Open a repository by its name."""
    return open_repository(RepositoryName.parse(name), Counters(), RetryBudget())


def push_image(
    name: str,
    layers: Sequence[bytes | Path],
    *,
    tag: str = "latest",
    settings: Mapping[str, object] = {},
    architecture: str = "amd64",
    media_type: str = LAYER,
) -> Manifest:
    """Put an image of these layers into a repository, by plain uploads.

    The layers are tars, compressed as the media type says.
    """
    import gzip

    repository, descriptors, diff_ids = opened(name), [], []
    for layer in layers:
        data = layer if isinstance(layer, bytes) else layer.read_bytes()
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        diff_ids.append(Digest.of(plain))
        descriptors.append(Descriptor(media_type, Digest.of(data), len(data)))
        repository.upload(descriptors[-1], lambda data=data: io.BytesIO(data), lambda count: None)  # type: ignore[misc]  # No lambda with a default is inferred.
    document = {
        "architecture": architecture,
        "os": "linux",
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    }
    config = json.dumps(document).encode()
    descriptor = Descriptor(CONFIG, Digest.of(config), len(config))
    repository.upload(descriptor, lambda: io.BytesIO(config), lambda count: None)
    manifest = Manifest.of_layers(descriptor, descriptors)
    repository.put_manifest(manifest, tag)
    return manifest


def base_of(name: str, files: Mapping[str, bytes | str] = DEBIAN, **options: object) -> PinnedBase:
    """Put a tiny base into a repository, and return it pinned."""
    manifest = push_image(name, [archive(files)], **options)  # type: ignore[arg-type]  # Each test gives its own.
    return PinnedBase(reference=f"{name}:latest", digest=manifest.digest, python=PYTHON)


@dataclass
class MadeWheel:
    """A wheel that is right, or wrong in one way: each field replaces the regular value."""

    name: str = "pkg"
    version: str = "1.0"
    files: Mapping[str, bytes] = field(default_factory=lambda: {"pkg/__init__.py": b"x = 1\n"})
    tag: str = "py3-none-any"
    scripts: Mapping[str, str] = field(default_factory=dict)
    requires: Sequence[str] = ()
    record: Mapping[str, str] = field(default_factory=dict)
    executable: frozenset[str] = frozenset()

    def write(self, folder: Path) -> Wheel:
        """Write the wheel into a directory, and return it pinned."""
        info = f"{self.name}-{self.version}.dist-info"
        needs = "".join(f"Requires-Dist: {each}\n" for each in self.requires)
        files = {
            **self.files,
            f"{info}/METADATA": (
                f"Metadata-Version: 2.1\nName: {self.name}\nVersion: {self.version}\n{needs}".encode()
            ),
            f"{info}/WHEEL": (
                f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {self.tag}\n".encode()
            ),
        }
        if self.scripts:
            lines = "".join(f"{name} = {target}\n" for name, target in self.scripts.items())
            files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{lines}".encode()
        rows = [
            f"{name},sha256={self.record.get(name) or sha256(data)},{len(data)}"
            for name, data in files.items()
        ]
        files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,"]).encode()
        path = folder / f"{self.name}-{self.version}-{self.tag}.whl"
        folder.mkdir(exist_ok=True, parents=True)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
            for name, data in files.items():
                member = zipfile.ZipInfo(name, (2020, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                member.external_attr = (0o100755 if name in self.executable else 0o100644) << 16
                wheel.writestr(member, data)
        return pinned(path, self.name, self.version)


def pinned(path: Path, name: str, version: str) -> Wheel:
    """Return the wheel in a file, pinned."""
    data = path.read_bytes()
    return Wheel(
        name=name, version=version, url=path.as_uri(), digest=Digest.of(data), size=len(data)
    )


def sha256(data: bytes) -> str:
    """Return a hash as RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")


@dataclass
class FixedPins:
    """Pins that a test sets."""

    bases: dict[str, PinnedBase] = field(default_factory=dict)
    wheels: tuple[Wheel, ...] = ()
    steps: dict[tuple[str, str], PinnedStep] = field(default_factory=dict)
    locked: bool = False

    def python(self, recipe: Recipe) -> str:
        return PYTHON

    def packages(self, recipe: Recipe, python: str, platform: str) -> LockedPackages:
        return LockedPackages(
            wanted=Wanted(requirements=("x",), python=python, platform=platform), wheels=self.wheels
        )

    def wanted(self, recipe: Recipe, python: str, platform: str) -> Wanted:
        return self.packages(recipe, python, platform).wanted

    def base(self, reference: str) -> PinnedBase:
        return self.bases[reference]

    def step(self, key: str, platform: str) -> PinnedStep | None:
        return self.steps.get((key, platform))

    def step_by_now(self, key: str, platform: str) -> PinnedStep | None:
        return self.step(key, platform)

    def keep_step(self, step: PinnedStep) -> None:
        self.steps[step.key, step.platform] = step


def rootfs() -> Path:
    """Return the tar of a real base: Debian with Python and certificates.

    It is created once, and kept between test sessions.
    """
    kept = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        / "flyte-build-tests"
        / "bookworm-python3.tar"
    )
    if not kept.exists():
        need("docker")
        kept.parent.mkdir(parents=True, exist_ok=True)
        made = kept.with_name(f".{os.getpid()}.tar")
        options = ["--variant=minbase", "--include=python3,ca-certificates", "bookworm"]
        subprocess.run(["mmdebstrap", "--quiet", *options, str(made)], check=True)
        os.replace(made, kept)
    return kept


@pytest.fixture(scope="session")
def real_layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one layer of a real base, compressed with gzip as in registries."""
    import gzip
    import shutil

    plain = rootfs()
    packed = plain.with_suffix(".tar.gz")
    if not packed.exists():
        made = packed.with_name(f".{os.getpid()}.tar.gz")
        with plain.open("rb") as source, gzip.GzipFile(made, "wb", 1, mtime=0) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.replace(made, packed)
    return packed


def blobs_of(folder: Path) -> Blobs:
    """Return a store of blobs and nothing else."""
    store = Blobs(f"{folder}/blobs", f"{folder}/quarantine", Counters())
    os.makedirs(store.folder, exist_ok=True)
    return store
