"""`flyte run`."""

from __future__ import annotations

import os
import re
from typing import Any

import click

from flyte_build.attempts import EXIT_CODES, Finished, Settings, Stores
from flyte_build.config.settings import COPY_STYLES, ENGINES, CopyStyle, EngineName
from flyte_build.discovery import Discovery
from flyte_build.errors import UsageError
from flyte_build.housekeeping import start_if_due
from flyte_build.importing import root_folders
from flyte_build.interface import Interface
from flyte_build.prepare import locate
from flyte_build.running import Runner, handle_termination, run_here

from .console import Console, node_json
from .inputs import Inputs

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\Z")
_TAG = re.compile(r"[\w][\w.-]{0,127}\Z", re.ASCII)  # OCI distribution-spec 1.1, "Pulling manifests".


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["-h", "--help"]})
@click.option("-p", "--project", help="The project that the run belongs to (setting: task.project).")
@click.option("-d", "--domain", help="The domain that the run belongs to (setting: task.domain).")
@click.option("--name", help="The run's name; made if none is given.")
@click.option("--version", default="", help="The version that the run is recorded under; the code's short digest if none is given.")
@click.option("--copy-style", type=click.Choice(COPY_STYLES), help="What of the project goes into the bundle (setting: run.copy_style).")
@click.option("--root-dir", help="The project's root; the current folder if none is given.")
@click.option("-e", "--env", multiple=True, metavar="K=V", help="An environment variable for the task.")
@click.option(
    "--inputs-file", metavar="FILE|-", help="Inputs by name, as JSON, YAML or TOML; `-` is standard input, with JSON. Options win."
)
@click.option("--engine", type=click.Choice(ENGINES), help="What runs the task (setting: run.engine).")
@click.option("--local", is_flag=True, help="Run in this process, from the working tree (for debuggers).")
@click.option("--explain", is_flag=True, help="Show each node of the graph, and why it was made.")
@click.option("--no-cache", is_flag=True, help="Prepare everything anew.")
@click.argument("file", metavar="FILE")
@click.argument("rest", nargs=-1, type=click.UNPROCESSED, metavar="TASK [INPUTS]...")
@click.pass_obj
def run(
    console: Console,
    project: str | None,
    domain: str | None,
    name: str | None,
    version: str,
    copy_style: CopyStyle | None,
    root_dir: str | None,
    env: tuple[str, ...],
    inputs_file: str | None,
    engine: EngineName | None,
    local: bool,
    explain: bool,
    no_cache: bool,
    file: str,
    rest: tuple[str, ...],
) -> None:
    """Run TASK of the Python file FILE, in a process of its own, from a bundle of the code.

    Options of `run` stand before FILE, the task's inputs after TASK. `flyte run FILE --help` lists the tasks, and
    `flyte run FILE TASK --help` a task's inputs. `flyte run hello` runs a built-in example.
    """
    handle_termination()
    if version and not _TAG.match(version):
        raise UsageError(
            f"--version {version!r} is no version", why="It has at most 128 letters, digits, `_`, `.` and `-`.", hint="For example: v1.0.0"
        )
    if name and not _NAME.match(name):
        raise UsageError(
            f"--name {name!r} is no name", why="It has at most 100 letters, digits, `_`, `.` and `-`.", hint="For example: nightly-1"
        )
    variables = dict(map(_variable, env))
    stores = Stores(console)
    if file == "hello" and not os.path.exists(file):
        from flyte_build.hello import write_example

        file, root_dir = write_example(stores.places.cache), None
        rest = ("hello", *rest) if not rest or rest[0].startswith("-") else rest
    located = locate(file, root_dir)
    config = console.configuration(located.root)
    settings = Settings.configured(
        config,
        project=project,
        domain=domain,
        name=name,
        version=version,
        copy_style=copy_style,
        env=variables,
        engine="local" if local else engine,
        remake=no_cache,
    )
    click.get_current_context().call_on_close(lambda: start_if_due(stores.cache, config))
    runner = Runner(located, settings, stores, console, spare=console.take_spare)
    discovery = runner.discover()
    if not rest or rest[0] in ("--help", "-h"):
        _list_tasks(console, file, discovery, asked=bool(rest))
        return
    task = discovery.task(rest[0])
    options = Inputs(rest[0], Interface.from_document(task["interface"]))
    inputs = options.parse_inputs(f"flyte run {file} {rest[0]}", list(rest[1:]), inputs_file)
    if settings.engine == "local":
        import sys

        from flyte_build.runner.execution import load_task

        here = runner.project
        sys.path[:] = [*root_folders(here.root, here.roots), *sys.path, *here.last]
        with console.only_document():
            finished = run_here(lambda: load_task(here.module, rest[0]), task, here, rest[0], inputs, settings, stores, console)
    else:
        finished = runner.run(rest[0], inputs)
    if explain:
        for outcome in runner.preparation.outcomes:
            console.note(f"  {outcome.state:7} {outcome.node.kind:10} {outcome.node.name}  {outcome.why or outcome.key}")
    if console.json:
        console.document(
            {
                "run": finished.name,
                "url": finished.url,
                "phase": finished.phase,
                "outputs": finished.outputs,
                "error": finished.error,
                "prepared": [node_json(outcome) for outcome in runner.preparation.outcomes],
                "counters": stores.counters.snapshot(),
                "seconds": round(finished.seconds, 6),
            }
        )
    elif finished.phase == "succeeded":
        console.result(finished.outputs, f"flyte -of json get run {finished.name}")
    else:
        _print_failure(console, finished, settings.engine == "local")
    if finished.phase != "succeeded":
        raise click.exceptions.Exit(EXIT_CODES[finished.phase])


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--env {name or '=...'} has no value", why="It takes NAME=VALUE.", hint="For example: --env MODE=fast")
    return name, value


def _list_tasks(console: Console, file: str, discovery: Discovery, asked: bool) -> None:
    tasks: dict[str, dict[str, Any]] = discovery.document["tasks"]
    if not asked and tasks:
        raise UsageError(f"No task is named; {file} holds {', '.join(tasks)}", hint=f"For example: flyte run {file} {next(iter(tasks))}")
    if not tasks:
        raise UsageError(f"{file} holds no tasks", why="A task is a function below `@env.task`, where env is a `flyte.TaskEnvironment`.")
    lines = [f"Usage: flyte run {file} TASK [INPUTS]...", "", "Tasks:"]
    for name, task in tasks.items():
        inputs = ", ".join(f"{entry['name']}" for entry in task["interface"]["inputs"])
        summary = task["interface"]["doc"].partition("\n")[0]
        lines.append(f"  {name}({inputs})" + (f"  {summary}" if summary else ""))
    console.print("\n".join([*lines, "", f"`flyte run {file} TASK --help` shows a task's inputs."]))


def _print_failure(console: Console, finished: Finished, local: bool) -> None:
    error = finished.error or {}
    if local and error.get("traceback"):  # A worker has printed it.
        console.note(error["traceback"].rstrip())
    head = console.style(f"{finished.phase.replace('_', ' ')}:", fg="red", bold=True)
    console.note(f"{head} {finished.task}: {error.get('type', '')}: {error.get('message', '')}")
    if error.get("hint"):
        console.note(f"  {error['hint']}")
    if not local:
        console.note(f"  `flyte get logs {finished.name}` shows what it printed.")
