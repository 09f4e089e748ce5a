"""`flyte.run` and what goes with it: running tasks from Python code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from .attempts import Finished, Listener, Settings, Stores
from .config import Configuration
from .discovery import Project
from .errors import (
    ActionAbortedError,
    BaseRuntimeError,
    InitializationError,
    OOMError,
    RuntimeSystemError,
    RuntimeUserError,
    TaskTimeoutError,
    UsageError,
)
from .interface import Interface, interface_of
from .prepare import locate
from .running import Runner, run_here
from .task import Task

Mode = Literal["local", "remote", "hybrid"]
_ERRORS = {"OOMError": OOMError, "TaskTimeoutError": TaskTimeoutError}
_settings: Settings | None = None


def init(project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """From now on `flyte.run` prepares tasks and runs them in processes of their own, as `flyte run` does.

    What is not given is as configured. Arguments about a control plane are accepted and not used. Raises `UsageError` for a
    configuration that makes no sense.
    """
    global _settings
    _settings = _configured(None, project=project, domain=domain)


def init_from_config(path: str | None = None, project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """The same; `path` is the one configuration file to read (ours, or a `config.yaml` of Flyte 2).

    Raises `UsageError` when it is not there.
    """
    global _settings
    _settings = _configured(path, project=project, domain=domain)


def _configured(path: str | None, **given: str | None) -> Settings:
    """What is given and configured for the project of the script that is running, or of the current folder."""
    script = getattr(sys.modules["__main__"], "__file__", None) or ""
    root = locate(script, None).root if script.endswith(".py") and os.path.isfile(script) else os.path.realpath(os.getcwd())
    return Settings.configured(Configuration.load(root, Listener().said, path), **given)


def current_project() -> str:
    """The project's name. Raises `InitializationError` before `init`."""
    return _initialised().project


def current_domain() -> str:
    """The domain's name. Raises `InitializationError` before `init`."""
    return _initialised().domain


def _initialised() -> Settings:
    if _settings is None:
        raise InitializationError("flyte is not initialised", hint="Call `flyte.init()` or `flyte.init_from_config()` first.")
    return _settings


class Run:
    """A run that has ended. `print(run)` shows its result."""

    def __init__(self, finished: Finished, interface: Interface) -> None:
        self._finished, self._interface = finished, interface

    @property
    def name(self) -> str:
        """The run's name."""
        return self._finished.name

    @property
    def url(self) -> str:
        """Where the run's own folder is, as a URL."""
        return self._finished.url

    @property
    def phase(self) -> str:
        """The phase in which it ended."""
        return self._finished.phase

    def done(self) -> bool:
        """Whether it has ended: always."""
        return True

    def wait(self) -> None:
        """Wait until it has ended."""

    def outputs(self) -> "Outputs":
        """What the task returned. Raises the run's error if it did not succeed."""
        self.raise_for_status()
        names = [name for name, _ in self._interface.outputs]
        return Outputs(self._interface.load_outputs(dict(self._finished.outputs)), names)

    def raise_for_status(self) -> None:
        """Raise the error of a run that did not succeed; an exception that can be made again keeps its type's name."""
        error = self._finished.error
        if self.phase == "aborted":
            raise ActionAbortedError(f"The run {self.name} was aborted")
        if error is not None:
            fallback = RuntimeUserError if error["kind"] == "user" else RuntimeSystemError
            kind: type[BaseRuntimeError] = _ERRORS.get(error["type"], fallback)
            raise kind(f"{self._finished.task}: {error['type']}: {error['message']}", code=error["type"], why=error["traceback"])

    def __str__(self) -> str:
        if self.phase != "succeeded":
            error = self._finished.error
            return f"{self.phase}: {error['type']}: {error['message']}" if error else self.phase
        values = self.outputs()
        return str(values[0]) if len(values) == 1 else str(values.to_dict()) if values else "None"

    def __repr__(self) -> str:
        return f"<run {self.name} {self.phase}>"


class Outputs(tuple[Any, ...]):
    """A run's outputs, in order and by name."""

    def __new__(cls, values: tuple[Any, ...], names: list[str]) -> "Outputs":
        outputs = super().__new__(cls, values)
        outputs._names = names
        return outputs

    _names: list[str]

    @property
    def named_outputs(self) -> dict[str, Any]:
        """The outputs by name."""
        return dict(zip(self._names, self, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """The outputs by name."""
        return self.named_outputs


class RunContext:
    """How the next run is to be done; see `with_runcontext`."""

    def __init__(self, mode: Mode | None, settings: Mapping[str, Any]) -> None:
        self._mode, self._changes = mode, settings

    def run(self, task: Task[..., Any], *args: Any, **kwargs: Any) -> Run:
        """Run `task` with these inputs and wait for it. Raises the task's error."""
        run = self._run(task, args, kwargs)
        run.raise_for_status()
        return run

    def _run(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
        if not isinstance(task, Task):
            raise UsageError(f"flyte.run cannot run {task!r:.100}", why="It is no task.", hint="Decorate the function with `@env.task`.")
        mode = self._mode or ("remote" if _settings is not None else "local")
        interface = interface_of(task.func)
        inputs = interface.dump_inputs(args, kwargs)
        settings = replace(_settings or _configured(None), **self._changes)
        listener = Listener()
        file, variable = task.func.__code__.co_filename, _variable(task)
        if not os.path.isfile(file) and mode != "local":
            raise UsageError(
                f"The task {task.name} is in no file", why="Only a file can be bundled.", hint='Use `flyte.with_runcontext(mode="local")`.'
            )
        if mode == "local":
            from .describe import describe_task

            project = locate(file, None) if os.path.isfile(file) else Project(os.getcwd(), "<interactive>")
            described = describe_task(task)
            finished = run_here(lambda: task, described, project, variable, inputs, settings, Stores(listener), listener)
            return Run(finished, interface)
        runner = Runner(locate(file, None), settings, Stores(listener), listener)
        runner.discover()
        return Run(runner.run(variable, inputs), interface)


def run(task: Task[..., Any], *args: Any, **kwargs: Any) -> Run:
    """Run a task with these inputs and wait for it: prepared if `init` was called, else in this process."""
    return RunContext(None, {}).run(task, *args, **kwargs)


def with_runcontext(
    mode: Mode | None = None,
    *,
    name: str | None = None,
    version: str | None = None,
    copy_style: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    env_vars: Mapping[str, str] | None = None,
    **unused: Any,
) -> RunContext:
    """Say how the next run is to be done: `flyte.with_runcontext(mode="local").run(task, x=1)`."""
    given = {"name": name, "version": version, "copy_style": copy_style, "project": project, "domain": domain, "env": env_vars}
    return RunContext(mode, {key: value for key, value in given.items() if value is not None})


def _variable(task: Task[..., Any]) -> str:
    module = sys.modules.get(task.func.__module__)
    names = [name for name, value in vars(module).items() if value is task] if module else []
    return names[0] if names else task.func.__name__
