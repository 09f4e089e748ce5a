"""Deployed tasks: found by their references, and called from the code of their deployments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flyte_build.declarations.spec import TaskSpec
from flyte_build.deployments.catalogue import FoundRelease
from flyte_build.deployments.document import Document
from flyte_build.deployments.names import DeploymentReference
from flyte_build.errors import NotFound, RegistryUnreachable, RemoteTaskNotFoundError
from flyte_build.runner.call import Call, RunOptions
from flyte_build.text.wording import listed, nearest, printable
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import Workspace

from .releases import Deployments


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

    @property
    def pinned(self) -> str:
        """Full name of the task, with its pin."""
        return f"{self.document.name}.{self.function}@{self.document.pin}"

    def details(self) -> dict[str, Any]:
        """Return its interface, and what is known of its deployment, as a JSON value."""
        release = self.found.release
        return {
            "name": self.spec.name,
            "version": release.version,
            "digest": release.pin,
            "project": release.space.project,
            "domain": release.space.domain,
            "created": release.created,
            "commit": release.commit,
            "environment": self.document.value["environment"],
            "spec": self.spec.document(),
        }

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
            deployment=self.pinned,
        )


def find_task(deployments: Deployments, text: str) -> DeployedTask:
    """Find the deployed task named by `ENV.TASK[:VERSION|@sha256:...]`.

    Raises `RemoteTaskNotFoundError`, `ReferenceInvalid`, and `RegistryUnreachable`.
    """
    reference, function = DeploymentReference.parse_task(text)
    try:
        found, document = deployments.find(reference)
    except RegistryUnreachable as error:
        hint = (
            "If it has run here before, run it by its pin, without a registry: ENV.TASK@sha256:..."
        )
        raise RegistryUnreachable(error.what, why=error.why, hint=error.hint or hint) from None
    except NotFound as error:
        raise RemoteTaskNotFoundError(error.what, why=error.why, hint=error.hint) from None
    if function not in document.tasks:
        near = nearest(function, document.tasks)
        raise RemoteTaskNotFoundError(
            f"{found.release.environment}:{found.release.version} has no task {function!r}",
            why=f"It has {listed(map(printable, sorted(document.tasks)))}.",
            hint=f"Did you mean {document.name}.{printable(near)}?" if near else "",
        )
    return DeployedTask(deployments, found, document, function, document.spec(function))
