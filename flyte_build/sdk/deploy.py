"""`flyte.deploy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyte_build.bundler.copy_style import CopyStyle
from flyte_build.declarations.environment import TaskEnvironment
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.runner.reporter import RunReporter
from flyte_build.settings.registries import Registries

from .blocking import Blocking
from .init import current, refuse_while_imported

if TYPE_CHECKING:
    from flyte_build.ops.deploy import Deployment


def _deploy(
    *environments: TaskEnvironment,
    version: str | None = None,
    dry_run: bool = False,
    copy_style: CopyStyle | None = None,
) -> Deployment:
    """Deploy environments and their dependencies as `flyte deploy` does.

    The version defaults to a short digest of the content. A dry run creates nothing, and does not
    use a registry. Raises `DeploymentError`.
    """
    from flyte_build.deployments.names import check_version
    from flyte_build.ops.deploy import Deployer
    from flyte_build.ops.releases import Deployments
    from flyte_build.ops.targets import targets_of

    refuse_while_imported("flyte.deploy")
    if version is not None:
        check_version(version)
    settings = current()
    settings = settings.change(version=version or "", copy_style=copy_style)
    stores = Stores(RunReporter())
    # A dry run must not use a registry.
    asked = settings.change(registries=Registries()) if dry_run else settings
    targets = targets_of(Session(asked, stores, read_only=dry_run), "flyte.deploy", environments)
    return Deployer(Deployments(Session(settings, stores, read_only=dry_run))).deploy(targets)


deploy = Blocking(_deploy)
