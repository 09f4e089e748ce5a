"""`flyte.run` and `flyte.with_runcontext`: running tasks from Python code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from flyte_build.declarations.describe import task_spec, variable_of
from flyte_build.declarations.interface import interface_of
from flyte_build.declarations.task import Task
from flyte_build.errors import UsageError
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.rerun import Recorded
from flyte_build.ops.run import run_here, run_script, run_task, script_inputs
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.action import ROOT
from flyte_build.runner.call import Call
from flyte_build.runner.reporter import RunReporter
from flyte_build.workspace.workspace import INTERACTIVE, Workspace, locate

from .blocking import Blocking, blocking
from .init import current, prepares, refuse_while_imported, say_unused
from .runs import Run

if TYPE_CHECKING:
    from .remote_task import Task as Deployed

Mode = Literal["local", "remote", "hybrid"]


class RunContext:
    """Options of runs; see `with_runcontext`."""

    def __init__(self, mode: Mode | None, settings: Mapping[str, Any]) -> None:
        self._mode, self._changes = mode, settings

    @blocking
    def run(self, task: Task[..., Any] | Deployed, /, *args: Any, **kwargs: Any) -> Run:
        """Run `task` with these inputs, wait for it, and return the run. Raises the task's error.

        A deployed task takes its inputs by name only.
        """
        return _ended(self._run(task, args, kwargs))

    def _run_deployed(self, task: Deployed, args: tuple[Any, ...], inputs: dict[str, Any]) -> Run:
        if self._mode == "local":
            raise UsageError(
                f"{task.name} is deployed, so it cannot run in this process",
                hint='Omit `mode="local"`.',
            )
        if args:
            raise UsageError(
                f"{task.name} takes its inputs by name only",
                why="It is a deployed task.",
                hint="Give each input by name, such as x=1.",
            )
        from .deployed_run import run

        found = task.find()
        space = found.found.release.space
        settings = current().change(
            **{"project": space.project, "domain": space.domain, **self._changes}
        )
        return run(found, inputs, settings)

    @blocking
    def rerun(
        self,
        run: str,
        /,
        action_name: str = ROOT,
        *,
        recover: bool = False,
        force: bool = False,
        **inputs: Any,
    ) -> Run:
        """Run the task of an earlier run, or of one of its actions, again; return the new run.

        It uses the current content of the file (or the same deployment), and the original inputs
        with those given replaced. Inputs and outputs are JSON values. With `recover`, actions that
        succeeded are taken over; if the code has changed, that is refused unless `force`. Raises
        `NotFound`, `InputError`, `UsageError`, and the task's error.
        """
        stores = Stores(RunReporter())
        recorded = Recorded.find(run, stores.history, action_name)
        if recover:
            recorded.refuse_recovery()
        settings = recorded.settings(current()).change(**self._changes)
        session = Session(settings.change(recovers=run) if recover else settings, stores)
        if recorded.is_script:
            finished = run_script(session, {**recorded.inputs, **inputs}, recorded.timeout)
            return _ended(Run(stores.places.data, finished.name))
        if recorded.deployment:
            from flyte_build.ops.deployed_task import find_task
            from flyte_build.ops.releases import Deployments
            from flyte_build.ops.run_deployed import run_deployed

            deployed = find_task(Deployments(session), recorded.deployment)
            wire = recorded.changed(deployed.spec, inputs)
            return _ended(Run(stores.places.data, run_deployed(deployed, session, wire).name))
        plan = FilePlan(session, recorded.workspace())
        variable = recorded.variable_in(plan.discover())
        task = plan.discovery.task(variable)
        changed = recorded.changed(task, inputs)
        if sentence := recorded.forgotten(task, session.settings):
            session.reporter.note(sentence)
        if recover and not force:
            recorded.refuse_changed_code(plan)
        finished = run_task(plan, variable, changed)
        plan.finish()
        return _ended(Run(stores.places.data, finished.name))

    def _run(
        self, task: Task[..., Any] | Deployed, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Run:
        if not isinstance(task, Task):
            from .remote_task import Task as Deployed

            if isinstance(task, Deployed):
                return self._run_deployed(task, args, kwargs)
            raise UsageError(
                f"flyte.run cannot run {task!r:.100}",
                why="It is not a task.",
                hint="Decorate the function with `@env.task`.",
            )
        mode = self._mode or ("remote" if prepares() else "local")
        interface = interface_of(task.func)
        inputs = interface.dump_inputs(args, kwargs)
        session = Session(current().change(**self._changes), Stores(RunReporter()))
        file = task.func.__code__.co_filename
        variable = variable_of(task) or task.func.__name__
        in_file = os.path.isfile(file) and file.endswith(".py")
        if not in_file and mode != "local":
            raise UsageError(
                f"The task {task.name} is not defined in a Python file",
                why=(
                    "It was typed in or is in a notebook, or its file's name does not end with .py,"
                    " so there is nothing to bundle."
                ),
                hint=(
                    "Put it into a file: in a notebook, begin its cell with `%%writefile tasks.py`,"
                    f" and run `from tasks import {variable or 'NAME'}` in the next one. Or run it"
                    ' in this process: flyte.with_runcontext(mode="local").run(...)'
                ),
            )
        if mode == "local":
            workspace = locate(file, None) if in_file else Workspace.of(os.getcwd(), INTERACTIVE)
            call = Call(
                task=task_spec(task),
                workspace=workspace,
                variable=variable,
                inputs=inputs,
                run=session.settings.run,
            )
            finished = run_here(session, call, lambda: task)
        else:
            refuse_while_imported("flyte.run")
            plan = FilePlan(session, locate(file, None))
            plan.discover()
            held = getattr(sys.modules.get(task.func.__module__), variable, None)
            override = None if held is task else task_spec(task, plan.workspace.root)
            finished = run_task(plan, variable, inputs, override=override)
            plan.finish()
        return Run(session.stores.places.data, finished.name, interface)


def _ended(run: Run) -> Run:
    run.raise_for_status()
    return run


def _run(task: Task[..., Any] | Deployed, /, *args: Any, **kwargs: Any) -> Run:
    """Run a task with these inputs, wait for it, and return the run, failed or not.

    The task is prepared and runs in a process of its own if `init_from_config` was called,
    otherwise it runs in this process. A deployed task always runs in a process of its own.
    """
    return RunContext(None, {}).run(task, *args, **kwargs)


run = Blocking(_run)


def _rerun(run_name: str, action_name: str = ROOT, **inputs: Any) -> Run:
    """Run the task of an earlier run again, and return the new run; see `RunContext.rerun`."""
    return RunContext(None, {}).rerun(run_name, action_name, **inputs)


rerun = Blocking(_rerun)


def _run_python_script(
    script: str | os.PathLike[str],
    *,
    timeout: float | None = None,
    extra_args: Sequence[str] | None = None,
    name: str | None = None,
    **unused: Any,
) -> Run:
    """Run a plain Python script as `python SCRIPT` does, and return the recorded run.

    `timeout` is in seconds. Further arguments of Flyte 2 are accepted and ignored, with a note.
    Raises `UsageError` if the script does not exist, and its error.
    """
    refuse_while_imported("flyte.run_python_script")
    say_unused("flyte.run_python_script", unused)
    inputs = script_inputs(os.fspath(script), extra_args or ())
    stores = Stores(RunReporter())
    finished = run_script(Session(current().change(name=name), stores), inputs, timeout)
    return _ended(Run(stores.places.data, finished.name))


run_python_script = Blocking(_run_python_script)


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
    max_action_concurrency: int | None = None,
    custom_context: Mapping[str, str] | None = None,
    **unused: Any,
) -> RunContext:
    """Return a context for runs: `flyte.with_runcontext(mode="local").run(task, x=1)`.

    With the mode `local`, tasks run in this process. Other arguments override settings. Further
    arguments of Flyte 2 are accepted and ignored, with a note.
    """
    given = {
        "name": name,
        "version": version,
        "copy_style": copy_style,
        "project": project,
        "domain": domain,
        "env": env_vars,
        "labels": labels,
        "max_actions": max_action_concurrency,
        "context": custom_context,
    }
    say_unused("flyte.with_runcontext", unused)
    return RunContext(mode, {key: value for key, value in given.items() if value is not None})
