"""`Image`: an immutable declaration of a task's container image. Each `with_*` returns a new one.

Declaring reads no file and uses no network. Paths of files are absolute, or relative to the
project's root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, Literal

from flyte_build.errors import DeclarationError

if TYPE_CHECKING:
    from .secret import Secret

    Path = str | PathLike[str]
    Architecture = Literal["linux/amd64", "linux/arm64"]
    Platforms = Architecture | Sequence[Architecture] | None
    Secrets = str | Secret | Sequence[str | Secret] | None

Step = tuple[str, tuple[tuple[str, Any], ...]]

PLATFORMS = ("linux/amd64", "linux/arm64")
_OLDEST = (3, 11)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_CREDENTIALS = re.compile(r"https?://[^/\s@]+@")


@dataclass(frozen=True)
class Image:
    """A base image and the steps on top of it, in the order of their declaration."""

    base: Step
    steps: tuple[Step, ...] = ()
    registry: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        for text in (self.registry, dict(self.base[1]).get("uri")):
            if isinstance(text, str) and ("://" in text or "@" in text.partition("/")[0]):
                raise DeclarationError(
                    "An image's registry must not contain a scheme or credentials",
                    why="Declarations are stored and displayed.",
                    hint="Write HOST/NAME, and store credentials with `flyte registry login HOST`.",
                )

    @classmethod
    def from_debian_base(
        cls,
        python_version: tuple[int, int] | None = None,
        flyte_version: str | None = None,
        install_flyte: bool = True,
        registry: str | None = None,
        registry_secret: str | Secret | None = None,
        name: str | None = None,
        platform: Platforms = None,
    ) -> Image:
        """Return an image of Debian with Python.

        `python_version` is a minor version such as `(3, 12)` (default: the version pinned in
        flyte.lock). `flyte_version` and `install_flyte` are accepted, but have no effect: the
        runtime is always added.
        """
        base = _step(
            "debian",
            python_version=_python(python_version),
            platform=_platforms(platform),
            registry_secret=_secrets(registry_secret),
        )
        return cls(base, registry=registry, name=name)

    @classmethod
    def from_base(cls, image_uri: str) -> Image:
        """Return an existing image, given its reference."""
        if not isinstance(image_uri, str) or image_uri.split() != [image_uri]:
            raise DeclarationError(
                f"Image.from_base takes the reference of an image, not {image_uri!r}",
                hint='Write, for example, Image.from_base("python:3.12-slim").',
            )
        return cls(_step("reference", uri=image_uri))

    @classmethod
    def from_dockerfile(
        cls,
        file: Path,
        registry: str | None = None,
        name: str | None = None,
        platform: Platforms = None,
    ) -> Image:
        """Return the image that a Dockerfile builds, with its directory as the build context."""
        return cls(
            _step("dockerfile", file=_path("from_dockerfile", file), platform=_platforms(platform)),
            registry=registry,
            name=name,
        )

    @classmethod
    def from_uv_script(
        cls,
        script: Path,
        *,
        name: str | None = None,
        registry: str | None = None,
        registry_secret: str | Secret | None = None,
        python_version: tuple[int, int] | None = None,
        index_url: str | None = None,
        extra_index_urls: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        platform: Platforms = None,
        secret_mounts: Secrets = None,
    ) -> Image:
        """Return Debian with the packages and the Python that a script's inline metadata requires.

        The format of the metadata is that of PEP 723.
        """
        base = _step(
            "uv_script",
            script=_path("from_uv_script", script),
            python_version=_python(python_version),
            platform=_platforms(platform),
            registry_secret=_secrets(registry_secret),
            **_options(
                "from_uv_script", index_url, extra_index_urls, pre, extra_args, secret_mounts
            ),
        )
        return cls(base, registry=registry, name=name)

    @classmethod
    def from_ref_name(cls, name: str = "default") -> Image:
        """Return the image configured as `name` by `image.image_refs` or `--image NAME=URI`."""
        if not isinstance(name, str) or not name:
            raise DeclarationError(f"Image.from_ref_name takes the name of an image, not {name!r}")
        return cls(_step("ref_name", name=name))

    def clone(
        self,
        registry: str | None = None,
        registry_secret: str | Secret | None = None,
        name: str | None = None,
        base_image: str | None = None,
        python_version: tuple[int, int] | None = None,
        extendable: bool | None = None,
        platform: Platforms = None,
    ) -> Image:
        """Return this image with another registry, name, base image, Python or platforms."""
        what, options = (self if base_image is None else Image.from_base(base_image)).base
        given = {
            "python_version": _python(python_version),
            "platform": _platforms(platform),
            "registry_secret": _secrets(registry_secret),
        }
        changed = {option: value for option, value in given.items() if value}
        if "python_version" in changed and what not in ("debian", "uv_script"):
            raise DeclarationError(
                "clone(python_version=...) requires a Debian base",
                why="Other base images bring a Python of their own.",
                hint="Use Image.from_debian_base(), or a base image with that Python.",
            )
        base = _step(what, **{**dict(options), **changed})
        return replace(self, base=base, registry=registry or self.registry, name=name or self.name)

    def with_pip_packages(
        self,
        *packages: str,
        index_url: str | None = None,
        extra_index_urls: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Secrets = None,
    ) -> Image:
        """Add packages from an index, as pip requirements such as `"numpy"` or `"numpy>=2"`.

        `extra_args` are options of the resolver, uv. No argument may contain credentials of an
        index: they are read from ~/.netrc or from uv's environment variables.
        """
        options = _options(
            "with_pip_packages", index_url, extra_index_urls, pre, extra_args, secret_mounts
        )
        return (
            self._with("pip_packages", packages=_texts("with_pip_packages", packages), **options)
            if packages
            else self
        )

    def with_requirements(
        self,
        file: Path,
        index_url: str | None = None,
        extra_index_urls: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Secrets = None,
    ) -> Image:
        """Add the packages of a requirements file."""
        options = _options(
            "with_requirements", index_url, extra_index_urls, pre, extra_args, secret_mounts
        )
        return self._with("requirements", file=_path("with_requirements", file), **options)

    def with_uv_project(
        self,
        pyproject_file: Path,
        uvlock: Path | None = None,
        index_url: str | None = None,
        extra_index_urls: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Secrets = None,
        project_install_mode: Literal["dependencies_only", "install_project"] = "dependencies_only",
    ) -> Image:
        """Add the packages of a project in exactly the versions of its uv.lock.

        `uvlock` is the path of that file (default: next to `pyproject_file`). `extra_args` are
        options of `uv sync` that select packages (`--extra NAME`, `--group NAME`, `--no-dev`). The
        project's own code is in the bundle.
        """
        if project_install_mode not in ("dependencies_only", "install_project"):
            raise DeclarationError(
                f"Unknown project_install_mode: {project_install_mode!r}",
                hint='Use "dependencies_only" or "install_project".',
            )
        return self._with(
            "uv_project",
            pyproject_file=_path("with_uv_project", pyproject_file),
            uvlock=None if uvlock is None else _path("with_uv_project", uvlock),
            install_project=project_install_mode == "install_project" or None,
            **_options(
                "with_uv_project", index_url, extra_index_urls, pre, extra_args, secret_mounts
            ),
        )

    def with_pyproject(
        self,
        pyproject_file: Path,
        index_url: str | None = None,
        extra_index_urls: str | Sequence[str] | None = None,
        pre: bool = False,
        extra_args: str | None = None,
        secret_mounts: Secrets = None,
    ) -> Image:
        """Add the packages that a project's pyproject.toml declares.

        `extra_args="--extra NAME"` also adds those of an extra.
        """
        options = _options(
            "with_pyproject", index_url, extra_index_urls, pre, extra_args, secret_mounts
        )
        return self._with(
            "pyproject", pyproject_file=_path("with_pyproject", pyproject_file), **options
        )

    def with_local_v2(self) -> Image:
        """Return this image unchanged: the runtime is always added."""
        return self

    def with_apt_packages(self, *packages: str, secret_mounts: Secrets = None) -> Image:
        """Add Debian packages."""
        if not packages:
            return self
        return self._with(
            "apt_packages",
            packages=_texts("with_apt_packages", packages),
            secret_mounts=_secrets(secret_mounts),
        )

    def with_commands(self, commands: Sequence[str], secret_mounts: Secrets = None) -> Image:
        """Run shell commands, as root."""
        if isinstance(commands, str):
            raise DeclarationError(
                "with_commands takes a list of commands, not a string",
                hint=f"Write with_commands([{commands!r}]).",
            )
        return (
            self._with(
                "commands",
                commands=_texts("with_commands", commands),
                secret_mounts=_secrets(secret_mounts),
            )
            if commands
            else self
        )

    def with_env_vars(self, env_vars: Mapping[str, str]) -> Image:
        """Set environment variables; variables of a task take precedence over them."""
        for name, value in env_vars.items():
            if not isinstance(name, str) or not _VARIABLE.match(name):
                raise DeclarationError(
                    f"with_env_vars: {name!r} is not a valid variable name",
                    why="Only letters, digits and `_` are allowed, and no digit at the start.",
                )
            if not isinstance(value, str) or "\0" in value:
                raise DeclarationError(
                    f"with_env_vars: the value of {name} must be a string without NUL characters",
                    hint=f'Write {{"{name}": "..."}}.',
                )
        return (
            self._with("env_vars", variables=tuple(sorted(env_vars.items()))) if env_vars else self
        )

    def with_workdir(self, workdir: str) -> Image:
        """Set the working directory."""
        return self._with("workdir", workdir=_path("with_workdir", workdir))

    def with_source_file(self, src: Path | Sequence[Path], dst: str = ".") -> Image:
        """Copy one or more files to the path `dst`, or into the directory `dst`, of the image."""
        image = self
        for each in [src] if isinstance(src, str | PathLike) else src:
            image = image._with(
                "source_file",
                src=_path("with_source_file", each),
                dst=_path("with_source_file", dst),
            )
        return image

    def with_source_folder(
        self, src: Path, dst: str = ".", copy_contents_only: bool = False
    ) -> Image:
        """Copy a directory, or with `copy_contents_only` its contents, into `dst` of the image."""
        where = {"src": _path("with_source_folder", src), "dst": _path("with_source_folder", dst)}
        return self._with("source_folder", **where, contents=copy_contents_only)

    def with_code_bundle(
        self, copy_style: Literal["loaded_modules", "all"] = "loaded_modules", dst: str = "."
    ) -> Image:
        """Accept the request to add the code, without effect: the code is always in a bundle."""
        return self._with("code_bundle", copy_style=copy_style, dst=_path("with_code_bundle", dst))

    def with_dockerignore(self, path: Path) -> Image:
        """Exclude the patterns of a .dockerignore file from copied directories."""
        return self._with("dockerignore", path=_path("with_dockerignore", path))

    def _with(self, what: str, **options: Any) -> Image:
        return replace(self, steps=(*self.steps, _step(what, **options)))


def _step(what: str, **options: Any) -> Step:
    return (
        what,
        tuple(sorted((name, value) for name, value in options.items() if value is not None)),
    )


def _options(
    what: str,
    index_url: str | None,
    extra_index_urls: str | Sequence[str] | None,
    pre: bool,
    extra_args: str | None,
    secret_mounts: Secrets,
) -> dict[str, Any]:
    extra = (
        (extra_index_urls,) if isinstance(extra_index_urls, str) else tuple(extra_index_urls or ())
    )
    given = {
        "index_url": index_url or None,
        "extra_index_urls": extra or None,
        "pre": pre or None,
        "extra_args": extra_args or None,
    }
    for name, text in (
        ("index_url", index_url),
        *(("extra_index_urls", each) for each in extra),
        ("extra_args", extra_args),
    ):
        if text is not None and not isinstance(text, str):
            raise DeclarationError(f"{what}: {name} must be a string, not {text!r}")
        _refuse_credentials(what, text or "")
    return {**given, "secret_mounts": _secrets(secret_mounts)}


def _refuse_credentials(what: str, text: str) -> None:
    if _CREDENTIALS.search(text):
        raise DeclarationError(
            f"{what}: a URL must not contain credentials",
            why="They would be stored with the declaration and in flyte.lock.",
            hint="Put them into ~/.netrc, or into a variable of uv, such as UV_INDEX_URL.",
        )


def _texts(what: str, texts: Sequence[str]) -> tuple[str, ...]:
    for text in texts:
        if not isinstance(text, str):
            hint = (
                f"Write {what}(*names) for a list of names."
                if isinstance(text, list | tuple)
                else ""
            )
            raise DeclarationError(f"{what}: {text!r} is not a string", hint=hint)
        if not text.strip():
            raise DeclarationError(f"{what} does not take an empty string")
        if what.endswith("packages") and (text.lstrip().startswith("-") or "\n" in text):
            raise DeclarationError(
                f"{what}: {text!r} is not a package",
                hint="Pass options in `extra_args`, and files to with_requirements.",
            )
        if what != "with_commands":
            _refuse_credentials(what, text)
    return tuple(text if what == "with_commands" else text.strip() for text in texts)


def _path(what: str, path: Any) -> str:
    if not isinstance(path, str | PathLike) or not str(fspath(path)) or "\0" in str(path):
        raise DeclarationError(f"{what}: {path!r} is not a path")
    return str(fspath(path))


def _python(version: Any) -> tuple[int, int] | None:
    if version is None:
        return None
    if (
        not isinstance(version, tuple | list)
        or len(version) != 2
        or not all(type(part) is int for part in version)
    ):
        raise DeclarationError(
            f"python_version must be a (major, minor) tuple, not {version!r}",
            hint="Write python_version=(3, 12).",
        )
    if tuple(version) < _OLDEST or version[0] != 3:
        raise DeclarationError(
            f"python_version must be (3, 11) or a newer 3.x, not {version!r}",
            why="Tasks require Python 3.11 or newer.",
            hint="Write python_version=(3, 12).",
        )
    return (version[0], version[1])


def _platforms(platform: Any) -> tuple[str, ...] | None:
    names = (platform,) if isinstance(platform, str) else tuple(platform or ())
    for name in names:
        if name not in PLATFORMS:
            raise DeclarationError(
                f"Unknown platform: {name!r}",
                why="Images are built for Linux only.",
                hint='Use "linux/amd64", "linux/arm64", or both.',
            )
    return tuple(sorted(set(names))) or None


def _secrets(secrets: Secrets) -> tuple[Any, ...] | None:
    return (
        tuple(secrets)
        if isinstance(secrets, list | tuple)
        else None
        if secrets is None
        else (secrets,)
    )
