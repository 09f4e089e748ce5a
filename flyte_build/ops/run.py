"""Running a task of a file: prepare what it needs, choose the engine, and return the result."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from flyte_build.cas.digest import Digest
from flyte_build.errors import FileUnstable, UsageError
from flyte_build.graph.node import Node, Outcome
from flyte_build.images.image_choice import ImageChoice
from flyte_build.runner.call import Call
from flyte_build.runner.controller.controller import Finished, carry_out
from flyte_build.text.wording import listed
from flyte_build.values.type import Wires
from flyte_build.workspace.workspace import Workspace, current_folder

from .placement import Placement, place
from .prepare import FilePlan
from .session import Session
from .stores import Stores

if TYPE_CHECKING:
    from flyte_build.cas.lease import Lease
    from flyte_build.declarations.task import Task
    from flyte_build.runner.worker.spawn import Worker

    from .container_images import ContainerImage

_ATTEMPTS = 3  # To prepare a project whose files are edited meanwhile.


def run_task(
    plan: FilePlan,
    variable: str,
    inputs: Wires,
    take_spare: Callable[[], Worker | None] = lambda: None,
) -> Finished:
    """Run the task under `variable` with wire inputs, and record the run in the history.

    With the engine `local`, the task runs in this process, from the working tree. Otherwise it is
    prepared, and runs in a container or in a separate process (the spare one from `take_spare`, if
    that is suitable). Artifacts are published meanwhile; the plan's `finish` waits for that.
    """
    if plan.session.settings.engine == "local":
        from flyte_build.runner.worker.execute import load_task

        call, here = _call(plan, variable, inputs)[0], plan.workspace
        # Modules are searched for here last, as in discovery.
        current = current_folder()
        sys.path[:] = dict.fromkeys(
            filter(None, [*here.folders(here.roots), *sys.path, *here.folders(here.last), current])
        )
        return run_here(plan.session, call, lambda: load_task(call.workspace.module, variable))
    return _run_prepared(plan, variable, inputs, take_spare)


def _call(plan: FilePlan, variable: str, inputs: Wires) -> tuple[Call, ImageChoice]:
    """Return the call of a task, and the image to run it in."""
    task = plan.discovery.task(variable)
    image = plan.image(task.semantic.image)
    call = Call(
        task=task.change(image=image.value),
        workspace=plan.discovery.workspace,
        variable=variable,
        inputs=inputs,
        run=plan.session.settings.run,
    )
    return call, image


def _resolve(
    plan: FilePlan, variable: str, inputs: Wires
) -> tuple[Call, Placement, Mapping[Node, Outcome]]:
    """Resolve everything that a call needs, starting over if files are edited meanwhile.

    Raises `FileUnstable` if files are still edited during the last attempt.
    """
    engine = plan.session.settings.engine
    for left in range(_ATTEMPTS - 1, -1, -1):
        call, image = _call(plan, variable, inputs)
        where = place(
            call.task.semantic.environment, image, engine, partial(plan.environment, image)
        )
        try:
            return call, where, plan.resolve(*([where.environment] if where.environment else []))
        except FileUnstable as error:
            if not left:
                raise
            plan.session.reporter.note(f"{error.what}; preparing again.")
        plan.start_over()
        semantic = plan.discover().task(variable).semantic
        if semantic.interface_document != call.task.semantic.interface_document:
            inputs = semantic.interface.check_inputs(dict(inputs))
    raise AssertionError("The last attempt returns or raises")


def _run_prepared(
    plan: FilePlan, variable: str, inputs: Wires, take_spare: Callable[[], Worker | None]
) -> Finished:
    session, began = plan.session, time.monotonic()
    with session.cache.preparing():
        call, where, outcomes = _resolve(plan, variable, inputs)
        if where.why:
            session.reporter.note(
                f"{call.task.semantic.environment} runs in a container: {where.why}."
            )
        needed = [where.environment] if where.environment else []
        code, container = plan.extracted(), None
        if where.image is not None:
            container = plan.containers.get(where.image, call.task.semantic.environment)
        tree = outcomes[plan.tree].artifact
        assert tree is not None
        made = [artifact for node in needed if (artifact := outcomes[node].artifact)]
        call = replace(
            call,
            run=call.run._replace(version=call.run.version or tree.short),
            code=code,
            tree=tree,
        )
        call, lease = leased(session, call, where, made)
    plan.publish()
    return run_leased(session, call, container, take_spare, lease, began)


def run_leased(
    session: Session,
    call: Call,
    container: ContainerImage | None,
    take_spare: Callable[[], Worker | None],
    lease: Lease,
    began: float,
) -> Finished:
    """Run a task with extracted code, in a container if there is one, and release the lease."""
    try:
        if container:
            return run_in_container(session, call, container, began)
        return run_in_worker(session, call, take_spare(), began)
    finally:
        lease.release()


def leased(
    session: Session, call: Call, where: Placement, environments: Sequence[Digest]
) -> tuple[Call, Lease]:
    """Return a call in its local environment, if it has one, and a lease of all that it uses."""
    uses_runtime = where.image is not None or bool(environments)
    held = [Digest(call.tree), *environments, *runtime_held(session.stores, uses_runtime)]
    lease = session.cache.lease(held)
    if where.environment:
        call = replace(
            call,
            environment=session.cache.environment(*environments),
            variables=where.environment.variables,
        )
    return call, lease


def run_in_worker(session: Session, call: Call, spare: Worker | None, began: float) -> Finished:
    """Run a task with extracted code in a separate process.

    `began` is the monotonic time from which the run's seconds count.
    """
    from flyte_build.runner.engines.process import ProcessEngine
    from flyte_build.runner.worker.spawn import dismiss, start_worker

    stores, reporter = session.stores, session.reporter
    start = start_worker
    if call.environment:
        start = partial(start_worker, *_interpreter(call.environment, stores))
        other, spare = spare, start()  # It starts while the run is recorded.
        if other:
            dismiss(other)
    engine = ProcessEngine(reporter.output, spare, start, _secrets(session, call))
    try:
        return carry_out(call, engine, stores.history, reporter, began)
    finally:
        engine.close()


def _secrets(session: Session, call: Call) -> Mapping[str, str]:
    """Return the environment variables of the secrets that a task declares.

    Secrets in files are not available in a process; a note names them.
    """
    if not (declared := call.task.operational.options.get("secrets")):
        return {}
    from flyte_build.runner.secrets import look_up

    found = look_up(declared, os.environ)
    if found.files:
        session.reporter.note(
            f"{listed(list(found.files))}: secrets in files are only available in containers"
            " (`flyte run --engine docker`)."
        )
    return found.variables


def _interpreter(environment: str, stores: Stores) -> tuple[str, dict[str, str]]:
    """Return the Python of a local environment, and the variables of a worker in it."""
    from flyte_build.images.environments import venv

    return venv.python_of(environment), venv.variables(environment, stores.runtime, os.environ)


def runtime_held(stores: Stores, is_used: bool) -> list[Digest]:
    """Return the digests that a lease must hold to keep the runtime, if a task uses it."""
    return [Digest("sha256:" + os.path.basename(stores.runtime))] if is_used else []


def run_in_container(session: Session, call: Call, image: ContainerImage, began: float) -> Finished:
    """Run a task with extracted code in a container; `began` is as for `run_in_worker`."""
    from .container_images import docker_engine

    engine = docker_engine(session, call, image)
    try:
        return carry_out(call, engine, session.stores.history, session.reporter, began)
    finally:
        engine.close()


def run_here(session: Session, call: Call, load: Callable[[], Task[..., Any]]) -> Finished:
    """Run the task that `load` returns in this process, from the working tree."""
    from flyte_build.runner.engines.local import LocalEngine

    return carry_out(
        call, LocalEngine(load), session.stores.history, session.reporter, time.monotonic()
    )


def run_script(
    session: Session, inputs: Wires, timeout: float | None, spare: Worker | None = None
) -> Finished:
    """Run a plain script: `inputs` are those of `builtin.script`, `timeout` is in seconds.

    Raises `UsageError` if the script does not exist.
    """
    from flyte_build.builtin.script import __name__ as module
    from flyte_build.builtin.script import script
    from flyte_build.declarations.describe import task_spec

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
    return run_in_worker(session, call, spare, began)
