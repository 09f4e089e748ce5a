"""Deployed tasks from Python: looked up on first use, and run from their deployments."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from flyte_build.cas.digest import Digest
from flyte_build.declarations.describe import check_overrides, overridden
from flyte_build.declarations.interface import Interface, Parameter
from flyte_build.deployments.names import DeploymentReference
from flyte_build.errors import InputError, UsageError
from flyte_build.ops.releases import Deployments
from flyte_build.ops.run_deployed import DeployedTask, find_task
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.places import Places
from flyte_build.settings.settings import Settings
from flyte_build.values.type import Mismatch

from .blocking import Blocking, BlockingIterator, blocking
from .init import current
from .outputs import opened
from .runs import Run


@dataclass(frozen=True, kw_only=True)
class TaskDetails:
    """Details of a deployed task.

    `digest` is the deployment's pin, `environment` describes the host or image that the task runs
    in, and `created` is in RFC 3339.
    """

    name: str
    version: str
    digest: Digest
    project: str
    domain: str
    created: str
    commit: str
    interface: Interface
    environment: Mapping[str, Any]
    resources: Mapping[str, Any]
    env_vars: Mapping[str, str]


class Task:
    """A deployed task: `flyte.remote.Task.get("env.task", version="v1")`, looked up on first use.

    Calling it runs it and returns its outputs, as JSON values, since the task's own classes are not
    available. `flyte.run(task, x=1)` returns the run instead.
    """

    def __init__(
        self, text: str, project: str | None, domain: str | None, changes: Mapping[str, Any]
    ) -> None:
        self._text, self._project, self._domain, self._changes = text, project, domain, changes
        self._found: DeployedTask | None = None

    @staticmethod
    def _get(
        name: str,
        project: str | None = None,
        domain: str | None = None,
        version: str | None = None,
        auto_version: Literal["latest", "current"] | None = None,
    ) -> Task:
        """Return the deployed task `env.task`.

        `version` is a version or a pin (`sha256:...`). `auto_version` is `latest`, or `current` for
        the version of the current run. Raises `UsageError` unless exactly one of them is given.
        """
        if (version is None) == (auto_version is None):
            raise UsageError(
                f"Cannot choose a version of {name}",
                why=(
                    "`version` and `auto_version` cannot be used together."
                    if version
                    else "No version is given."
                ),
                hint='Write Task.get("env.task", version="v1"), or auto_version="latest".',
            )
        if auto_version == "current":
            version = _current_version(name)
        elif auto_version not in ("latest", None):
            raise UsageError(
                f"Unknown auto_version: {auto_version!r}", hint='Use "latest" or "current".'
            )
        text = (
            name
            if version is None
            else f"{name}@{version}"
            if version.startswith("sha256:")
            else f"{name}:{version}"
        )
        DeploymentReference.parse_task(text)
        return Task(text, project, domain, {})

    @staticmethod
    def _listall(
        by_task_name: str | None = None,
        project: str | None = None,
        domain: str | None = None,
        limit: int = 100,
    ) -> Iterator[Task]:
        """Yield the newest deployed tasks, or versions of one task, newest first."""
        reference, function = (
            DeploymentReference.parse_task(by_task_name) if by_task_name else (None, "")
        )
        found = Deployments(_session(project, domain))
        tasks = (
            Task(f"{each.release.environment}.{name}:{each.release.version}", project, domain, {})
            for each in found.releases(reference.environment if reference else None)
            for name in each.release.tasks
            if function in ("", name)
        )
        yield from (task for task, _ in zip(tasks, range(limit), strict=False))

    get = Blocking(_get)
    listall = BlockingIterator(_listall)

    @property
    def name(self) -> str:
        """Full name, with the requested version or pin."""
        return self._text

    @blocking
    def fetch(self) -> TaskDetails:
        """Look the task up, and return its details. Raises `NotFound`."""
        task = self.find()
        spec, release = task.spec, task.found.release
        return TaskDetails(
            name=spec.name,
            version=release.version,
            digest=release.pin,
            project=release.space.project,
            domain=release.space.domain,
            created=release.created,
            commit=release.commit,
            interface=spec.interface,
            environment=task.document.value["environment"],
            resources=spec.operational.options.get("resources", {}),
            env_vars=spec.semantic.env_vars,
        )

    def find(self) -> DeployedTask:
        """Look the task up, once. Raises `NotFound`."""
        if self._found is None:
            found = find_task(Deployments(_session(self._project, self._domain)), self._text)
            self._found = replace(found, spec=overridden(found.spec, self._changes))
        return self._found

    def override(self, **options: Any) -> Task:
        """Return the task with other options, such as retries, timeout, env_vars and resources.

        Raises `DeclarationError`.
        """
        check_overrides(self._text, options)
        return Task(self._text, self._project, self._domain, {**self._changes, **options})

    @blocking
    def run(self, inputs: Mapping[str, Any], settings: Settings | None = None) -> Run:
        """Run the task with these inputs, wait for it, and return the run, failed or not.

        Raises `InputError`, `NotFound`.
        """
        task = self.find()
        interface = task.spec.interface
        interface.refuse_unknown(inputs)
        wire = interface.complete(inputs, _wire, Parameter.argument)
        space = task.found.release.space
        chosen = settings or current().change(project=space.project, domain=space.domain)
        return Run(
            Places.find().data, task.run(Session(chosen, task.deployments.stores), wire).name
        )

    async def aio(self, **inputs: Any) -> Any:
        """Run the task as calling it does, as a coroutine."""
        import asyncio

        return await asyncio.to_thread(lambda: self(**inputs))

    def __call__(self, **inputs: Any) -> Any:
        """Run the task, and return its output (several as a tuple). Raises the task's error."""
        values = self.run(inputs).outputs()
        return values[0] if len(values) == 1 else tuple(values) if values else None

    def __repr__(self) -> str:
        return f"<deployed task {self._text}>"


def _session(project: str | None, domain: str | None) -> Session:
    return Session(
        current().change(project=project or None, domain=domain or None), Stores(RunReporter())
    )


def _current_version(name: str) -> str:
    run = os.environ.get("FLYTE_RUN")
    if run is None:
        raise UsageError(
            f"There is no current version of {name}",
            why="This code does not run in a task.",
            hint='Use auto_version="latest".',
        )
    with opened(Places.find().data) as history:
        return history.get(run).version


def _wire(parameter: Parameter, value: Any) -> Any:
    """Return the wire value of a JSON value, or of an object of a class that can be converted.

    Raises `InputError`.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return parameter.check(value, parameter.argument)
    try:
        return parameter.check(value, parameter.argument)
    except InputError:
        from flyte_build.values.annotations import type_of

        try:
            return parameter.check(type_of(type(value)).dump(value), parameter.argument)
        except Mismatch:
            pass
        raise
