"""Deployments whose tasks a run calls: each is found, and made ready here, once."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import NotFound
from flyte_build.runner.call import Call, RunOptions
from flyte_build.values.type import Wires

from .session import Session

if TYPE_CHECKING:
    from flyte_build.cas.digest import Digest
    from flyte_build.cas.lease import Lease
    from flyte_build.deployments.catalogue import FoundRelease
    from flyte_build.deployments.document import Document

    from .container_images import ContainerImage
    from .deployed_task import DeployedTask
    from .placement import ReadyPlace


class ReadyDeployments:
    """Deployments whose tasks the run of a session calls, from any thread."""

    def __init__(self, session: Session) -> None:
        self._session, self._lock = session, threading.Lock()
        self._known: dict[str, DeployedTask] = {}
        self._ready: dict[Digest, tuple[str, ReadyPlace]] = {}  # With their code.
        self._leases: list[Lease] = []

    def find(self, text: str, project: str, domain: str) -> DeployedTask:
        """Find a task in a project and domain; see `find_task`."""
        from .deployed_task import find_task
        from .releases import Deployments

        with self._lock:
            settings = self._session.settings.change(project=project, domain=domain)
            found = find_task(Deployments(Session(settings, self._session.stores)), text)
            return self._known.setdefault(found.pinned, found)

    def called(self, deployment: str, spec: TaskSpec) -> DeployedTask:
        """Return a task that was found, by its name with its pin, with the spec of a call."""
        with self._lock:
            return replace(self._known[deployment], spec=spec)

    def beside(self, caller: str, spec: TaskSpec) -> DeployedTask:
        """Return a task that was deployed together with its caller, which is named with its pin.

        Raises `NotFound`.
        """
        with self._lock:
            own = self._known[caller]
            found, document = self._release(own, spec.semantic.environment)
            function = spec.semantic.function
            task = replace(own, found=found, document=document, function=function, spec=spec)
            self._known.setdefault(task.pinned, task)
            return task

    def _release(self, own: DeployedTask, environment: str) -> tuple[FoundRelease, Document]:
        if environment == own.document.name:
            return own.found, own.document
        for known in self._known.values():
            if (
                known.document.name == environment
                and known.found.release.version == own.found.release.version
                and known.found.release.space == own.found.release.space
            ):
                return known.found, known.document
        from flyte_build.deployments.names import DeploymentReference

        try:
            return own.deployments.find(DeploymentReference(environment, own.found.release.version))
        except NotFound as error:
            raise NotFound(
                error.what,
                why=f"{own.name} calls a task of the environment {environment}.",
                hint=f"Add {environment} to depends_on of {own.document.name}, and deploy again.",
            ) from None

    def place(
        self, task: DeployedTask, inputs: Wires, options: RunOptions
    ) -> tuple[Call, ContainerImage | None]:
        """Return the call of a task where its deployment is ready, and the image of its container.

        Nothing is prepared; missing artifacts are fetched. A lease holds them until `release`.
        """
        with self._lock:
            self._known.setdefault(task.pinned, task)
            code, ready = self._ready.get(task.document.pin) or self._bring(task)
        return ready.of(task.call(inputs, options, code))

    def _bring(self, task: DeployedTask) -> tuple[str, ReadyPlace]:
        from flyte_build.bundler.budget import Budget
        from flyte_build.deployments import provenance

        from .placement import bring

        session, document, contents = self._session, task.document, task.deployments.contents
        with session.cache.preparing():
            code = contents.code(task.found, session.settings.budget or Budget())
            ready, held = bring(session, task.found, document, contents)
            runtime = [] if document.kind == "host" else [session.stores.runtime_digest]
            self._leases.append(session.cache.lease([document.tree, *held, *runtime]))
        if document.kind == "host" and (
            phrases := provenance.interpreter_differences(
                task.found.release.host, provenance.interpreter()
            )
        ):
            session.reporter.note(
                f"{task.name} was deployed from a different interpreter than this one:"
                f" {', '.join(phrases)}."
            )
        self._ready[document.pin] = code, ready
        return code, ready

    def release(self) -> None:
        """End the leases."""
        leases, self._leases = self._leases, []
        for lease in leases:
            lease.release()
