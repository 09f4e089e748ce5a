"""The names of deployments: tags in a repository, and references as people write them.

<project>.<domain>.<environment>.<version>    a version (no dots in the first three)
<project>.<domain>.<environment>.latest       the version that was deployed last

The tags `pin.<hex>` and `keep.<hex>` stand beside these (`cas/registry/tags.py`).
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
_FORMS = "For example: ENV, ENV:v1, ENV@sha256:..."
_TASK_FORMS = "For example: ENV.TASK, ENV.TASK:v1, ENV.TASK@sha256:..."


@dataclass(frozen=True)
class Namespace:
    """A project's domain, in which environments are deployed. Raises `ReferenceInvalid` for names
    that no tag can hold.
    """

    project: str
    domain: str

    def __post_init__(self) -> None:
        for kind, name in (("project", self.project), ("domain", self.domain)):
            if not _PART.match(name) or name in _RESERVED:
                raise ReferenceInvalid(
                    f"Nothing can be deployed to the {kind} {name!r:.100}",
                    why=(
                        "Its name is a part of a tag: letters, digits, `_` and `-`, and no dots."
                        if name not in _RESERVED
                        else "That name has a meaning of its own in a repository."
                    ),
                    hint=(
                        f"Name another {kind}: --{kind}"
                        f" {'team_a' if kind == 'project' else 'production'}"
                    ),
                )

    def tag(self, environment: str, version: str) -> str:
        """The tag of a version. Raises `ReferenceInvalid` for one that is too long."""
        return check_tag(
            f"{self.project}.{self.domain}.{environment}.{version}", "The name of the deployment"
        )

    def __str__(self) -> str:
        return f"project {self.project}, domain {self.domain}"


def read_tag(tag: str) -> tuple[Namespace, str, str] | None:
    """The space, environment and version that a tag names; None for a tag of another kind."""
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
    """Give a version back. Raises `ReferenceInvalid` for what can be none."""
    if version == LATEST:
        raise ReferenceInvalid(
            "--version latest names no version",
            why="`latest` is always the one that was deployed last.",
            hint="For example: --version v1",
        )
    if not _PART.match(version[:1]) or not _VERSION.match(version):
        raise ReferenceInvalid(
            f"{version!r:.200} can be no version",
            why=(
                "A version begins with a letter, a digit or `_`; letters, digits, `_`, `.` and `-`"
                " may follow."
            ),
            hint="For example: --version v1",
        )
    return version


@dataclass(frozen=True)
class DeploymentReference:
    """Which deployment is meant: of an `environment`, by `version` ("" is none in particular,
    `latest` the latest) or by `pin`.
    """

    environment: str
    version: str = ""
    pin: Digest | None = None

    @classmethod
    def parse(cls, text: str, forms: str = _FORMS) -> DeploymentReference:
        """The deployment that `ENV`, `ENV:VERSION` or `ENV@sha256:...` names; `forms` is the hint
        for what is none.

        Raises `ReferenceInvalid`.
        """
        environment, at, digest = text.partition("@")
        if at:
            if (
                not digest.startswith("sha256:")
                or not is_hex(digest.removeprefix("sha256:"))
                or ":" in environment
            ):
                raise ReferenceInvalid(
                    f"{text!r:.200} names no deployment",
                    why="A pin is `sha256:` and 64 hex digits.",
                    hint=forms,
                )
            return cls(_environment(environment, forms), pin=Digest(digest))
        environment, colon, version = text.partition(":")
        if colon and not _VERSION.match(version):
            raise ReferenceInvalid(
                f"{text!r:.200} names no deployment", why="A version is a name.", hint=forms
            )
        return cls(_environment(environment, forms), version)

    @classmethod
    def parse_task(cls, text: str) -> tuple[DeploymentReference, str]:
        """The deployment and the function that `ENV.TASK` names, with a version or a pin. Raises
        `ReferenceInvalid`.
        """
        end = min((at for at in (text.find(":"), text.find("@")) if at >= 0), default=len(text))
        environment, dot, function = text[:end].partition(".")
        if not dot or not environment or not function.isidentifier():
            raise ReferenceInvalid(
                f"{text!r:.200} names no deployed task",
                why="It is named by its environment and its function.",
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
            f"{name!r:.200} names no environment",
            why="Its name has letters, digits, `-` and `_` alone.",
            hint=forms,
        )
    return name
