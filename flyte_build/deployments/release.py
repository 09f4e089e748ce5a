"""A release: a deployment under a version, and what is known of how it came to be.

It is an OCI index over the deployment's manifest, its bundle's and its images', named by the
version's tag. Its annotations are provenance: none of them is part of the deployment's identity.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.cas.registry.descriptor import Descriptor
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.errors import ReferenceInvalid, RegistryCorrupt, StoreError
from flyte_build.text.wording import printable

from .names import LATEST, Namespace, read_tag

TYPE = "application/vnd.flyte.release.v1+json"
TREE = "dev.flyte.tree"
# image-spec, annotations.md.
_CREATED, _REVISION = "org.opencontainers.image.created", "org.opencontainers.image.revision"
_TEXTS = {
    "environment": "dev.flyte.environment",
    "version": "dev.flyte.version",
    "created": _CREATED,
}
_OPTIONAL = {"commit": _REVISION, "user": "dev.flyte.user"}
# Not by `artifactType`: some tools drop it when they copy an index (skopeo 1.9 does).
_KIND = "dev.flyte.kind"
_PROJECT, _DOMAIN, _DIRTY, _TASKS, _HOST, _WHEELS = (
    f"dev.flyte.{name}" for name in ("project", "domain", "dirty", "tasks", "host", "wheels")
)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of an environment: its `deployment`'s manifest, its `bundle`'s, whose annotation
    names the tree, and its `images`'.

    `created` is RFC 3339 in UTC, `commit` git's ("" if there is none; `dirty`: the files were
    others than it holds), `host` the description of the interpreter that it was deployed from,
    `tasks` the names of the functions; `wheels` says where each wheel was seen, by digest.
    """

    space: Namespace
    environment: str
    version: str
    created: str
    commit: str = ""
    dirty: bool = False
    user: str = ""
    tasks: tuple[str, ...] = ()
    host: Mapping[str, Any] = field(default_factory=dict)
    deployment: Descriptor
    bundle: Descriptor
    images: tuple[Descriptor, ...] = ()
    wheels: Mapping[str, str] = field(default_factory=dict)

    @property
    def pinned(self) -> tuple[Descriptor, ...]:
        """All manifests that make it up, the deployment's first."""
        return (self.deployment, self.bundle, *self.images)

    @property
    def pin(self) -> Digest:
        """The deployment's own digest."""
        return self.deployment.digest

    @property
    def tree(self) -> str:
        """The digest of the code, as the index says it."""
        return self.bundle.annotations[TREE]

    @property
    def tag(self) -> str:
        """The tag of the version."""
        return self.space.tag(self.environment, self.version)

    @property
    def latest(self) -> str:
        """The tag of the version that was deployed last."""
        return self.space.tag(self.environment, LATEST)

    def index(self) -> Manifest:
        """The index."""
        texts = {key: getattr(self, name) for name, key in {**_TEXTS, **_OPTIONAL}.items()}
        annotations = {
            **{key: text for key, text in texts.items() if text},
            _KIND: "release",
            _PROJECT: self.space.project,
            _DOMAIN: self.space.domain,
            _DIRTY: json.dumps(self.dirty),
            _TASKS: json.dumps(self.tasks),
            _HOST: json.dumps(self.host, sort_keys=True, separators=(",", ":")),
        }
        if self.wheels:
            annotations[_WHEELS] = json.dumps(self.wheels, sort_keys=True, separators=(",", ":"))
        return Manifest.of_manifests(self.pinned, artifact_type=TYPE, annotations=annotations)

    @classmethod
    def parse(cls, index: Manifest) -> Release:
        """The release of an index, its texts such as a terminal can show. Raises `RegistryCorrupt`
        for what is none.
        """
        try:
            texts = index.annotations
            if texts.get(_KIND) != "release":
                raise ValueError("it is of another kind")
            deployment, bundle, *images = index.manifests
            Digest.parse(bundle.annotations[TREE])
            tasks, host, wheels = (
                json.loads(texts[_TASKS]),
                json.loads(texts[_HOST]),
                json.loads(texts.get(_WHEELS, "{}")),
            )
            if (
                not isinstance(host, dict)
                or not isinstance(wheels, dict)
                or not isinstance(host.get("distributions", {}), dict)
                or not isinstance(tasks, list)
            ):
                raise ValueError("its annotations are of other types")
            release = cls(
                space=Namespace(texts[_PROJECT], texts[_DOMAIN]),
                **{name: printable(texts[key]) for name, key in _TEXTS.items()},
                **{name: printable(texts.get(key, "")) for name, key in _OPTIONAL.items()},
                dirty=texts[_DIRTY] == "true",
                tasks=tuple(printable(str(task)) for task in tasks),
                host=_printable(host),
                deployment=deployment,
                bundle=bundle,
                images=tuple(images),
                wheels={digest: printable(str(url)) for digest, url in wheels.items()},
            )
            if not read_tag(release.tag):
                raise ValueError("no tag could name it")
            return release
        except (
            KeyError,
            ValueError,
            TypeError,
            RecursionError,
            StoreError,
            ReferenceInvalid,
        ) as error:
            raise RegistryCorrupt(
                f"{index.digest} is no deployment", why=f"{error!r:.200}"
            ) from None


def _printable(host: Mapping[str, Any]) -> dict[str, Any]:
    return {
        printable(name): (
            _printable(value)
            if isinstance(value, dict)
            else None
            if value is None
            else printable(str(value))
        )
        for name, value in host.items()
    }
