"""Running a task of a file: prepare what it needs, choose the engine, and return the result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from flyte_build.errors import FileUnstable, UsageError
from flyte_build.graph.node import Node, Outcome
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.call import Call
from flyte_build.runner.controller.run import Finished, carry_out, refuse_missing_gpus
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import Workspace, current_folder

from .prepare import FilePlan
from .session import Session

if TYPE_CHECKING:
    from flyte_build.declarations.spec import EnvironmentSpec, TaskSpec
    from flyte_build.declarations.task import Task
    from flyte_build.runner.worker.spawn import Worker

    from .child_places import RunPlaces
    from .environments import PreparedEnvironments

_ATTEMPTS = 3  # To prepare a project whose files are edited meanwhile.


def run_task(
    plan: FilePlan,
    variable: str,
    inputs: Wires,
    take_spare: Callable[[], Worker | None] = lambda: None,
    override: TaskSpec | None = None,
) -> Finished:
    """Run the task under `variable` with wire inputs, and record the run in the history.

    `variable` is what `Discovery.task` takes. Its options are those of `override`, if given.

    With the engine `local`, the task runs in this process, from the working tree. Otherwise it is
    prepared, and runs in a container or in a separate process (the spare one from `take_spare`, if
    that is suitable). Artifacts are published meanwhile; the plan's `finish` waits for that.
    """
    if plan.session.settings.engine == "local":
        from flyte_build.runner.worker.execute import load_task

        call = _call(plan, variable, inputs, override)
        here = plan.workspace._replace(module=call.workspace.module)
        # Modules are searched for here last, as in discovery.
        current = current_folder()
        sys.path[:] = dict.fromkeys(
            filter(None, [*here.folders(here.roots), *sys.path, *here.folders(here.last), current])
        )
        return run_here(plan.session, call, lambda: load_task(here.module, call.variable))
    return _run_prepared(plan, variable, inputs, take_spare, override)


def _call(plan: FilePlan, variable: str, inputs: Wires, override: TaskSpec | None) -> Call:
    task = plan.discovery.task(variable)
    if override:
        semantic = task.semantic._replace(env_vars=override.semantic.env_vars)
        task = task._replace(semantic=semantic, operational=override.operational)
    workspace = plan.discovery.workspace
    module, _, variable = variable.rpartition(":")
    return Call(
        task=task.change(image=plan.image(task.semantic.image).value),
        workspace=workspace._replace(module=module or workspace.module),
        variable=variable,
        inputs=inputs,
        run=plan.session.settings.run,
    )


def _reachable(plan: FilePlan, environment: str) -> list[EnvironmentSpec]:
    """Return an environment of the file and all that it depends on.

    Raises `PreparationError` if one of them needs GPUs that are not there.
    """
    reachable = {each.name: each for each in plan.discovery.findings.reachable}
    names = [environment]
    for name in names:  # It grows during the loop.
        if found := reachable.get(name):
            names += [each for each in found.depends_on if each not in names]
    environments = [reachable[name] for name in names if name in reachable]
    refuse_missing_gpus(task for each in environments for task in each.tasks.values())
    return environments


def _resolve(
    plan: FilePlan, variable: str, inputs: Wires, override: TaskSpec | None
) -> tuple[Call, PreparedEnvironments, Mapping[Node, Outcome]]:
    """Resolve everything that a call needs, starting over if files are edited meanwhile.

    Raises `FileUnstable` if files are still edited during the last attempt.
    """
    from .environments import PreparedEnvironments

    environments = PreparedEnvironments(
        plan.session,
        plan.environment,
        lambda: plan.containers,
        lambda nodes: plan.resolve(*nodes),
    )
    for left in range(_ATTEMPTS - 1, -1, -1):
        call = _call(plan, variable, inputs, override)
        semantic = call.task.semantic
        own = (semantic.environment, plan.image(semantic.image))
        reachable = _reachable(plan, semantic.environment)
        others = ((each.name, plan.image(each.image)) for each in reachable)
        nodes = environments.choose([own, *others])
        try:
            return call, environments, plan.resolve(*nodes)
        except FileUnstable as error:
            if not left:
                raise
            plan.session.reporter.note(f"{error.what}; preparing again.")
        plan.start_over()
        environments.forget()
        found = plan.discover().task(variable).semantic
        if found.interface_document != semantic.interface_document:
            inputs = found.interface.check_inputs(dict(inputs))
    raise AssertionError("The last attempt returns or raises")


def _run_prepared(
    plan: FilePlan,
    variable: str,
    inputs: Wires,
    take_spare: Callable[[], Worker | None],
    override: TaskSpec | None,
) -> Finished:
    session, began = plan.session, time.monotonic()
    with session.cache.preparing():
        call, environments, outcomes = _resolve(plan, variable, inputs, override)
        code, tree = plan.extracted(), outcomes[plan.tree].artifact
        assert tree is not None
        environments.settle(outcomes, [tree])
    version = call.run.version or tree.short
    call = call._replace(run=call.run._replace(version=version), code=code, tree=tree)
    plan.publish()
    try:
        return run_in(environments, session, call, plan.image, take_spare, began)
    finally:
        environments.release()


def run_in(
    environments: PreparedEnvironments,
    session: Session,
    call: Call,
    image: Callable[[Any], ImageChoice],
    take_spare: Callable[[], Worker | None],
    began: float,
) -> Finished:
    """Run a task with extracted code, and all that it calls, in their environments.

    `image` returns the image for a declared one. `began` is the monotonic time from which the run's
    seconds count.
    """
    from .engines import Engines  # A run with `--local` has none.

    engines = Engines(session, take_spare)

    def open_children() -> RunPlaces:
        from .child_places import RunPlaces
        from .ready_deployments import ReadyDeployments

        return RunPlaces(engines, ReadyDeployments(session), environments, image)

    try:
        return carry_out(
            *engines.engine(*environments.place(call)),
            session.stores.history,
            session.reporter,
            began,
            open_children,
        )
    finally:
        engines.close()


def run_here(session: Session, call: Call, load: Callable[[], Task[..., Any]]) -> Finished:
    """Run the task that `load` returns in this process, from the working tree."""
    from flyte_build.runner.engines.local import LocalEngine

    history, reporter = session.stores.history, session.reporter
    engine = LocalEngine(load, partial(history.actions_of, durable=False), reporter.note)
    return carry_out(call, engine, history, reporter, time.monotonic())


def script_inputs(path: str, arguments: Sequence[str]) -> Wires:
    """Return the wire inputs of `builtin.script` for a script, run in the current directory."""
    return {"path": os.path.realpath(path), "arguments": [*arguments], "folder": os.getcwd()}


def run_script(
    session: Session, inputs: Wires, timeout: float | None, spare: Worker | None = None
) -> Finished:
    """Run a plain script: `inputs` are those of `builtin.script`, `timeout` is in seconds.

    Raises `UsageError` if the script does not exist.
    """
    from flyte_build.builtin.script import __name__ as module
    from flyte_build.builtin.script import script
    from flyte_build.declarations.describe import task_spec

    from .engines import Engines

    began, path = time.monotonic(), inputs["path"]
    if not os.path.isfile(path):
        raise UsageError(
            f"The script {path} does not exist",
            hint="Give the path of a Python file: `flyte run python-script SCRIPT`.",
        )
    workspace = Workspace(os.path.dirname(path), os.path.basename(path), module)
    task = task_spec(script.override(timeout=timeout))
    call = Call(
        task=task, workspace=workspace, variable="script", inputs=inputs, run=session.settings.run
    )
    engines = Engines(session, lambda: spare)
    try:
        history, reporter = session.stores.history, session.reporter
        return carry_out(*engines.engine(call, None), history, reporter, began)
    finally:
        engines.close()
