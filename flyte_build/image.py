"""`Image`: an immutable declaration of what a task's environment holds. Each `with_*` returns a new one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from .errors import DeclarationError

Step = tuple[str, tuple[tuple[str, Any], ...]]


@dataclass(frozen=True)
class Image:
    """A base and the steps on top of it, in the order in which they were declared."""

    base: Step
    steps: tuple[Step, ...] = ()
    registry: str | None = None
    name: str | None = None

    @classmethod
    def from_debian_base(
        cls,
        python_version: tuple[int, int] | None = None,
        registry: str | None = None,
        name: str | None = None,
        platform: str | tuple[str, ...] | None = None,
        install_flyte: bool = True,
    ) -> "Image":
        """Debian with Python; the minor version at hand if none is named."""
        return cls(_step("debian", python_version=python_version, platform=platform), registry=registry, name=name)

    @classmethod
    def from_base(cls, image_uri: str) -> "Image":
        """An image that exists."""
        if not image_uri or any(character.isspace() for character in image_uri):
            raise DeclarationError(f"Image.from_base({image_uri!r}) names no image")
        return cls(_step("reference", uri=image_uri))

    @classmethod
    def from_dockerfile(cls, file: Any, registry: str | None = None, name: str | None = None, platform: Any = None) -> "Image":
        """What a Dockerfile builds."""
        return cls(_step("dockerfile", file=str(file), platform=platform), registry=registry, name=name)

    @classmethod
    def from_uv_script(cls, script: Any, *, name: str | None = None, registry: str | None = None, **options: Any) -> "Image":
        """What a script's inline metadata (PEP 723) asks for."""
        return cls(_step("uv_script", script=str(script), **options), registry=registry, name=name)

    @classmethod
    def from_ref_name(cls, name: str) -> "Image":
        """The image that the configuration has under this name."""
        return cls(_step("ref_name", name=name))

    def clone(self, registry: str | None = None, name: str | None = None, **options: Any) -> "Image":
        """The same image under another registry, name, or with another option of its base."""
        options.pop("extendable", None)
        base = (self.base[0], _step("", **{**dict(self.base[1]), **options})[1])
        return replace(self, base=base, registry=registry or self.registry, name=name or self.name)

    def with_pip_packages(self, *packages: str, **options: Any) -> "Image":
        """Add packages from an index."""
        return self._with("pip_packages", packages=packages, **options)

    def with_requirements(self, file: Any, **options: Any) -> "Image":
        """Add the packages of a requirements file."""
        return self._with("requirements", file=str(file), **options)

    def with_uv_project(self, pyproject_file: Any, uvlock: Any = None, **options: Any) -> "Image":
        """Add the packages of a project locked by uv."""
        return self._with("uv_project", pyproject_file=str(pyproject_file), uvlock=uvlock and str(uvlock), **options)

    def with_pyproject(self, pyproject_file: Any, **options: Any) -> "Image":
        """Add the packages that a project declares."""
        return self._with("pyproject", pyproject_file=str(pyproject_file), **options)

    def with_local_v2(self) -> "Image":
        """Accepted: the runtime comes by itself."""
        return self

    def with_apt_packages(self, *packages: str, **options: Any) -> "Image":
        """Add Debian packages."""
        return self._with("apt_packages", packages=packages, **options)

    def with_commands(self, commands: list[str], **options: Any) -> "Image":
        """Run shell commands."""
        return self._with("commands", commands=tuple(commands), **options)

    def with_env_vars(self, env_vars: dict[str, str]) -> "Image":
        """Set environment variables."""
        return self._with("env_vars", **env_vars)

    def with_workdir(self, workdir: str) -> "Image":
        """Set the working folder."""
        return self._with("workdir", workdir=workdir)

    def with_source_file(self, src: Any, dst: str = ".") -> "Image":
        """Copy a file in."""
        return self._with("source_file", src=str(src), dst=dst)

    def with_source_folder(self, src: Any, dst: str = ".", **options: Any) -> "Image":
        """Copy a folder in."""
        return self._with("source_folder", src=str(src), dst=dst, **options)

    def with_code_bundle(self, **options: Any) -> "Image":
        """Put the code bundle into the image itself."""
        return self._with("code_bundle", **options)

    def with_dockerignore(self, path: Any) -> "Image":
        """What copied folders leave out."""
        return self._with("dockerignore", path=str(path))

    def _with(self, what: str, **options: Any) -> "Image":
        return replace(self, steps=(*self.steps, _step(what, **options)))


def _step(what: str, **options: Any) -> Step:
    return (what, tuple(sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in options.items())))
