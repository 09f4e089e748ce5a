"""Running what is deployed: nothing is prepared, and no source file is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flyte_build.declarations.spec import TaskSpec
from flyte_build.deployments import provenance
from flyte_build.deployments.catalogue import FoundRelease
from flyte_build.deployments.document import Document
from flyte_build.deployments.names import DeploymentReference
from flyte_build.errors import NotFound, RegistryUnreachable
from flyte_build.runner.call import Call, RunOptions
from flyte_build.runner.controller.controller import Finished
from flyte_build.text.wording import listed, nearest, printable
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import Workspace

from .placement import bring
from .releases import Deployments
from .run import run_in_container, run_in_worker, runtime_held
from .session import Session

if TYPE_CHECKING:
    from flyte_build.runner.worker.spawn import Worker


@dataclass(frozen=True)
class DeployedTask:
    """A task of a deployment that was found; `spec` is what it is run by."""

    deployments: Deployments
    found: FoundRelease
    document: Document
    function: str
    spec: TaskSpec

    @property
    def name(self) -> str:
        """Its full name and its version."""
        return f"{self.document.name}.{self.function}:{self.found.release.version}"

    def run(self, session: Session, inputs: Wires, spare: Worker | None = None) -> Finished:
        """Run it with wire inputs, by the settings of a session. Nothing is prepared: what is not
        on this machine yet is fetched.
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
            lease = cache.lease(
                [document.tree, *held, *runtime_held(session.stores, document.kind != "host")]
            )
        try:
            if document.kind == "host" and (
                phrases := provenance.interpreter_differences(
                    self.found.release.host, provenance.interpreter()
                )
            ):
                session.reporter.note(
                    f"{self.name} was deployed from another interpreter than this one:"
                    f" {', '.join(phrases)}."
                )
            if container:
                return run_in_container(session, call, container, began)
            return run_in_worker(session, call, spare, began)
        finally:
            lease.release()

    def call(self, inputs: Wires, options: RunOptions, code: str) -> Call:
        """The call that runs it from extracted `code`."""
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


def find_task(deployments: Deployments, text: str) -> DeployedTask:
    """The deployed task that `ENV.TASK[:VERSION|@sha256:...]` names. Raises `NotFound`,
    `ReferenceInvalid`.
    """
    reference, function = DeploymentReference.parse_task(text)
    try:
        found, document = deployments.find(reference)
    except RegistryUnreachable as error:
        hint = "What has run here before needs no registry by its pin: ENV.TASK@sha256:..."
        raise RegistryUnreachable(error.what, why=error.why, hint=error.hint or hint) from None
    if function not in document.tasks:
        near = nearest(function, document.tasks)
        raise NotFound(
            f"{found.release.environment}:{found.release.version} has no task {function!r}",
            why=f"It has {listed(map(printable, sorted(document.tasks)))}.",
            hint=f"Did you mean {document.name}.{printable(near)}?" if near else "",
        )
    return DeployedTask(deployments, found, document, function, document.spec(function))
