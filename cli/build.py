"""`flyte build`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from flyte_build.ops.gc import start_if_due
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.ops.targets import Target, choose, once_each
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.settings import Settings
from flyte_build.text.units import rounded_size
from flyte_build.text.wording import plural
from flyte_build.workspace.workspace import root_of

from .console import Console, node_json
from .options import of_a_registry, settings_of_each, with_registries
from .selection import Selection, of_environments

if TYPE_CHECKING:
    from flyte_build.ops.project_images import EnvironmentImage


@click.command()
@click.option(
    "--push",
    is_flag=True,
    help="Push the images to a registry (settings: image.registry, registry).",
)
@click.option(
    "--builder",
    type=click.Choice(["native", "docker"]),
    help=(
        "Builder: `native` uses Docker only where commands must be executed, `docker` also for"
        " packages (setting: image.builder)."
    ),
)
@click.option(
    "--explain", is_flag=True, help="Show what would be built, and why, without building."
)
@click.option("--force", is_flag=True, help="Rebuild all layers, even if they exist.")
@click.option(
    "--locked",
    is_flag=True,
    help="Fail (exit code 3) unless flyte.lock pins everything (setting: locked).",
)
@of_a_registry
@click.option(
    "--root-dir",
    type=click.Path(),
    help="Project root (default: the nearest one at or above FILE).",
)
@of_environments("Build for")
@click.pass_obj
def build(console: Console, /, push: bool, explain: bool, force: bool, **options: Any) -> None:
    """Build the images of an environment and of those that it depends on.

    ENV_VARIABLE is the variable in FILE that holds the environment. Images that exist are not
    rebuilt. Docker is needed only for commands, Debian packages and Dockerfiles.
    """
    from flyte_build.ops.build import build_images

    chosen = Selection.take("build", options)
    builder, locked = options.pop("builder"), options.pop("locked")
    stores = Stores(console)

    def settings(config: Configuration) -> Settings:
        return Settings.configured(
            with_registries(config, **options), version="-", locked=locked or None, builder=builder
        )

    config = console.configuration(root_of(chosen.file))
    click.get_current_context().call_on_close(lambda: start_if_due(stores, config))
    each_with_settings = settings_of_each(console, chosen.workspaces(), settings)
    plans = [
        FilePlan(Session(own, stores, read_only=explain), workspace)
        for workspace, own in each_with_settings
    ]
    targets: list[Target] = once_each(
        choose(plan, chosen.env_variable, chosen.is_whole, for_images=True) for plan in plans
    )
    built = build_images(targets, push=push, force=force)
    if console.json:
        nodes = [node_json(outcome) for each in built for outcome in each.nodes]
        console.document(
            {
                "images": list(_documents(built)),
                "nodes": nodes,
                "counters": stores.counters.snapshot(),
            }
        )
    else:
        _show(console, built)


def _documents(built: Iterable[EnvironmentImage]) -> Iterable[dict[str, Any]]:
    """Yield a JSON object for each environment and platform."""
    from flyte_build.images.build.planned_image import PlannedImage
    from flyte_build.ops.build import layers_of

    for each in built:
        for env in each.envs:
            for platform, found in each.found.items():
                yield {
                    "env": env,
                    "platform": platform,
                    "reference": each.reference,
                    "digest": each.digest,
                    "identity": None if isinstance(found, PlannedImage) else found.image.identity,
                    "layers": [] if isinstance(found, PlannedImage) else layers_of(found),
                }


def _show(console: Console, built: Iterable[EnvironmentImage]) -> None:
    from flyte_build.images.build.planned_image import PlannedImage
    from flyte_build.ops.build import layers_of

    for each in built:
        console.print(
            f"{', '.join(each.envs)}:"
            f" {each.reference or each.digest or '(its digest is known once it is built)'}"
        )
        for platform, found in each.found.items():
            if isinstance(found, PlannedImage):
                console.print(f"  {platform}  to be {'fetched' if found.is_elsewhere else 'built'}")
                continue
            layers = layers_of(found)
            of_base = [layer["size"] for layer in layers if layer["state"] == "base"]
            console.print(f"  {platform}  {found.image.identity}")
            if of_base:
                amount = plural(len(of_base), "layer")
                console.print(f"    {'base':7} {rounded_size(sum(of_base)):>9}  {amount}")
            for layer in layers:
                if layer["state"] != "base":
                    console.print(
                        f"    {layer['state']:7} {rounded_size(layer['size']):>9}  {layer['what']}"
                    )
