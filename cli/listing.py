"""What is deployed, as lists and in detail."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flyte_build.attempts import Settings, Stores
from flyte_build.deployed import DeployedTask, Deployments
from flyte_build.deployments.catalogue import Found
from flyte_build.deployments.document import Document
from flyte_build.deployments.naming import Reference
from flyte_build.errors import NotFound

from .console import Console


def list_tasks(console: Console, settings: Settings, limit: int, name: str | None, version: str | None) -> None:
    """The deployed tasks, or the versions of one; with a version, all that is known of it."""
    deployments = Deployments(settings, Stores(console), console)
    if name is not None and version is not None:
        _show_task(console, deployments.task(f"{name}{_joined(version)}"))
        return
    reference, function = Reference.parse_task(name) if name else (None, "")
    found = deployments.releases(reference.environment if reference else None)
    rows = [(f"{each.release.environment}.{task}", each) for each in found for task in each.release.tasks if function in ("", task)]
    if name is not None and not rows:
        deployments.task(name)
        raise NotFound(f"{name} is not deployed")
    _list(console, rows[:limit])


def list_deployments(console: Console, settings: Settings, limit: int, name: str | None, version: str | None) -> None:
    """The deployed environments, or the versions of one; with a version, all that is known of it."""
    deployments = Deployments(settings, Stores(console), console)
    if name is not None and version is not None:
        found, document = deployments.find(Reference.parse(f"{name}{_joined(version)}"))
        _show(console, found, document, sorted(document.tasks))
        return
    releases = deployments.releases(name)
    if name is not None and not releases:
        deployments.find(Reference.parse(name))
    _list(console, [(each.release.environment, each) for each in releases[:limit]])


def _joined(version: str) -> str:
    return f"@{version}" if version.startswith("sha256:") else f":{version}"


def _list(console: Console, rows: Sequence[tuple[str, Found]]) -> None:
    if console.json:
        console.document([{**_row(name, found), "latest": found.is_latest} for name, found in rows])
    elif rows:
        console.table(("NAME", "VERSION", "DIGEST", "CREATED", "COMMIT", ""), _cells(rows))
    else:
        console.note("Nothing is deployed here yet. `flyte deploy FILE` does it.")


def _cells(rows: Iterable[tuple[str, Found]]) -> Iterator[list[str]]:
    for name, found in rows:
        release = found.release
        revision = f"{release.commit[:12]}{' (changed)' if release.dirty else ''}"
        yield [name, release.version, release.pin.short, f"{release.created[:19]}Z", revision, "latest" if found.is_latest else ""]


def _row(name: str, found: Found) -> dict[str, Any]:
    release = found.release
    return {
        "name": name,
        "version": release.version,
        "digest": release.pin,
        "created": release.created,
        "commit": release.commit or None,
    }


def _show_task(console: Console, task: DeployedTask) -> None:
    _show(console, task.found, task.document, [task.function])


def _show(console: Console, found: Found, document: Document, functions: Sequence[str]) -> None:
    release = found.release
    name = f"{document.name}.{functions[0]}" if len(functions) == 1 else document.name
    host = {name: value for name, value in release.host.items() if name != "distributions"}
    details = {
        **_row(name, found),
        "project": release.space.project,
        "domain": release.space.domain,
        "user": release.user,
        "dirty": release.dirty,
        "host": release.host,
        "environment": document.value["environment"],
        "bundle": document.tree,
        "tasks": {function: document.spec(function) for function in functions},
    }
    if console.json:
        console.document(details)
        return
    for label in ("name", "version", "digest", "created", "commit", "user", "project", "domain", "bundle"):
        console.print(f"{label:11} {details[label] or '-'}{' (its files were changed)' if label == 'commit' and release.dirty else ''}")
    runtime = document.value["environment"]
    told = ", ".join(f"{name} {value}" for name, value in host.items())
    packages = len(release.host.get("distributions") or ())
    console.print(f"{'environment':11} " + (f"{runtime['uri']}@{runtime['digest']}" if document.kind == "reference" else f"host: {told}"))
    console.print(f"{'packages':11} {packages:,}")
    for function in functions:
        _print_task(console, function, document.tasks[function])


def _print_task(console: Console, function: str, task: Any) -> None:
    interface = task["interface"]
    console.print(f"{'task':11} {function}" + (f": {interface['doc'].partition(chr(10))[0]}" if interface["doc"] else ""))
    for entry in interface["inputs"]:
        default = f" = {entry['default_text']}" if entry["default_text"] else ""
        console.print(f"{'  input':11} {entry['name']}: {entry['type']}{default}" + (f"  {entry['doc']}" if entry["doc"] else ""))
    settings = {"retries": task["retries"], "timeout": task["timeout"], **task["options"]}
    for name, value in settings.items():
        if value:
            text = ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else value
            console.print(f"{'  ' + name:11} {text}")
    if task["env_vars"]:
        console.print(f"{'  variables':11} {', '.join(sorted(task['env_vars']))}")
