"""`flyte.run` and what goes with it: running tasks from Python code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

from .attempts import Call, Listener, Settings, Stores
from .blocking import Blocking, blocking
from .config import Configuration
from .errors import InitializationError, UsageError
from .interface import interface_of
from .project import INTERACTIVE, Project, locate
from .recorded import Recorded
from .remote import Run
from .running import Runner, run_here, run_in_worker, script_call
from .task import Task

Mode = Literal["local", "remote", "hybrid"]
_settings: Settings | None = None


def init(project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """From now on `flyte.run` prepares tasks and runs them in processes of their own, as `flyte run` does.

    What is not given is as configured. Arguments about a control plane are accepted, and said to be unused. Raises `UsageError` for a
    configuration that makes no sense.
    """
    global _settings
    _say_unused("flyte.init", unused)
    _settings = _configured(None, project=project, domain=domain)


def init_from_config(path: str | None = None, project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """The same; `path` is the one configuration file to read (ours, or a `config.yaml` of Flyte 2).

    Raises `UsageError` when it is not there.
    """
    global _settings
    _say_unused("flyte.init_from_config", unused)
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


class RunContext:
    """How the next run is to be done; see `with_runcontext`."""

    def __init__(self, mode: Mode | None, settings: Mapping[str, Any]) -> None:
        self._mode, self._changes = mode, settings

    @blocking
    def run(self, task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Run:
        """Run `task` with these inputs and wait for it. Raises the task's error."""
        return _ended(self._run(task, args, kwargs))

    @blocking
    def rerun(self, run: str, /, **inputs: Any) -> Run:
        """Run the task of an earlier run again: the same file as it is now, the inputs of then but for those that are given.

        Inputs are JSON values here, as are the outputs of the run. Raises `NotFound`, `InputError`, and the task's error.
        """
        listener = Listener()
        stores = Stores(listener)
        recorded = Recorded.find(run, stores.history)
        settings = replace(recorded.settings(_settings or _configured(None)), **self._changes)
        if recorded.is_script:
            call = script_call({**recorded.inputs, **inputs}, recorded.timeout, settings)
            return _ended(Run(stores.places.data, run_in_worker(call, stores, listener, None, time.monotonic()).name))
        runner = Runner(recorded.project(), settings, stores, listener)
        task = runner.discover().task(recorded.variable)
        changed = recorded.changed(task, inputs)
        if sentence := recorded.forgotten(task, settings):
            listener.said(sentence)
        finished = runner.run(recorded.variable, changed)
        runner.finish()
        return _ended(Run(stores.places.data, finished.name))

    def _run(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
        if not isinstance(task, Task):
            raise UsageError(f"flyte.run cannot run {task!r:.100}", why="It is no task.", hint="Decorate the function with `@env.task`.")
        mode = self._mode or ("remote" if _settings is not None else "local")
        interface = interface_of(task.func)
        inputs = interface.dump_inputs(args, kwargs)
        settings = replace(_settings or _configured(None), **self._changes)
        listener = Listener()
        stores = Stores(listener)
        file, variable = task.func.__code__.co_filename, _variable(task)
        in_file = os.path.isfile(file) and file.endswith(".py")
        if not in_file and mode != "local":
            raise UsageError(
                f"The task {task.name} is in no Python file",
                why="It was typed in, or its file's name does not end with .py, so there is nothing to bundle.",
                hint='Run it in this process, `flyte.with_runcontext(mode="local").run(...)`, or put it into a file.',
            )
        if mode == "local":
            from .describe import describe_task

            project = locate(file, None) if in_file else Project(os.getcwd(), INTERACTIVE)
            call = Call(task=describe_task(task), project=project, variable=variable, inputs=inputs, settings=settings)
            finished = run_here(call, lambda: task, stores, listener)
        else:
            runner = Runner(locate(file, None), settings, stores, listener)
            runner.discover()
            finished = runner.run(variable, inputs)
            runner.finish()
        return Run(stores.places.data, finished.name, interface)


def _ended(run: Run) -> Run:
    run.raise_for_status()
    return run


def _run(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Run:
    """Run a task with these inputs and wait for it: prepared if `init` was called, else in this process."""
    return RunContext(None, {}).run(task, *args, **kwargs)


run = Blocking(_run)


def with_runcontext(
    mode: Mode | None = None,
    *,
    name: str | None = None,
    version: str | None = None,
    copy_style: str | None = None,
    project: str | None = None,
    domain: str | None = None,
    env_vars: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    **unused: Any,
) -> RunContext:
    """Say how the next run is to be done: `flyte.with_runcontext(mode="local").run(task, x=1)`."""
    given = {
        "name": name,
        "version": version,
        "copy_style": copy_style,
        "project": project,
        "domain": domain,
        "env": env_vars,
        "labels": labels,
    }
    _say_unused("flyte.with_runcontext", unused)
    return RunContext(mode, {key: value for key, value in given.items() if value is not None})


def _say_unused(function: str, given: Mapping[str, Any]) -> None:
    if names := [name for name, value in given.items() if value is not None]:
        Listener().said(f"{function} does not act on: {', '.join(names)}.")


def _variable(task: Task[..., Any]) -> str:
    module = sys.modules.get(task.func.__module__)
    names = [name for name, value in vars(module).items() if value is task] if module else []
    return names[0] if names else task.func.__name__
