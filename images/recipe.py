"""Recipes: the steps of a declared image in the order in which they are built.

The code is pure: files are named, and not read. Discovery passes the declaration of a `flyte.Image`
as a JSON value: a base, and the steps in declared order. The build order lets most layers be reused
after a change: first Debian packages, then the Python packages (as one locked set, in the place of
the first of them); copied files and commands stay in their places.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flyte_build.errors import DeclarationError

DEFAULT = "default"  # Name of the image that `--image URI` sets.
_OPTIONS = ("index_url", "extra_index_urls", "pre", "extra_args")
_PACKAGES = ("pip_packages", "requirements", "pyproject", "uv_project")


@dataclass(frozen=True, kw_only=True)
class BaseStep:
    """The base of an image.

    It is `debian` with a Python (None: the pinned minor version), a `reference`, or a `dockerfile`.
    """

    kind: Literal["debian", "reference", "dockerfile"]
    python: str | None = None
    uri: str = ""
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of package requirements: the declaration itself (`packages`), or a file.

    `file` is relative to the project root, `lock` is the uv.lock of a `uv_project`; `options` are
    those of the resolver, by name.
    """

    kind: Literal["packages", "requirements", "pyproject", "uv_project", "uv_script"]
    packages: tuple[str, ...] = ()
    file: str = ""
    lock: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Packages:
    """Step that installs the locked set of Python packages."""


@dataclass(frozen=True)
class Copy:
    """Step that copies the file or the contents of the directory `src` to `dst`.

    `src` is relative to the project root. Files that `ignore` (a .dockerignore) matches are left
    out.
    """

    src: str
    dst: str
    folder: bool
    ignore: str = ""


@dataclass(frozen=True)
class Execute:
    """Step that runs shell commands as root.

    `apt` are Debian packages to install instead, `install` are Python packages.
    """

    commands: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    install: tuple[Source, ...] = ()


Step = Packages | Copy | Execute


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A complete description of an image.

    `platforms` are OCI's (`linux/amd64`); none means Linux on this machine's architecture.
    """

    base: BaseStep
    platforms: tuple[str, ...] = ()
    sources: tuple[Source, ...] = ()
    steps: tuple[Step, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    workdir: str = ""
    registry: str = ""
    name: str = ""

    def executing(self) -> Recipe:
        """Return the recipe with its Python packages installed in a container.

        Packages without wheels can be built there.
        """
        steps = (
            Execute(install=self.sources) if isinstance(step, Packages) else step
            for step in self.steps
        )
        return replace(self, steps=tuple(steps))

    @property
    def executes(self) -> str:
        """The first step that needs execution, human-readable; "" if there is none."""
        if self.base.kind == "dockerfile":
            return f"the Dockerfile {self.base.file}"
        for step in self.steps:
            if isinstance(step, Execute):
                if step.install:
                    return "uv pip install"
                return f"apt-get install {' '.join(step.apt)}" if step.apt else step.commands[0]
        return ""

    @property
    def locks(self) -> bool:
        """Whether wheels become layers, and so must be locked."""
        return any(isinstance(step, Packages) for step in self.steps)

    @classmethod
    def of(cls, value: Any) -> Recipe:
        """Return the recipe of an image's JSON value: a reference, or a base and steps.

        Raises `DeclarationError`.
        """
        if isinstance(value, str):
            return cls(base=BaseStep(kind="reference", uri=value))
        declared, steps = value["base"], value["steps"]
        sources = [_source(step) for step in steps if step["step"] in _PACKAGES]
        if declared["step"] == "uv_script":
            sources.insert(0, _source(declared))
        recipe = cls(
            base=_base(declared),
            platforms=tuple(declared.get("platform", ())),
            sources=tuple(sources),
            steps=tuple(_ordered(steps, bool(sources), declared["step"] == "uv_script")),
            env=dict(
                pair for step in steps if step["step"] == "env_vars" for pair in step["variables"]
            ),
            workdir=_workdir(steps),
            registry=value.get("registry", ""),
            name=value.get("name", ""),
        )
        return recipe.executing() if value.get("builder") == "docker" else recipe


def chosen(value: Any, references: Mapping[str, str], builder: str) -> Any:
    """Return an image's JSON value with its name replaced by a reference, and with its builder.

    The builder is omitted if it is the native one, or if the image is an existing one.
    """
    found = named(value, references)
    return (
        {**found, "builder": builder} if isinstance(found, dict) and builder != "native" else found
    )


def named(value: Any, references: Mapping[str, str]) -> Any:
    """Return an image's JSON value with its name replaced by a reference.

    The name is that of `Image.from_ref_name`, or "default" for `auto`. Raises `DeclarationError`
    for an unknown name.
    """
    if value == "auto":
        return references.get(DEFAULT, value)
    if isinstance(value, str) or value["base"]["step"] != "ref_name":
        return value
    name = value["base"]["name"]
    if name not in references:
        raise DeclarationError(
            f"No image named {name!r} is configured",
            why=(
                f"Configured names: {', '.join(sorted(references))}."
                if references
                else "No image names are configured."
            ),
            hint=f"Add it to image.image_refs in flyte.toml, or use --image {name}=URI.",
        )
    return (
        {**value, "base": {"step": "reference", "uri": references[name]}}
        if value["steps"]
        else references[name]
    )


def _base(declared: Mapping[str, Any]) -> BaseStep:
    match declared["step"]:
        case "debian" | "uv_script":
            version = declared.get("python_version")
            return BaseStep(kind="debian", python=".".join(map(str, version)) if version else None)
        case "reference":
            return BaseStep(kind="reference", uri=declared["uri"])
        case "dockerfile":
            return BaseStep(kind="dockerfile", file=declared["file"])
    raise DeclarationError(f"Unknown base image kind: {declared['step']!r}")


def _source(step: Mapping[str, Any]) -> Source:
    options = {name: step[name] for name in _OPTIONS if step.get(name)}
    match step["step"]:
        case "pip_packages":
            return Source(kind="packages", packages=tuple(step["packages"]), options=options)
        case "requirements":
            return Source(kind="requirements", file=step["file"], options=options)
        case "pyproject":
            return Source(kind="pyproject", file=step["pyproject_file"], options=options)
        case "uv_script":
            return Source(kind="uv_script", file=step["script"], options=options)
    lock = step.get("uvlock") or os.path.join(os.path.dirname(step["pyproject_file"]), "uv.lock")
    return Source(kind="uv_project", file=step["pyproject_file"], lock=lock, options=options)


def _ordered(steps: list[Mapping[str, Any]], has_packages: bool, at_once: bool) -> Iterator[Step]:
    if apt := sorted(
        {
            package
            for step in steps
            if step["step"] == "apt_packages"
            for package in step["packages"]
        }
    ):
        yield Execute(apt=tuple(apt))
    ignore = next((step["path"] for step in reversed(steps) if step["step"] == "dockerignore"), "")
    if at_once:
        yield Packages()
    waiting = has_packages and not at_once
    for step in steps:
        if step["step"] in _PACKAGES and waiting:
            yield Packages()
            waiting = False
        elif step["step"] == "commands":
            yield Execute(commands=tuple(step["commands"]))
        elif step["step"] == "source_file":
            yield Copy(step["src"], step["dst"], False)
        elif step["step"] == "source_folder":
            src = step["src"]
            yield Copy(
                src,
                (
                    step["dst"]
                    if step["contents"]
                    else posixpath.join(step["dst"], posixpath.basename(src.rstrip("/")))
                ),
                True,
                ignore,
            )


def _workdir(steps: list[Mapping[str, Any]]) -> str:
    """Return the final working directory; relative ones add up, as in a Dockerfile."""
    folder = ""
    for step in steps:
        if step["step"] == "workdir":
            folder = posixpath.join(folder, step["workdir"])
    return folder
