"""Targets of deploying and building: environments of files, with their dependencies."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from flyte_build.declarations.environment import TaskEnvironment
from flyte_build.declarations.spec import EnvironmentSpec
from flyte_build.errors import DeploymentError, UsageError
from flyte_build.text.wording import listed, nearest
from flyte_build.workspace.workspace import locate

from .prepare import FilePlan
from .session import Session


@dataclass(frozen=True)
class Target:
    """Environments of one file that are to be deployed or built."""

    plan: FilePlan
    environments: Sequence[EnvironmentSpec]


def choose(
    plan: FilePlan, variable: str | None, everything: bool = False, *, for_images: bool = False
) -> Target:
    """Choose an environment of the plan's file, with its dependencies, or with `everything`, all.

    `variable` is a variable of the file, or the environment's name; None stands for the file's only
    environment. Environments without tasks are left out unless `for_images`. Raises `UsageError`,
    and `DeploymentError` if two environments have the same name.
    """
    findings, file = plan.discover().findings, plan.workspace.file
    reachable = {each.name: each for each in findings.reachable}
    if len(reachable) < len(findings.reachable):
        names = [each.name for each in findings.reachable]
        twice = next(name for name in names if names.count(name) > 1)
        raise DeploymentError(
            f"{file} has two environments named {twice!r}",
            hint="Give each environment a unique name.",
        )
    if everything:
        return Target(plan, [each for each in reachable.values() if each.tasks or for_images])
    variables = findings.environments
    command = "build" if for_images else "deploy"
    if variable is None:
        own = {
            name
            for name in variables.values()
            if len(variables) == 1 or reachable[name].file == file
        }
        if len(own) != 1:
            raise UsageError(
                f"No environment given. {file} defines: {listed(variables) or 'none'}",
                hint=(
                    f"For example: flyte {command} {file} {next(iter(variables))}, or `flyte"
                    f" {command} --all {file}`."
                    if variables
                    else "Define a `flyte.TaskEnvironment` at the top level of the file."
                ),
            )
        (name,) = own
    elif variable in variables:
        name = variables[variable]
    else:
        name = next((each for each in variables.values() if each == variable), "")
        if not name:
            near = nearest(variable, variables)
            raise UsageError(
                f"No environment named {variable!r} in {file}",
                why=f"The file defines {listed(variables) or 'none'}.",
                hint=f"Did you mean {near!r}?" if near else "Give the environment's variable.",
            )
    if not (reachable[name].tasks or for_images):
        raise UsageError(
            f"The environment {name} has no tasks",
            hint=f"Decorate a function with `@{variable or 'env'}.task`.",
        )
    return Target(
        plan, [each for each in _with_dependencies(name, reachable) if each.tasks or for_images]
    )


def _with_dependencies(
    name: str, reachable: Mapping[str, EnvironmentSpec]
) -> Iterator[EnvironmentSpec]:
    seen, waiting = {name}, [name]
    while waiting:
        environment = reachable[waiting.pop(0)]
        yield environment
        new = [each for each in environment.depends_on if each not in seen]
        seen.update(new)
        waiting += new


def once_each(targets: Iterable[Target]) -> list[Target]:
    """Return the targets of several files with each environment only once.

    If possible, an environment is taken from the file that declares it. Raises `DeploymentError` if
    different files declare environments with the same name.
    """
    found: dict[str, tuple[FilePlan, EnvironmentSpec]] = {}
    for target in targets:
        for each in target.environments:
            plan, known = found.get(each.name, (None, each))
            if (known.file or each.file) != each.file:
                raise DeploymentError(
                    f"{known.file} and {each.file} both have an environment named {each.name!r}",
                    hint="Give each environment a unique name.",
                )
            if plan is None or each.file == target.plan.workspace.file:
                found[each.name] = (target.plan, each)
    plans = {id(plan): plan for plan, _ in found.values()}
    return [
        Target(plan, [each for owner, each in found.values() if owner is plan])
        for plan in plans.values()
    ]


def targets_of(
    session: Session,
    what: str,
    environments: Sequence[TaskEnvironment],
    *,
    for_images: bool = False,
) -> list[Target]:
    """Return the targets for some environments, each in the file that declares it.

    Dependencies are included, and each environment occurs once; see `choose` and `once_each`.
    `what` is the name of the calling function. Raises `UsageError` and `DeploymentError`.
    """
    if not environments:
        raise UsageError(f"{what} needs at least one environment", hint=f"For example: {what}(env)")
    plans: dict[str, FilePlan] = {}
    targets = []
    for environment in environments:
        file = environment.declared_in
        if not os.path.isfile(file):
            raise UsageError(
                f"The environment {environment.name} is not defined in a Python file",
                hint="Define it in a file.",
            )
        if file not in plans:
            plans[file] = FilePlan(session, locate(file, None))
        targets.append(choose(plans[file], environment.name, for_images=for_images))
    return once_each(targets)
