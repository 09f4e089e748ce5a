"""Deployed tasks from Python: looked up on first use, and run from their deployments.

A task's file may import this where only the worker's modules are installed: what looks deployments
up here is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from flyte_build.declarations.call import awaited, running_loop
from flyte_build.declarations.context import Caller, Deployed, Pending, ctx
from flyte_build.declarations.describe import check_overrides, overridden
from flyte_build.declarations.interface import Interface
from flyte_build.declarations.spec import TaskSpec
from flyte_build.errors import UsageError

from .blocking import Blocking, BlockingIterator, blocking
from .wire_inputs import wire_inputs

if TYPE_CHECKING:
    from flyte_build.ops.deployed_task import DeployedTask


@dataclass(frozen=True, kw_only=True)
class TaskDetails:
    """Details of a deployed task.

    `digest` is the deployment's pin, `environment` describes the host or image that the task runs
    in, and `created` is in RFC 3339.
    """

    name: str
    version: str
    digest: str
    project: str
    domain: str
    created: str
    commit: str
    interface: Interface
    environment: Mapping[str, Any]
    resources: Mapping[str, Any]
    env_vars: Mapping[str, str]

    @classmethod
    def parse(cls, document: Mapping[str, Any], spec: TaskSpec) -> TaskDetails:
        """Return the details of a task, given its document, and its spec with what overrides it."""
        names = ("version", "digest", "project", "domain", "created", "commit", "environment")
        return cls(
            name=spec.name,
            interface=spec.interface,
            resources=spec.operational.options.get("resources", {}),
            env_vars=spec.semantic.env_vars,
            **{name: document[name] for name in names},
        )


class Task:
    """A deployed task: `flyte.remote.Task.get("env.task", version="v1")`, looked up on first use.

    Calling it runs it and returns its outputs, as JSON values, since the task's own classes are not
    available. In a coroutine, the call returns an awaitable of them. Inside a task, a call is a
    child action; elsewhere it is a run, which `flyte.run(task, x=1)` returns instead.
    """

    def __init__(
        self, text: str, project: str | None, domain: str | None, changes: Mapping[str, Any]
    ) -> None:
        self._text, self._project, self._domain, self._changes = text, project, domain, changes
        self._found: DeployedTask | None = None
        self._called: tuple[Caller, Deployed | None] | None = None

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
        from flyte_build.deployments.names import DeploymentReference

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
        from flyte_build.deployments.names import DeploymentReference

        from .deployed_run import deployments

        reference, function = (
            DeploymentReference.parse_task(by_task_name) if by_task_name else (None, "")
        )
        releases = deployments(project, domain).releases(
            reference.environment if reference else None
        )
        tasks = (
            Task(f"{each.release.environment}.{name}:{each.release.version}", project, domain, {})
            for each in releases
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
        if called := self._in_task():
            return TaskDetails.parse(called.document, self._spec(called))
        found = self.find()
        return TaskDetails.parse(found.details(), found.spec)

    def find(self) -> DeployedTask:
        """Look the task up from this process, once. Raises `NotFound`."""
        if self._found is None:
            from .deployed_run import find

            self._found = find(self._text, self._project, self._domain, self._changes)
        return self._found

    def override(self, **options: Any) -> Task:
        """Return the task with other options, such as retries, timeout, env_vars and resources.

        Raises `DeclarationError`.
        """
        check_overrides(self._text, options)
        return Task(self._text, self._project, self._domain, {**self._changes, **options})

    async def aio(self, **inputs: Any) -> Any:
        """Run the task as calling it does, as a coroutine."""
        import asyncio

        pending = await asyncio.to_thread(self._start, inputs)
        if pending is not None:
            return _value(await awaited(pending))
        return _value(await asyncio.to_thread(self._run, inputs))

    def __call__(self, **inputs: Any) -> Any:
        """Run the task, and return its output (several as a tuple). Raises the task's error."""
        if running_loop():
            return self.aio(**inputs)
        pending = self._start(inputs)
        return _value(self._run(inputs) if pending is None else pending.result())

    def _in_task(self) -> Deployed | None:
        """Return the task as the running task may call it, or None outside of one."""
        caller, own = ctx().caller, ctx().action
        if caller is None or own is None:
            return None
        if self._called is None or self._called[0] is not caller:
            space = (self._project or own.project, self._domain or own.domain)
            self._called = (caller, caller.deployed(self._text, *space))
        return self._called[1]

    def _spec(self, called: Deployed) -> TaskSpec:
        return overridden(TaskSpec.parse(called.document["spec"]), self._changes)

    def _start(self, inputs: Mapping[str, Any]) -> Pending | None:
        """Begin a call as a child action; return None outside of a task."""
        called = self._in_task()
        if called is None:
            return None
        spec = self._spec(called)
        return called.start(spec, wire_inputs(spec.interface, inputs))

    def _run(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        from .deployed_run import run

        return run(self.find(), inputs).outputs().named_outputs

    def __repr__(self) -> str:
        return f"<deployed task {self._text}>"


def _value(outputs: Mapping[str, Any]) -> Any:
    """Return the only output itself, several as a tuple, and None without any."""
    values = tuple(outputs.values())
    return values[0] if len(values) == 1 else values or None


def _current_version(name: str) -> str:
    version = ctx().version
    if not version:
        raise UsageError(
            f"There is no current version of {name}",
            why="This code does not run in a task.",
            hint='Use auto_version="latest".',
        )
    return version
