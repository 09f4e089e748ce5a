"""Names of deployments: tags in a repository, and references as users write them.

<project>.<domain>.<environment>.<version>    a version (no dots in the first three)
<project>.<domain>.<environment>.latest       the version that was deployed last

A repository also has tags `pin.<hex>` and `keep.<hex>` (`cas/registry/tags.py`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from flyte_build.cas.digest import Digest, is_hex
from flyte_build.cas.registry.name import check_tag
from flyte_build.cas.registry.tags import KEEP, PIN, RECORD
from flyte_build.errors import ReferenceInvalid

LATEST = "latest"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*\Z")
_VERSION = re.compile(r"[A-Za-z0-9_.-]+\Z")
_RESERVED = frozenset(prefix.rstrip(".") for prefix in (RECORD, KEEP, PIN))
_FORMS = "Write, for example, ENV, ENV:v1, or ENV@sha256:..."
_TASK_FORMS = "Write, for example, ENV.TASK, ENV.TASK:v1, or ENV.TASK@sha256:..."


@dataclass(frozen=True)
class Namespace:
    """A project and a domain, in which environments are deployed.

    Raises `ReferenceInvalid` for names that cannot be part of a tag.
    """

    project: str
    domain: str

    def __post_init__(self) -> None:
        for kind, name in (("project", self.project), ("domain", self.domain)):
            if not _PART.match(name) or name in _RESERVED:
                raise ReferenceInvalid(
                    f"Cannot deploy to the {kind} {name!r:.100}",
                    why=(
                        "Its name is part of a tag: letters, digits, `_` and `-`, without dots."
                        if name not in _RESERVED
                        else "That name is reserved in repositories."
                    ),
                    hint=(
                        f"Use another {kind}, such as --{kind}"
                        f" {'team_a' if kind == 'project' else 'production'}."
                    ),
                )

    def tag(self, environment: str, version: str) -> str:
        """Return the tag of a version. Raises `ReferenceInvalid` if it is too long."""
        return check_tag(
            f"{self.project}.{self.domain}.{environment}.{version}", "The name of the deployment"
        )

    def __str__(self) -> str:
        return f"project {self.project}, domain {self.domain}"


def read_tag(tag: str) -> tuple[Namespace, str, str] | None:
    """Return the space, environment and version in a tag, or None for a tag of another kind."""
    parts = tag.split(".", 3)
    if (
        len(parts) != 4
        or not all(map(_PART.match, parts[:3]))
        or not _VERSION.match(parts[3])
        or not _RESERVED.isdisjoint(parts[:2])
    ):
        return None
    return Namespace(*parts[:2]), parts[2], parts[3]


def check_version(version: str) -> str:
    """Return a version unchanged. Raises `ReferenceInvalid` if it is not a valid one."""
    if version == LATEST:
        raise ReferenceInvalid(
            "--version must not be latest",
            why="`latest` always stands for the version that was deployed last.",
            hint="Choose another one, such as --version v1.",
        )
    if not _PART.match(version[:1]) or not _VERSION.match(version):
        raise ReferenceInvalid(
            f"{version!r:.200} is not a valid version",
            why=(
                "A version begins with a letter, a digit or `_`, followed by letters, digits, `_`,"
                " `.` and `-`."
            ),
            hint="Choose another one, such as --version v1.",
        )
    return version


@dataclass(frozen=True)
class DeploymentReference:
    """A reference to a deployment of an `environment`, by `version` or by `pin`.

    The version may be `latest`; "" means that none is given.
    """

    environment: str
    version: str = ""
    pin: Digest | None = None

    @classmethod
    def parse(cls, text: str, forms: str = _FORMS) -> DeploymentReference:
        """Parse `ENV`, `ENV:VERSION` or `ENV@sha256:...`.

        Raises `ReferenceInvalid`, whose hint is `forms`.
        """
        environment, at, digest = text.partition("@")
        if at:
            if (
                not digest.startswith("sha256:")
                or not is_hex(digest.removeprefix("sha256:"))
                or ":" in environment
            ):
                raise ReferenceInvalid(
                    f"{text!r:.200} is not a reference to a deployment",
                    why="A pin consists of `sha256:` and 64 hex digits.",
                    hint=forms,
                )
            return cls(_environment(environment, forms), pin=Digest(digest))
        environment, colon, version = text.partition(":")
        if colon and not _VERSION.match(version):
            raise ReferenceInvalid(
                f"{text!r:.200} is not a reference to a deployment",
                why="A version consists of letters, digits, `_`, `.` and `-`.",
                hint=forms,
            )
        return cls(_environment(environment, forms), version)

    @classmethod
    def parse_task(cls, text: str) -> tuple[DeploymentReference, str]:
        """Parse `ENV.TASK`, with an optional version or pin, to a deployment and a function name.

        Raises `ReferenceInvalid`.
        """
        end = min((at for at in (text.find(":"), text.find("@")) if at >= 0), default=len(text))
        environment, dot, function = text[:end].partition(".")
        if not dot or not environment or not function.isidentifier():
            raise ReferenceInvalid(
                f"{text!r:.200} is not a reference to a deployed task",
                why="A task is referred to by its environment and its function.",
                hint=_TASK_FORMS,
            )
        return cls.parse(environment + text[end:], _TASK_FORMS), function

    def __str__(self) -> str:
        return (
            f"{self.environment}@{self.pin}"
            if self.pin
            else f"{self.environment}:{self.version or LATEST}"
        )


def _environment(name: str, forms: str) -> str:
    if not _PART.match(name):
        raise ReferenceInvalid(
            f"{name!r:.200} is not a valid environment name",
            why="A name consists of letters, digits, `-` and `_`.",
            hint=forms,
        )
    return name
