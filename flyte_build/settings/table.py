"""Table of settings: their keys, kinds, defaults and descriptions.

Files, variables, commands and the documentation are all defined by it. A value has three forms: a
string in a variable or on a command line, a TOML value in a file, and the value in the program.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, Generic, Literal, NamedTuple

from flyte_build.bundler.copy_style import COPY_STYLES
from flyte_build.errors import UsageError

from .kinds import (
    COUNT,
    DURATION,
    FLAG,
    LIMIT,
    NATURAL,
    PATHS,
    REFERENCES,
    REPOSITORIES,
    REPOSITORY,
    SIZE,
    TEXT,
    Kind,
    T,
    choice,
)

BUILDERS = ("native", "docker", "local", "remote")
Compression = Literal["gzip", "zstd", "none"]
COMPRESSIONS: tuple[Compression, ...] = ("gzip", "zstd", "none")
EngineName = Literal["auto", "process", "docker", "local"]
ENGINES: tuple[EngineName, ...] = ("auto", "process", "docker", "local")


class Setting(NamedTuple, Generic[T]):
    """One setting; `text` describes it.

    `acted_on` is false if it is accepted but has no effect, `in_files` if only a variable can set
    it. `flag` is its command-line option, if that is not named after the last part of the key.
    """

    key: str
    kind: Kind[T]
    default: T
    text: str
    acted_on: bool = True
    in_files: bool = True
    flag: str = ""

    @property
    def option(self) -> str:
        """Command-line option that sets it."""
        return self.flag or f"--{self.key.partition('.')[2].replace('_', '-')}"

    @property
    def variable(self) -> str:
        """Environment variable that sets it."""
        return f"FLYTE_{self.key.replace('.', '_').upper()}"

    def from_toml(self, value: Any) -> T:
        """Return the value of a TOML value in a file. Raises `UsageError`."""
        try:
            return self.kind.read(value)
        except (ValueError, TypeError, OverflowError):
            shown, example = json.dumps(value, default=str), f"{self.key} = {self.kind.example}"
            raise UsageError(
                f"{self.key} cannot be {shown}",
                why=f"Expected: {self.kind.expected}.",
                hint=f"For example: {example}",
            ) from None

    def from_text(self, text: str) -> T:
        """Return the value of a string. Raises `UsageError`."""
        return self.from_toml(self.toml(text))

    def toml(self, text: str) -> Any:
        """Return the TOML value of a string; an invalid string is returned unchanged."""
        try:
            return self.kind.parse(text)
        except ValueError:
            return text


HOME = Setting(
    "home",
    TEXT,
    "",
    "Directory of the cache, the data and the configuration (default: the platform's directories).",
    in_files=False,
)
SHARED_STORE = Setting(
    "store.shared",
    FLAG,
    False,
    "Whether several users of this machine share the cache and the data; otherwise no one else has"
    " access to their directories.",
    in_files=False,
)
PROJECT = Setting("task.project", TEXT, "default", "The project that runs belong to (`--project`).")
DOMAIN = Setting("task.domain", TEXT, "development", "The domain that runs belong to (`--domain`).")
ORG = Setting("task.org", TEXT, "", "The organisation that runs belong to.", acted_on=False)
COPY_STYLE = Setting(
    "run.copy_style",
    choice(*COPY_STYLES),
    "loaded_modules",
    "Selection of the project's files for the bundle (`--copy-style`).",
)
ENGINE = Setting("run.engine", choice(*ENGINES), "auto", "Engine that runs tasks (`--engine`).")
LOST_RETRIES = Setting(
    "run.lost_retries",
    NATURAL,
    3,
    "How often a task is tried again whose worker was lost: killed, or its container is gone.",
)
SHARED = Setting(
    "registry",
    REPOSITORY,
    None,
    "Repository of deployments and of the shared cache, to read from and write to (`--registry`).",
    flag="--registry",
)
CACHE_READ = Setting(
    "cache.read",
    REPOSITORIES,
    (),
    "Repositories of the shared cache to read from, in order, instead of `registry`"
    " (`--cache-read`).",
    flag="--cache-read",
)
CACHE_WRITE = Setting(
    "cache.write",
    REPOSITORY,
    None,
    "Repository of the shared cache to write to, instead of `registry` (`--cache-write`).",
    flag="--cache-write",
)
ALLOW_SECRETS = Setting(
    "bundle.allow_secrets",
    PATHS,
    frozenset(),
    "Files that may be bundled and shared although they look like secrets, as paths relative to the"
    " root.",
)
MAX_FILES = Setting(
    "bundle.max_files", COUNT, 200_000, "Maximum number of files and directories in a bundle."
)
MAX_BYTES = Setting(
    "bundle.max_size", SIZE, 4 << 30, "Maximum total size of the files in a bundle."
)
MAX_SCAN_TIME = Setting(
    "bundle.max_scan_time", DURATION, 120.0, "Maximum time to search for the files of a bundle."
)
KEEP = Setting(
    "cache.keep", DURATION, 14 * 86400.0, "`flyte cache gc` keeps everything used within this time."
)
MAX_SIZE = Setting(
    "cache.max_size",
    LIMIT,
    None,
    "Maximum size of the cache after `flyte cache gc`, which evicts the least recently used first.",
)
MIN_FREE = Setting(
    "cache.min_free",
    SIZE,
    10**9,
    "`flyte cache gc` shrinks the cache while the disk has less free space than this.",
)
MIN_SIZE = Setting(
    "cache.min_size",
    SIZE,
    10**9,
    "Size below which the cache is never shrunk to free disk space.",
)
AUTO_GC = Setting(
    "cache.auto_gc",
    FLAG,
    True,
    "Whether garbage collection of the cache runs automatically, at most once a day.",
)
NETWORK = Setting(
    "docker.network",
    TEXT,
    "",
    "Network of containers: `none`, `host`, or a name (default: Docker's own).",
)
IMAGE_BASE = Setting(
    "image.base",
    TEXT,
    "python:{python}-slim-bookworm",
    "Debian image that other images are based on; {python} stands for the minor version.",
)
COMPRESSION: Setting[Compression] = Setting(
    "image.compression",
    choice(*COMPRESSIONS),
    "gzip",
    "Compression of image layers. Docker before version 23 does not support zstd.",
)
REGISTRY = Setting(
    "image.registry",
    TEXT,
    "",
    "Registry to push images to, instead of `registry`: a host and a path on it.",
)
BUILDER = Setting(
    "image.builder",
    choice(*BUILDERS),
    "native",
    "Builder of images (`--builder`): `docker` installs their packages in a container. `local` and"
    " `remote`, as in Flyte 2, mean `native`.",
)
IMAGE_REFS = Setting(
    "image.image_refs",
    REFERENCES,
    {},
    "Image references by name, for `Image.from_ref_name` (`--image`).",
)
LOCKED = Setting(
    "locked",
    FLAG,
    False,
    "Whether a requirement that flyte.lock does not pin is an error (`--locked`); recommended in"
    " CI.",
    in_files=False,
    flag="--locked",
)
PERSISTENCE = Setting(
    "local.persistence",
    FLAG,
    True,
    "Whether local runs are recorded; they always are.",
    acted_on=False,
)

# In the order of a file: settings outside of any section first, then one section after another.
SETTINGS: tuple[Setting[Any], ...] = (
    *(
        HOME,
        SHARED_STORE,
        LOCKED,
        SHARED,
        PROJECT,
        DOMAIN,
        ORG,
        COPY_STYLE,
        ENGINE,
        LOST_RETRIES,
        ALLOW_SECRETS,
        MAX_FILES,
        MAX_BYTES,
        MAX_SCAN_TIME,
    ),
    *(CACHE_READ, CACHE_WRITE, KEEP, MAX_SIZE, MIN_FREE, MIN_SIZE, AUTO_GC, NETWORK),
    *(IMAGE_BASE, COMPRESSION, REGISTRY, BUILDER, IMAGE_REFS, PERSISTENCE),
)
SECTIONS = frozenset(setting.key.partition(".")[0] for setting in SETTINGS if "." in setting.key)
BY_KEY = {setting.key: setting for setting in SETTINGS}
BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}


def nearest(name: str, known: Iterable[str], common: str = "") -> str:
    """Return `Did you mean ...?` with the most similar known name, or "" if none is similar.

    All names begin with `common`, which does not count as similarity.
    """
    from difflib import get_close_matches

    near = get_close_matches(
        name.removeprefix(common), [each.removeprefix(common) for each in known], 1, 0.75
    )
    return f"Did you mean {common}{near[0]}?" if near else ""


def find_setting(key: str) -> Setting[Any]:
    """Return the setting with that key. Raises `UsageError`, whose hint names a similar one."""
    if key not in BY_KEY:
        raise UsageError(
            f"There is no setting {key!r}",
            hint=nearest(key, (*BY_KEY, *SECTIONS)) or "List all settings with `flyte config`.",
        )
    return BY_KEY[key]


def placed(error: UsageError, where: str) -> UsageError:
    """Return the error with the place of the mistake added to its message."""
    return UsageError(f"{where}: {error.what}", why=error.why, hint=error.hint)


def unknown_variable(name: str, note: Callable[[str], None]) -> None:
    """Note that an environment variable is not a setting, if it seems to be meant as one.

    Other variables that begin with `FLYTE_` may belong to other programs.
    """
    near = nearest(name, BY_VARIABLE, "FLYTE_")
    if near or any(name.startswith(f"FLYTE_{section.upper()}_") for section in SECTIONS):
        note(
            f"The variable {name} is not a setting."
            f" {near or 'List all settings with `flyte config`.'}"
        )
