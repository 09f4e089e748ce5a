"""Native builds: a base, layers of wheels and files, and a config become an image.

Nothing is executed. The inputs of each layer are known before it is written, so that existing
layers are reused.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from flyte_build.cas.blobs import Batch
from flyte_build.cas.encoding import Value
from flyte_build.cas.layer import Compression, Layer
from flyte_build.errors import ImageBuildError
from flyte_build.images.layers import files, wheel
from flyte_build.images.layers.files import Copied
from flyte_build.images.layers.grouping import LAYERS, group
from flyte_build.images.layers.machine_code import check_tags
from flyte_build.images.layers.wheel_download import Fetcher
from flyte_build.images.lock.pins import LockedPackages, Wheel
from flyte_build.images.oci_image import PATH, Added, OciImage
from flyte_build.images.platforms import Interpreter

from .base import Base

FORMAT = 1
"""Version of the images built from given inputs."""
OURS = ("packages ", "files ")
"""Beginnings of the descriptions of natively built layers."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A layer to build: a human-readable description, its inputs, and the function that writes it.

    The function puts the blob into the batch.
    """

    what: str
    inputs: Mapping[str, Value]
    make: Callable[[Batch], Layer]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Steps on top of a base, in order, with variables and a working directory."""

    steps: Sequence[LockedPackages | Copied]
    env: Mapping[str, str]
    workdir: str

    def parts(
        self, base: Base, compression: Compression, fetcher: Fetcher, note: Callable[[str], None]
    ) -> list[Part]:
        """Return the layers, in order.

        Raises `ImageBuildError` if the packages cannot be installed on the base.
        """
        room = LAYERS - len(base.image.diff_ids) - len(self.steps)
        parts: list[Part] = []
        for step in self.steps:
            if isinstance(step, Copied):
                parts.append(_of_files(step, self._workdir(base), base.links, compression))
            elif step.wheels:
                interpreter = _interpreter(base, step)
                parts += [
                    _of_wheels(wheels, interpreter, step, compression, fetcher, note)
                    for wheels in group(step.wheels, room)
                ]
        return parts

    def assemble(self, base: Base, layers: Sequence[Added]) -> OciImage:
        """Return the image of a base and layers."""
        env = dict(self.env)
        scripts = base.interpreter.scripts if base.interpreter else "/usr/bin"
        path = env.get("PATH") or base.image.env.get("PATH", "")
        if scripts not in (path or PATH).split(":"):
            env["PATH"] = f"{scripts}:{path or PATH}"  # So that scripts of packages are found.
        elif not path:
            env["PATH"] = PATH  # Not all engines have a default.
        if self.env.get("PATH") and base.interpreter:
            folder = posixpath.dirname(base.interpreter.executable)
            if folder not in env["PATH"].split(":"):
                # Appended, because tasks need `python3` with any declared PATH.
                env["PATH"] += f":{folder}"
        return base.image.change(
            layers, env=env, workdir=self._workdir(base) if self.workdir else ""
        )

    def _workdir(self, base: Base) -> str:
        """Return the absolute working directory; a relative one starts at that of the base."""
        return posixpath.normpath(
            posixpath.join("/", str(base.image.settings.get("WorkingDir") or ""), self.workdir)
        )


def _interpreter(base: Base, packages: LockedPackages) -> Interpreter:
    if base.interpreter is None:
        raise ImageBuildError(
            "The base of the image has no Python",
            why="Its PATH contains no python3.",
            hint="Choose a base with Python 3, or install it first.",
        )
    if base.interpreter.version != packages.python:
        raise ImageBuildError(
            f"The base of the image has Python {base.interpreter.version}",
            why=f"Its packages are locked for Python {packages.python}.",
            hint="Lock again with `flyte lock --upgrade`.",
        )
    if base.musl and any("manylinux" in wheel.filename for wheel in packages.wheels):
        raise ImageBuildError(
            "The base of the image uses musl",
            why="Its packages are locked as manylinux wheels, which require glibc.",
            hint="Choose a base with glibc.",
        )
    return base.interpreter


def _of_wheels(
    wheels: tuple[Wheel, ...],
    interpreter: Interpreter,
    packages: LockedPackages,
    compression: Compression,
    fetcher: Fetcher,
    note: Callable[[str], None],
) -> Part:
    def make(batch: Batch) -> Layer:
        for each in wheels:
            check_tags(each, packages.python, packages.platform)
        return wheel.write_layer(
            fetcher.fetch(wheels), interpreter, packages.platform, batch, compression, note
        )

    named = {f"{each.name}=={each.version}": each.digest for each in wheels}
    where: list[Value] = [interpreter.executable, interpreter.packages, interpreter.scripts]
    inputs: Mapping[str, Value] = {
        "wheels": named,
        "interpreter": where,
        "platform": packages.platform,
        "compression": compression,
        "format": wheel.FORMAT,
    }
    return Part(what=f"packages {' '.join(sorted(named))}", inputs=inputs, make=make)


def _of_files(
    copied: Copied, workdir: str, links: Mapping[str, str], compression: Compression
) -> Part:
    place = files.destination(copied.step, workdir, links)
    top = place("")
    inputs: Mapping[str, Value] = {
        "files": copied.identity,
        "to": top,
        "compression": compression,
        "format": FORMAT,
    }
    return Part(
        what=f"files {copied.step.src} -> /{top}",
        inputs=inputs,
        make=lambda batch: files.write_layer(copied, place, batch, compression),
    )
