"""Resolving requirements to wheels with `uv`, for one Python and one platform.

No code of the user or of a package is run, and nothing is installed. The result is read as a
`pylock.toml` (PyPA specifications, "pylock.toml"). The user's configuration of indexes applies:
uv's files and variables, and pip's usual variables. Credentials reach uv from there alone;
declarations contain none.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from flyte_build.cas.digest import Digest
from flyte_build.errors import ImageBuildError
from flyte_build.images.platforms import GLIBC, MACOS, machine, target
from flyte_build.images.recipe import Source

from .indexes import Indexes
from .pins import Wanted, Wheel
from .requirements import arguments
from .scratch import scratch
from .uv import Uv, denied, explained, is_about_network

if TYPE_CHECKING:
    from packaging.pylock import Package

_INSTALLING = frozenset(  # Options about how packages are installed, not about which.
    (
        "--system",
        "--break-system-packages",
        "--no-cache-dir",
        "--no-cache",
        "--compile-bytecode",
        "--reinstall",
        "--quiet",
        "-q",
        "--upgrade",
        "-U",
    )
)


def resolve(
    wanted: Wanted, sources: Sequence[Source], root: str, uv: Uv, prefer: Iterable[Wheel] = ()
) -> tuple[Wheel, ...]:
    """Return the wheels that the sources resolve to, sorted by name.

    Versions of the wheels in `prefer` are kept where they fit. `root` is the project root, which
    paths are relative to. Raises `ImageBuildError`.
    """
    if built := next(filter(_SOURCES.search, wanted.requirements), ""):
        raise _without_wheel(built, "", wanted)
    with scratch("flyte-lock-") as folder:
        resolving = _Resolving(wanted, root, folder, uv)
        found: dict[str, Wheel] = {}
        for source in sources:
            if source.kind == "uv_project":
                found.update({wheel.name: wheel for wheel in resolving.export(source)})
        if others := [source for source in sources if source.kind != "uv_project"]:
            found = {
                **{
                    wheel.name: wheel for wheel in resolving.compile(others, prefer, found.values())
                },
                **found,
            }
    return tuple(found[name] for name in sorted(found))


class _Resolving:
    def __init__(self, wanted: Wanted, root: str, folder: str, uv: Uv) -> None:
        self._wanted, self._root, self._folder, self._uv = wanted, root, folder, uv

    def compile(
        self, sources: Sequence[Source], prefer: Iterable[Wheel], exact: Iterable[Wheel]
    ) -> list[Wheel]:
        """Resolve packages and files; packages in `exact` are constrained to those versions."""
        output = f"{self._folder}/pylock.toml"
        # uv prefers the versions in the file that it overwrites, where they fit.
        self._write("pylock.toml", _versions(prefer))
        packages = self._write(
            "packages.txt",
            "".join(f"{package}\n" for source in sources for package in source.packages),
        )
        constraints = self._write(
            "exact.txt", "".join(f"{wheel.name}=={wheel.version}\n" for wheel in exact)
        )
        options = self._wanted.options
        command = [
            *(
                "pip",
                "compile",
                "--quiet",
                "--format",
                "pylock.toml",
                "--output-file",
                output,
                "--no-header",
                "--no-annotate",
            ),
            *(
                "--python-version",
                self._wanted.python,
                "--python-platform",
                target(self._wanted.platform),
            ),
            *("--only-binary", ":all:", "--generate-hashes", "--constraint", constraints),
            *(["--default-index", options["index_url"]] if "index_url" in options else ()),
            *(word for url in options.get("extra_index_urls", ()) for word in ("--index", url)),
            *(["--prerelease", "allow"] if options.get("pre") else ()),
            *(word for word in options.get("extra_args", ()) if word not in _INSTALLING),
            *(source.file for source in sources if source.file),
            packages,
        ]
        self._run(command, self._root)
        with open(output, "rb") as file:
            return self._wheels(file.read(), self._folder)

    def export(self, source: Source) -> list[Wheel]:
        """Return the wheels that a uv.lock pins."""
        folder = os.path.dirname(os.path.join(self._root, source.file))
        if os.path.realpath(os.path.join(self._root, source.lock)) != os.path.realpath(
            f"{folder}/uv.lock"
        ):
            import shutil

            shutil.copy(os.path.join(self._root, source.file), f"{self._folder}/pyproject.toml")
            shutil.copy(os.path.join(self._root, source.lock), f"{self._folder}/uv.lock")
            folder = self._folder
        words = [word for word in arguments(source) if word not in _INSTALLING]
        command = [
            "export",
            "--quiet",
            "--format",
            "pylock.toml",
            "--frozen",
            "--no-emit-workspace",
            "--no-header",
            "--no-annotate",
            *words,
        ]
        return self._wheels(self._run(command, folder), folder)

    def _write(self, name: str, text: str) -> str:
        path = f"{self._folder}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def _run(self, command: Sequence[str], folder: str) -> bytes:
        done = self._uv.run(command, folder)
        if done.returncode != 0:
            raise _refused(
                self._wanted,
                self._root,
                explained(done.stderr).replace(f"{self._folder}/packages.txt", "the declaration"),
            )
        return done.stdout

    def _wheels(self, text: bytes, folder: str) -> list[Wheel]:
        """Return the best wheel of each package in a pylock.toml that the target needs.

        The target is the Python and the platform of the request. Paths in the file are relative to
        `folder`.
        """
        import tomllib

        from packaging.pylock import Pylock

        lock = Pylock.from_dict(tomllib.loads(text.decode()))
        environment, tags = (
            _environment(self._wanted),
            {tag: at for at, tag in enumerate(_tags(self._wanted))},
        )
        packages = [
            each
            for each in lock.packages
            if each.marker is None or each.marker.evaluate(environment, context="lock_file")
        ]
        return [self._wheel(each, tags, folder) for each in packages]

    def _wheel(self, package: Package, tags: Mapping[Any, int], folder: str) -> Wheel:
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename

        found: list[tuple[int, str, Mapping[str, str], int]] = []
        for file in [*(package.wheels or ()), *([package.archive] if package.archive else ())]:
            address = (
                file.url
                or f"file://{quote(os.path.normpath(os.path.join(folder, file.path or '')))}"
            )
            try:
                fits = [
                    tags[tag] for tag in parse_wheel_filename(_file_name(address))[3] if tag in tags
                ]
            except InvalidWheelFilename:  # An archive that is not a wheel.
                continue
            if fits:
                found.append((min(fits), address, file.hashes, file.size or 0))
        if not found:
            raise _without_wheel(package.name, str(package.version or ""), self._wanted)
        _, address, hashes, size = min(found, key=lambda each: each[0])
        if "sha256" not in hashes:
            raise ImageBuildError(
                f"Cannot pin {_file_name(address)}",
                why="The index provides no SHA-256 for it.",
            )
        version = str(package.version or parse_wheel_filename(_file_name(address))[1])
        digest = Digest.parse(f"sha256:{hashes['sha256']}")
        return Wheel(
            name=package.name,
            version=version,
            url=self._portable(address),
            digest=digest,
            size=size,
        )

    def _portable(self, address: str) -> str:
        """Return a URL without credentials; for a file below the root, its relative path."""
        parts = urlsplit(address)
        if parts.scheme == "file":
            path = os.path.normpath(unquote(parts.path))
            return (
                os.path.relpath(path, self._root)
                if path.startswith(self._root + "/")
                else f"file://{parts.path}"
            )
        return urlunsplit(
            (parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, "")
        )


def _versions(wheels: Iterable[Wheel]) -> str:
    """Return a pylock.toml that contains only names and versions."""
    packages = "".join(
        f'[[packages]]\nname = "{wheel.name}"\nversion = "{wheel.version}"\n' for wheel in wheels
    )
    return f'lock-version = "1.0"\ncreated-by = "flyte-build"\n{packages or "packages = []"}'


def _file_name(address: str) -> str:
    return unquote(urlsplit(address).path.rpartition("/")[2])


def _environment(wanted: Wanted) -> Mapping[str, Any]:
    """Return the values of environment markers on the target platform.

    The names are those of the PyPA specifications, "Dependency specifiers".
    """
    system = wanted.platform.partition("/")[0]
    return {
        "python_version": wanted.python,
        "python_full_version": f"{wanted.python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{wanted.python}.0",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": machine(wanted.platform),
        "platform_release": "",
        "platform_version": "",
        "extras": frozenset(),
        "dependency_groups": frozenset(),
    }


def _tags(wanted: Wanted) -> list[Any]:
    """Return the tags of compatible wheels, the best first.

    See the PyPA specifications, "Platform compatibility tags".
    """
    from packaging import tags

    major, minor = map(int, wanted.python.split("."))
    name = machine(wanted.platform)
    if wanted.platform.startswith("darwin"):
        platforms = list(tags.mac_platforms(MACOS, name))
    else:
        oldest = 5 if name == "x86_64" else 17
        old = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
        platforms = []
        for glibc in range(GLIBC[1], oldest - 1, -1):
            platforms += [
                f"manylinux_{GLIBC[0]}_{glibc}_{name}",
                *([f"{old[glibc]}_{name}"] if glibc in old else ()),
            ]
        platforms.append(f"linux_{name}")
    found = list(tags.cpython_tags((major, minor), platforms=platforms))
    return [*found, *tags.compatible_tags((major, minor), f"cp{major}{minor}", platforms)]


def _without_wheel(name: str, version: str, wanted: Wanted) -> ImageBuildError:
    return ImageBuildError(
        f"{name} {version}".rstrip()
        + f" has no wheel for Python {wanted.python} on {wanted.platform}",
        why="It would have to be built from its sources, which runs its code.",
        hint="Choose a version that has a wheel, or build the image with `--builder docker`.",
    )


_SOURCES = re.compile(r"@ *(?:git|hg|svn|bzr)\+")
_NO_WHEEL = re.compile(
    r"(?<![\w.=<>~!,-])([A-Za-z][A-Za-z0-9._-]*?)(?:==([^ ]+))? has no usable wheels|Wheels are"
    r" required for `([^`]+)`"
)


def _refused(wanted: Wanted, root: str, text: str) -> ImageBuildError:
    """Return the error for uv's explanation of a failure."""
    text = (
        text.partition(" Usage: ")[0]
        .removeprefix("No solution found when resolving dependencies")
        .lstrip(": ")
    )
    if without := _NO_WHEEL.search(text):
        return _without_wheel(without[1] or without[3], without[2] or "", wanted)
    if address := denied(text):
        hint = Indexes.configured(root, os.environ).advice(address)
        return ImageBuildError(f"Cannot look up the packages {wanted}", why=text, hint=hint)
    if is_about_network(text):
        hint = (
            "Check the network and the URL of the index. Packages that flyte.lock pins need no"
            " index."
        )
        return ImageBuildError(f"Cannot look up the packages {wanted}", why=text, hint=hint)
    return ImageBuildError(f"Cannot resolve the packages {wanted}", why=text)
