"""`flyte run`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import click

from flyte_build.discovery.node import Discovery
from flyte_build.errors import UsageError
from flyte_build.ops.gc import start_if_due
from flyte_build.ops.prepare import FilePlan
from flyte_build.ops.session import Session
from flyte_build.ops.stores import Stores
from flyte_build.settings.configuration import Configuration
from flyte_build.settings.settings import Settings
from flyte_build.settings.table import ENGINES
from flyte_build.text.wording import listed
from flyte_build.workspace.workspace import locate, root_here

from .console import Console
from .inputs import Inputs
from .options import (
    given_of,
    of_a_bundle,
    of_a_new_run,
    of_a_registry,
    of_pins,
    one_word,
    pairs,
    pinned,
    with_registries,
)
from .report import run_and_report

# OCI distribution-spec 1.1, "Pulling manifests".
_TAG = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)


@click.command(
    context_settings={
        "ignore_unknown_options": False,
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
    }
)
@click.option("-p", "--project", help="Project that the run belongs to (setting: task.project).")
@click.option("-d", "--domain", help="Domain that the run belongs to (setting: task.domain).")
@of_a_new_run
@click.option(
    "--version",
    default="",
    help="Version to record the run under (default: the code's short digest).",
)
@of_a_bundle
@of_a_registry
@of_pins
@click.option(
    "--inputs-file",
    metavar="FILE|-",
    type=click.Path(),
    help="Read inputs from a JSON, YAML or TOML file, or JSON from `-`. Options take precedence.",
)
@click.option(
    "--engine", type=click.Choice(ENGINES), help="Engine that runs the task (setting: run.engine)."
)
@click.option(
    "--local", is_flag=True, help="Run in this process, from the working tree (for debuggers)."
)
@click.option("--explain", is_flag=True, help="Show each node of the graph, and why it was made.")
@click.option("--no-cache", is_flag=True, help="Prepare everything again, ignoring the cache.")
@click.option(
    "--overwrite-cache",
    is_flag=True,
    help="Overwrite the task's cached result. Accepted, but has no effect yet.",
)
@click.option(
    "--queue", callback=one_word, help="Queue to wait in. Accepted, but has no effect yet."
)
@click.option(
    "--service-account",
    callback=one_word,
    help="Account to run the task under. Accepted, but has no effect yet.",
)
@click.option(
    "--max-action-concurrency",
    type=click.IntRange(1),
    help="Maximum number of actions that run at once (default: as many as fit this machine).",
)
@click.option(
    "--raw-data-path",
    metavar="URL",
    type=click.Path(file_okay=False),
    help="Location for large outputs. Accepted, but has no effect yet.",
)
@click.argument("file", metavar="FILE", type=click.Path())
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="TASK [INPUTS]...")
@click.pass_obj
def run(
    console: Console,
    /,
    root_dir: str | None,
    explain: bool,
    inputs_file: str | None,
    file: str,
    rest: tuple[str, ...],
    **options: Any,
) -> None:
    """Run TASK of the Python file FILE, in its own process, from a bundle of the code.

    Options of `run` go before FILE, and the task's inputs after TASK. `flyte run FILE --help` lists
    the tasks, and `flyte run FILE TASK --help` a task's inputs. `flyte run hello` runs a built-in
    example, `flyte run python-script SCRIPT` a plain script, and `flyte run deployed-task ENV.TASK`
    a deployed task.
    """
    stores = Stores(console)
    if file == "hello" and not os.path.exists(file):
        from flyte_build.builtin.hello import write_example

        file, root_dir = write_example(stores.places.cache), None
        rest = ("hello", *rest) if not rest or rest[0].startswith("-") else rest
    file, rest = _parted(file, rest)
    own = file if file in ("python-script", "deployed-task") and not os.path.exists(file) else ""
    workspace = None if own else locate(file, root_dir)
    config = console.configuration(workspace.root if workspace else root_here())
    settings = _settings(config, options)
    if workspace is None:
        _run_own(own, list(rest), (console, stores, settings))
        return
    click.get_current_context().call_on_close(lambda: start_if_due(stores, config))
    plan = FilePlan(Session(settings, stores), workspace)
    discovery = plan.discover()
    if not rest or rest[0].startswith("-"):
        _list_tasks(console, file, discovery, asked=rest[:1] in (("--help",), ("-h",)))
        return
    variable, *texts = rest
    interface = discovery.task(variable).interface
    inputs = Inputs(variable, interface).parse_inputs(
        f"flyte run {file} {variable}", texts, inputs_file
    )
    run_and_report(console, plan, variable, inputs, explain)


def _parted(file: str, rest: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Split `FILE:TASK` into the file and the arguments after it; return others unchanged."""
    path, colon, task = file.rpartition(":")
    is_both = colon and not os.path.exists(file) and os.path.isfile(path)
    return (path, (task, *rest)) if is_both else (file, rest)


def _run_own(name: str, rest: list[str], given: tuple[Console, Stores, Settings]) -> None:
    """Run a script or a deployed task, which are not tasks of a file."""
    if name == "python-script":
        from .script import python_script as command
    else:
        from .deployed_task import deployed_task as command
    with command.make_context(f"flyte run {name}", rest, obj=given) as ctx:
        command.invoke(ctx)


def _settings(config: Configuration, options: Mapping[str, Any]) -> Settings:
    """Return the settings of a run: the configuration, with its options. Raises `UsageError`."""
    rest = {**options}
    version, image, locked = (rest.pop(name) for name in ("version", "image", "locked"))
    if version and not _TAG.match(version):
        raise UsageError(
            f"--version {version!r} is not a valid version",
            why=(
                "A version has at most 128 letters, digits, `_`, `.` and `-`, and does not begin"
                " with `.` or `-`."
            ),
            hint="For example: v1.0.0",
        )
    registries = {name: rest.pop(name) for name in ("registry", "cache_read", "cache_write")}
    engine, is_local = rest.pop("engine"), rest.pop("local")
    return Settings.configured(
        with_registries(config, **registries),
        version=version,
        **{name: rest.pop(name) for name in ("project", "domain", "name", "copy_style")},
        env=pairs("--env", rest.pop("env"), "MODE=fast"),
        labels=pairs("--label", rest.pop("label"), "team=blue"),
        engine="local" if is_local else engine,
        remake=rest.pop("no_cache"),
        max_actions=rest.pop("max_action_concurrency"),
        options=given_of(rest),
        **pinned(config, image, locked),
    )


def _list_tasks(console: Console, file: str, discovery: Discovery, asked: bool) -> None:
    tasks = discovery.findings.tasks
    if not asked and tasks:
        raise UsageError(
            f"No task given. {file} defines: {listed(tasks)}",
            hint=f"For example: flyte run {file} {next(iter(tasks))}",
        )
    if not tasks:
        raise UsageError(
            f"{file} defines no tasks",
            why="Tasks are functions decorated with `@env.task`; env is a `flyte.TaskEnvironment`.",
        )
    lines = [f"Usage: flyte run {file} TASK [INPUTS]...", "", "Tasks:"]
    for name, task in tasks.items():
        inputs = ", ".join(each.name for each in task.interface.inputs)
        summary = task.interface.doc.partition("\n")[0]
        lines.append(f"  {name}({inputs})" + (f"  {summary}" if summary else ""))
    console.print("\n".join([*lines, "", f"`flyte run {file} TASK --help` shows a task's inputs."]))
