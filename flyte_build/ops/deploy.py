"""Deploying environments as versions in a repository, whose tasks run without source files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from flyte_build.cas.digest import Digest
from flyte_build.cas.encoding import encode
from flyte_build.cas.registry.manifest import Manifest
from flyte_build.deployments import provenance
from flyte_build.deployments.catalogue import FoundRelease
from flyte_build.deployments.difference import changes
from flyte_build.deployments.document import Document, canonical
from flyte_build.deployments.names import check_version
from flyte_build.deployments.provenance import commit, user
from flyte_build.deployments.publisher import Publisher
from flyte_build.deployments.release import TREE, Release
from flyte_build.deployments.runtime import HOST, by_reference
from flyte_build.errors import DeploymentError
from flyte_build.images.image_choice import ImageChoice
from flyte_build.text.wording import listed, printable

from .pinned_image import PinnedImage
from .prepare import FilePlan
from .releases import Deployments
from .targets import Target

_SHOWN = 20
_FILES = 5


@dataclass(frozen=True, kw_only=True)
class DeployedEnvironment:
    """Result of deploying an environment.

    `version` and `digest` are None if a dry run cannot determine them, and `reference` is None
    without a registry. `state` is `created`, `unchanged` or `planned`. `tasks` are full names,
    `tree` is the digest of their code, and `runtime` describes the image or interpreter that they
    run in.
    """

    name: str
    version: str | None
    digest: Digest | None
    reference: str | None
    state: str
    tasks: tuple[str, ...]
    tree: Digest
    runtime: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return the result as a JSON value."""
        tasks = [
            {"name": name, "environment": self.runtime, "bundle": self.tree} for name in self.tasks
        ]
        return {
            "env": self.name,
            "version": self.version,
            "digest": self.digest,
            "reference": self.reference,
            "state": self.state,
            "tasks": tasks,
        }


@dataclass(frozen=True)
class Deployment:
    """Result of deploying several environments, by their names."""

    envs: Mapping[str, DeployedEnvironment]

    def summary_repr(self) -> str:
        """Return one line for each environment."""
        return "\n".join(
            f"{each.name}:{each.version} {each.digest} {each.state} ({listed(each.tasks)})"
            for each in self.envs.values()
        )


class Deployer:
    """Deploys environments to the first repository of `deployments`."""

    def __init__(self, deployments: Deployments) -> None:
        self._session, self._space = deployments.session, deployments.space
        self._settings, self._cache = self._session.settings, self._session.cache
        self._repository = deployments.catalogue.repositories[0]
        self._contents = deployments.contents

    @cached_property
    def publisher(self) -> Publisher:
        """The publisher of new deployments."""
        return Publisher(self._repository, self._cache, self._session.reporter.bytes_moved)

    def deploy(self, targets: Sequence[Target]) -> Deployment:
        """Deploy environments under one version.

        In a read-only session nothing is deployed, the repository is not contacted, and all states
        are `planned`. Raises `DeploymentError` if the version exists with different content, and
        the errors of preparing and of registries.
        """
        with ExitStack() as held:
            held.enter_context(self._cache.preparing())
            made = [(each, target.plan) for target in targets for each in self._documents(target)]
            documents = {document.name: (document, plan) for (document, _), plan in made}
            images = {document.name: image for (document, image), _ in made if image}
            version = self._version([document for document, _ in documents.values()])
            tags = {name: self._space.tag(name, version or "0" * 12) for name in documents}
            if self._session.read_only:
                return Deployment(
                    {
                        name: self._done(document, version, tags[name], "planned")
                        for name, (document, _) in documents.items()
                    }
                )
            assert version is not None
            releases = {
                name: self._release(document, version, plan, images.get(name))
                for name, (document, plan) in documents.items()
            }
            leased = [
                each
                for release, manifests in releases.values()
                for each in self._needed(release, manifests)
            ]
            lease = self._cache.lease(leased)
            held.callback(lease.release)
            for image in images.values():
                image.put(self._repository)
            before = {name: self._before(release) for name, (release, _) in releases.items()}
            done = {}
            for name, (release, manifests) in releases.items():
                found = before[name]
                is_new = found is None and self.publisher.publish(release, manifests)
                if found is not None and self.publisher.refresh(found, manifests):
                    self._session.reporter.note(
                        f"{name}:{version} was deployed before; it is now the latest version."
                    )
                done[name] = self._done(
                    documents[name][0], version, tags[name], "created" if is_new else "unchanged"
                )
        for image in images.values():
            image.publish()
        # Runs can use the same artifacts.
        for plan in {id(plan): plan for _, plan in documents.values()}.values():
            plan.publish()
            plan.finish()
        return Deployment(done)

    def _documents(self, target: Target) -> Iterator[tuple[Document, PinnedImage | None]]:
        plan = target.plan
        tree = plan.resolve()[plan.tree].artifact
        assert tree is not None
        plan.say_what_binds()
        workspace = plan.discovery.workspace
        code = {
            "tree": tree,
            "file": workspace.file,
            "roots": list(workspace.roots),
            "last": list(workspace.last),
        }
        for environment in target.environments:
            if lost := sorted(
                task.name for task in environment.tasks.values() if not task.variable
            ):
                raise DeploymentError(
                    f"Cannot deploy {lost[0]}",
                    why="No top-level variable of its module holds it, so no run can load it.",
                    hint="Declare tasks at the top level of a module.",
                )
            image = plan.image(environment.image)
            runtime, built = self._runtime(plan, environment.name, image)
            yield Document.of(environment._replace(image=image.value), code, runtime), built
            if not self._session.read_only:
                plan.pins.save()

    def _runtime(
        self, plan: FilePlan, name: str, image: ImageChoice
    ) -> tuple[Mapping[str, Any], PinnedImage | None]:
        if image.is_host:
            return HOST, None
        if image.reference:
            look_up = None if self._session.read_only else lambda uri: plan.pins.base(uri).digest
            return by_reference(image.reference, look_up), None
        built = PinnedImage.build(plan, name, image)
        return (built.runtime, built) if built else ({"kind": "image", "digest": None}, None)

    def _version(self, documents: Sequence[Document]) -> str | None:
        """Return the configured version, or else the short digest of everything that is deployed.

        None if there is no configured version, and the digest of an image is not known.
        """
        if self._settings.run.version:
            return check_version(self._settings.run.version)
        if any(document.value["environment"].get("digest", "") is None for document in documents):
            return None
        if len(documents) == 1:
            return documents[0].pin.short
        return Digest.of(encode({document.name: document.pin for document in documents})).short

    def _release(
        self, document: Document, version: str, plan: FilePlan, image: PinnedImage | None
    ) -> tuple[Release, tuple[Manifest, ...]]:
        """Write the blobs of a document to the cache; return its release and its manifests."""
        cache = self._cache
        bundle = plan.resolve()[plan.bundle].artifact
        assert bundle is not None
        code = Manifest.parse(cache.blobs.read(bundle))
        with cache.blobs.batch() as batch:
            for data in document.blobs():
                batch.add(data)
        revision, dirty = commit(plan.workspace.root)
        release = Release(
            space=self._space,
            environment=document.name,
            version=version,
            created=datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            commit=revision,
            dirty=dirty,
            user=user(),
            tasks=tuple(sorted(document.tasks)),
            host=self._host,
            deployment=document.manifest.descriptor,
            bundle=replace(code.descriptor, annotations={TREE: document.tree}),
            images=tuple(manifest.descriptor for manifest in image.manifests) if image else (),
            wheels=image.seen if image else {},
        )
        return release, (document.manifest, code, *(image.manifests if image else ()))

    @cached_property
    def _host(self) -> dict[str, Any]:
        return provenance.interpreter()

    def _needed(self, release: Release, manifests: Sequence[Manifest]) -> list[Digest]:
        return [
            Digest(release.tree),
            *(
                each
                for one in manifests
                for each in (one.digest, *(blob.digest for blob in one.blobs()))
            ),
        ]

    def _before(self, release: Release) -> FoundRelease | None:
        """Find the existing release of that version.

        Raises `DeploymentError` if its content is different.
        """
        found = self.publisher.existing(release)
        if found is None or found.release.pin == release.pin:
            return found
        new = Document.parse(
            self._cache.blobs.read(
                Manifest.parse(self._cache.blobs.read(release.pin)).layers[0].digest
            )
        )
        lines = [
            *map(str, changes(self._contents.document(found), new)),
            *self._files(found, release),
        ]
        more = [f"and {len(lines) - _SHOWN:,} more"] if len(lines) > _SHOWN else []
        raise DeploymentError(
            f"{release.environment}:{release.version} is already deployed with different content",
            why="\n".join([*lines[:_SHOWN], *more]),
            hint=(
                "Deploy under another --version, or omit it: the version is then the digest of the"
                " content."
            ),
        )

    def _files(self, old: FoundRelease, new: Release) -> list[str]:
        if old.release.tree == new.tree:
            return []
        found = self._contents.tree(FoundRelease(new, new.index(), None)).difference(
            self._contents.tree(old)
        )
        return [
            f"files {how}: {listed(map(printable, paths), _FILES)}"
            for how, paths in found.items()
            if paths
        ]

    def _done(
        self, document: Document, version: str | None, tag: str, state: str
    ) -> DeployedEnvironment:
        runtime = document.value["environment"]
        if document.kind == "host":
            runtime = {"kind": "host", "digest": Digest.of(canonical(self._host))}
        known = version is not None
        is_known = runtime["digest"] is not None
        return DeployedEnvironment(
            name=document.name,
            version=version,
            digest=document.pin if is_known else None,
            reference=(
                f"{self._repository.name}:{tag}"
                if self._settings.registries.home and known
                else None
            ),
            state=state,
            tasks=tuple(f"{document.name}.{function}" for function in sorted(document.tasks)),
            tree=document.tree,
            runtime={"kind": runtime["kind"], "digest": runtime["digest"]},
        )
