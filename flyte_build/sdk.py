"""`flyte.run` and what goes with it: running tasks from Python code."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .blocking import Blocking, blocking
from .bundler.copy_style import CopyStyle
from .declarations.environment import TaskEnvironment
from .declarations.image import Image
from .declarations.interface import interface_of
from .declarations.task import Task
from .errors import UsageError
from .graph.reporter import Listener
from .recorded import Recorded
from .runner.call import Call
from .running import Runner, run_here, run_in_worker, script_call
from .runs import Run
from .session import begin, current, has_begun, initialised, project_root, refuse_while_imported
from .settings.registries import Registries
from .settings.settings import Settings
from .stores import Stores
from .workspace.workspace import INTERACTIVE, Project, locate

if TYPE_CHECKING:
    from .building import EnvironmentImage
    from .deployment import Deployment
    from .remotetask import Task as Deployed
    from .targets import Target

Mode = Literal["local", "remote", "hybrid"]


def init(project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """From now on `flyte.run` prepares tasks and runs them in processes of their own, as `flyte run` does.

    What is not given is as configured. Arguments about a control plane are accepted, and said to be unused. Raises `UsageError` for a
    configuration that makes no sense.
    """
    _say_unused("flyte.init", unused)
    begin(None, project=project, domain=domain)


def init_from_config(path: str | None = None, project: str | None = None, domain: str | None = None, **unused: Any) -> None:
    """The same; `path` is the one configuration file to read (ours, or a `config.yaml` of Flyte 2).

    Raises `UsageError` when it is not there.
    """
    _say_unused("flyte.init_from_config", unused)
    begin(path, project=project, domain=domain)


def current_project() -> str:
    """The project's name. Raises `InitializationError` before `init`."""
    return initialised().run.project


def current_domain() -> str:
    """The domain's name. Raises `InitializationError` before `init`."""
    return initialised().run.domain


class RunContext:
    """How the next run is to be done; see `with_runcontext`."""

    def __init__(self, mode: Mode | None, settings: Mapping[str, Any]) -> None:
        self._mode, self._changes = mode, settings

    @blocking
    def run(self, task: "Task[..., Any] | Deployed", /, *args: Any, **kwargs: Any) -> Run:
        """Run `task` with these inputs and wait for it; one that is deployed takes them by name. Raises the task's error."""
        return _ended(self._run(task, args, kwargs))

    def _run_deployed(self, task: "Deployed", args: tuple[Any, ...], inputs: dict[str, Any]) -> Run:
        if self._mode == "local":
            raise UsageError(f"{task.name} is deployed, and runs in a process of its own", hint='Leave out `mode="local"`.')
        if args:
            raise UsageError(f"The inputs of {task.name} have no names", why="It is deployed.", hint="Give them by name: x=1.")
        space = task.find().found.release.space
        return task.run(inputs, current().change(**{"project": space.project, "domain": space.domain, **self._changes}))

    @blocking
    def rerun(self, run: str, /, **inputs: Any) -> Run:
        """Run the task of an earlier run again: the same file as it is now, the inputs of then but for those that are given.

        Inputs are JSON values here, as are the outputs of the run. Raises `NotFound`, `InputError`, and the task's error.
        """
        listener = Listener()
        stores = Stores(listener)
        recorded = Recorded.find(run, stores.history)
        settings = recorded.settings(current()).change(**self._changes)
        if recorded.is_script:
            call = script_call({**recorded.inputs, **inputs}, recorded.timeout, settings)
            return _ended(Run(stores.places.data, run_in_worker(call, stores, listener, None, time.monotonic()).name))
        if recorded.deployment:
            from .deployed import Deployments

            deployed = Deployments(settings, stores, listener).task(recorded.deployment)
            wire = recorded.changed(deployed.document.spec(deployed.function), inputs)
            return _ended(Run(stores.places.data, deployed.run(wire, settings).name))
        runner = Runner(recorded.project(), settings, stores, listener)
        task = runner.discover().task(recorded.variable)
        changed = recorded.changed(task, inputs)
        if sentence := recorded.forgotten(task, settings):
            listener.said(sentence)
        finished = runner.run(recorded.variable, changed)
        runner.finish()
        return _ended(Run(stores.places.data, finished.name))

    def _run(self, task: "Task[..., Any] | Deployed", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
        if not isinstance(task, Task):
            from .remotetask import Task as Deployed

            if isinstance(task, Deployed):
                return self._run_deployed(task, args, kwargs)
            raise UsageError(f"flyte.run cannot run {task!r:.100}", why="It is no task.", hint="Decorate the function with `@env.task`.")
        mode = self._mode or ("remote" if has_begun() else "local")
        interface = interface_of(task.func)
        inputs = interface.dump_inputs(args, kwargs)
        settings = current().change(**self._changes)
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
            from .discovery.describe import describe_task

            project = locate(file, None) if in_file else Project.of(os.getcwd(), INTERACTIVE)
            call = Call(task=describe_task(task), project=project, variable=variable, inputs=inputs, run=settings.run)
            finished = run_here(call, lambda: task, stores, listener)
        else:
            refuse_while_imported("flyte.run")
            runner = Runner(locate(file, None), settings, stores, listener)
            runner.discover()
            finished = runner.run(variable, inputs)
            runner.finish()
        return Run(stores.places.data, finished.name, interface)


def _ended(run: Run) -> Run:
    run.raise_for_status()
    return run


def _run(task: "Task[..., Any] | Deployed", /, *args: Any, **kwargs: Any) -> Run:
    """Run a task with these inputs and wait for it: prepared if `init` was called, else in this process."""
    return RunContext(None, {}).run(task, *args, **kwargs)


run = Blocking(_run)


def _deploy(
    *environments: TaskEnvironment, version: str | None = None, dry_run: bool = False, copy_style: CopyStyle | None = None
) -> "Deployment":
    """Deploy environments, with those that they depend on, as `flyte deploy` does. Raises `DeploymentError`.

    Without a version it is the content's own short digest. A dry run makes nothing, and asks no registry.
    """
    from .deployed import Deployments
    from .deployment import Deployer
    from .deployments.names import check_version
    from .targets import once_each

    refuse_while_imported("flyte.deploy")
    if version is not None:
        check_version(version)
    settings = current()
    settings = settings.change(version=version or "", copy_style=copy_style)
    listener = Listener()
    stores = Stores(listener)
    asked = settings.change(registries=Registries()) if dry_run else settings
    targets = _targets("flyte.deploy", environments, asked, stores, listener, dry=dry_run)
    return Deployer(Deployments(settings, stores, listener), settings, stores, listener).deploy(once_each(targets), dry=dry_run)


deploy = Blocking(_deploy)


def _targets(
    what: str,
    environments: Sequence[TaskEnvironment],
    settings: Settings,
    stores: Stores,
    listener: Listener,
    *,
    dry: bool = False,
    for_images: bool = False,
) -> "list[Target]":
    """The targets that some environments are, each in the file that declares it; see `choose`. Raises `UsageError`."""
    from .targets import choose

    if not environments:
        raise UsageError(f"No environment is given to {what}", hint=f"For example: {what}(env)")
    runners: dict[str, Runner] = {}
    targets = []
    for environment in environments:
        file = environment.declared_in
        if not os.path.isfile(file):
            raise UsageError(f"The environment {environment.name} is in no Python file", hint="Put it into a file.")
        if file not in runners:
            runners[file] = Runner(locate(file, None), settings, stores, listener, dry=dry)
        targets.append(choose(runners[file], environment.name, for_images=for_images))
    return targets


def _build(image: Image, dry_run: bool = False, force: bool = False) -> "EnvironmentImage":
    """Build an image as `flyte build` does, and push it if it is said where to. With `dry_run` nothing is made."""
    from .builds import build_image
    from .declarations.serialize import image_value

    refuse_while_imported("flyte.build")
    listener, root = Listener(), project_root()
    return build_image(image_value(image, root), root, current(), Stores(listener), listener, force=force, dry=dry_run)


build = Blocking(_build)


def _build_images(*environments: TaskEnvironment) -> "dict[str, EnvironmentImage]":
    """Build the images of environments and of those that they depend on, by the environments' names; pushed if it is said where to."""
    from .builds import build_images as build_all
    from .targets import once_each

    refuse_while_imported("flyte.build_images")
    settings, listener = current().change(version="-"), Listener()
    stores = Stores(listener)
    targets = once_each(_targets("flyte.build_images", environments, settings, stores, listener, for_images=True))
    push = bool(settings.image_registry or settings.registries.write or settings.registries.home)
    return {name: each for each in build_all(targets, stores, listener, push=push) for name in each.envs}


build_images = Blocking(_build_images)


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
