"""`flyte deploy`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from flyte_build.deployments.names import check_version
from flyte_build.errors import ModuleLoadError, UsageError
from flyte_build.ops.deploy import Deployer, Deployment
from flyte_build.ops.gc import start_if_due
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.releases import Deployments
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.ops.targets import Target, choose, once_each
from flyte_build.runner.reporter import Forwarder
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.registries import Registries
from flyte_build.settings.settings import Settings
from flyte_build.text.wording import listed, printable
from flyte_build.workspace.workspace import root_of

from .console import Console
from .options import (
    of_a_bundle,
    of_a_deployment,
    of_pins,
    of_publishing,
    pinned,
    settings_of_each,
    with_registries,
)
from .selection import Selection, of_environments

if TYPE_CHECKING:
    from flyte_build.graph.node import Outcome


@click.command()
@of_a_deployment
@of_publishing
@click.option("--version", help="Version to deploy as (default: short digest of the content).")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be deployed, without building or contacting a registry.",
)
@of_a_bundle
@of_pins
@of_environments("Deploy")
@click.option(
    "-i",
    "--ignore-load-errors",
    is_flag=True,
    help="With -r: skip files that cannot be imported, with a note.",
)
@click.pass_obj
def deploy(console: Console, /, dry_run: bool, ignore_load_errors: bool, **options: Any) -> None:
    """Deploy an environment, and those that it depends on: tasks, code and images.

    ENV_VARIABLE is the variable in FILE that holds the environment. A deployed version never
    changes. Its tasks run without their source files, with `flyte run deployed-task`. Without a
    registry, it is deployed to this machine.
    """
    chosen = Selection.take("deploy", options)
    stores, workspaces = Stores(console), chosen.workspaces()
    root = (
        workspaces[0].root if len({each.root for each in workspaces}) == 1 else root_of(chosen.file)
    )
    given = {name: options.pop(name) for name in ("registry", "cache_read", "cache_write")}
    config = console.configuration(root)
    if options["version"] is not None:
        check_version(options["version"])
    image, locked = options.pop("image"), options.pop("locked")

    def settings_in(config: Configuration) -> Settings:
        return Settings.configured(
            with_registries(config, **given), **options, **pinned(config, image, locked)
        )

    settings = settings_in(config)
    deployments = Deployments(Session(settings, stores, read_only=dry_run))
    click.get_current_context().call_on_close(lambda: start_if_due(stores, config))

    def targets() -> Iterator[Target]:
        for workspace, own in settings_of_each(console, workspaces, settings_in):
            # A dry run contacts no registry.
            own = own._replace(registries=Registries()) if dry_run else own
            reporter = OfFile(console, workspace.file) if chosen.recursive else console
            plan = FilePlan(Session(own, stores, read_only=dry_run, reporter=reporter), workspace)
            try:
                yield choose(plan, chosen.env_variable, chosen.is_whole)
            except ModuleLoadError as error:
                if not ignore_load_errors or not chosen.recursive:
                    raise
                console.note(f"{workspace.file} was skipped: {error.what}.")

    found = once_each(targets())
    if not any(target.environments for target in found):
        raise UsageError(
            f"{chosen.file} defines no environment with tasks",
            hint="An environment is a `flyte.TaskEnvironment`.",
        )
    deployment = Deployer(deployments).deploy(found)
    if console.json:
        documents = [each.document() for each in deployment.envs.values()]
        console.document({"deployments": documents, "counters": stores.counters.snapshot()})
    else:
        _show(console, deployment)


class OfFile(Forwarder):
    """Reporter that prints the file's name before its first node that is not cached."""

    def __init__(self, console: Console, file: str) -> None:
        super().__init__(console)
        self._console, self._file = console, file

    def node_resolved(self, outcome: Outcome) -> None:
        """Print a line for a node, after the name of the file, once."""
        if self._file and outcome.state != "cached":
            self._console.line(f"{printable(self._file)}:")
            self._file = ""
        super().node_resolved(outcome)


def _show(console: Console, deployment: Deployment) -> None:
    for each in deployment.envs.values():
        color = "cyan" if each.state == "created" else "green"
        version = each.version or "(its version is known once its image is built)"
        console.print(console.event(each.state, color, f"{each.name}:{version}"))
        console.print(f"  digest    {each.digest or '(known once its image is built)'}")
        if each.reference:
            console.print(f"  reference {each.reference}")
        console.print(f"  tasks     {listed(each.tasks)}")
    if not any(each.state == "planned" for each in deployment.envs.values()):
        first = next(iter(deployment.envs.values()))
        console.line(f"Run one with: flyte run deployed-task {first.tasks[0]}:{first.version}")
