"""The table of settings: keys, types, defaults, descriptions. Files, variables, commands and
documentation are read off it.

A value has three forms: the text of a variable or a command line, the TOML value of a file, and
what the program uses.
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
    """One setting. `acted_on` is false for what is accepted and kept only; `in_files` for what a
    variable alone can say.

    `flag` is the command line's option, where that is not called as the key's last word.
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
        """The option of commands that gives it."""
        return self.flag or f"--{self.key.partition('.')[2].replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"FLYTE_{self.key.replace('.', '_').upper()}"

    def from_toml(self, value: Any) -> T:
        """The value for what a file holds. Raises `UsageError`."""
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
        """The value for a text. Raises `UsageError`."""
        return self.from_toml(self.toml(text))

    def toml(self, text: str) -> Any:
        """What a file would hold for a text; the text itself if it makes no sense."""
        try:
            return self.kind.parse(text)
        except ValueError:
            return text


HOME = Setting(
    "home",
    TEXT,
    "",
    "The directory below which everything is kept; the platform's directories if it is not set.",
    in_files=False,
)
SHARED_STORE = Setting(
    "store.shared",
    FLAG,
    False,
    "Whether several users of this machine share the cache and the data: else their directories are"
    " closed to all others.",
    in_files=False,
)
PROJECT = Setting("task.project", TEXT, "default", "The project that runs belong to (`--project`).")
DOMAIN = Setting("task.domain", TEXT, "development", "The domain that runs belong to (`--domain`).")
ORG = Setting("task.org", TEXT, "", "The organisation.", acted_on=False)
COPY_STYLE = Setting(
    "run.copy_style",
    choice(*COPY_STYLES),
    "loaded_modules",
    "What of the project goes into the bundle (`--copy-style`).",
)
ENGINE = Setting("run.engine", choice(*ENGINES), "auto", "What runs tasks (`--engine`).")
SHARED = Setting(
    "registry",
    REPOSITORY,
    None,
    "The repository of deployments, and of the cache that is shared: read from and written to"
    " (`--registry`).",
    flag="--registry",
)
CACHE_READ = Setting(
    "cache.read",
    REPOSITORIES,
    (),
    "Repositories to look in for what others have made, in order, in place of `registry`"
    " (`--cache-read`).",
    flag="--cache-read",
)
CACHE_WRITE = Setting(
    "cache.write",
    REPOSITORY,
    None,
    "The repository to publish to, in place of `registry` (`--cache-write`).",
    flag="--cache-write",
)
ALLOW_SECRETS = Setting(
    "bundle.allow_secrets",
    PATHS,
    frozenset(),
    "Files, by their paths below the root, that may be shared although they look like secrets.",
)
MAX_FILES = Setting(
    "bundle.max_files", COUNT, 200_000, "How many files and directories a bundle may have."
)
MAX_BYTES = Setting(
    "bundle.max_size", SIZE, 4 << 30, "How large the files of a bundle may be, all in all."
)
MAX_SCAN_TIME = Setting(
    "bundle.max_scan_time", DURATION, 120.0, "How long looking for the files of a bundle may take."
)
KEEP = Setting(
    "cache.keep", DURATION, 14 * 86400.0, "`flyte cache gc` keeps what was used within this time."
)
MAX_SIZE = Setting(
    "cache.max_size",
    LIMIT,
    None,
    "How large `flyte cache gc` lets the cache be: what was used least recently goes first.",
)
MIN_FREE = Setting(
    "cache.min_free",
    SIZE,
    10**9,
    "`flyte cache gc` makes the cache smaller while the disk has less free space than this.",
)
MIN_SIZE = Setting(
    "cache.min_size",
    SIZE,
    10**9,
    "For the sake of free space, the cache is never made smaller than this.",
)
AUTO_GC = Setting(
    "cache.auto_gc", FLAG, True, "Whether the cache is collected by itself, at most once a day."
)
NETWORK = Setting(
    "docker.network",
    TEXT,
    "",
    "The network that containers are in: Docker's own if it is not set (`none`, `host`, or a"
    " name).",
)
IMAGE_BASE = Setting(
    "image.base",
    TEXT,
    "python:{python}-slim-bookworm",
    "The image with Debian that others stand on; {python} stands for the minor version.",
)
COMPRESSION: Setting[Compression] = Setting(
    "image.compression",
    choice(*COMPRESSIONS),
    "gzip",
    "How the layers of images are compressed. Docker before 23 takes no zstd.",
)
REGISTRY = Setting(
    "image.registry",
    TEXT,
    "",
    "Where images are pushed, in place of `registry`: a host, and a path on it.",
)
BUILDER = Setting(
    "image.builder",
    choice(*BUILDERS),
    "native",
    "What builds images (`--builder`): `docker` installs their packages in a container. Flyte 2's"
    " `local` and `remote` mean `native`.",
)
IMAGE_REFS = Setting(
    "image.image_refs",
    REFERENCES,
    {},
    "References of images by name, for `Image.from_ref_name` (`--image`).",
)
LOCKED = Setting(
    "locked",
    FLAG,
    False,
    "Whether what flyte.lock does not pin is an error (`--locked`); in CI it should be.",
    in_files=False,
    flag="--locked",
)
PERSISTENCE = Setting(
    "local.persistence",
    FLAG,
    True,
    "Whether local runs are remembered; they always are.",
    acted_on=False,
)

# In the order of a file: what is in no section first, and each section once.
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
    """`Did you mean ...?`, or nothing if no known name is near; all begin with `common`, which does
    not count.
    """
    from difflib import get_close_matches

    near = get_close_matches(
        name.removeprefix(common), [each.removeprefix(common) for each in known], 1, 0.75
    )
    return f"Did you mean {common}{near[0]}?" if near else ""


def find_setting(key: str) -> Setting[Any]:
    """The setting of that key. Raises `UsageError`, which names the nearest one."""
    if key not in BY_KEY:
        raise UsageError(
            f"There is no setting {key!r}",
            hint=nearest(key, (*BY_KEY, *SECTIONS)) or "`flyte config` lists them all.",
        )
    return BY_KEY[key]


def placed(error: UsageError, where: str) -> UsageError:
    """The same error, with the place where the mistake is."""
    return UsageError(f"{where}: {error.what}", why=error.why, hint=error.hint)


def unknown_variable(name: str, note: Callable[[str], None]) -> None:
    """Say that a variable is no setting, if it looks as if it was meant to be one: others may have
    variables of such names.
    """
    near = nearest(name, BY_VARIABLE, "FLYTE_")
    if near or any(name.startswith(f"FLYTE_{section.upper()}_") for section in SECTIONS):
        note(f"The variable {name} is no setting. {near or '`flyte config` lists them all.'}")
