"""A release: a deployment under a version, with its provenance.

It is an OCI index of the manifests of the deployment, its bundle and its images, under the
version's tag. Its annotations are not part of the deployment's identity.
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
# Used instead of `artifactType`, which some tools drop when they copy an index (skopeo 1.9).
_KIND = "dev.flyte.kind"
_PROJECT, _DOMAIN, _DIRTY, _TASKS, _HOST, _WHEELS = (
    f"dev.flyte.{name}" for name in ("project", "domain", "dirty", "tasks", "host", "wheels")
)


@dataclass(frozen=True, kw_only=True)
class Release:
    """A version of an environment.

    `deployment`, `bundle` and `images` are descriptors of manifests; the bundle's has an annotation
    with the tree's digest. `created` is in RFC 3339 and UTC. `commit` is that of git ("" if there
    is none), and `dirty` whether there were uncommitted changes. `host` describes the interpreter
    that it was deployed from. `tasks` are the names of the functions. `wheels` maps digests of
    wheels to the URLs they were found at.
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
        """Descriptors of all its manifests, the deployment's first."""
        return (self.deployment, self.bundle, *self.images)

    @property
    def pin(self) -> Digest:
        """Digest that identifies the deployment."""
        return self.deployment.digest

    @property
    def tree(self) -> str:
        """Digest of the code's tree, according to the index."""
        return self.bundle.annotations[TREE]

    @property
    def tag(self) -> str:
        """Tag of the version."""
        return self.space.tag(self.environment, self.version)

    @property
    def latest(self) -> str:
        """Tag `latest` of the environment."""
        return self.space.tag(self.environment, LATEST)

    def index(self) -> Manifest:
        """Return the OCI index."""
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
        """Return the release of an index, with strings that are safe to print on a terminal.

        Raises `RegistryCorrupt` if the index is not a release.
        """
        try:
            texts = index.annotations
            if texts.get(_KIND) != "release":
                raise ValueError("it is not a release")
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
                raise ValueError("its annotations have the wrong types")
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
                raise ValueError("its names do not form a tag")
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
                f"{index.digest} is not a deployment", why=f"{error!r:.200}"
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
