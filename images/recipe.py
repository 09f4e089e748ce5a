"""A recipe: what a declared image says, in the order in which it is built. Pure; files are named,
and not read.

What `flyte.Image` declares comes as discovery's JSON value: a base and the steps in the order of
their declaration. The order in which they are built is the one that lets most be kept when
something changes: Debian packages first, then the Python packages (all of them as one locked set,
where the first of them is asked for), with copied files and commands in their own places among
them.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from flyte_build.errors import DeclarationError

DEFAULT = "default"  # The name under which `--image URI` stands.
_OPTIONS = ("index_url", "extra_index_urls", "pre", "extra_args")
_PACKAGES = ("pip_packages", "requirements", "pyproject", "uv_project")


@dataclass(frozen=True, kw_only=True)
class BaseStep:
    """What an image stands on: `debian` with a Python (None: the minor version that is pinned), a
    `reference`, or a `dockerfile`.
    """

    kind: Literal["debian", "reference", "dockerfile"]
    python: str | None = None
    uri: str = ""
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where package requirements are said: in the declaration itself (`packages`), or in a file.

    `file` is relative to the project's root, `lock` is a uv.lock beside a `uv_project`; `options`
    are those of the resolver, by name.
    """

    kind: Literal["packages", "requirements", "pyproject", "uv_project", "uv_script"]
    packages: tuple[str, ...] = ()
    file: str = ""
    lock: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Packages:
    """Here the locked set of Python packages goes in."""


@dataclass(frozen=True)
class Copy:
    """Here the file `src` (relative to the project's root) goes to `dst`, or what is in the
    directory `src`.

    What `ignore` (a .dockerignore) says stays out.
    """

    src: str
    dst: str
    folder: bool
    ignore: str = ""


@dataclass(frozen=True)
class Execute:
    """Here shell commands run, as root; `apt` are Debian packages to install instead, `install`
    Python packages.
    """

    commands: tuple[str, ...] = ()
    apt: tuple[str, ...] = ()
    install: tuple[Source, ...] = ()


Step = Packages | Copy | Execute


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All that an image is made of. `platforms` are OCI's (`linux/amd64`); none means this
    machine's, on Linux.
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
        """The recipe whose Python packages are installed in a container, and not natively: those
        without wheels are built there.
        """
        steps = (
            Execute(install=self.sources) if isinstance(step, Packages) else step
            for step in self.steps
        )
        return replace(self, steps=tuple(steps))

    @property
    def executes(self) -> str:
        """What of it must be executed to be built, for people; "" if nothing."""
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
        """Whether wheels are put into layers, and so must be locked."""
        return any(isinstance(step, Packages) for step in self.steps)

    @classmethod
    def of(cls, value: Any) -> Recipe:
        """The recipe of an image as a JSON value: a reference, or a base and steps. Raises
        `DeclarationError`.
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
    """An image as a JSON value, with the reference in the place of a name, and with its builder
    where that is not the native one.
    """
    found = named(value, references)
    return (
        {**found, "builder": builder} if isinstance(found, dict) and builder != "native" else found
    )


def named(value: Any, references: Mapping[str, str]) -> Any:
    """An image as a JSON value, with the reference in the place of a name (`Image.from_ref_name`,
    or "default" for `auto`).

    Raises `DeclarationError` for a name that is not among them.
    """
    if value == "auto":
        return references.get(DEFAULT, value)
    if isinstance(value, str) or value["base"]["step"] != "ref_name":
        return value
    name = value["base"]["name"]
    if name not in references:
        raise DeclarationError(
            f"No image has the name {name!r}",
            why=(
                f"There are: {', '.join(sorted(references))}."
                if references
                else "None is configured."
            ),
            hint=f"Add it to image.image_refs in flyte.toml, or give --image {name}=URI.",
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
    raise DeclarationError(f"An image stands on {declared['step']!r}, which is not known here")


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
    """Where all `WORKDIR`s lead: a relative one is below the one before it, as in a Dockerfile."""
    folder = ""
    for step in steps:
        if step["step"] == "workdir":
            folder = posixpath.join(folder, step["workdir"])
    return folder
