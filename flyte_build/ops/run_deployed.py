"""Running deployed tasks, without preparing anything and without source files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from flyte_build.declarations.spec import TaskSpec
from flyte_build.deployments import provenance
from flyte_build.deployments.catalogue import FoundRelease
from flyte_build.deployments.document import Document
from flyte_build.deployments.names import DeploymentReference
from flyte_build.errors import NotFound, RegistryUnreachable
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.call import Call, RunOptions
from flyte_build.runner.child import ChildRequest
from flyte_build.runner.controller.run import Finished, carry_out
from flyte_build.text.wording import listed, nearest, printable
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import Workspace

from .engines import Engines
from .environments import child_call
from .placement import bring
from .releases import Deployments
from .session import Session

if TYPE_CHECKING:
    from flyte_build.cas.digest import Digest
    from flyte_build.runner.engines.protocol import Engine
    from flyte_build.runner.worker.spawn import Worker


@dataclass(frozen=True)
class DeployedTask:
    """A deployed task, with the release that it was found in, and its spec."""

    deployments: Deployments
    found: FoundRelease
    document: Document
    function: str
    spec: TaskSpec

    @property
    def name(self) -> str:
        """Full name of the task, with its version."""
        return f"{self.document.name}.{self.function}:{self.found.release.version}"

    def run(self, session: Session, inputs: Wires, spare: Worker | None = None) -> Finished:
        """Run the task with wire inputs, with the settings of a session.

        Nothing is prepared; missing artifacts are fetched.
        """
        from time import monotonic

        from flyte_build.bundler.budget import Budget

        began, cache, document, contents = (
            monotonic(),
            session.cache,
            self.document,
            self.deployments.contents,
        )
        with cache.preparing():
            code = contents.code(self.found, session.settings.budget or Budget())
            call = self.call(inputs, session.settings.run, code)
            call, container, held = bring(session, call, self.found, document, contents)
            leases = [cache.lease([document.tree, *held, *_runtime(session, document)])]
        if document.kind == "host" and (
            phrases := provenance.interpreter_differences(
                self.found.release.host, provenance.interpreter()
            )
        ):
            session.reporter.note(
                f"{self.name} was deployed from a different interpreter than this one:"
                f" {', '.join(phrases)}."
            )
        engines = Engines(session, lambda: spare)

        def place_child(parent: Call, request: ChildRequest) -> tuple[Call, Engine]:
            child = child_call(parent, request, ImageChoice(request.task.semantic.image))
            if request.is_condition:
                return engines.engine(child, None)
            found, document = self._beside(request.task.semantic.environment)
            with cache.preparing():
                if document.tree != parent.tree:
                    code = contents.code(found, session.settings.budget or Budget())
                    child = replace(child, code=code, tree=document.tree)
                child, container, held = bring(session, child, found, document, contents)
                runtime = _runtime(session, document)
                leases.append(cache.lease([document.tree, *held, *runtime]))
            return engines.engine(child, container)

        try:
            history, reporter = session.stores.history, session.reporter
            call, engine = engines.engine(call, container)
            return carry_out(call, engine, history, reporter, began, place_child)
        finally:
            engines.close()
            for lease in leases:
                lease.release()

    def _beside(self, environment: str) -> tuple[FoundRelease, Document]:
        """Return the deployment of an environment that was deployed together with this one.

        Raises `NotFound`.
        """
        if environment == self.document.name:
            return self.found, self.document
        version = self.found.release.version
        try:
            return self.deployments.find(DeploymentReference(environment, version))
        except NotFound as error:
            raise NotFound(
                error.what,
                why=f"{self.name} calls a task of the environment {environment}.",
                hint=f"Add {environment} to depends_on of {self.document.name}, and deploy again.",
            ) from None

    def call(self, inputs: Wires, options: RunOptions, code: str) -> Call:
        """Return the call that runs the task from the directory `code`."""
        told = self.document.value["code"]
        return Call(
            task=self.spec,
            workspace=Workspace(
                "", told["file"], self.spec.module or "", tuple(told["roots"]), tuple(told["last"])
            ),
            variable=self.spec.variable or "",
            inputs=inputs,
            run=options._replace(version=self.found.release.version),
            code=code,
            tree=self.document.tree,
            deployment=f"{self.document.name}.{self.function}@{self.document.pin}",
        )


def _runtime(session: Session, document: Document) -> list[Digest]:
    """Return the digest of the runtime, if tasks of a deployment use it."""
    return [] if document.kind == "host" else [session.stores.runtime_digest]


def find_task(deployments: Deployments, text: str) -> DeployedTask:
    """Find the deployed task named by `ENV.TASK[:VERSION|@sha256:...]`.

    Raises `NotFound`, `ReferenceInvalid`, and `RegistryUnreachable`.
    """
    reference, function = DeploymentReference.parse_task(text)
    try:
        found, document = deployments.find(reference)
    except RegistryUnreachable as error:
        hint = (
            "If it has run here before, run it by its pin, without a registry: ENV.TASK@sha256:..."
        )
        raise RegistryUnreachable(error.what, why=error.why, hint=error.hint or hint) from None
    if function not in document.tasks:
        near = nearest(function, document.tasks)
        raise NotFound(
            f"{found.release.environment}:{found.release.version} has no task {function!r}",
            why=f"It has {listed(map(printable, sorted(document.tasks)))}.",
            hint=f"Did you mean {document.name}.{printable(near)}?" if near else "",
        )
    return DeployedTask(deployments, found, document, function, document.spec(function))
