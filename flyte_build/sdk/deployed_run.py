"""Runs of deployed tasks from Python, with what this process knows of projects and registries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flyte_build.declarations.describe import overridden
from flyte_build.ops.deployed_task import DeployedTask, find_task
from flyte_build.ops.releases import Deployments
from flyte_build.ops.run_deployed import run_deployed
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.places import Places
from flyte_build.settings.settings import Settings

from .init import current
from .runs import Run
from .wire_inputs import wire_inputs


def deployments(project: str | None, domain: str | None) -> Deployments:
    """Return the deployments of a project and domain (default: the current ones)."""
    settings = current().change(project=project or None, domain=domain or None)
    return Deployments(Session(settings, Stores(RunReporter())))


def find(
    text: str, project: str | None, domain: str | None, changes: Mapping[str, Any]
) -> DeployedTask:
    """Find a deployed task, and override options of its spec. Raises `NotFound`."""
    found = find_task(deployments(project, domain), text)
    return replace(found, spec=overridden(found.spec, changes))


def run(task: DeployedTask, inputs: Mapping[str, Any], settings: Settings | None = None) -> Run:
    """Run a task, wait for it, and return the run, failed or not. Raises `InputError`."""
    wire, space = wire_inputs(task.spec.interface, inputs), task.found.release.space
    chosen = settings or current().change(project=space.project, domain=space.domain)
    session = Session(chosen, task.deployments.stores)
    return Run(Places.find().data, run_deployed(task, session, wire).name)
